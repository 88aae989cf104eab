// SPDX-License-Identifier: Apache-2.0
// Dense matrices, one per row, assembled from products with unit vectors and factored in double. Symbols as in
// linear.hpp.
#pragma once

#include "deqcore/kernels/linear.hpp"

namespace deqcore {

// By row. The matrix is stored column after column; factored in place, P A = L U.
template <class T>
struct Factored {
  double* matrix = nullptr;        // [row][width][width]
  std::int32_t* pivot = nullptr;   // [row][width]
  std::int32_t* column = nullptr;  // known columns; width: factored
  double* work = nullptr;          // [row][width]
  Rows<T> r;
};

// No column of any row is known.
template <class T>
struct ClearColumns {
  std::int64_t rows;
  Factored<T> factored;
};
DEQCORE_KERNEL(ClearColumns);

// Rows asked about a unit vector: one more column. With the last one A is factored by partial pivoting, and
// x += A^-1 r. A pivot below width eps times the largest entry: breakdown.   width^2 doubles written; 2/3 width^3 flops
template <class T>
struct KeepColumn {
  ActiveRows rows;
  Operator form;
  Rows<const T> answer;  // by position
  Rows<T> x;             // by row
  LinearStates states;
  Factored<T> factored;
};
DEQCORE_KERNEL(KeepColumn);

// along = the next unit vector; where A is factored and x was measured, x += A^-1 r first, and then x.
template <class T>
struct PoseColumn {
  ActiveRows rows;
  Rows<T> x;      // by row
  Rows<T> along;  // by position
  LinearStates states;
  Factored<T> factored;
};
DEQCORE_KERNEL(PoseColumn);

}  // namespace deqcore

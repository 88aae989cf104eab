// SPDX-License-Identifier: Apache-2.0
// A window of differences per row, and the small least-squares problem over it.
//
// dF, dG  differences of successive images f and residuals g;  m  most columns;  the window of a row lies at the row's
// own index and never moves. z and f stand where they stood when they were measured ("before" in step.hpp), the next
// points where they will be asked about. No operand may overlap another.
//
// The columns are Ts, or bfloat16, rounded once when they are written: dG^T dG and dG^T g are those of the rounded
// ones. A column that leaves the range of bfloat16 leaves a NaN in dG, so that SolveSmall forgets the window before
// anything is mixed from it.
#pragma once

#include "deqcore/kernels/bfloat16.hpp"
#include "deqcore/kernels/kernel.hpp"
#include "deqcore/kernels/step.hpp"

namespace deqcore {

// By row. A depth below zero, ~n: n columns of an earlier solve, and no last f and g. So -1: nothing at all.
template <class T>
struct History {
  T* dF = nullptr;  // [row][slot][pitch]
  T* dG = nullptr;
  BFloat16* dF16 = nullptr;  // instead, with dF and dG null
  BFloat16* dG16 = nullptr;
  std::int64_t m = 0;
  std::int64_t width = 0;
  std::int64_t pitch = 0;
  Rows<T> f_last, g_last;
  std::int32_t* depth = nullptr;  // columns in use
  std::int32_t* slot = nullptr;   // where the next column goes
  double* gram = nullptr;         // [row][m][m]   dG^T dG
  double* rhs = nullptr;          // [row][m]      dG^T g
  double* gamma = nullptr;        // [row][m]      the coefficients

  template <class Column>
  constexpr Column* column(Column* columns, std::int64_t row, std::int64_t at) const {
    return columns + (row * m + at) * pitch;
  }

  // What goes through a row: `blocks` of Ts, and `columns` of them.
  constexpr std::int64_t bytes(std::int64_t blocks, std::int64_t columns) const {
    const std::size_t of_column = dF16 ? sizeof(BFloat16) : sizeof(T);
    return static_cast<std::int64_t>(blocks * sizeof(T) + columns * of_column) * width;
  }
};

// Forgets every row's window.
template <class T>
struct ClearHistory {
  std::int64_t rows;
  History<T> history;
};
DEQCORE_KERNEL(ClearHistory);

// A running row whose residual exceeds `growth` times its best so far, or whose point did not change, forgets its
// window: its next step is a plain one. So does a row with a window of an earlier solve that is far from where that one
// ended. The rejection is counted.
template <class T>
struct GuardHistory {
  ActiveRows rows;
  double growth;
  RowStates states;
  History<T> history;
};
DEQCORE_KERNEL(GuardHistory);

// dF[slot] = f - f_last, dG[slot] = g - g_last with g = f - z; remembers f and g; renews one line of dG^T dG, and dG^T
// g. Without a last f and g no column is written.
//   depth + 4 reads (the dG; f, z, f_last, g_last), 4 writes
template <class T>
struct PushHistory {
  ActiveRows rows;
  Rows<const T> z, f;  // before
  RowStates states;
  History<T> into;
};
DEQCORE_KERNEL(PushHistory);

// (dG^T dG + ridge diag(dG^T dG)) gamma = dG^T g, by Cholesky in double. A row whose system cannot be solved forgets
// its window, and that is counted.
template <class T>
struct SolveSmall {
  ActiveRows rows;
  double ridge;
  RowStates states;
  History<T> history;
};
DEQCORE_KERNEL(SolveSmall);

// next = f - dF gamma - (1 - beta) (g - dG gamma).   depth + 1 reads, 1 write; 2 depth + 2 reads if beta is not 1
template <class T>
struct MixHistory {
  ActiveRows rows;
  double beta;
  Rows<const T> z, f;  // before
  RowStates states;
  History<T> history;
  Rows<T> next;  // by position
};
DEQCORE_KERNEL(MixHistory);

// next = z + beta (f - z).   2 reads, 1 write; 1 read if beta is 1
template <class T>
struct DampedStep {
  ActiveRows rows;
  double beta;
  Rows<const T> z, f;  // before
  RowStates states;
  Rows<T> next;  // by position
};
DEQCORE_KERNEL(DampedStep);

}  // namespace deqcore

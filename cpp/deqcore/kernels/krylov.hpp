// SPDX-License-Identifier: Apache-2.0
// The Krylov methods' own kernels. Symbols as in linear.hpp; every vector lies at the row's own index and never moves.
// No operand may overlap another.
#pragma once

#include <limits>

#include "deqcore/kernels/linear.hpp"

namespace deqcore {

namespace arnoldi {
inline constexpr double enough_kept = 0.5;  // of |w|^2 by a Gram-Schmidt pass, or it is done again
// |w|^2 below this part of what it was is rounding: the basis spans an invariant space.
template <class T>
inline constexpr double nothing_left = 16.0 * std::numeric_limits<T>::epsilon() * std::numeric_limits<T>::epsilon();
}  // namespace arnoldi

// A row's orthonormal basis V, the least-squares problem min |rhs - H y| over it, H kept as Q R with Q a product of
// plane rotations. The newest vector of V has length `norm` until it is asked about.
template <class T>
struct Arnoldi {
  T* V = nullptr;  // [row][m + 1][pitch]
  T* Z = nullptr;  // [row][m][pitch]   preconditioned vectors; null: they are those of V
  std::int64_t m = 0;
  std::int64_t width = 0;
  std::int64_t pitch = 0;
  std::int32_t* column = nullptr;  // of H that comes next
  double* norm = nullptr;
  double* R = nullptr;       // [row][m (m + 1) / 2]   column after column
  double* cosine = nullptr;  // [row][m]
  double* sine = nullptr;    // [row][m]
  double* rhs = nullptr;     // [row][m + 1]
  double* h = nullptr;       // [row][m + 1]   the newest column of H, and y
  double* c = nullptr;       // [row][m + 1]   what one Gram-Schmidt pass takes away

  constexpr T* vector(std::int64_t row, std::int64_t at) const { return V + (row * (m + 1) + at) * pitch; }
  constexpr T* direction(std::int64_t row, std::int64_t at) const {
    return Z ? Z + (row * m + at) * pitch : vector(row, at);
  }
  constexpr double* triangle(std::int64_t row) const { return R + row * (m * (m + 1) / 2); }
};

// Rows asked about a direction: w = A v_j, orthogonalised against V by Gram-Schmidt, a second time if it lost more than
// half its square; one more column of H, rotated into R; the residual's estimate. If that has reached the goal, if the
// basis is full or spans an invariant space, or if only the product for measuring is left: x += V y, and x is asked
// about.
//   2 j + 4 reads, 3 writes; again 2 j + 3 and 1 for a second pass; j + 2 reads, 1 write where x changes
template <class T>
struct ExtendBasis {
  ActiveRows rows;
  Operator form;
  std::int32_t max_steps;
  Rows<const T> along, answer;  // by position
  Rows<T> x;                    // by row
  LinearStates states;
  Arnoldi<T> basis;
};
DEQCORE_KERNEL(ExtendBasis);

// along = x, or the newest vector of V brought to length 1. Where a row starts anew, r is that vector.
//   1 read, 1 or 2 writes
template <class T>
struct PoseBasis {
  ActiveRows rows;
  Rows<const T> x;  // by row
  Rows<T> along;    // by position
  LinearStates states;
  Arnoldi<T> basis;
};
DEQCORE_KERNEL(PoseBasis);

// By row: BiCGSTAB's vectors and numbers.
template <class T>
struct TwoSided {
  Rows<T> r, r0, p, v;    // r is s between the two products of a step
  Rows<T> p_hat;          // p preconditioned; null: p itself
  double* rho = nullptr;  // (r0, r)
  double* alpha = nullptr;
  double* r0_norm = nullptr;
};

// Rows asked about p: v = A p, alpha = rho / (r0, v), s = r - alpha v.                       6 reads, 2 writes
// Rows asked about s: t = A s, omega = (t, s) / (t, t), x += alpha p + omega s, r = s - omega t,
//                     beta = (r0, r) / rho * alpha / omega, p = r + beta (p - omega v).      13 reads, 3 writes
// If the residual's estimate has reached the goal, if a denominator vanishes, or if only the product for measuring is
// left: x takes what it can and is asked about.
template <class T>
struct StepTwoSided {
  ActiveRows rows;
  Operator form;
  std::int32_t max_steps;
  Rows<const T> along, answer;  // by position
  Rows<T> x;                    // by row
  LinearStates states;
  TwoSided<T> vectors;
};
DEQCORE_KERNEL(StepTwoSided);

// along = x, p or s. Where a row starts anew, r0 = p = r.   1 read, 1 write; 3 writes at a start
template <class T>
struct PoseTwoSided {
  ActiveRows rows;
  Rows<const T> x;  // by row
  Rows<T> along;    // by position
  LinearStates states;
  TwoSided<T> vectors;
};
DEQCORE_KERNEL(PoseTwoSided);

}  // namespace deqcore

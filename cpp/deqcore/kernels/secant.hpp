// SPDX-License-Identifier: Apache-2.0
// A row's approximation of the inverse Jacobian of its residual r(z) = f(z) - z, as a sum of pairs:
//
//     B = -I + sum_i u_i v_i^T        s = -B r  the step        y  the change of r over the last step
//
// Pairs lie at the row's own index and never move. z and f stand where they stood when they were measured ("before" in
// step.hpp), the next points where they will be asked about. No operand may overlap another.
#pragma once

#include "deqcore/kernels/kernel.hpp"
#include "deqcore/kernels/step.hpp"

namespace deqcore {

// By row. A depth below zero, ~n: n pairs of an earlier solve, and no last step. So -1: nothing at all.
template <class T>
struct Secant {
  T* U = nullptr;  // [row][slot][pitch]
  T* V = nullptr;
  std::int64_t m = 0;
  std::int64_t width = 0;
  std::int64_t pitch = 0;
  Rows<T> s, r_last;
  std::int32_t* depth = nullptr;  // pairs in use
  double* a = nullptr;            // [row][m]   V^T r of the last residual
  double* b = nullptr;            // [row][m]   U^T s
  double* change = nullptr;       // [row][m]   V^T y
  double* gram = nullptr;         // [row][4 m m]   scratch of CompressPairs

  constexpr T* vector(T* vectors, std::int64_t row, std::int64_t at) const { return vectors + (row * m + at) * pitch; }
};

// Forgets every row's pairs.
template <class T>
struct ClearSecant {
  std::int64_t rows;
  Secant<T> secant;
};
DEQCORE_KERNEL(ClearSecant);

// A running row whose residual exceeds `growth` times its best, or whose point did not change, forgets everything; its
// next step is a plain one, and the rejection is counted. So does a row with pairs of an earlier solve that is far from
// where that one ended. With `restart`, so does a row whose memory is full, but for its last step.
template <class T>
struct GuardSecant {
  ActiveRows rows;
  double growth;
  bool restart;
  RowStates states;
  Secant<T> secant;
};
DEQCORE_KERNEL(GuardSecant);

// The good Broyden update and the next step:
//     v = B^T s      u = (s - B y) / (v, y)      s <- r - sum_i u_i (v_i, r)      next = z + s
// with v stored at length 1, so that neither factor leaves the range of its type.
// A pair whose denominator vanishes is left out, and that is counted. Without a last step there is no new pair.
//   4 depth + 10 reads, 6 writes
template <class T>
struct PushPair {
  ActiveRows rows;
  Rows<const T> z, f;  // before
  RowStates states;
  Secant<T> into;
  Rows<T> next;  // by position
};
DEQCORE_KERNEL(PushPair);

// The pairs of a row whose memory is full become the best approximation of their sum by `keep` pairs: with U = Q_u R_u
// and V = Q_v R_v, the largest singular values of R_u R_v^T.   2 m reads, 2 keep writes
template <class T>
struct CompressPairs {
  ActiveRows rows;
  std::int32_t keep;
  RowStates states;
  Secant<T> secant;
};
DEQCORE_KERNEL(CompressPairs);

}  // namespace deqcore

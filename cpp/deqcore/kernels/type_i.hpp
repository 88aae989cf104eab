// SPDX-License-Identifier: Apache-2.0
// A row's approximation of the inverse Jacobian of its residual r(z) = f(z) - z by type-I updates, which take of every
// step the part that is orthogonal to the steps before:
//
//     B = -I + sum_i u_i v_i^T        s  the step        s_hat = s - Q Q^T s        y  the change of r over the step
//
// v = B^T s_hat is a combination of the steps too. So it is kept as coefficients: V = Q R, with the orthonormal Q where
// a Secant has V, and R upper triangular. Otherwise as in secant.hpp.
#pragma once

#include "deqcore/kernels/secant.hpp"

namespace deqcore {

// By row.
template <class T>
struct TypeI {
  Secant<T> pairs;                  // V: Q
  double* R = nullptr;              // [row][m][m]
  double* p = nullptr;              // [row][m]   Q^T r
  double* first = nullptr;          // the first residual
  std::int8_t* averaged = nullptr;  // whether the next step is an averaged one
};

// A running row whose residual exceeds safeguard |r_0| / (accelerated steps + 1)^(1 + decay) will take an averaged
// step. A row whose point did not change forgets everything. Either is counted as a rejection.
template <class T>
struct GuardTypeI {
  ActiveRows rows;
  double safeguard, decay;
  RowStates states;
  TypeI<T> into;
};
DEQCORE_KERNEL(GuardTypeI);

// The type-I update and the next step:
//     v = B^T s_hat      u = theta (s - B y) / (gamma |s_hat|^2)      s <- r - sum_i u_i (v_i, r), or beta r
//     next = z + s
// with Powell's theta and gamma (row_math.hpp), and v at length 1. A row whose memory is full, or with
// |s_hat| < independence |s|, begins anew with this pair. A pair that leaves the range of its type is left out, and
// that is counted.
//   4 depth + 14 reads, 9 writes
template <class T>
struct PushTypeI {
  ActiveRows rows;
  double beta, powell, independence;
  Rows<const T> z, f;  // before
  RowStates states;
  TypeI<T> into;
  Rows<T> next;  // by position
};
DEQCORE_KERNEL(PushTypeI);

}  // namespace deqcore

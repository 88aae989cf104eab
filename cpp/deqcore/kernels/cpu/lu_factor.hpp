// SPDX-License-Identifier: Apache-2.0
// One dense matrix, stored column after column: P A = L U.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>

namespace deqcore::lu {

inline double largest(const double* values, std::int64_t n) {
  double most = 0;
  for (std::int64_t at = 0; at < n; ++at) most = std::max(most, std::abs(values[at]));
  return most;
}

// P A = L U in place, column after column. False if a pivot is rounding, below `tiny` times the largest entry of all,
// or times sizes[column] where those are given: A is singular to working precision.
inline bool factor(double* A, std::int32_t* pivot, std::int64_t n, double tiny, const double* sizes = nullptr) {
  const double most = sizes ? 0 : largest(A, n * n);
  for (std::int64_t j = 0; j < n; ++j) {
    double* const left = A + j * n;
    std::int64_t p = j;
    for (std::int64_t i = j + 1; i < n; ++i)
      if (std::abs(left[i]) > std::abs(left[p])) p = i;
    pivot[j] = static_cast<std::int32_t>(p);
    if (!(std::abs(left[p]) > tiny * (sizes ? sizes[j] : most))) return false;
    for (std::int64_t c = 0; c < n && p != j; ++c) std::swap(A[c * n + j], A[c * n + p]);
    const double inverse = 1 / left[j];
    for (std::int64_t i = j + 1; i < n; ++i) left[i] *= inverse;
    for (std::int64_t c = j + 1; c < n; ++c) {
      double* const right = A + c * n;
      const double top = right[j];
      for (std::int64_t i = j + 1; i < n; ++i) right[i] -= left[i] * top;
    }
  }
  return true;
}

// y = A^-1 r
template <class T>
void solve(const double* A, const std::int32_t* pivot, std::int64_t n, const T* r, double* y) {
  std::copy_n(r, n, y);
  for (std::int64_t j = 0; j < n; ++j) std::swap(y[j], y[pivot[j]]);
  for (std::int64_t j = 0; j < n; ++j)
    for (std::int64_t i = j + 1; i < n; ++i) y[i] -= A[j * n + i] * y[j];
  for (std::int64_t j = n; j-- > 0;) {
    y[j] /= A[j * n + j];
    for (std::int64_t i = 0; i < j; ++i) y[i] -= A[j * n + i] * y[j];
  }
}

// x += A^-1 r
template <class T>
void correct(const double* A, const std::int32_t* pivot, std::int64_t n, const T* r, double* work, T* x) {
  solve(A, pivot, n, r, work);
  for (std::int64_t i = 0; i < n; ++i) x[i] = static_cast<T>(static_cast<double>(x[i]) + work[i]);
}

}  // namespace deqcore::lu

// SPDX-License-Identifier: Apache-2.0
// Norms of several values per element, over one row by one block.
#pragma once

#include "deqcore/base/stop.hpp"
#include "deqcore/kernels/cuda/reduce.cuh"

namespace deqcore::cuda {

// Between these a sum of squares in double has lost nothing to the limits of its range.
inline constexpr double smallest_square_sum = 1e-280, largest_square_sum = 1e280;

// largest[k] = the largest |value k| of a row; fill(at, values) gives the Count values of element `at`. NaN or infinity
// in any element makes it not finite. Every thread gets the result.
template <int Count, class Fill>
__device__ inline void row_largest(std::int64_t width, const Fill& fill, double (&largest)[Count]) {
  double values[Count], poison[Count];
#pragma unroll
  for (int k = 0; k < Count; ++k) largest[k] = poison[k] = 0;
  for (std::int64_t at = threadIdx.x; at < width; at += blockDim.x) {
    fill(at, values);
#pragma unroll
    for (int k = 0; k < Count; ++k) {
      const double size = values[k] < 0 ? -values[k] : values[k];
      largest[k] = size > largest[k] ? size : largest[k];
      poison[k] += 0 * values[k];  // a comparison drops NaN; 0 x does not
    }
  }
  block_max(largest, shared_doubles());
  block_sum(poison, shared_doubles());
#pragma unroll
  for (int k = 0; k < Count; ++k) largest[k] += poison[k];
}

// squares[k] = the sum of (value k / unit k)^2 over a row.
template <int Count, class Fill>
__device__ inline void row_squares(std::int64_t width, const Fill& fill, const double (&unit)[Count],
                                   double (&squares)[Count]) {
  double values[Count];
#pragma unroll
  for (int k = 0; k < Count; ++k) squares[k] = 0;
  for (std::int64_t at = threadIdx.x; at < width; at += blockDim.x) {
    fill(at, values);
#pragma unroll
    for (int k = 0; k < Count; ++k) squares[k] += (values[k] / unit[k]) * (values[k] / unit[k]);
  }
  block_sum(squares, shared_doubles());
}

// norms[k] = |row of values k|, not finite if any element is not. Squares that leave the range of double are avoided by
// dividing by the power of two below the largest element first, which rounds nothing, on a second pass that hardly ever
// happens.
template <int Count, class Fill>
__device__ inline void row_norms(Norm kind, std::int64_t width, const Fill& fill, double (&norms)[Count]) {
  if (kind == Norm::inf) return row_largest(width, fill, norms);
  double unit[Count], squares[Count];
#pragma unroll
  for (int k = 0; k < Count; ++k) unit[k] = 1;
  row_squares(width, fill, unit, squares);
  bool in_range[Count], all_in_range = true;
#pragma unroll
  for (int k = 0; k < Count; ++k) {
    norms[k] = sqrt(squares[k]);
    in_range[k] = squares[k] > smallest_square_sum && squares[k] < largest_square_sum;
    all_in_range = all_in_range && in_range[k];
  }
  if (all_in_range) return;
  double largest[Count];
  row_largest(width, fill, largest);
  const auto divides = [](double x) { return x > 0 && x - x == 0; };
#pragma unroll
  for (int k = 0; k < Count; ++k) unit[k] = divides(largest[k]) ? ldexp(1.0, ilogb(largest[k])) : 1;
  row_squares(width, fill, unit, squares);
#pragma unroll
  for (int k = 0; k < Count; ++k) {
    if (in_range[k]) continue;  // the bits of a norm do not depend on what is measured beside it
    norms[k] = divides(largest[k]) ? unit[k] * sqrt(squares[k]) : largest[k];
  }
}

}  // namespace deqcore::cuda

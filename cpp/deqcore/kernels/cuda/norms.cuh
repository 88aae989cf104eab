// SPDX-License-Identifier: Apache-2.0
// Norms of several values per element, over one row by one block.
#pragma once

#include "deqcore/base/stop.hpp"
#include "deqcore/kernels/cuda/reduce.cuh"

namespace deqcore::cuda {

// norms[k] = |row of values k|; fill(at, values) gives the Count values of element `at`. NaN or infinity in any element
// makes its norm not finite. Every thread gets the result.
template <int Count, class Fill>
__device__ inline void row_norms(Norm kind, std::int64_t width, const Fill& fill, double (&norms)[Count]) {
  double* const shared = shared_doubles();
  double values[Count], poison[Count];
#pragma unroll
  for (int k = 0; k < Count; ++k) norms[k] = poison[k] = 0;
  for (std::int64_t at = threadIdx.x; at < width; at += blockDim.x) {
    fill(at, values);
#pragma unroll
    for (int k = 0; k < Count; ++k) {
      const double size = values[k] < 0 ? -values[k] : values[k];
      if (kind == Norm::two)
        norms[k] += values[k] * values[k];
      else
        norms[k] = size > norms[k] ? size : norms[k];
      poison[k] += 0 * values[k];  // a comparison drops NaN; 0 x does not
    }
  }
  if (kind == Norm::two) {
    block_sum(norms, shared);
#pragma unroll
    for (int k = 0; k < Count; ++k) norms[k] = sqrt(norms[k]);
  } else {
    block_max(norms, shared);
    block_sum(poison, shared);
#pragma unroll
    for (int k = 0; k < Count; ++k) norms[k] += poison[k];
  }
}

}  // namespace deqcore::cuda

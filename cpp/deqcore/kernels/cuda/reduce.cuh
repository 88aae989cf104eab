// SPDX-License-Identifier: Apache-2.0
// Reductions over a block, in a fixed order and without atomics. Every thread of the block calls them and gets the
// result.
#pragma once

#include "deqcore/kernels/cuda/launch.cuh"

namespace deqcore::cuda {

// Count values at once. `shared` holds Count * most_warps doubles, and may be used again when the call returns.
template <int Count>
__device__ inline void block_sum(double (&values)[Count], double* shared) {
  for (int step = warp / 2; step > 0; step /= 2)
#pragma unroll
    for (int k = 0; k < Count; ++k) values[k] += __shfl_xor_sync(0xffffffffu, values[k], step);
  const int mine = threadIdx.x / warp, warps = (blockDim.x + warp - 1) / warp;
  if (threadIdx.x % warp == 0)
    for (int k = 0; k < Count; ++k) shared[k * most_warps + mine] = values[k];
  __syncthreads();
#pragma unroll
  for (int k = 0; k < Count; ++k) {
    values[k] = 0;
    for (int w = 0; w < warps; ++w) values[k] += shared[k * most_warps + w];
  }
  __syncthreads();
}

// The same for the largest of non-negative values.
template <int Count>
__device__ inline void block_max(double (&values)[Count], double* shared) {
  for (int step = warp / 2; step > 0; step /= 2)
#pragma unroll
    for (int k = 0; k < Count; ++k) {
      const double other = __shfl_xor_sync(0xffffffffu, values[k], step);
      values[k] = other > values[k] ? other : values[k];
    }
  const int mine = threadIdx.x / warp, warps = (blockDim.x + warp - 1) / warp;
  if (threadIdx.x % warp == 0)
    for (int k = 0; k < Count; ++k) shared[k * most_warps + mine] = values[k];
  __syncthreads();
#pragma unroll
  for (int k = 0; k < Count; ++k) {
    values[k] = 0;
    for (int w = 0; w < warps; ++w)
      values[k] = shared[k * most_warps + w] > values[k] ? shared[k * most_warps + w] : values[k];
  }
  __syncthreads();
}

}  // namespace deqcore::cuda

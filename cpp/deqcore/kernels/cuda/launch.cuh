// SPDX-License-Identifier: Apache-2.0
// The only file that launches. Launch shapes depend on the width of a row and never on how many rows there are, so a
// row's sums have the same bits alone and in a batch.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "deqcore/device/cuda_check.cuh"
#include "deqcore/device/cuda_queue.hpp"

namespace deqcore::cuda {

inline constexpr int warp = 32;
inline constexpr int most_warps = 16;  // per block

// Threads that share one row: about four elements for each, whole warps.
inline int threads_for(std::int64_t width) {
  const std::int64_t wanted = (width / 4 + warp - 1) / warp * warp;
  return static_cast<int>(std::clamp<std::int64_t>(wanted, warp, most_warps * warp));
}

// A few doubles that all threads of a block share: `most_warps` per value reduced (reduce.cuh).
__device__ inline double* shared_doubles() {
#ifdef DEQCORE_EMULATE_CUDA
  return static_cast<double*>(cuda_emulator::shared_memory());
#else
  extern __shared__ double shared[];
  return shared;
#endif
}

template <class Body>
__global__ void __launch_bounds__(most_warps* warp) run_body(Body body) {
  body();
}

// body() in every thread of `blocks` blocks. Nothing is launched for none.
template <class Body>
void launch(CudaQueue& queue, const char* kernel, std::int64_t blocks, int threads, int shared, const Body& body) {
  if (blocks == 0) return;
  require(blocks <= std::numeric_limits<std::int32_t>::max(), kernel, ": ", blocks,
          " blocks of threads needed; a launch has at most 2147483647");
  const OnDevice selected(queue.device());
  const std::size_t bytes = shared * sizeof(double);
#ifdef DEQCORE_EMULATE_CUDA
  cuda_emulator::launch(queue.stream(), static_cast<unsigned>(blocks), threads, bytes, kernel,
                        [body] { run_body(body); });
#else
  run_body<<<static_cast<unsigned>(blocks), threads, bytes, queue.stream()>>>(body);
#endif
  queue.launched(kernel);
}

// body(i) for every i, by one thread each.
template <class Body>
void for_each_entry(CudaQueue& queue, const char* kernel, std::int64_t count, const Body& body) {
  constexpr int threads = 128;
  launch(queue, kernel, (count + threads - 1) / threads, threads, 0, [=] __device__() {
    const std::int64_t i = blockIdx.x * static_cast<std::int64_t>(blockDim.x) + threadIdx.x;
    if (i < count) body(i);
  });
}

// body(i) by all threads of one block for each row i; `sums` values can be reduced over the block at once.
template <class Body>
void for_each_row(CudaQueue& queue, const char* kernel, std::int64_t rows, std::int64_t width, int sums,
                  const Body& body) {
  launch(queue, kernel, rows, threads_for(width), sums * most_warps, [=] __device__() { body(blockIdx.x); });
}

// body(i, at) for every element: row i, column at. Wide rows are split over several blocks.
template <class Body>
void for_each_cell(CudaQueue& queue, const char* kernel, std::int64_t rows, std::int64_t width, const Body& body) {
  constexpr std::int64_t piece = 4096;  // elements of one block
  const std::int64_t pieces = (width + piece - 1) / piece;
  launch(queue, kernel, rows * pieces, threads_for(std::min(width, piece)), 0, [=] __device__() {
    const std::int64_t row = blockIdx.x / pieces, start = blockIdx.x % pieces * piece;
    const std::int64_t end = start + piece < width ? start + piece : width;
    for (std::int64_t at = start + threadIdx.x; at < end; at += blockDim.x) body(row, at);
  });
}

// body() by one block: for the few numbers that `count` rows share. Only for counts, maxima and places, which do not
// depend on the number of threads.
template <class Body>
void in_one_block(CudaQueue& queue, const char* kernel, std::int64_t count, int sums, const Body& body) {
  const std::int64_t wanted = (count + warp - 1) / warp * warp;
  launch(queue, kernel, 1, static_cast<int>(std::clamp<std::int64_t>(wanted, warp, most_warps * warp)),
         sums * most_warps, body);
}

}  // namespace deqcore::cuda

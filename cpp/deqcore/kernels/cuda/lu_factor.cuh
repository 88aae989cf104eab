// SPDX-License-Identifier: Apache-2.0
// One dense matrix, stored column after column, by all threads of a block: P A = L U.
#pragma once

#include "deqcore/kernels/cuda/reduce.cuh"

namespace deqcore::cuda {

// Where |values| is largest, the first place of several; `largest` is set to the size there. By all threads of a block,
// which all get it. NaN counts as nothing.
__device__ inline int find_largest(const double* values, int n, double& largest) {
  double most[1] = {0}, behind[1] = {0};  // the second: entries from the place to the end, for the first place
  int mine = n;
  for (int at = static_cast<int>(threadIdx.x); at < n; at += static_cast<int>(blockDim.x)) {
    const double size = fabs(values[at]);
    if (!(size > most[0])) continue;
    most[0] = size;
    mine = at;
  }
  const double size = most[0];
  block_max(most, shared_doubles());
  largest = most[0];
  if (size == largest) behind[0] = static_cast<double>(n - mine);
  block_max(behind, shared_doubles());
  return behind[0] == 0 ? 0 : n - static_cast<int>(behind[0]);
}

// P A = L U in place, column after column, by all threads of a block. False if a pivot is rounding, below `tiny` times
// the largest entry of all, or times sizes[column] where those are given: A is singular to working precision.
__device__ inline bool factor(double* A, std::int32_t* pivot, std::int64_t width, double tiny,
                              const double* sizes = nullptr) {
  const int n = static_cast<int>(width);  // at most 4096; narrow indices leave registers to the kernel around this
  double largest = 0;
  if (!sizes) find_largest(A, n * n, largest);
  const int lane = static_cast<int>(threadIdx.x % warp), mine = static_cast<int>(threadIdx.x / warp);
  const int warps = static_cast<int>(blockDim.x / warp), threads = static_cast<int>(blockDim.x);
  for (int j = 0; j < n; ++j) {
    double* const left = A + j * n;
    double size;
    const int p = j + find_largest(left + j, n - j, size);
    if (threadIdx.x == 0) pivot[j] = p;
    if (!(size > tiny * (sizes ? sizes[j] : largest))) return false;
    for (int c = static_cast<int>(threadIdx.x); c < n && p != j; c += threads) {
      const double above = A[c * n + j];
      A[c * n + j] = A[c * n + p];
      A[c * n + p] = above;
    }
    __syncthreads();
    const double inverse = 1 / left[j];
    for (int i = j + 1 + static_cast<int>(threadIdx.x); i < n; i += threads) left[i] *= inverse;
    __syncthreads();
    for (int c = j + 1 + mine; c < n; c += warps) {  // a warp per column
      double* const right = A + c * n;
      const double top = right[j];
      for (int i = j + 1 + lane; i < n; i += warp) right[i] -= left[i] * top;
    }
    __syncthreads();
  }
  return true;
}

// A y = r, by all threads of a block: take(j, y_j) by the first thread, the last j first. `work` does not hold y:
// others may still be reading what was there.
template <class T, class Take>
__device__ inline void solve(const double* A, const std::int32_t* pivot, std::int64_t width, const T* r, double* work,
                             const Take& take) {
  const int n = static_cast<int>(width), first = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  for (int i = first; i < n; i += threads) work[i] = r[i];
  __syncthreads();
  for (int j = 0; j < n && first == 0; ++j) {
    const double above = work[j];
    work[j] = work[pivot[j]];
    work[pivot[j]] = above;
  }
  for (int j = 0; j < n; ++j) {
    __syncthreads();
    const double known = work[j];
    for (int i = j + 1 + first; i < n; i += threads) work[i] -= A[j * n + i] * known;
  }
  for (int j = n; j-- > 0;) {
    __syncthreads();
    const double known = work[j] / A[j * n + j];
    for (int i = first; i < j; i += threads) work[i] -= A[j * n + i] * known;
    if (first == 0) take(j, known);
  }
}

// x += A^-1 r, by all threads of a block.
template <class T>
__device__ inline void correct(const double* A, const std::int32_t* pivot, std::int64_t n, const T* r, double* work,
                               T* x) {
  solve(A, pivot, n, r, work, [x](std::int64_t j, double y) { x[j] = static_cast<T>(static_cast<double>(x[j]) + y); });
}

}  // namespace deqcore::cuda

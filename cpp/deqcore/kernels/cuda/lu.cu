// SPDX-License-Identifier: Apache-2.0
#include "deqcore/kernels/lu.hpp"

#include "deqcore/kernels/cuda/reduce.cuh"
#include "deqcore/kernels/row_math.hpp"

namespace deqcore {
namespace {

// Where |values| is largest, the first place of several; `largest` is set to the size there. By all threads of a block,
// which all get it. NaN counts as nothing.
__device__ std::int64_t find_largest(const double* values, std::int64_t n, double& largest) {
  double most[1] = {0}, behind[1] = {0};  // the second: entries from the place to the end, for the first place
  std::int64_t mine = n;
  for (std::int64_t at = threadIdx.x; at < n; at += blockDim.x) {
    const double size = fabs(values[at]);
    if (!(size > most[0])) continue;
    most[0] = size;
    mine = at;
  }
  const double size = most[0];
  cuda::block_max(most, cuda::shared_doubles());
  largest = most[0];
  if (size == largest) behind[0] = static_cast<double>(n - mine);
  cuda::block_max(behind, cuda::shared_doubles());
  return behind[0] == 0 ? 0 : n - static_cast<std::int64_t>(behind[0]);
}

// P A = L U in place, column after column, by all threads of a block. False if a pivot is rounding: A is singular to
// working precision.
__device__ bool factor(double* A, std::int32_t* pivot, std::int64_t n, double tiny) {
  double largest;
  find_largest(A, n * n, largest);
  const std::int64_t lane = threadIdx.x % cuda::warp, mine = threadIdx.x / cuda::warp, warps = blockDim.x / cuda::warp;
  for (std::int64_t j = 0; j < n; ++j) {
    double* const left = A + j * n;
    double size;
    const std::int64_t p = j + find_largest(left + j, n - j, size);
    if (threadIdx.x == 0) pivot[j] = static_cast<std::int32_t>(p);
    if (!(size > tiny * largest)) return false;
    for (std::int64_t c = threadIdx.x; c < n && p != j; c += blockDim.x) {
      const double above = A[c * n + j];
      A[c * n + j] = A[c * n + p];
      A[c * n + p] = above;
    }
    __syncthreads();
    const double inverse = 1 / left[j];
    for (std::int64_t i = j + 1 + threadIdx.x; i < n; i += blockDim.x) left[i] *= inverse;
    __syncthreads();
    for (std::int64_t c = j + 1 + mine; c < n; c += warps) {  // a warp per column
      double* const right = A + c * n;
      const double top = right[j];
      for (std::int64_t i = j + 1 + lane; i < n; i += cuda::warp) right[i] -= left[i] * top;
    }
    __syncthreads();
  }
  return true;
}

// x += A^-1 r, by all threads of a block. What is solved goes to x alone: others may still be reading it in `work`.
template <class T>
__device__ void correct(const double* A, const std::int32_t* pivot, std::int64_t n, const T* r, double* work, T* x) {
  for (std::int64_t i = threadIdx.x; i < n; i += blockDim.x) work[i] = r[i];
  __syncthreads();
  for (std::int64_t j = 0; j < n && threadIdx.x == 0; ++j) {
    const double above = work[j];
    work[j] = work[pivot[j]];
    work[pivot[j]] = above;
  }
  for (std::int64_t j = 0; j < n; ++j) {
    __syncthreads();
    const double known = work[j];
    for (std::int64_t i = j + 1 + threadIdx.x; i < n; i += blockDim.x) work[i] -= A[j * n + i] * known;
  }
  for (std::int64_t j = n; j-- > 0;) {
    __syncthreads();
    const double known = work[j] / A[j * n + j];
    for (std::int64_t i = threadIdx.x; i < j; i += blockDim.x) work[i] -= A[j * n + i] * known;
    if (threadIdx.x == 0) x[j] = static_cast<T>(static_cast<double>(x[j]) + known);
  }
}

}  // namespace

template <class T>
void run(CudaQueue& queue, const ClearColumns<T>& k) {
  queue.note("ClearColumns", 0);
  cuda::for_each_entry(queue, "ClearColumns", k.rows, [k] __device__(std::int64_t row) { k.factored.column[row] = 0; });
}

template <class T>
void run(CudaQueue& queue, const KeepColumn<T>& k) {
  const std::int64_t n = k.x.width;
  queue.note("KeepColumn", k.rows.count * n * (sizeof(T) + sizeof(double)));
  // as many threads as the factorisation keeps busy
  cuda::for_each_row(queue, "KeepColumn", k.rows.count, n * n, 1, [k, n] __device__(std::int64_t i) {
    const Factored<T>& f = k.factored;
    const LinearStates& s = k.states;
    const std::int64_t row = k.rows.ids[i];
    if (!s.running(row) || s.phase[row] != Phase::first) return;
    const std::int32_t at = f.column[row];
    const bool finite_before = row_math::finite(s.residual[row]);
    double *A = f.matrix + row * n * n, *to = A + at * n, size[1] = {0};
    const T* answer = k.answer[i];
    for (std::int64_t j = threadIdx.x; j < n; j += blockDim.x) {
      const double product = answer[j];
      const double entry = k.form == Operator::matrix ? product : (j == at ? 1.0 : 0.0) - product;
      to[j] = entry;
      size[0] += entry * entry;
    }
    cuda::block_sum(size, cuda::shared_doubles());
    const bool finite = row_math::finite(size[0]);
    if (threadIdx.x == 0) {
      f.column[row] = at + 1;
      s.answered[row] = Answered::product;
      const double length = sqrt(size[0]);
      if (length > s.growth[row]) s.growth[row] = length;
      if (!finite) s.residual[row] = size[0];
    }
    if (at + 1 < n || !finite || !finite_before) return;
    const double tiny = static_cast<double>(n) * std::numeric_limits<double>::epsilon();
    if (!factor(A, f.pivot + row * n, n, tiny)) {
      if (threadIdx.x == 0) s.answered[row] = Answered::broke_down;
      return;
    }
    correct(A, f.pivot + row * n, n, static_cast<const T*>(f.r[row]), f.work + row * n, k.x[row]);
    if (threadIdx.x == 0) s.phase[row] = Phase::residual;
  });
}

template <class T>
void run(CudaQueue& queue, const PoseColumn<T>& k) {
  const std::int64_t n = k.x.width;
  queue.note("PoseColumn", k.rows.count * n * sizeof(T));
  cuda::for_each_row(queue, "PoseColumn", k.rows.count, n, 0, [k, n] __device__(std::int64_t i) {
    const Factored<T>& f = k.factored;
    const LinearStates& s = k.states;
    const std::int64_t row = k.rows.ids[i];
    const bool running = s.running(row), starts = running && s.phase[row] == Phase::start;
    const std::int32_t column = f.column[row];
    const bool unit = running && (starts ? column < n : s.phase[row] == Phase::first);
    T *x = k.x[row], *along = k.along[i];
    __syncthreads();  // all threads have read the phase before one of them writes it
    if (starts && threadIdx.x == 0) s.phase[row] = unit ? Phase::first : Phase::residual;
    if (starts && !unit) {
      correct(f.matrix + row * n * n, f.pivot + row * n, n, static_cast<const T*>(f.r[row]), f.work + row * n, x);
      __syncthreads();  // x is complete
    }
    for (std::int64_t at = threadIdx.x; at < n; at += blockDim.x) along[at] = !unit ? x[at] : T(at == column ? 1 : 0);
  });
}

DEQCORE_INSTANTIATE_KERNEL(CudaQueue, ClearColumns);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, KeepColumn);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, PoseColumn);

}  // namespace deqcore

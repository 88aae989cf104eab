// SPDX-License-Identifier: Apache-2.0
#include "deqcore/kernels/neumann.hpp"

#include "deqcore/kernels/cuda/norms.cuh"

namespace deqcore {

template <class T>
void run(CudaQueue& queue, const BeginNeumann<T>& k) {
  queue.note("BeginNeumann", k.w.rows * 2 * k.w.width * sizeof(T));
  const T tau = static_cast<T>(k.tau);
  cuda::for_each_row(queue, "BeginNeumann", k.w.rows, k.w.width, 1, [k, tau] __device__(std::int64_t row) {
    const T* g = k.g[row];
    T* w = k.w[row];
    double scale[1];
    cuda::row_norms(k.norm, k.w.width, [g](std::int64_t at, double* values) { values[0] = g[at]; }, scale);
    for (std::int64_t at = threadIdx.x; at < k.w.width; at += blockDim.x) w[at] = tau * g[at];
    if (threadIdx.x != 0) return;
    k.report.status[row] = Status::running;
    k.report.steps[row] = 0;
    k.report.residual[row] = std::numeric_limits<double>::quiet_NaN();
    k.report.scale[row] = scale[0];
    k.report.rejected[row] = k.report.singular[row] = 0;
    k.ids[row] = static_cast<std::int32_t>(row);
  });
}

template <class T>
void run(CudaQueue& queue, const AddTerm<T>& k) {
  queue.note("AddTerm", k.w.rows * 4 * k.w.width * sizeof(T));
  const T tau = static_cast<T>(k.tau);
  cuda::for_each_cell(queue, "AddTerm", k.w.rows, k.w.width, [k, tau] __device__(std::int64_t row, std::int64_t at) {
    if (at == 0) k.report.steps[row] += 1;
    const T sum = k.w[row][at];
    k.w[row][at] = sum + tau * (k.product[row][at] + k.g[row][at] - sum);
  });
}

template <class T>
void run(CudaQueue& queue, const EndNeumann<T>& k) {
  queue.note("EndNeumann", k.w.rows * 2 * k.w.width * sizeof(T));
  cuda::for_each_row(queue, "EndNeumann", k.w.rows, k.w.width, 0, [k] __device__(std::int64_t row) {
    const T* w = k.w[row];
    T* result = k.result[row];
    int wrong = 0;
    for (std::int64_t at = threadIdx.x; at < k.w.width; at += blockDim.x) {
      const T value = w[at];
      result[at] = value;
      wrong |= !(0 * value == 0);  // NaN where the value is not finite
    }
    wrong = __syncthreads_or(wrong);
    if (threadIdx.x == 0) k.report.status[row] = wrong ? Status::not_finite : k.status;
  });
}

template <class T>
void run(CudaQueue& queue, const CountFailed<T>& k) {
  queue.note("CountFailed", 0);
  cuda::in_one_block(queue, "CountFailed", k.rows, 1, [k] __device__() {
    double failed[1] = {0};
    for (std::int64_t row = threadIdx.x; row < k.rows; row += blockDim.x)
      failed[0] += static_cast<int>(k.report.status[row]) < 0;
    cuda::block_sum(failed, cuda::shared_doubles());
    if (threadIdx.x == 0) *k.progress = {.failed = static_cast<std::int64_t>(failed[0])};
  });
}

DEQCORE_INSTANTIATE_KERNEL(CudaQueue, BeginNeumann);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, AddTerm);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, EndNeumann);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, CountFailed);

}  // namespace deqcore

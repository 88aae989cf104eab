// SPDX-License-Identifier: Apache-2.0
#include "deqcore/kernels/vector.hpp"

#include "deqcore/kernels/cuda/norms.cuh"

namespace deqcore {

template <class T>
void run(CudaQueue& queue, const CopyRows<T>& k) {
  queue.note("CopyRows", 2 * k.from.rows * k.from.width * sizeof(T));
  cuda::for_each_cell(queue, "CopyRows", k.from.rows, k.from.width,
                      [k] __device__(std::int64_t i, std::int64_t at) { k.to[i][at] = k.from[i][at]; });
}

template <class T>
void run(CudaQueue& queue, const GatherRows<T>& k) {
  queue.note("GatherRows", 2 * k.source.count * k.from.width * sizeof(T));
  cuda::for_each_cell(queue, "GatherRows", k.source.count, k.from.width,
                      [k] __device__(std::int64_t i, std::int64_t at) { k.to[i][at] = k.from[k.source.ids[i]][at]; });
}

template <class T>
void run(CudaQueue& queue, const AddRows<T>& k) {
  queue.note("AddRows", 3 * k.rows.count * k.sum.width * sizeof(T));
  cuda::for_each_cell(queue, "AddRows", k.rows.count, k.sum.width, [k] __device__(std::int64_t i, std::int64_t at) {
    k.sum[i][at] = k.a[i][at] + k.b[k.rows.ids[i]][at];
  });
}

template <class T>
void run(CudaQueue& queue, const ClearRows<T>& k) {
  queue.note("ClearRows", 0);
  cuda::for_each_cell(queue, "ClearRows", k.x.rows, k.x.width, [k] __device__(std::int64_t i, std::int64_t at) {
    if (k.norms[i] == 0) k.x[i][at] = T(0);
  });
}

template <class T>
void run(CudaQueue& queue, const MeasureRows<T>& k) {
  queue.note("MeasureRows", k.x.rows * k.x.width * sizeof(T));
  cuda::for_each_row(queue, "MeasureRows", k.x.rows, k.x.width, 1, [k] __device__(std::int64_t i) {
    const T* x = k.x[i];
    double norms[1];
    cuda::row_norms(k.norm, k.x.width, [x](std::int64_t at, double* values) { values[0] = x[at]; }, norms);
    if (threadIdx.x == 0) k.norms[i] = norms[0];
  });
}

DEQCORE_INSTANTIATE_KERNEL(CudaQueue, CopyRows);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, GatherRows);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, AddRows);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, ClearRows);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, MeasureRows);

}  // namespace deqcore

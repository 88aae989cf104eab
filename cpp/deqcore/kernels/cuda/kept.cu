// SPDX-License-Identifier: Apache-2.0
#include "deqcore/kernels/kept.hpp"

#include "deqcore/kernels/cuda/norms.cuh"

namespace deqcore {
namespace {

// The n columns of a row, into a row of a handle.
template <class T, class Element>
__device__ void save_columns(const SaveRows<T>& k, Element* const* columns, std::int64_t row, int n) {
  const RowMemory<T>& from = k.memory;
  for (int which = 0; which < 2; ++which)
    for (int j = 0; j < n; ++j) {
      const Element* const column = columns[which] + (row * from.m + j) * from.pitch;
      Element* const kept = k.to.template column<Element>(row, which, j);
      for (std::int64_t at = threadIdx.x; at < from.width; at += blockDim.x) kept[at] = column[at];
    }
}

// And back.
template <class T, class Element>
__device__ void load_columns(const LoadRows<T>& k, Element* const* columns, std::int64_t row, std::int64_t place,
                             int n) {
  const RowMemory<T>& to = k.memory;
  for (int which = 0; which < 2; ++which)
    for (int j = 0; j < n; ++j) {
      const Element* const kept = k.from.template column<Element>(place, which, j);
      Element* const column = columns[which] + (row * to.m + j) * to.pitch;
      for (std::int64_t at = threadIdx.x; at < to.width; at += blockDim.x) column[at] = kept[at];
    }
}

}  // namespace

template <class T>
void run(CudaQueue& queue, const SaveRows<T>& k) {
  queue.note("SaveRows", k.rows * 4 * k.memory.m * k.memory.column_bytes());
  cuda::for_each_row(queue, "SaveRows", k.rows, k.memory.width, 0, [k] __device__(std::int64_t row) {
    const RowMemory<T>& from = k.memory;
    const std::int32_t depth = from.depth[row];
    const int n = k.status[row] != Status::converged ? 0 : depth < 0 ? ~depth : depth;
    if (threadIdx.x == 0) {
      k.to.counts(row)[0] = n;
      k.to.counts(row)[1] = from.slot && n > 0 ? from.slot[row] : 0;
    }
    if (from.small)
      for (int at = threadIdx.x; at < n * n; at += blockDim.x) {
        const std::int64_t entry = at / n * from.m + at % n;
        k.to.matrix(row)[entry] = from.matrix[row * from.small + entry];
      }
    if (from.in_16_bits)
      save_columns(k, from.columns16, row, n);
    else
      save_columns(k, from.columns, row, n);
  });
}

template <class T>
void run(CudaQueue& queue, const LoadRows<T>& k) {
  queue.note("LoadRows", k.rows * 4 * k.memory.m * k.memory.column_bytes());
  cuda::for_each_row(queue, "LoadRows", k.rows, k.memory.width, 0, [k] __device__(std::int64_t row) {
    const RowMemory<T>& to = k.memory;
    const std::int64_t place = k.at[row];
    const int n = place < 0 ? 0 : k.from.counts(place)[0];
    if (threadIdx.x == 0) {
      to.depth[row] = ~n;
      if (to.slot) to.slot[row] = place < 0 ? 0 : k.from.counts(place)[1];
    }
    if (to.small)
      for (int at = threadIdx.x; at < n * n; at += blockDim.x) {
        const std::int64_t entry = at / n * to.m + at % n;
        to.matrix[row * to.small + entry] = k.from.matrix(place)[entry];
      }
    if (to.in_16_bits)
      load_columns(k, to.columns16, row, place, n);
    else
      load_columns(k, to.columns, row, place, n);
  });
}

template <class T>
void run(CudaQueue& queue, const ApplyInverseTransposed<T>& k) {
  queue.note("ApplyInverseTransposed", k.g.rows * (2 * k.pairs.m + 2) * k.g.width * sizeof(T));
  cuda::for_each_row(queue, "ApplyInverseTransposed", k.g.rows, k.g.width, 2, [k] __device__(std::int64_t i) {
    const std::int64_t place = k.at[i], width = k.g.width;
    const int depth = place < 0 ? 0 : k.pairs.counts(place)[0];
    const T* const g = k.g[i];
    T* const w = k.w[i];  // a thread reads only elements that it wrote itself
    for (std::int64_t at = threadIdx.x; at < width; at += blockDim.x) w[at] = g[at];
    for (int j = 0; j < depth; ++j) {
      const T *u = k.pairs.column(place, 0, j), *v = k.pairs.column(place, 1, j);
      double sum[1] = {};
      for (std::int64_t at = threadIdx.x; at < width; at += blockDim.x)
        sum[0] += static_cast<double>(u[at]) * static_cast<double>(g[at]);
      cuda::block_sum(sum, cuda::shared_doubles());
      const T along = static_cast<T>(sum[0]);
      for (std::int64_t at = threadIdx.x; at < width; at += blockDim.x) w[at] -= along * v[at];
    }
    double sizes[2];
    cuda::row_norms(
        Norm::two, width,
        [g, w](std::int64_t at, double* values) {
          values[0] = w[at];
          values[1] = g[at];
        },
        sizes);
    const bool fell = depth == 0 || !(sizes[0] <= k.fallback * sizes[1]);  // so is what is not a number
    if (threadIdx.x == 0) k.fell[i] = fell ? 1 : 0;
    if (!fell) return;
    for (std::int64_t at = threadIdx.x; at < width; at += blockDim.x) w[at] = g[at];
  });
}

DEQCORE_INSTANTIATE_KERNEL(CudaQueue, SaveRows);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, LoadRows);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, ApplyInverseTransposed);

}  // namespace deqcore

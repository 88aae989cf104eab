// SPDX-License-Identifier: Apache-2.0
#include "deqcore/kernels/lu.hpp"

#include "deqcore/kernels/cuda/lu_factor.cuh"
#include "deqcore/kernels/row_math.hpp"

namespace deqcore {
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
    if (!cuda::factor(A, f.pivot + row * n, n, tiny)) {
      if (threadIdx.x == 0) s.answered[row] = Answered::broke_down;
      return;
    }
    cuda::correct(A, f.pivot + row * n, n, static_cast<const T*>(f.r[row]), f.work + row * n, k.x[row]);
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
      cuda::correct(f.matrix + row * n * n, f.pivot + row * n, n, static_cast<const T*>(f.r[row]), f.work + row * n, x);
      __syncthreads();  // x is complete
    }
    for (std::int64_t at = threadIdx.x; at < n; at += blockDim.x) along[at] = !unit ? x[at] : T(at == column ? 1 : 0);
  });
}

DEQCORE_INSTANTIATE_KERNEL(CudaQueue, ClearColumns);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, KeepColumn);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, PoseColumn);

}  // namespace deqcore

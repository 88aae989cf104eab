// SPDX-License-Identifier: Apache-2.0
#include "deqcore/kernels/homotopy.hpp"

#include "deqcore/kernels/cuda/lu_factor.cuh"
#include "deqcore/kernels/cuda/norms.cuh"

namespace deqcore {

template <class T>
void run(CudaQueue& queue, const BeginPath<T>& k) {
  queue.note("BeginPath", 0);
  cuda::for_each_entry(queue, "BeginPath", k.rows, [k] __device__(std::int64_t row) {
    begin_path(k.states, k.rules, row, k.given_scale);
    k.ids[row] = static_cast<std::int32_t>(row);
    if (k.order) k.order[row] = static_cast<std::int32_t>(row);
  });
}

template <class T>
void run(CudaQueue& queue, const PosePath<T>& k) {
  const std::int64_t width = k.z.width;
  queue.note("PosePath", k.at.data ? 2 * k.rows.count * width * sizeof(T) : 0);
  cuda::for_each_row(queue, "PosePath", k.rows.count, width, 0, [k, width] __device__(std::int64_t i) {
    const std::int64_t row = k.rows.ids[i];
    if (k.time && threadIdx.x == 0) k.time[i] = k.states.lambda[row];
    if (!k.at.data) return;
    const T* z = k.z[row];
    T* at = k.at[i];
    for (std::int64_t j = threadIdx.x; j < width; j += blockDim.x) at[j] = z[j];
  });
}

namespace {

// |answer - z|, |answer| and |z| of a row; of an own homotopy H = answer, and f(z) = z - H.
template <class T>
__device__ void measure(const PathStates& s, std::int64_t row, Norm norm, std::int64_t width, const T* z,
                        const T* answer, bool own) {
  const auto fill = [z, answer, own](std::int64_t j, double* values) {
    const double value = answer[j], point = z[j];
    values[0] = own ? value : value - point;
    values[1] = own ? point - value : value;
    values[2] = point;
  };
  double lengths[3], norms[3];
  cuda::row_norms(Norm::two, width, fill, lengths);
  for (int which = 0; which < 3; ++which) norms[which] = lengths[which];
  if (norm != Norm::two) cuda::row_largest(width, fill, norms);
  if (threadIdx.x != 0) return;
  s.g_norm[row] = norms[0];
  s.f_norm[row] = norms[1];
  s.z_norm[row] = norms[2];
  s.length[row] = lengths[0];
  s.size[row] = lengths[2];
}

}  // namespace

template <class T>
void run(CudaQueue& queue, const MeasurePath<T>& k) {
  const std::int64_t width = k.at.width;
  queue.note("MeasurePath", 6 * k.rows.count * width * sizeof(T));
  cuda::for_each_row(queue, "MeasurePath", k.rows.count, width, 3, [k, width] __device__(std::int64_t i) {
    const PathStates& s = k.states;
    const std::int64_t row = k.rows.ids[i];
    if (!s.running(row)) return;
    const T *z = k.at[i], *answer = k.answer[i];
    T *base = k.base[row], *r = k.r[row], *rate = k.rate[row], *right = k.right[row];
    const double lambda = s.lambda[row];
    const bool newton = k.rules.kind == HomotopyKind::newton, first = s.report.steps[row] == 0;
    for (std::int64_t j = threadIdx.x; j < width; j += blockDim.x) {
      const T residual = k.rules.own() ? -answer[j] : answer[j] - z[j];
      r[j] = residual;
      if (k.rules.own()) {
        right[j] = residual;
      } else if (newton) {
        if (first) base[j] = residual;
        right[j] = static_cast<T>(static_cast<double>(residual) - (1 - lambda) * static_cast<double>(base[j]));
        rate[j] = -base[j];
      } else {
        const double moved = static_cast<double>(z[j]) - static_cast<double>(base[j]);
        right[j] = static_cast<T>(lambda * static_cast<double>(residual) - (1 - lambda) * moved);
        rate[j] = base[j] - answer[j];
      }
    }
    if (threadIdx.x == 0) right[width] = 0;
    __syncthreads();  // right is complete
    measure(s, row, k.norm, width, z, answer, k.rules.own());
    double missed[1];
    cuda::row_norms(Norm::two, width, [right](std::int64_t j, double* values) { values[0] = right[j]; }, missed);
    if (threadIdx.x == 0) s.miss[row] = missed[0];
  });
}

template <class T>
void run(CudaQueue& queue, const JudgePath<T>& k) {
  queue.note("JudgePath", 0);
  cuda::for_each_entry(queue, "JudgePath", k.rows.count, [k] __device__(std::int64_t i) {
    const std::int64_t row = k.rows.ids[i];
    if (k.states.running(row)) judge_path(k.states, row, k.limits, k.rules, path::tangent_forcing<T>);
  });
}

template <class T>
void run(CudaQueue& queue, const MovePath<T>& k) {
  const std::int64_t width = k.z.width;
  queue.note("MovePath", 6 * k.rows.count * width * sizeof(T));
  cuda::for_each_row(queue, "MovePath", k.rows.count, width, 0, [k, width] __device__(std::int64_t i) {
    const PathStates& s = k.states;
    const std::int64_t row = k.rows.ids[i];
    T *z = k.z[row], *right = k.right[row], *result = k.result[row];
    const T *last = k.last[row], *tangent = k.tangent[row];
    const bool best = s.fresh[row] == Fresh::best, turns = s.solving(row) && s.need[row] == PathNeed::tangent;
    const PathMove move = s.move[row];
    const double h = s.h[row], fraction = s.fraction[row];
    record_point(s, row, [z](std::int64_t j) { return static_cast<double>(z[j]); }, threadIdx.x, blockDim.x);
    __syncthreads();  // all threads have read what the first writes, and z
    for (std::int64_t j = threadIdx.x; j < width; j += blockDim.x) {
      if (best) result[j] = z[j];
      if (move == PathMove::predict) z[j] = step_along(last[j], tangent[j], h);
      if (move == PathMove::cross) z[j] = step_between(last[j], z[j], fraction);
      if (turns) right[j] = 0;
    }
    if (threadIdx.x != 0) return;
    s.fresh[row] = Fresh::no;
    s.move[row] = PathMove::stay;
    if (turns) right[width] = 1;
  });
}

template <class T>
void run(CudaQueue& queue, const CountPath<T>& k) {
  queue.note("CountPath", 0);
  cuda::in_one_block(queue, "CountPath", k.batch, 3, [k] __device__() {
    double counts[3] = {0, 0, 0}, worst[1] = {0};  // running, again, failed
    for (std::int64_t i = threadIdx.x; i < k.rows.count; i += blockDim.x) {
      const std::int64_t row = k.rows.ids[i];
      if (!k.states.running(row)) continue;
      counts[0] += 1;
      counts[1] += k.states.solving(row) ? 1 : 0;
      worst[0] = k.states.best[row] > worst[0] ? k.states.best[row] : worst[0];
    }
    for (std::int64_t row = threadIdx.x; row < k.batch; row += blockDim.x)
      counts[2] += k.states.report.status[row] < Status::converged ? 1 : 0;
    cuda::block_sum(counts, cuda::shared_doubles());
    cuda::block_max(worst, cuda::shared_doubles());
    if (threadIdx.x != 0) return;
    *k.progress = {.running = static_cast<std::int64_t>(counts[0]),
                   .failed = static_cast<std::int64_t>(counts[2]),
                   .again = static_cast<std::int64_t>(counts[1]),
                   .worst = worst[0]};
  });
}

template <class T>
void run(CudaQueue& queue, const PoseRate<T>& k) {
  queue.note("PoseRate", 0);
  cuda::for_each_entry(queue, "PoseRate", k.rows.count, [k] __device__(std::int64_t i) {
    const double lambda = k.states.lambda[k.rows.ids[i]];
    k.time[i] = lambda + rate_step<T>(lambda);
  });
}

template <class T>
void run(CudaQueue& queue, const TakeRate<T>& k) {
  const std::int64_t width = k.answer.width;
  queue.note("TakeRate", 3 * k.rows.count * width * sizeof(T));
  cuda::for_each_row(queue, "TakeRate", k.rows.count, width, 0, [k, width] __device__(std::int64_t i) {
    const std::int64_t row = k.rows.ids[i];
    if (!k.states.solving(row)) return;
    const double lambda = k.states.lambda[row], step = lambda + rate_step<T>(lambda) - lambda;
    const T *answer = k.answer[i], *r = k.r[row];
    T* rate = k.rate[row];
    for (std::int64_t j = threadIdx.x; j < width; j += blockDim.x)
      rate[j] = k.differences ? difference_in_rate(answer[j], r[j], step) : answer[j];
    if (threadIdx.x == 0) count_path_product(k.states, row);
  });
}

template <class T>
void run(CudaQueue& queue, const KeepBordered<T>& k) {
  const std::int64_t n = k.answer.width;
  queue.note("KeepBordered", k.rows.count * n * (sizeof(T) + sizeof(double)));
  cuda::for_each_row(queue, "KeepBordered", k.rows.count, n, 0, [k, n] __device__(std::int64_t i) {
    const std::int64_t row = k.rows.ids[i];
    if (!k.states.solving(row)) return;
    const PathOperator of = path_operator(k.states, k.rules, row);
    const T* answer = k.answer[i];
    double* to = k.bordered.matrix + (row * (n + 1) + k.column) * (n + 1);
    for (std::int64_t j = threadIdx.x; j < n; j += blockDim.x)
      to[j] = (j == k.column ? of.own : 0.0) - of.mapped * static_cast<double>(answer[j]);
    if (threadIdx.x != 0) return;
    to[n] = along_path(k.states, k.rules, row) ? static_cast<double>(k.tangent[row][k.column]) : 0.0;
    count_path_product(k.states, row);
  });
}

// Two launches: what is found out about a matrix and its factorisation together need more registers than a thread has.
template <class T>
void run(CudaQueue& queue, const FactorBordered<T>& k) {
  const std::int64_t n = k.rate.width, m = n + 1;
  queue.note("FactorBordered", k.rows.count * m * m * sizeof(double));
  // as many threads as the factorisation keeps busy
  cuda::for_each_row(queue, "FactorBordered", k.rows.count, m * m, 1, [k, n, m] __device__(std::int64_t i) {
    const PathStates& s = k.states;
    const std::int64_t row = k.rows.ids[i];
    if (!s.solving(row)) return;
    double *A = k.bordered.matrix + row * m * m, *work = k.bordered.work + row * m;
    const bool border = along_path(s, k.rules, row);
    const T* rate = k.rate[row];
    for (std::int64_t j = threadIdx.x; j < n; j += blockDim.x) A[n * m + j] = rate[j];
    if (threadIdx.x == 0) A[n * m + n] = border ? s.slope[row] : 1.0;
    __syncthreads();  // A is complete
    double poison[1] = {0};
    for (std::int64_t at = threadIdx.x; at < m * m; at += blockDim.x) poison[0] += 0 * A[at];
    cuda::block_sum(poison, cuda::shared_doubles());
    if (threadIdx.x == 0) k.solved[row] = poison[0] == 0 ? Status::running : Status::not_finite;
    for (std::int64_t j = 0; j < m; ++j) {
      double size;
      cuda::find_largest(A + j * m, static_cast<int>(m), size);
      if (threadIdx.x == 0) work[j] = j < n || border ? size : 0;
    }
  });
  cuda::for_each_row(queue, "FactorBordered", k.rows.count, m * m, 1, [k, m] __device__(std::int64_t i) {
    const std::int64_t row = k.rows.ids[i];
    if (!k.states.solving(row) || k.solved[row] == Status::not_finite) return;
    double *A = k.bordered.matrix + row * m * m, *work = k.bordered.work + row * m;
    std::int32_t* pivot = k.bordered.pivot + row * m;
    T* solution = k.solution[row];
    const double tiny = static_cast<double>(m) * std::numeric_limits<double>::epsilon();
    const bool regular = cuda::factor(A, pivot, m, tiny, work);  // all threads have read `solved`
    if (threadIdx.x == 0) k.solved[row] = regular ? Status::converged : Status::breakdown;
    if (!regular) return;
    cuda::solve(A, pivot, m, static_cast<const T*>(k.right[row]), work,
                [solution](std::int64_t j, double y) { solution[j] = static_cast<T>(y); });
  });
}

template <class T>
void run(CudaQueue& queue, const PoseBordered<T>& k) {
  const std::int64_t width = k.along.width;
  queue.note("PoseBordered", 2 * k.along.rows * width * sizeof(T));
  cuda::for_each_cell(queue, "PoseBordered", k.along.rows, width,
                      [k] __device__(std::int64_t i, std::int64_t j) { k.along[i][j] = k.direction[i][j]; });
}

template <class T>
void run(CudaQueue& queue, const TakeBordered<T>& k) {
  const std::int64_t width = k.answer.width;
  queue.note("TakeBordered", 5 * k.rows.count * width * sizeof(T));
  cuda::for_each_row(queue, "TakeBordered", k.rows.count, width, 1, [k, width] __device__(std::int64_t i) {
    const std::int64_t row = k.rows.ids[i];
    const PathOperator of = path_operator(k.states, k.rules, row);
    const bool border = along_path(k.states, k.rules, row);
    const T *v = k.direction[i], *answer = k.answer[i], *rate = k.rate[row], *tangent = k.tangent[row];
    T* product = k.product[i];
    const double last = v[width];
    double with_border[1] = {0};
    for (std::int64_t j = threadIdx.x; j < width; j += blockDim.x) {
      product[j] = static_cast<T>(of.own * static_cast<double>(v[j]) - of.mapped * static_cast<double>(answer[j]) +
                                  last * static_cast<double>(rate[j]));
      if (border) with_border[0] += static_cast<double>(v[j]) * static_cast<double>(tangent[j]);
    }
    cuda::block_sum(with_border, cuda::shared_doubles());
    if (threadIdx.x != 0) return;
    product[width] = static_cast<T>(with_border[0] + last * (border ? k.states.slope[row] : 1.0));
    if (k.solving[row] == Status::running) trace_path_product(k.states, k.rules, row);
  });
}

template <class T>
void run(CudaQueue& queue, const StepPath<T>& k) {
  const std::int64_t width = k.z.width;
  queue.note("StepPath", 7 * k.rows.count * width * sizeof(T));
  cuda::for_each_row(queue, "StepPath", k.rows.count, width, 1, [k, width] __device__(std::int64_t i) {
    const PathStates& s = k.states;
    const std::int64_t row = k.rows.ids[i];
    if (!s.solving(row)) return;
    const T* d = k.solution[row];
    T *z = k.z[row], *last = k.last[row], *tangent = k.tangent[row], *result = k.result[row];
    double length[1];
    cuda::row_norms(Norm::two, width + 1, [d](std::int64_t j, double* values) { values[0] = d[j]; }, length);
    __syncthreads();  // all threads know that the row is being solved
    if (threadIdx.x == 0) take_solution(s, k.rules, row, k.linear, length[0], static_cast<double>(d[width]));
    __syncthreads();  // what was decided
    const PathMove move = s.move[row];
    const double h = s.h[row], unit = k.rules.tracker == Tracker::arclength ? length[0] : 1.0;
    const bool unmeasured = k.rules.own() && !row_math::finite(s.best[row]);
    for (std::int64_t j = threadIdx.x; j < width; j += blockDim.x) {
      if (move == PathMove::correct) z[j] = step_along(z[j], d[j], 1.0);
      if (move == PathMove::advance) {
        if (unmeasured) result[j] = z[j];
        last[j] = z[j];
        tangent[j] = static_cast<T>(static_cast<double>(d[j]) / unit);
      }
      if (move == PathMove::advance || move == PathMove::predict) z[j] = step_along(last[j], tangent[j], h);
    }
    __syncthreads();  // all threads have read the move
    if (threadIdx.x == 0) s.move[row] = PathMove::stay;
  });
}

template <class T>
void run(CudaQueue& queue, const VerifyPath<T>& k) {
  const std::int64_t width = k.at.width;
  queue.note("VerifyPath", 2 * k.rows.count * width * sizeof(T));
  cuda::for_each_row(queue, "VerifyPath", k.rows.count, width, 3, [k, width] __device__(std::int64_t i) {
    const std::int64_t row = k.rows.ids[i];
    measure(k.states, row, k.norm, width, k.at[i], k.answer[i], false);
    if (threadIdx.x == 0) verify_path(k.states, row, k.limits);
  });
}

template <class T>
void run(CudaQueue& queue, const EndPath<T>& k) {
  queue.note("EndPath", 0);
  cuda::for_each_entry(queue, "EndPath", k.rows.count, [k] __device__(std::int64_t i) {
    const std::int64_t row = k.rows.ids[i];
    const bool ends = k.states.running(row) || (k.unverified && k.states.report.status[row] == Status::converged);
    if (ends) end_path(k.states, row, k.status, PathEnd::stopped);
  });
}

DEQCORE_INSTANTIATE_KERNEL(CudaQueue, BeginPath);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, PosePath);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, MeasurePath);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, JudgePath);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, MovePath);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, CountPath);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, PoseRate);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, TakeRate);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, KeepBordered);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, FactorBordered);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, PoseBordered);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, TakeBordered);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, StepPath);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, VerifyPath);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, EndPath);

}  // namespace deqcore

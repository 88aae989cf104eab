// SPDX-License-Identifier: Apache-2.0
#include "deqcore/kernels/linear.hpp"

#include "deqcore/kernels/cuda/norms.cuh"
#include "deqcore/kernels/row_math.hpp"

namespace deqcore {

template <class T>
void run(CudaQueue& queue, const BeginLinear<T>& k) {
  queue.note("BeginLinear", k.rows.count * 5 * k.b.width * sizeof(T));
  cuda::for_each_row(queue, "BeginLinear", k.rows.count, k.b.width, 1, [k] __device__(std::int64_t i) {
    const LinearStates& s = k.states;
    const std::int64_t row = k.number ? i : k.rows.ids[i];
    if (k.number && threadIdx.x == 0) k.number[i] = static_cast<std::int32_t>(i);
    if (i == 0 && threadIdx.x == 0) *s.failed = 0;
    if (k.taking_part && k.taking_part[row] != Status::running) {
      for (std::int64_t at = threadIdx.x; at < k.b.width; at += blockDim.x) k.x[row][at] = k.result[row][at] = T(0);
      if (threadIdx.x == 0) s.report.status[row] = Status::converged;
      if (threadIdx.x == 0) s.new_best[row] = 0;
      return;
    }
    const T* b = k.b[row];
    const auto entry = [b](std::int64_t at, double* values) { values[0] = b[at]; };
    double scale[1], length[1];
    cuda::row_norms(k.norm, k.b.width, entry, scale);
    length[0] = scale[0];
    if (k.norm != Norm::two) cuda::row_norms(Norm::two, k.b.width, entry, length);
    const bool from_zero = scale[0] == 0 || (!k.x0.data && row_math::finite(scale[0]));
    const bool known = from_zero && scale[0] > 0;  // r = b
    const T* x0 = scale[0] == 0 || !k.x0.data ? nullptr : k.x0[row];
    T *x = k.x[row], *r = k.r[row], *result = k.result[row];
    for (std::int64_t at = threadIdx.x; at < k.b.width; at += blockDim.x) {
      x[at] = result[at] = x0 ? x0[at] : T(0);
      if (known) r[at] = b[at];
    }
    if (threadIdx.x != 0) return;
    const double infinity = std::numeric_limits<double>::infinity();
    const double goal = k.rtol ? k.rtol[row] * scale[0] : row_math::goal(scale[0], k.limits);
    s.report.status[row] = Status::running;
    if (!k.go_on_counting) s.report.steps[row] = 0;
    s.report.residual[row] = from_zero ? scale[0] : std::numeric_limits<double>::quiet_NaN();
    s.report.scale[row] = scale[0];
    s.report.rejected[row] = 0;
    s.report.singular[row] = 0;
    s.goal[row] = goal;
    s.residual[row] = scale[0];
    s.length[row] = known ? length[0] : infinity;
    s.before[row] = infinity;
    s.size[row] = 0;
    s.growth[row] = k.form == Operator::identity_minus ? 1 : 0;
    s.best[row] = known ? scale[0] / goal : infinity;
    s.phase[row] = known ? Phase::start : Phase::residual;
    s.answered[row] = Answered::product;
    s.new_best[row] = 0;
  });
}

template <class T>
void run(CudaQueue& queue, const PoseProbe<T>& k) {
  queue.note("PoseProbe", k.rows.count * k.along.width * sizeof(T));
  cuda::for_each_cell(queue, "PoseProbe", k.rows.count, k.along.width, [k] __device__(std::int64_t i, std::int64_t at) {
    k.along[i][at] = static_cast<T>(probe_entry(at));
  });
}

template <class T>
void run(CudaQueue& queue, const TakeProbe<T>& k) {
  const std::int64_t width = k.along.width;
  queue.note("TakeProbe", 2 * k.rows.count * width * sizeof(T));
  cuda::for_each_row(queue, "TakeProbe", k.rows.count, width, 1, [k, width] __device__(std::int64_t i) {
    const T *along = k.along[i], *answer = k.answer[i];
    const double kept = k.form == Operator::identity_minus ? 1 : 0, sign = 1 - 2 * kept;
    double size[1], asked[1];  // of A v = kept v + sign answer, and of v
    cuda::row_norms(
        Norm::two, width,
        [along, answer, kept, sign](std::int64_t at, double* values) {
          values[0] = kept * static_cast<double>(along[at]) + sign * static_cast<double>(answer[at]);
        },
        size);
    cuda::row_norms(Norm::two, width, [along](std::int64_t at, double* values) { values[0] = along[at]; }, asked);
    if (threadIdx.x != 0) return;
    const std::int64_t row = k.rows.ids[i];
    const double growth = size[0] / asked[0];
    if (growth > k.states.growth[row]) k.states.growth[row] = growth;
    if (!row_math::finite(size[0])) k.states.residual[row] = size[0];
    k.states.answered[row] = Answered::product;
  });
}

template <class T>
void run(CudaQueue& queue, const MeasureLinear<T>& k) {
  queue.note("MeasureLinear", k.rows.count * 4 * k.b.width * sizeof(T));
  cuda::for_each_row(queue, "MeasureLinear", k.rows.count, k.b.width, 2, [k] __device__(std::int64_t i) {
    const LinearStates& s = k.states;
    const std::int64_t row = k.rows.ids[i];
    if (!s.running(row) || s.phase[row] != Phase::residual) return;
    const T *b = k.b[row], *x = k.x[row], *answer = k.answer[i];
    const auto residual = [&](std::int64_t at) {
      const double right = b[at], product = answer[at];
      return k.form == Operator::identity_minus ? right + product - x[at] : right - product;
    };
    const auto fill = [&](std::int64_t at, double* values) {
      values[0] = residual(at);
      values[1] = x[at];
    };
    double norms[2], lengths[2];  // of r and x
    cuda::row_norms(Norm::two, k.b.width, fill, lengths);
    norms[0] = lengths[0];
    if (k.norm != Norm::two) cuda::row_largest(k.b.width, fill, norms);
    T* r = k.r[row];
    for (std::int64_t at = threadIdx.x; at < k.b.width; at += blockDim.x) r[at] = static_cast<T>(residual(at));
    if (threadIdx.x != 0) return;
    s.residual[row] = norms[0];
    s.before[row] = s.length[row];
    s.length[row] = lengths[0];
    s.size[row] = lengths[1];
    s.phase[row] = Phase::start;
    s.answered[row] = Answered::measured;
  });
}

template <class T>
void run(CudaQueue& queue, const JudgeLinear<T>& k) {
  queue.note("JudgeLinear", 0);
  cuda::in_one_block(queue, "JudgeLinear", k.rows.count, 2, [k] __device__() {
    const LinearStates& s = k.states;
    double counts[2] = {0, 0}, worst[1] = {0};  // running, failed
    for (std::int64_t i = threadIdx.x; i < k.rows.count; i += blockDim.x) {
      const std::int64_t row = k.rows.ids[i];
      s.new_best[row] = 0;
      if (!s.running(row)) continue;
      const Status status = judge_row(s, row, k.limits, k.max_steps, k.trusting);
      if (status == Status::running) {
        const double ratio = s.residual[row] / s.goal[row];
        counts[0] += 1;
        worst[0] = ratio > worst[0] ? ratio : worst[0];
      } else if (status != Status::converged) {
        counts[1] += 1;
      }
    }
    cuda::block_sum(counts, cuda::shared_doubles());
    cuda::block_max(worst, cuda::shared_doubles());
    if (threadIdx.x != 0) return;
    *s.failed += static_cast<std::int64_t>(counts[1]);
    *k.progress = {.running = static_cast<std::int64_t>(counts[0]), .failed = *s.failed, .worst = worst[0]};
  });
}

template <class T>
void run(CudaQueue& queue, const KeepSolution<T>& k) {
  queue.note("KeepSolution", 0);
  cuda::for_each_cell(queue, "KeepSolution", k.rows.count, k.x.width, [k] __device__(std::int64_t i, std::int64_t at) {
    const std::int64_t row = k.rows.ids[i];
    if (k.states.new_best[row]) k.result[row][at] = k.x[row][at];
  });
}

template <class T>
void run(CudaQueue& queue, const EndLinear<T>& k) {
  queue.note("EndLinear", 0);
  cuda::for_each_entry(queue, "EndLinear", k.rows.count, [k] __device__(std::int64_t i) {
    const std::int64_t row = k.rows.ids[i];
    if (k.states.running(row)) k.states.report.status[row] = k.status;
  });
}

template <class T>
void run(CudaQueue& queue, const TakeDirection<T>& k) {
  queue.note("TakeDirection", k.rows.count * 2 * k.along.width * sizeof(T));
  cuda::for_each_cell(queue, "TakeDirection", k.rows.count, k.along.width,
                      [k] __device__(std::int64_t i, std::int64_t at) {
                        const std::int64_t row = k.rows.ids[i];
                        if (!k.states.running(row) || k.states.phase[row] == Phase::residual) return;
                        k.along[i][at] = k.answer[i][at];
                      });
}

DEQCORE_INSTANTIATE_KERNEL(CudaQueue, BeginLinear);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, PoseProbe);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, TakeProbe);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, MeasureLinear);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, JudgeLinear);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, KeepSolution);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, EndLinear);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, TakeDirection);

}  // namespace deqcore

// SPDX-License-Identifier: Apache-2.0
#include "deqcore/kernels/linear.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "deqcore/kernels/cpu/lanes.hpp"
#include "deqcore/kernels/row_math.hpp"

namespace deqcore {

template <class T>
void run(CpuQueue& queue, const BeginLinear<T>& k) {
  const std::int64_t width = k.b.width, bytes = 5 * width * sizeof(T);
  queue.note("BeginLinear", k.rows.count * bytes);
  *k.states.failed = 0;
  queue.for_blocks(k.rows.count, bytes, [&](std::int64_t first, std::int64_t count) {
    at_simd_level([&](auto simd) __attribute__((always_inline)) {
      constexpr int lanes = lanes::doubles<simd.bytes>;
      const LinearStates& s = k.states;
      for (std::int64_t i = first; i < first + count; ++i) {
        const std::int64_t row = k.number ? i : k.rows.ids[i];
        if (k.number) k.number[i] = static_cast<std::int32_t>(i);
        if (k.taking_part && k.taking_part[row] != Status::running) {
          for (T* to : {k.x[row], k.result[row]}) std::fill_n(to, width, T(0));
          s.report.status[row] = Status::converged;
          s.new_best[row] = 0;
          continue;
        }
        const T* b = k.b[row];
        const auto entry = [=]<int L>(std::int64_t at)
                               __attribute__((always_inline)) { return lanes::load_double<L>(b + at); };
        const double scale = lanes::norm<lanes>(k.norm, width, entry);
        const double length = lanes::norm<lanes>(Norm::two, width, entry);
        const bool from_zero = scale == 0 || (!k.x0.data && std::isfinite(scale));
        T *x = k.x[row], *result = k.result[row];
        for (T* to : {x, result}) {
          if (scale == 0 || !k.x0.data)
            std::fill_n(to, width, T(0));
          else
            std::copy_n(k.x0[row], width, to);
        }
        const double infinity = std::numeric_limits<double>::infinity();
        const double goal = k.rtol ? k.rtol[row] * scale : row_math::goal(scale, k.limits);
        if (from_zero && scale > 0) std::copy_n(b, width, k.r[row]);
        s.report.status[row] = Status::running;
        if (!k.go_on_counting) s.report.steps[row] = 0;
        s.report.residual[row] = from_zero ? scale : std::numeric_limits<double>::quiet_NaN();
        s.report.scale[row] = scale;
        s.report.rejected[row] = 0;
        s.report.singular[row] = 0;
        s.goal[row] = goal;
        s.residual[row] = scale;
        s.length[row] = from_zero && scale > 0 ? length : infinity;
        s.before[row] = infinity;
        s.size[row] = 0;
        s.growth[row] = k.form == Operator::identity_minus ? 1 : 0;
        s.best[row] = from_zero && scale > 0 ? scale / goal : infinity;
        s.phase[row] = from_zero && scale > 0 ? Phase::start : Phase::residual;
        s.answered[row] = Answered::product;
        s.new_best[row] = 0;
      }
    });
  });
}

template <class T>
void run(CpuQueue& queue, const PoseProbe<T>& k) {
  const std::int64_t width = k.along.width;
  queue.note("PoseProbe", k.rows.count * width * sizeof(T));
  for (std::int64_t i = 0; i < k.rows.count; ++i)
    for (std::int64_t at = 0; at < width; ++at) k.along[i][at] = static_cast<T>(probe_entry(at));
}

template <class T>
void run(CpuQueue& queue, const TakeProbe<T>& k) {
  const std::int64_t width = k.along.width, bytes = 2 * width * sizeof(T);
  queue.note("TakeProbe", k.rows.count * bytes);
  queue.for_blocks(k.rows.count, bytes, [&](std::int64_t first, std::int64_t count) {
    at_simd_level([&](auto simd) __attribute__((always_inline)) {
      constexpr int lanes = lanes::doubles<simd.bytes>;
      for (std::int64_t i = first; i < first + count; ++i) {
        const std::int64_t row = k.rows.ids[i];
        const T *along = k.along[i], *answer = k.answer[i];
        const bool minus = k.form == Operator::identity_minus;
        const double size =
            lanes::norm<lanes>(Norm::two, width, [=]<int L>(std::int64_t at) __attribute__((always_inline)) {
              const auto product = lanes::load_double<L>(answer + at);
              return minus ? lanes::load_double<L>(along + at) - product : product;
            });
        const double asked = lanes::norm<lanes>(
            Norm::two, width,
            [=]<int L>(std::int64_t at) __attribute__((always_inline)) { return lanes::load_double<L>(along + at); });
        k.states.growth[row] = std::max(k.states.growth[row], size / asked);
        if (!std::isfinite(size)) k.states.residual[row] = size;
        k.states.answered[row] = Answered::product;
      }
    });
  });
}

template <class T>
void run(CpuQueue& queue, const MeasureLinear<T>& k) {
  const std::int64_t width = k.b.width, bytes = 4 * width * sizeof(T);
  queue.note("MeasureLinear", k.rows.count * bytes);
  queue.for_blocks(k.rows.count, bytes, [&](std::int64_t first, std::int64_t count) {
    at_simd_level([&](auto simd) __attribute__((always_inline)) {
      constexpr int lanes = lanes::doubles<simd.bytes>;
      const LinearStates& s = k.states;
      for (std::int64_t i = first; i < first + count; ++i) {
        const std::int64_t row = k.rows.ids[i];
        if (!s.running(row) || s.phase[row] != Phase::residual) continue;
        const T *b = k.b[row], *x = k.x[row], *answer = k.answer[i];
        const bool minus = k.form == Operator::identity_minus;
        const auto entry = [=]<int L>(std::int64_t at) __attribute__((always_inline)) {
          const auto product = lanes::load_double<L>(answer + at), right = lanes::load_double<L>(b + at);
          return minus ? right + product - lanes::load_double<L>(x + at) : right - product;
        };
        s.residual[row] = lanes::norm<lanes>(k.norm, width, entry);
        s.before[row] = s.length[row];
        s.length[row] = k.norm == Norm::two ? s.residual[row] : lanes::norm<lanes>(Norm::two, width, entry);
        s.size[row] = lanes::norm<lanes>(Norm::two, width, [=]<int L>(std::int64_t at) __attribute__((always_inline)) {
          return lanes::load_double<L>(x + at);
        });
        T* r = k.r[row];
        lanes::sweep<lanes>(width, [&]<int L>(std::int64_t at) __attribute__((always_inline)) {
          simd::store(r + at, __builtin_convertvector(entry.template operator()<L>(at), simd::Vector<T, L>));
        });
        s.phase[row] = Phase::start;
        s.answered[row] = Answered::measured;
      }
    });
  });
}

template <class T>
void run(CpuQueue& queue, const JudgeLinear<T>& k) {
  queue.note("JudgeLinear", 0);
  Progress progress;
  for (std::int64_t i = 0; i < k.rows.count; ++i) {
    const std::int64_t row = k.rows.ids[i];
    k.states.new_best[row] = 0;
    if (!k.states.running(row)) continue;
    const Status status = judge_row(k.states, row, k.limits, k.max_steps, k.trusting);
    if (status == Status::running) {
      progress.running += 1;
      progress.worst = std::max(progress.worst, k.states.residual[row] / k.states.goal[row]);
    } else if (status != Status::converged) {
      *k.states.failed += 1;
    }
  }
  progress.failed = *k.states.failed;
  *k.progress = progress;
}

template <class T>
void run(CpuQueue& queue, const KeepSolution<T>& k) {
  queue.note("KeepSolution", 0);  // once per cycle of a method
  for (std::int64_t i = 0; i < k.rows.count; ++i) {
    const std::int64_t row = k.rows.ids[i];
    if (k.states.new_best[row]) std::copy_n(k.x[row], k.x.width, k.result[row]);
  }
}

template <class T>
void run(CpuQueue& queue, const EndLinear<T>& k) {
  queue.note("EndLinear", 0);
  for (std::int64_t i = 0; i < k.rows.count; ++i) {
    const std::int64_t row = k.rows.ids[i];
    if (k.states.running(row)) k.states.report.status[row] = k.status;
  }
}

template <class T>
void run(CpuQueue& queue, const TakeDirection<T>& k) {
  const std::int64_t width = k.along.width, bytes = 2 * width * sizeof(T);
  queue.note("TakeDirection", k.rows.count * bytes);
  queue.for_blocks(k.rows.count, bytes, [&](std::int64_t first, std::int64_t count) {
    for (std::int64_t i = first; i < first + count; ++i) {
      const std::int64_t row = k.rows.ids[i];
      if (!k.states.running(row) || k.states.phase[row] == Phase::residual) continue;
      std::copy_n(k.answer[i], width, k.along[i]);
    }
  });
}

DEQCORE_INSTANTIATE_KERNEL(CpuQueue, BeginLinear);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, PoseProbe);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, TakeProbe);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, MeasureLinear);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, JudgeLinear);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, KeepSolution);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, EndLinear);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, TakeDirection);

}  // namespace deqcore

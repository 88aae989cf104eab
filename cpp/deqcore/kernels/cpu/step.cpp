// SPDX-License-Identifier: Apache-2.0
#include "deqcore/kernels/step.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <utility>

#include "deqcore/kernels/cpu/lanes.hpp"
#include "deqcore/kernels/row_math.hpp"

namespace deqcore {
namespace {

bool same_bits(double a, double b) {
  return std::bit_cast<std::uint64_t>(a) == std::bit_cast<std::uint64_t>(b);
}

}  // namespace

template <class T>
void run(CpuQueue& queue, const BeginRows<T>& k) {
  queue.note("BeginRows", 0);
  const RowStates& s = k.states;
  *s.failed = 0;
  for (std::int64_t row = 0; row < k.rows; ++row) {
    s.report.status[row] = Status::running;
    s.report.steps[row] = 0;
    s.report.residual[row] = std::numeric_limits<double>::quiet_NaN();
    s.report.scale[row] = k.given_scale ? k.given_scale[row] : 0;
    s.report.rejected[row] = 0;
    s.report.singular[row] = 0;
    s.g_norm[row] = s.f_norm[row] = s.z_norm[row] = 0;
    s.best[row] = std::numeric_limits<double>::infinity();
    s.best_step[row] = 0;
    s.best_at[row] = BestAt::nowhere;
    s.event[row] = Event::none;
    s.frozen[row] = 0;
    k.ids[row] = static_cast<std::int32_t>(row);
  }
}

template <class T>
void run(CpuQueue& queue, const MeasureResidual<T>& k) {
  const std::int64_t width = k.z.width, bytes = 2 * width * sizeof(T);
  queue.note("MeasureResidual", k.rows.count * bytes);
  queue.for_blocks(k.rows.count, bytes, [&](std::int64_t first, std::int64_t count) {
    at_simd_level([&](auto simd) __attribute__((always_inline)) {
      constexpr int lanes = lanes::doubles<simd.bytes>;
      const RowStates& s = k.states;
      for (std::int64_t i = first; i < first + count; ++i) {
        const std::int64_t row = k.rows.ids[i];
        if (!s.running(row)) continue;
        const T *z = k.z[i], *f = k.f[i];
        const double g_before = s.g_norm[row], f_before = s.f_norm[row];
        lanes::norm_both<lanes>(
            k.norm, width,
            [=]<int L>(std::int64_t at) __attribute__((always_inline)) {
              const auto image = lanes::load_double<L>(f + at);
              return std::pair(image - lanes::load_double<L>(z + at), image);
            },
            s.g_norm[row], s.f_norm[row]);
        if (k.first)
          s.z_norm[row] = lanes::norm<lanes>(k.norm, width, [=]<int L>(std::int64_t at) __attribute__((always_inline)) {
            return lanes::load_double<L>(z + at);
          });
        const bool frozen = !k.first && same_bits(s.g_norm[row], g_before) && same_bits(s.f_norm[row], f_before) &&
                            std::memcmp(z, k.z_before[k.rows.from(i)], width * sizeof(T)) == 0;
        s.frozen[row] = frozen ? std::min<std::int8_t>(s.frozen[row] + 1, 2) : 0;
      }
    });
  });
}

template <class T>
void run(CpuQueue& queue, const JudgeRows<T>& k) {
  queue.note("JudgeRows", 0);
  const RowStates& s = k.states;
  Progress progress;
  for (std::int64_t i = 0; i < k.rows.count; ++i) {
    const std::int64_t row = k.rows.ids[i];
    s.event[row] = Event::none;
    if (!s.running(row)) continue;
    const std::int32_t steps = ++s.report.steps[row];
    if (s.report.trace) s.report.trace[(steps - 1) * s.report.trace_pitch + row] = s.g_norm[row];
    const row_math::Verdict verdict = row_math::judge({.g = s.g_norm[row],
                                                       .f = s.f_norm[row],
                                                       .z = s.z_norm[row],
                                                       .scale = s.report.scale[row],
                                                       .best = s.best[row],
                                                       .steps = steps,
                                                       .best_step = s.best_step[row],
                                                       .frozen = s.frozen[row]},
                                                      k.limits, k.max_steps, k.patience);
    const bool at_noise = s.report.residual[row] < k.limits.noise * verdict.scale;
    const Status status = status_after(k.trials.of(row), verdict.status, at_noise, steps >= k.max_steps);
    s.report.status[row] = status;
    s.report.scale[row] = verdict.scale;
    s.event[row] = verdict.new_best ? Event::new_best : Event::measured;
    if (verdict.new_best) {
      s.best[row] = verdict.ratio;
      s.best_step[row] = steps;
      s.report.residual[row] = s.g_norm[row];
    }
    if (status == Status::running) {
      progress.running += 1;
      progress.worst = std::max(progress.worst, verdict.ratio);
    } else if (status != Status::converged) {
      *s.failed += 1;
    }
  }
  progress.failed = *s.failed;
  *k.progress = progress;
}

template <class T>
void run(CpuQueue& queue, const KeepBest<T>& k) {
  queue.note("KeepBest", 0);  // a row moves once or twice in a whole solve
  for (std::int64_t i = 0; i < k.rows.count; ++i) {
    const std::int64_t row = k.rows.ids[i];
    const RowStates& s = k.states;
    if (s.event[row] == Event::none) continue;
    const bool ended = !s.running(row);
    if (s.event[row] == Event::new_best) {
      s.best_at[row] = BestAt::block;
      if (ended) std::copy_n(k.z[i], k.z.width, k.result[row]);
    } else if (s.best_at[row] == BestAt::block) {
      std::copy_n(k.z_before[k.rows.from(i)], k.z.width, k.result[row]);
      s.best_at[row] = BestAt::result;
    } else if (s.best_at[row] == BestAt::nowhere) {  // the very first answer was not finite
      std::copy_n(k.z[i], k.z.width, k.result[row]);
    }
  }
}

template <class T>
void run(CpuQueue& queue, const HoldRows<T>& k) {
  queue.note("HoldRows", 0);
  for (std::int64_t i = 0; i < k.rows.count; ++i)
    if (!k.states.running(k.rows.ids[i])) std::copy_n(k.z[k.rows.from(i)], k.z.width, k.next[i]);
}

template <class T>
void run(CpuQueue& queue, const EndRows<T>& k) {
  queue.note("EndRows", 0);
  for (std::int64_t i = 0; i < k.rows.count; ++i) {
    const std::int64_t row = k.rows.ids[i];
    const RowStates& s = k.states;
    if (!s.running(row)) continue;
    s.report.status[row] = k.status;
    if (s.best_at[row] == BestAt::block) std::copy_n(k.z_before[k.rows.from(i)], k.z.width, k.result[row]);
    if (s.best_at[row] == BestAt::nowhere) std::copy_n(k.z[i], k.z.width, k.result[row]);
  }
}

template <class T>
void run(CpuQueue& queue, const SelectRows<T>& k) {
  queue.note("SelectRows", 0);
  std::int64_t fill = k.keep - k.running, to = 0;
  for (std::int64_t i = 0; i < k.rows.count; ++i) {
    const std::int32_t row = k.rows.ids[i];
    if (k.status[row] != Status::running && fill-- <= 0) continue;
    k.ids[to] = row;
    k.source[to] = static_cast<std::int32_t>(i);
    ++to;
  }
}

DEQCORE_INSTANTIATE_KERNEL(CpuQueue, BeginRows);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, MeasureResidual);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, JudgeRows);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, KeepBest);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, HoldRows);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, EndRows);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, SelectRows);

}  // namespace deqcore

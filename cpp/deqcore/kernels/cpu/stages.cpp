// SPDX-License-Identifier: Apache-2.0
#include "deqcore/kernels/stages.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>

#include "deqcore/kernels/cpu/lanes.hpp"
#include "deqcore/kernels/row_math.hpp"

namespace deqcore {
namespace {

// A sum over stages: those with a weight.
template <class T>
struct Terms {
  const T* stage[most_stages];
  T weight[most_stages];
  int count = 0;

  void add(const T* from, double factor) {
    if (factor == 0) return;
    stage[count] = from;
    weight[count++] = static_cast<T>(factor);
  }
};

// The sum at elements [at, at + Count vectors): each term is looked up once for all of them.
template <class V, int Count, class T>
[[gnu::always_inline]] inline void sum_terms(const Terms<T>& terms, std::int64_t at, V (&sums)[Count]) {
  constexpr std::int64_t lanes = sizeof(V) / sizeof(T);
  for (V& sum : sums) sum = V{};
  for (int k = 0; k < terms.count; ++k) {
    const T* stage = terms.stage[k] + at;
    const T weight = terms.weight[k];
#pragma GCC unroll 4
    for (std::int64_t v = 0; v < Count; ++v) sums[v] += weight * simd::load<V>(stage + v * lanes);
  }
}

// take<V>(at, sum) for every element, from the first to the last.
template <int Lanes, class T, class Take>
[[gnu::always_inline]] inline void sweep_sums(const Terms<T>& terms, std::int64_t n, const Take& take) {
  using V = simd::Vector<T, Lanes>;
  using One = simd::Vector<T, 1>;
  std::int64_t at = 0;
  constexpr std::int64_t block = std::int64_t{4} * Lanes;
  for (; at + block <= n; at += block) {
    V sums[4];
    sum_terms(terms, at, sums);
#pragma GCC unroll 4
    for (std::int64_t v = 0; v < 4; ++v) take(at + v * Lanes, sums[v]);
  }
  for (; at + Lanes <= n; at += Lanes) {
    V sums[1];
    sum_terms(terms, at, sums);
    take(at, sums[0]);
  }
  for (; at < n; ++at) {
    One sums[1];
    sum_terms(terms, at, sums);
    take(at, sums[0]);
  }
}

// F at a point: the answer, or with Relax the answer minus the point.
template <class V, bool Relax, class T>
[[gnu::always_inline]] inline V field(const T* answer, const T* at, std::int64_t j) {
  V value = simd::load<V>(answer + j);
  if constexpr (Relax) value -= simd::load<V>(at + j);
  return value;
}

// body(std::bool_constant<flag>)
template <class Body>
[[gnu::always_inline]] inline void with_flag(bool flag, const Body& body) {
  if (flag)
    body(std::true_type{});
  else
    body(std::false_type{});
}

template <class V>
[[gnu::always_inline]] inline auto widened(const V& v) {
  constexpr int lanes = sizeof(V) / sizeof(v[0]);
  simd::Vector<double, lanes> wide;
  for (int k = 0; k < lanes; ++k) wide[k] = static_cast<double>(v[k]);
  return wide;
}

// atol + rtol |v|
template <class V>
[[gnu::always_inline]] inline V tolerance(double atol, double rtol, const V& v) {
  return atol + rtol * (v < 0 ? -v : v);
}

// The mean of (h value / tolerance)^2 over a row, finite where both are: squares and quotients that leave the range of
// double are avoided on further passes, which hardly ever happen.
template <int Lanes, class Value, class Tolerance>
[[gnu::always_inline]] inline double mean_square(std::int64_t width, double h, const Value& value,
                                                 const Tolerance& tolerance) {
  const auto scaled = [&]<int L>(std::int64_t j) __attribute__((always_inline)) {
    const auto of = value.template operator()<L>(j);
    return of / tolerance.template operator()<L>(j);
  };
  const double squares = lanes::sum<Lanes>(width, [&]<int L>(std::int64_t j) __attribute__((always_inline)) {
    const auto v = scaled.template operator()<L>(j);
    return v * v;
  });
  const double mean = h * h * squares / static_cast<double>(width);
  if (mean > lanes::smallest_square_sum && mean < row_math::most_mean) [[likely]]
    return mean;
  double norm = lanes::root<Lanes>(squares, width, scaled);
  const auto finite = [=](const auto& of)
                          __attribute__((always_inline)) { return std::isfinite(lanes::largest<Lanes>(width, of)); };
  if (!std::isfinite(norm) && finite(value) && finite(tolerance)) norm = row_math::most_mean;
  return row_math::mean_square(h, norm, width);
}

template <class T>
void fill_unreached(const OdeStates& s, std::int64_t row, std::int32_t count, Rows<T> values, std::int64_t stride) {
  for (std::int64_t time = s.next[row]; time < count; ++time)
    std::fill_n(values[row] + time * stride, values.width, std::numeric_limits<T>::quiet_NaN());
}

double mean(const double* values, std::int64_t count) {
  double sum = 0;
  for (std::int64_t i = 0; i < count; ++i) sum += values[i];
  return sum / static_cast<double>(count);
}

}  // namespace

template <class T>
void run(CpuQueue& queue, const BeginOde<T>& k) {
  queue.note("BeginOde", 0);
  const OdeStates& s = k.states;
  const double* times = k.rules.times;
  *s.failed = 0;
  for (std::int64_t row = 0; row < k.rows; ++row) {
    s.report.status[row] = Status::running;
    s.report.evaluations[row] = s.report.accepted[row] = s.report.rejected[row] = 0;
    s.report.reached[row] = times[0];
    s.h[row] = k.rules.begin();
    s.taken[row] = 0;
    s.before[row] = times[0];
    s.measure[row] = s.slope[row] = 0;
    s.from[row] = s.next[row] = 1;
    s.swapped[row] = s.after_rejection[row] = 0;
    s.event[row] = StepEvent::none;
    k.ids[row] = static_cast<std::int32_t>(row);
  }
}

template <class T>
void run(CpuQueue& queue, const MeasureStart<T>& k) {
  const std::int64_t width = k.at.width, bytes = 3 * width * sizeof(T);
  queue.note("MeasureStart", k.rows.count * bytes);
  queue.for_blocks(k.rows.count, bytes, [&](std::int64_t first, std::int64_t count) {
    at_simd_level([&](auto simd) __attribute__((always_inline)) {
      constexpr int lanes = lanes::doubles<simd.bytes>;
      for (std::int64_t i = first; i < first + count; ++i) {
        const std::int64_t row = k.rows.ids[i];
        if (!k.states.running(row)) continue;
        const T *z = k.at[i], *answer = k.answer[i];
        T* F = k.stages.at(0, k.states.swapped[row], row);
        for (std::int64_t j = 0; j < width; ++j) F[j] = k.relax ? answer[j] - z[j] : answer[j];
        const double atol = k.atol, rtol = k.rtol;
        const auto mean_of = [=](const T* of) __attribute__((always_inline)) {
          return mean_square<lanes>(
              width, 1.0,
              [=]<int L>(std::int64_t at) __attribute__((always_inline)) { return lanes::load_double<L>(of + at); },
              [=]<int L>(std::int64_t at)
                  __attribute__((always_inline)) { return tolerance(atol, rtol, lanes::load_double<L>(z + at)); });
        };
        k.states.measure[row] = mean_of(z);
        k.states.slope[row] = mean_of(F);
        k.states.report.evaluations[row] += 1;
      }
    });
  });
}

template <class T>
void run(CpuQueue& queue, const MeasureProbe<T>& k) {
  const std::int64_t width = k.at.width, bytes = 4 * width * sizeof(T);
  queue.note("MeasureProbe", k.rows.count * bytes);
  queue.for_blocks(k.rows.count, bytes, [&](std::int64_t first, std::int64_t count) {
    at_simd_level([&](auto simd) __attribute__((always_inline)) {
      constexpr int lanes = lanes::doubles<simd.bytes>;
      for (std::int64_t i = first; i < first + count; ++i) {
        const std::int64_t row = k.rows.ids[i];
        if (!k.states.running(row)) continue;
        const T *z = k.z[row], *at_probe = k.at[i], *answer = k.answer[i],
                *F = k.stages.at(0, k.states.swapped[row], row);
        const double atol = k.atol, rtol = k.rtol;
        const bool relax = k.relax;
        k.states.measure[row] = mean_square<lanes>(
            width, 1.0,
            [=]<int L>(std::int64_t at) __attribute__((always_inline)) {
              auto change = lanes::load_double<L>(answer + at) - lanes::load_double<L>(F + at);
              if (relax) change -= lanes::load_double<L>(at_probe + at);
              return change;
            },
            [=]<int L>(std::int64_t at)
                __attribute__((always_inline)) { return tolerance(atol, rtol, lanes::load_double<L>(z + at)); });
        k.states.report.evaluations[row] += 1;
      }
    });
  });
}

template <class T>
void run(CpuQueue& queue, const JudgeStart<T>& k) {
  queue.note("JudgeStart", 0);
  const OdeStates& s = k.states;
  const bool batch = k.rules.batch_measure != nullptr;
  const double whole = batch ? mean(k.rules.batch_measure, k.rules.batch) : 0;
  const double whole_slope = batch ? mean(k.rules.batch_slope, k.rules.batch) : 0;
  std::int64_t running = 0;
  for (std::int64_t i = 0; i < k.rows.count; ++i) {
    const std::int64_t row = k.rows.ids[i];
    if (!s.running(row)) continue;
    *s.failed += 1;
    begin_step(k.rules, s, row, k.probed, batch ? whole : s.measure[row], batch ? whole_slope : s.slope[row]);
    if (!s.running(row)) continue;
    running += 1;
    *s.failed -= 1;
  }
  *k.progress = {.running = running, .failed = *s.failed};
}

template <class T>
void run(CpuQueue& queue, const PoseStage<T>& k) {
  const std::int64_t width = k.at.width, bytes = (k.stage + 4) * width * sizeof(T);
  queue.note("PoseStage", k.rows.count * bytes);
  queue.for_blocks(k.rows.count, bytes, [&](std::int64_t first, std::int64_t count) {
    at_simd_level([&](auto simd) __attribute__((always_inline)) {
      constexpr int lanes = simd.bytes / sizeof(T);
      for (std::int64_t i = first; i < first + count; ++i) {
        const std::int64_t row = k.rows.ids[i];
        const T* z = k.z[row];
        T* at = k.at[i];
        const double t = k.states.report.reached[row];
        if (!k.states.running(row)) {
          std::copy_n(z, width, at);
          k.time[i] = t;
          continue;
        }
        const double h = k.states.h[row];
        const bool swapped = k.states.swapped[row], taking = k.answer.data != nullptr;
        k.time[i] = t + k.c * h;
        Terms<T> terms;
        for (int j = 0; j < (taking ? k.stage : k.stages.stages); ++j)
          terms.add(k.stages.at(j, swapped, row), h * k.weights[j]);
        if (!taking) {
          sweep_sums<lanes>(terms, width, [=]<class V>(std::int64_t j, const V& sum) __attribute__((always_inline)) {
            simd::store(at + j, simd::load<V>(z + j) + sum);
          });
          continue;
        }
        const T *answer = k.answer[k.rows.from(i)], *asked = k.asked[k.rows.from(i)];
        T* F = k.stages.at(k.stage, swapped, row);
        const T own = static_cast<T>(h * k.weights[k.stage]);
        with_flag(k.relax, [&](auto flag) __attribute__((always_inline)) {
          constexpr bool relax = decltype(flag)::value;
          sweep_sums<lanes>(terms, width, [=]<class V>(std::int64_t j, const V& sum) __attribute__((always_inline)) {
            const V value = field<V, relax>(answer, asked, j);
            simd::store(F + j, value);
            simd::store(at + j, simd::load<V>(z + j) + (sum + own * value));
          });
        });
        k.states.report.evaluations[row] += 1;
      }
    });
  });
}

template <class T>
void run(CpuQueue& queue, const MeasureStep<T>& k) {
  const std::int64_t width = k.at.width, reads = k.fixed ? 1 : k.stages.stages + 3, bytes = reads * width * sizeof(T);
  queue.note("MeasureStep", k.rows.count * bytes);
  queue.for_blocks(k.rows.count, bytes, [&](std::int64_t first, std::int64_t count) {
    at_simd_level([&](auto simd) __attribute__((always_inline)) {
      constexpr int lanes = lanes::doubles<simd.bytes>;
      for (std::int64_t i = first; i < first + count; ++i) {
        const std::int64_t row = k.rows.ids[i];
        if (!k.states.running(row)) continue;
        const T* at = k.at[i];
        if (k.fixed) {
          k.states.measure[row] = lanes::sum<lanes>(width, [=]<int L>(std::int64_t j) __attribute__((always_inline)) {
            return 0 * lanes::load_double<L>(at + j);
          });
          continue;
        }
        const T *z = k.z[row], *answer = k.answer[i];
        const bool swapped = k.states.swapped[row];
        const int last = k.stages.stages - 1;
        T* F = k.stages.at(last, swapped, row);
        Terms<T> terms;
        for (int j = 0; j < last; ++j) terms.add(k.stages.at(j, swapped, row), k.errors[j]);
        const T own = static_cast<T>(k.errors[last]);
        const double atol = k.atol, rtol = k.rtol;
        const double h = k.states.h[row];
        double mean = 0;
        with_flag(k.relax, [&](auto flag) __attribute__((always_inline)) {
          constexpr bool relax = decltype(flag)::value;
          mean = mean_square<lanes>(
              width, h,
              [=, &terms]<int L>(std::int64_t j) __attribute__((always_inline)) {
                using V = simd::Vector<T, L>;
                const V value = field<V, relax>(answer, at, j);
                simd::store(F + j, value);
                V sums[1];
                sum_terms(terms, j, sums);
                return widened(V(sums[0] + own * value));
              },
              [=]<int L>(std::int64_t j) __attribute__((always_inline)) {
                auto old = lanes::load_double<L>(z + j), fresh = lanes::load_double<L>(at + j);
                old = old < 0 ? -old : old;
                fresh = fresh < 0 ? -fresh : fresh;
                return atol + rtol * (old > fresh ? old : fresh);
              });
        });
        k.states.measure[row] = mean;
        k.states.report.evaluations[row] += 1;
      }
    });
  });
}

template <class T>
void run(CpuQueue& queue, const JudgeStep<T>& k) {
  queue.note("JudgeStep", 0);
  const OdeStates& s = k.states;
  const bool batch = k.rules.batch_measure != nullptr;
  const double whole = batch ? mean(k.rules.batch_measure, k.rules.batch) : 0;
  std::int64_t running = 0;
  for (std::int64_t i = 0; i < k.rows.count; ++i) {
    const std::int64_t row = k.rows.ids[i];
    s.event[row] = StepEvent::none;
    if (!s.running(row)) continue;
    const double error = std::sqrt(batch ? whole : s.measure[row]);
    end_step(k.rules, s, row, k.stages.swaps, error, row_math::step_factor(error, k.rules.order));
    running += s.running(row) ? 1 : 0;
    *s.failed += s.report.status[row] < Status::converged ? 1 : 0;
  }
  *k.progress = {.running = running, .failed = *s.failed};
}

template <class T>
void run(CpuQueue& queue, const TakeStep<T>& k) {
  const std::int64_t width = k.z.width, bytes = 2 * width * sizeof(T);
  queue.note("TakeStep", k.rows.count * bytes);
  queue.for_blocks(k.rows.count, bytes, [&](std::int64_t first, std::int64_t count) {
    at_simd_level([&](auto simd) __attribute__((always_inline)) {
      constexpr int lanes = simd.bytes / sizeof(T);
      for (std::int64_t i = first; i < first + count; ++i) {
        const std::int64_t row = k.rows.ids[i];
        const OdeStates& s = k.states;
        if (s.event[row] == StepEvent::accepted) {
          T* z = k.z[row];
          const T* at = k.at[k.rows.from(i)];
          for (std::int32_t time = s.from[row]; time < s.next[row]; ++time) {
            T* value = k.values[row] + time * k.stride;
            if (k.times[time] == s.report.reached[row]) {
              std::copy_n(at, width, value);
              continue;
            }
            Terms<T> terms;
            const double h = s.taken[row], theta = (k.times[time] - s.before[row]) / h;
            for (int j = 0; j < k.stages.stages; ++j)  // the judgement has already swapped the stages
              terms.add(k.stages.at(j, !s.swapped[row], row), h * stage_weight(k.powers[j], theta));
            sweep_sums<lanes>(terms, width, [=]<class V>(std::int64_t j, const V& sum) __attribute__((always_inline)) {
              simd::store(value + j, simd::load<V>(z + j) + sum);
            });
          }
          std::copy_n(at, width, z);
        }
        if (s.event[row] != StepEvent::none && s.report.status[row] < Status::converged)
          fill_unreached(s, row, k.count, k.values, k.stride);
      }
    });
  });
}

template <class T>
void run(CpuQueue& queue, const BeginPseudo<T>& k) {
  queue.note("BeginPseudo", 0);
  const OdeStates& s = k.states;
  for (std::int64_t row = 0; row < k.rows; ++row) {
    s.report.evaluations[row] = 0;
    s.report.reached[row] = s.before[row] = s.taken[row] = s.measure[row] = 0;
    s.h[row] = k.h;
    s.from[row] = s.next[row] = 0;
    s.swapped[row] = s.after_rejection[row] = 0;
    s.event[row] = StepEvent::accepted;
  }
}

template <class T>
void run(CpuQueue& queue, const MeasurePseudo<T>& k) {
  const std::int64_t width = k.at.width, bytes = (k.stages.stages + 2) * width * sizeof(T);
  queue.note("MeasurePseudo", k.rows.count * bytes);
  queue.for_blocks(k.rows.count, bytes, [&](std::int64_t first, std::int64_t count) {
    at_simd_level([&](auto simd) __attribute__((always_inline)) {
      constexpr int lanes = lanes::doubles<simd.bytes>;
      for (std::int64_t i = first; i < first + count; ++i) {
        const std::int64_t row = k.rows.ids[i];
        if (!k.states.running(row)) continue;
        const T *at = k.at[i], *answer = k.answer[i], *z = k.z[row];
        const bool swapped = k.states.swapped[row];
        const int last = k.stages.stages - 1;
        const T* first_stage = k.stages.at(0, swapped, row);
        T* F = k.stages.at(last, swapped, row);
        Terms<T> terms;
        for (int j = 0; j < last; ++j) terms.add(k.stages.at(j, swapped, row), k.errors[j]);
        const T own = static_cast<T>(k.errors[last]);
        const auto error_at = [=, &terms]<int L>(std::int64_t j) __attribute__((always_inline)) {
          using V = simd::Vector<T, L>;
          const V value = field<V, true>(answer, at, j);
          simd::store(F + j, value);
          V sums[1];
          sum_terms(terms, j, sums);
          return widened(V(sums[0] + own * value));
        };
        const double error = lanes::norm<lanes>(Norm::two, width, error_at);
        const double slope =
            lanes::norm<lanes>(Norm::two, width, [=]<int L>(std::int64_t j) __attribute__((always_inline)) {
              return lanes::load_double<L>(first_stage + j);
            });
        const double ratio = error == 0 ? 0 : error / slope / k.accuracy;
        k.states.measure[row] = ratio * ratio;
        k.trial[row] = Trial::no;
        if (takes_pseudo_step(ratio * ratio)) continue;
        const double size = lanes::norm<lanes>(
            Norm::two, width,
            [=]<int L>(std::int64_t j) __attribute__((always_inline)) { return lanes::load_double<L>(z + j); });
        k.trial[row] = after_pseudo_step<T>(k.states.h[row], size, slope);
      }
    });
  });
}

template <class T>
void run(CpuQueue& queue, const JudgePseudo<T>& k) {
  queue.note("JudgePseudo", 0);
  for (std::int64_t i = 0; i < k.rows.count; ++i) {
    const std::int64_t row = k.rows.ids[i];
    k.states.event[row] = StepEvent::none;
    if (k.states.running(row)) end_pseudo_step(k.states, row, k.order, k.states.measure[row]);
  }
}

template <class T>
void run(CpuQueue& queue, const EndOde<T>& k) {
  queue.note("EndOde", 0);
  for (std::int64_t i = 0; i < k.rows.count; ++i) {
    const std::int64_t row = k.rows.ids[i];
    if (!k.states.running(row)) continue;
    k.states.report.status[row] = k.status;
    fill_unreached(k.states, row, k.count, k.values, k.stride);
  }
}

DEQCORE_INSTANTIATE_KERNEL(CpuQueue, BeginOde);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, MeasureStart);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, MeasureProbe);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, JudgeStart);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, PoseStage);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, MeasureStep);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, JudgeStep);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, TakeStep);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, BeginPseudo);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, MeasurePseudo);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, JudgePseudo);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, EndOde);

}  // namespace deqcore

// SPDX-License-Identifier: Apache-2.0
#include "deqcore/kernels/newton.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "deqcore/kernels/cpu/lanes.hpp"
#include "deqcore/kernels/cpu/lu_factor.hpp"

namespace deqcore {

template <class T>
void run(CpuQueue& queue, const BeginNewton<T>& k) {
  queue.note("BeginNewton", 0);
  const NewtonStates& s = k.states;
  for (std::int64_t row = 0; row < k.rows; ++row) {
    s.report.status[row] = s.turn[row] = Status::running;
    s.report.steps[row] = 0;
    s.report.residual[row] = std::numeric_limits<double>::quiet_NaN();
    s.report.scale[row] = k.given_scale ? k.given_scale[row] : 0.0;
    s.report.rejected[row] = 0;
    s.report.singular[row] = 0;
    s.taken[row] = Taken::no;
    s.length[row] = std::numeric_limits<double>::infinity();
    s.forcing[row] = k.rules.fixed_forcing > 0 ? k.rules.fixed_forcing : newton::first_forcing;
    s.along_step[row] = s.along_descent[row] = 0;
    if (k.rules.dogleg) {
      k.dogleg.radius[row] = 0;
      std::fill_n(k.dogleg.weights + row * k.width, k.width, 0.0);
    }
    k.ids[row] = static_cast<std::int32_t>(row);
  }
}

template <class T>
void run(CpuQueue& queue, const MeasureTrial<T>& k) {
  const std::int64_t width = k.at.width, bytes = 2 * width * sizeof(T);
  queue.note("MeasureTrial", k.rows.count * bytes);
  queue.for_blocks(k.rows.count, bytes, [&](std::int64_t first, std::int64_t count) {
    at_simd_level([&](auto simd) __attribute__((always_inline)) {
      constexpr int lanes = lanes::doubles<simd.bytes>;
      const NewtonStates& s = k.states;
      for (std::int64_t i = first; i < first + count; ++i) {
        const std::int64_t row = k.rows.ids[i];
        if (s.turn[row] != Status::running) continue;
        const T *z = k.at[i], *f = k.answer[i];
        const bool root = k.form == Operator::matrix;
        const auto point = [=]<int L>(std::int64_t at)
                               __attribute__((always_inline)) { return lanes::load_double<L>(z + at); };
        const auto image = [=]<int L>(std::int64_t at)
                               __attribute__((always_inline)) { return lanes::load_double<L>(f + at); };
        const auto residual = [=]<int L>(std::int64_t at) __attribute__((always_inline)) {
          const auto answer = lanes::load_double<L>(f + at);
          return root ? answer : answer - lanes::load_double<L>(z + at);
        };
        s.g_norm[row] = lanes::norm<lanes>(k.norm, width, residual);
        s.f_norm[row] = lanes::norm<lanes>(k.norm, width, image);
        s.z_norm[row] = lanes::norm<lanes>(k.norm, width, point);
        const bool two = k.norm == Norm::two;
        s.trial[row] = two ? s.g_norm[row] : lanes::norm<lanes>(Norm::two, width, residual);
        s.trial_size[row] = two ? s.z_norm[row] : lanes::norm<lanes>(Norm::two, width, point);
      }
    });
  });
}

template <class T>
void run(CpuQueue& queue, const JudgeTrial<T>& k) {
  queue.note("JudgeTrial", 0);
  const NewtonStates& s = k.states;
  Progress progress;
  for (std::int64_t i = 0; i < k.rows.count; ++i) {
    const std::int64_t row = k.rows.ids[i];
    const bool asked = s.turn[row] == Status::running;
    if (!s.running(row)) continue;
    Status status = Status::running;
    if (asked) {
      status = judge_trial(s, k.dogleg, row, k.limits, k.rules);
      s.report.status[row] = status;
      const bool again = status == Status::running && s.taken[row] == Taken::no;
      s.turn[row] = again ? Status::running : Status::converged;
      progress.again += again ? 1 : 0;
    }
    if (status != Status::running) continue;
    progress.running += 1;
    progress.worst = std::max(progress.worst, s.best[row]);
  }
  for (std::int64_t row = 0; row < k.batch; ++row) progress.failed += s.report.status[row] < Status::converged ? 1 : 0;
  *k.progress = progress;
}

template <class T>
void run(CpuQueue& queue, const CountNewton<T>& k) {
  queue.note("CountNewton", 0);
  Progress progress;
  for (std::int64_t i = 0; i < k.rows.count; ++i) {
    const std::int64_t row = k.rows.ids[i];
    if (!k.states.running(row)) continue;
    progress.running += 1;
    progress.worst = std::max(progress.worst, k.states.best[row]);
  }
  for (std::int64_t row = 0; row < k.batch; ++row)
    progress.failed += k.states.report.status[row] < Status::converged ? 1 : 0;
  *k.progress = progress;
}

template <class T>
void run(CpuQueue& queue, const TakeTrial<T>& k) {
  const std::int64_t width = k.at.width, bytes = 5 * width * sizeof(T);
  queue.note("TakeTrial", k.rows.count * bytes);
  queue.for_blocks(k.rows.count, bytes, [&](std::int64_t first, std::int64_t count) {
    for (std::int64_t i = first; i < first + count; ++i) {
      const std::int64_t row = k.rows.ids[i];
      const Taken taken = k.states.taken[row];
      if (taken == Taken::no) continue;
      k.states.taken[row] = Taken::no;
      const T *at = k.at[i], *answer = k.answer[i];
      T *z = k.z[row], *r = k.r[row], *result = k.result[row];
      const bool root = k.form == Operator::matrix;
      for (std::int64_t j = 0; j < width; ++j) {
        z[j] = at[j];
        r[j] = root ? -answer[j] : answer[j] - at[j];
      }
      if (taken == Taken::as_best) std::copy_n(at, width, result);
    }
  });
}

template <class T>
void run(CpuQueue& queue, const StartTrial<T>& k) {
  queue.note("StartTrial", 0);
  for (std::int64_t i = 0; i < k.rows.count; ++i) start_trial(k.linear, k.states, k.rows.ids[i]);
}

template <class T>
void run(CpuQueue& queue, const PoseTrial<T>& k) {
  const std::int64_t width = k.at.width, bytes = 3 * width * sizeof(T);
  queue.note("PoseTrial", k.rows.count * bytes);
  queue.for_blocks(k.rows.count, bytes, [&](std::int64_t first, std::int64_t count) {
    for (std::int64_t i = first; i < first + count; ++i) {
      const std::int64_t row = k.rows.ids[i];
      const T *z = k.z[row], *step = k.step[row];
      T* at = k.at[i];
      if (k.states.turn[row] != Status::running) {
        std::copy_n(z, width, at);
        continue;
      }
      const double a = k.states.along_step[row], b = k.states.along_descent[row];
      const double* descent = k.descent ? k.descent + row * width : nullptr;
      for (std::int64_t j = 0; j < width; ++j) {
        double move = a == 0 ? 0.0 : a * static_cast<double>(step[j]);
        if (descent && b != 0) move += b * descent[j];
        at[j] = static_cast<T>(static_cast<double>(z[j]) + move);
      }
    }
  });
}

template <class T>
void run(CpuQueue& queue, const PoseDifference<T>& k) {
  const std::int64_t width = k.at.width, bytes = 4 * width * sizeof(T);
  queue.note("PoseDifference", k.rows.count * bytes);
  queue.for_blocks(k.rows.count, bytes, [&](std::int64_t first, std::int64_t count) {
    at_simd_level([&](auto simd) __attribute__((always_inline)) {
      constexpr int lanes = lanes::doubles<simd.bytes>;
      for (std::int64_t i = first; i < first + count; ++i) {
        const std::int64_t row = k.rows.ids[i];
        const T *z = k.z[row], *along = k.along[i];
        const double length = lanes::norm<lanes>(
            Norm::two, width,
            [=]<int L>(std::int64_t at) __attribute__((always_inline)) { return lanes::load_double<L>(along + at); });
        const double h = k.h[i] = difference_step<T>(k.form, k.states.size[row], k.states.length[row], length);
        T* at = k.at[i];
        for (std::int64_t j = 0; j < width; ++j)
          at[j] = static_cast<T>(static_cast<double>(z[j]) + h * static_cast<double>(along[j]));
      }
    });
  });
}

template <class T>
void run(CpuQueue& queue, const TakeDifference<T>& k) {
  const std::int64_t width = k.product.width, bytes = 4 * width * sizeof(T);
  queue.note("TakeDifference", k.rows.count * bytes);
  queue.for_blocks(k.rows.count, bytes, [&](std::int64_t first, std::int64_t count) {
    for (std::int64_t i = first; i < first + count; ++i) {
      const std::int64_t row = k.rows.ids[i];
      const T *z = k.z[row], *r = k.r[row], *answer = k.answer[i];
      T* product = k.product[i];
      const double keep = k.form == Operator::matrix ? 0 : 1, sign = 2 * keep - 1;  // f = z + r, F = -r
      for (std::int64_t j = 0; j < width; ++j) {
        const double before = keep * static_cast<double>(z[j]) + sign * static_cast<double>(r[j]);
        product[j] = static_cast<T>((static_cast<double>(answer[j]) - before) / k.h[i]);
      }
    }
  });
}

template <class T>
void run(CpuQueue& queue, const PoseUnit<T>& k) {
  queue.note("PoseUnit", k.along.rows * k.along.width * sizeof(T));
  for (std::int64_t i = 0; i < k.along.rows; ++i) {
    std::fill_n(k.along[i], k.along.width, T(0));
    k.along[i][k.column] = T(1);
  }
}

template <class T>
void run(CpuQueue& queue, const KeepJacobian<T>& k) {
  const std::int64_t n = k.answer.width, bytes = n * (sizeof(T) + sizeof(double));
  queue.note("KeepJacobian", k.rows.count * bytes);
  for (std::int64_t i = 0; i < k.rows.count; ++i) {
    const std::int64_t row = k.rows.ids[i];
    if (!k.states.running(row)) continue;
    const T* answer = k.answer[i];
    double* to = k.dogleg.matrix + (row * n + k.column) * n;
    for (std::int64_t j = 0; j < n; ++j) {
      const auto entry = static_cast<double>(answer[j]);
      to[j] = k.form == Operator::matrix ? entry : (j == k.column ? 1.0 : 0.0) - entry;
    }
    count_product(k.states, row);
  }
}

template <class T>
void run(CpuQueue& queue, const FactorJacobian<T>& k) {
  const std::int64_t n = k.z.width, bytes = n * n * static_cast<std::int64_t>(sizeof(double));
  queue.note("FactorJacobian", k.rows.count * bytes);
  queue.for_blocks(k.rows.count, bytes * n / 8, [&](std::int64_t first, std::int64_t count) {
    const Dogleg& d = k.dogleg;
    for (std::int64_t i = first; i < first + count; ++i) {
      const std::int64_t row = k.rows.ids[i];
      if (!k.states.running(row)) continue;
      double *B = d.matrix + row * n * n, *weights = d.weights + row * n, *descent = d.descent + row * n;
      double* work = d.work + row * n;
      const T *z = k.z[row], *r = k.r[row];
      T* step = k.step[row];
      DoglegSums sums;
      std::fill_n(work, n, 0.0);
      for (std::int64_t j = 0; j < n; ++j) {
        double* const column = B + j * n;
        double square = 0, with_r = 0;
        for (std::int64_t at = 0; at < n; ++at) square += column[at] * column[at];
        weights[j] = next_weight(weights[j], std::sqrt(square));
        for (std::int64_t at = 0; at < n; ++at) {
          column[at] /= weights[j];
          with_r += column[at] * static_cast<double>(r[at]);
        }
        for (std::int64_t at = 0; at < n; ++at) work[at] += with_r * column[at];
        descent[j] = with_r / weights[j];
        sums.slope += with_r * with_r;
        const double place = weights[j] * static_cast<double>(z[j]);
        sums.point += place * place;
      }
      for (std::int64_t at = 0; at < n; ++at) sums.curvature += work[at] * work[at];
      const double tiny = static_cast<double>(n) * std::numeric_limits<double>::epsilon();
      const bool regular = std::isfinite(sums.slope) && lu::factor(B, d.pivot + row * n, n, tiny);
      if (regular) {
        lu::solve(B, d.pivot + row * n, n, r, work);
        for (std::int64_t j = 0; j < n; ++j) {
          sums.newton += work[j] * work[j];
          sums.cross += work[j] * descent[j] * weights[j];
          step[j] = static_cast<T>(work[j] / weights[j]);
        }
      }
      start_dogleg(k.states, d, row, sums, regular, k.descent);
    }
  });
}

template <class T>
void run(CpuQueue& queue, const EndNewton<T>& k) {
  queue.note("EndNewton", 0);
  for (std::int64_t i = 0; i < k.rows.count; ++i) {
    const std::int64_t row = k.rows.ids[i];
    if (k.states.running(row)) k.states.report.status[row] = k.status;
  }
}

DEQCORE_INSTANTIATE_KERNEL(CpuQueue, BeginNewton);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, MeasureTrial);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, JudgeTrial);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, CountNewton);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, TakeTrial);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, StartTrial);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, PoseTrial);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, PoseDifference);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, TakeDifference);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, PoseUnit);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, KeepJacobian);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, FactorJacobian);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, EndNewton);

}  // namespace deqcore

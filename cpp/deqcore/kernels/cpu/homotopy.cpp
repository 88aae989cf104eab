// SPDX-License-Identifier: Apache-2.0
#include "deqcore/kernels/homotopy.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "deqcore/kernels/cpu/lanes.hpp"
#include "deqcore/kernels/cpu/lu_factor.hpp"

namespace deqcore {

template <class T>
void run(CpuQueue& queue, const BeginPath<T>& k) {
  queue.note("BeginPath", 0);
  for (std::int64_t row = 0; row < k.rows; ++row) {
    begin_path(k.states, k.rules, row, k.given_scale);
    k.ids[row] = static_cast<std::int32_t>(row);
    if (k.order) k.order[row] = static_cast<std::int32_t>(row);
  }
}

template <class T>
void run(CpuQueue& queue, const PosePath<T>& k) {
  const std::int64_t width = k.z.width, bytes = k.at.data ? 2 * width * sizeof(T) : 0;
  queue.note("PosePath", k.rows.count * bytes);
  queue.for_blocks(k.rows.count, bytes, [&](std::int64_t first, std::int64_t count) {
    for (std::int64_t i = first; i < first + count; ++i) {
      const std::int64_t row = k.rows.ids[i];
      if (k.at.data) std::copy_n(k.z[row], width, k.at[i]);
      if (k.time) k.time[i] = k.states.lambda[row];
    }
  });
}

namespace {

// |answer - z|, |answer| and |z|, and the length of the first: of rows that are measured.
template <int Lanes, class T>
[[gnu::always_inline]] inline void measure(const PathStates& s, std::int64_t row, Norm norm, std::int64_t width,
                                           const T* z, const T* answer, bool own) {
  // of an own homotopy H = answer, and f(z) = z - H
  const auto residual = [=]<int L>(std::int64_t j) __attribute__((always_inline)) {
    const auto value = lanes::load_double<L>(answer + j);
    return own ? value : value - lanes::load_double<L>(z + j);
  };
  const auto image = [=]<int L>(std::int64_t j) __attribute__((always_inline)) {
    const auto value = lanes::load_double<L>(answer + j);
    return own ? lanes::load_double<L>(z + j) - value : value;
  };
  const auto point = [=]<int L>(std::int64_t j) __attribute__((always_inline)) { return lanes::load_double<L>(z + j); };
  s.g_norm[row] = lanes::norm<Lanes>(norm, width, residual);
  s.f_norm[row] = lanes::norm<Lanes>(norm, width, image);
  s.z_norm[row] = lanes::norm<Lanes>(norm, width, point);
  const bool two = norm == Norm::two;
  s.length[row] = two ? s.g_norm[row] : lanes::norm<Lanes>(Norm::two, width, residual);
  s.size[row] = two ? s.z_norm[row] : lanes::norm<Lanes>(Norm::two, width, point);
}

}  // namespace

template <class T>
void run(CpuQueue& queue, const MeasurePath<T>& k) {
  const std::int64_t width = k.at.width, bytes = 6 * width * sizeof(T);
  queue.note("MeasurePath", k.rows.count * bytes);
  queue.for_blocks(k.rows.count, bytes, [&](std::int64_t first, std::int64_t count) {
    at_simd_level([&](auto simd) __attribute__((always_inline)) {
      constexpr int lanes = lanes::doubles<simd.bytes>;
      const PathStates& s = k.states;
      for (std::int64_t i = first; i < first + count; ++i) {
        const std::int64_t row = k.rows.ids[i];
        if (!s.running(row)) continue;
        const T *z = k.at[i], *answer = k.answer[i];
        T *base = k.base[row], *r = k.r[row], *rate = k.rate[row], *right = k.right[row];
        const double lambda = s.lambda[row];
        if (k.rules.own()) {
          for (std::int64_t j = 0; j < width; ++j) r[j] = right[j] = -answer[j];
        } else {
          for (std::int64_t j = 0; j < width; ++j) r[j] = answer[j] - z[j];
          if (k.rules.kind == HomotopyKind::newton) {
            if (s.report.steps[row] == 0) std::copy_n(r, width, base);
            for (std::int64_t j = 0; j < width; ++j) {
              right[j] = static_cast<T>(static_cast<double>(r[j]) - (1 - lambda) * static_cast<double>(base[j]));
              rate[j] = -base[j];
            }
          } else {
            for (std::int64_t j = 0; j < width; ++j) {
              const double moved = static_cast<double>(z[j]) - static_cast<double>(base[j]);
              right[j] = static_cast<T>(lambda * static_cast<double>(r[j]) - (1 - lambda) * moved);
              rate[j] = base[j] - answer[j];
            }
          }
        }
        right[width] = 0;
        measure<lanes>(s, row, k.norm, width, z, answer, k.rules.own());
        const T* const missed = right;
        s.miss[row] = lanes::norm<lanes>(Norm::two, width, [=]<int L>(std::int64_t j) __attribute__((always_inline)) {
          return lanes::load_double<L>(missed + j);
        });
      }
    });
  });
}

template <class T>
void run(CpuQueue& queue, const JudgePath<T>& k) {
  queue.note("JudgePath", 0);
  for (std::int64_t i = 0; i < k.rows.count; ++i) {
    const std::int64_t row = k.rows.ids[i];
    if (k.states.running(row)) judge_path(k.states, row, k.limits, k.rules, path::tangent_forcing<T>);
  }
}

template <class T>
void run(CpuQueue& queue, const MovePath<T>& k) {
  const std::int64_t width = k.z.width, bytes = 6 * width * sizeof(T);
  queue.note("MovePath", k.rows.count * bytes);
  queue.for_blocks(k.rows.count, bytes, [&](std::int64_t first, std::int64_t count) {
    const PathStates& s = k.states;
    for (std::int64_t i = first; i < first + count; ++i) {
      const std::int64_t row = k.rows.ids[i];
      T *z = k.z[row], *right = k.right[row];
      const T *last = k.last[row], *tangent = k.tangent[row];
      record_point(s, row, [z](std::int64_t j) { return static_cast<double>(z[j]); }, 0, 1);
      if (s.fresh[row] == Fresh::best) std::copy_n(z, width, k.result[row]);
      s.fresh[row] = Fresh::no;
      if (s.move[row] == PathMove::predict)
        for (std::int64_t j = 0; j < width; ++j) z[j] = step_along(last[j], tangent[j], s.h[row]);
      if (s.move[row] == PathMove::cross)
        for (std::int64_t j = 0; j < width; ++j) z[j] = step_between(last[j], z[j], s.fraction[row]);
      s.move[row] = PathMove::stay;
      if (s.solving(row) && s.need[row] == PathNeed::tangent) {
        std::fill_n(right, width, T(0));
        right[width] = 1;
      }
    }
  });
}

template <class T>
void run(CpuQueue& queue, const CountPath<T>& k) {
  queue.note("CountPath", 0);
  Progress progress;
  for (std::int64_t i = 0; i < k.rows.count; ++i) {
    const std::int64_t row = k.rows.ids[i];
    if (!k.states.running(row)) continue;
    progress.running += 1;
    progress.again += k.states.solving(row) ? 1 : 0;
    progress.worst = std::max(progress.worst, k.states.best[row]);
  }
  for (std::int64_t row = 0; row < k.batch; ++row)
    progress.failed += k.states.report.status[row] < Status::converged ? 1 : 0;
  *k.progress = progress;
}

template <class T>
void run(CpuQueue& queue, const PoseRate<T>& k) {
  queue.note("PoseRate", 0);
  for (std::int64_t i = 0; i < k.rows.count; ++i) {
    const double lambda = k.states.lambda[k.rows.ids[i]];
    k.time[i] = lambda + rate_step<T>(lambda);
  }
}

template <class T>
void run(CpuQueue& queue, const TakeRate<T>& k) {
  const std::int64_t width = k.answer.width, bytes = 3 * width * sizeof(T);
  queue.note("TakeRate", k.rows.count * bytes);
  for (std::int64_t i = 0; i < k.rows.count; ++i) {
    const std::int64_t row = k.rows.ids[i];
    if (!k.states.solving(row)) continue;
    const double lambda = k.states.lambda[row], step = lambda + rate_step<T>(lambda) - lambda;
    const T *answer = k.answer[i], *r = k.r[row];
    T* rate = k.rate[row];
    for (std::int64_t j = 0; j < width; ++j)
      rate[j] = k.differences ? difference_in_rate(answer[j], r[j], step) : answer[j];
    count_path_product(k.states, row);
  }
}

template <class T>
void run(CpuQueue& queue, const KeepBordered<T>& k) {
  const std::int64_t n = k.answer.width, bytes = n * (sizeof(T) + sizeof(double));
  queue.note("KeepBordered", k.rows.count * bytes);
  for (std::int64_t i = 0; i < k.rows.count; ++i) {
    const std::int64_t row = k.rows.ids[i];
    if (!k.states.solving(row)) continue;
    const PathOperator of = path_operator(k.states, k.rules, row);
    const T* answer = k.answer[i];
    double* to = k.bordered.matrix + (row * (n + 1) + k.column) * (n + 1);
    for (std::int64_t j = 0; j < n; ++j)
      to[j] = (j == k.column ? of.own : 0.0) - of.mapped * static_cast<double>(answer[j]);
    to[n] = along_path(k.states, k.rules, row) ? static_cast<double>(k.tangent[row][k.column]) : 0.0;
    count_path_product(k.states, row);
  }
}

template <class T>
void run(CpuQueue& queue, const FactorBordered<T>& k) {
  const std::int64_t n = k.rate.width, m = n + 1, bytes = m * m * static_cast<std::int64_t>(sizeof(double));
  queue.note("FactorBordered", k.rows.count * bytes);
  queue.for_blocks(k.rows.count, bytes * m / 8, [&](std::int64_t first, std::int64_t count) {
    const PathStates& s = k.states;
    for (std::int64_t i = first; i < first + count; ++i) {
      const std::int64_t row = k.rows.ids[i];
      if (!s.solving(row)) continue;
      double *A = k.bordered.matrix + row * m * m, *work = k.bordered.work + row * m;
      std::int32_t* pivot = k.bordered.pivot + row * m;
      const T* rate = k.rate[row];
      for (std::int64_t j = 0; j < n; ++j) A[n * m + j] = static_cast<double>(rate[j]);
      A[n * m + n] = along_path(s, k.rules, row) ? s.slope[row] : 1.0;
      bool finite = true;
      for (std::int64_t at = 0; at < m * m; ++at) finite = finite && std::isfinite(A[at]);
      const double tiny = static_cast<double>(m) * std::numeric_limits<double>::epsilon();
      for (std::int64_t j = 0; j < m; ++j) work[j] = lu::largest(A + j * m, m);
      if (!along_path(s, k.rules, row)) work[n] = 0;
      const bool regular = finite && lu::factor(A, pivot, m, tiny, work);
      k.solved[row] = !finite ? Status::not_finite : regular ? Status::converged : Status::breakdown;
      if (!regular) continue;
      lu::solve(A, pivot, m, static_cast<const T*>(k.right[row]), work);
      for (std::int64_t j = 0; j < m; ++j) k.solution[row][j] = static_cast<T>(work[j]);
    }
  });
}

template <class T>
void run(CpuQueue& queue, const PoseBordered<T>& k) {
  const std::int64_t width = k.along.width;
  queue.note("PoseBordered", 2 * k.along.rows * width * sizeof(T));
  for (std::int64_t i = 0; i < k.along.rows; ++i) std::copy_n(k.direction[i], width, k.along[i]);
}

template <class T>
void run(CpuQueue& queue, const TakeBordered<T>& k) {
  const std::int64_t width = k.answer.width, bytes = 5 * width * sizeof(T);
  queue.note("TakeBordered", k.rows.count * bytes);
  queue.for_blocks(k.rows.count, bytes, [&](std::int64_t first, std::int64_t count) {
    at_simd_level([&](auto simd) __attribute__((always_inline)) {
      constexpr int lanes = lanes::doubles<simd.bytes>;
      for (std::int64_t i = first; i < first + count; ++i) {
        const std::int64_t row = k.rows.ids[i];
        const PathOperator of = path_operator(k.states, k.rules, row);
        const bool path = along_path(k.states, k.rules, row);
        const T *v = k.direction[i], *answer = k.answer[i], *rate = k.rate[row], *tangent = k.tangent[row];
        T* product = k.product[i];
        const auto last = static_cast<double>(v[width]);
        for (std::int64_t j = 0; j < width; ++j)
          product[j] = static_cast<T>(of.own * static_cast<double>(v[j]) - of.mapped * static_cast<double>(answer[j]) +
                                      last * static_cast<double>(rate[j]));
        const double with_border =
            path ? lanes::sum<lanes>(width,
                                     [=]<int L>(std::int64_t j) __attribute__((always_inline)) {
                                       return lanes::load_double<L>(v + j) * lanes::load_double<L>(tangent + j);
                                     })
                 : 0.0;
        product[width] = static_cast<T>(with_border + last * (path ? k.states.slope[row] : 1.0));
        if (k.solving[row] == Status::running) trace_path_product(k.states, k.rules, row);
      }
    });
  });
}

template <class T>
void run(CpuQueue& queue, const StepPath<T>& k) {
  const std::int64_t width = k.z.width, bytes = 7 * width * sizeof(T);
  queue.note("StepPath", k.rows.count * bytes);
  queue.for_blocks(k.rows.count, bytes, [&](std::int64_t first, std::int64_t count) {
    at_simd_level([&](auto simd) __attribute__((always_inline)) {
      constexpr int lanes = lanes::doubles<simd.bytes>;
      const PathStates& s = k.states;
      for (std::int64_t i = first; i < first + count; ++i) {
        const std::int64_t row = k.rows.ids[i];
        if (!s.solving(row)) continue;
        const T* d = k.solution[row];
        T *z = k.z[row], *last = k.last[row], *tangent = k.tangent[row];
        const double length = lanes::norm<lanes>(
            Norm::two, width + 1,
            [=]<int L>(std::int64_t j) __attribute__((always_inline)) { return lanes::load_double<L>(d + j); });
        take_solution(s, k.rules, row, k.linear, length, static_cast<double>(d[width]));
        const PathMove move = s.move[row];
        const double h = s.h[row];
        s.move[row] = PathMove::stay;
        if (move == PathMove::correct)
          for (std::int64_t j = 0; j < width; ++j) z[j] = step_along(z[j], d[j], 1.0);
        if (move == PathMove::advance) {
          const double unit = k.rules.tracker == Tracker::arclength ? length : 1.0;
          const bool unmeasured = k.rules.own() && !std::isfinite(s.best[row]);
          if (unmeasured) std::copy_n(z, width, k.result[row]);
          for (std::int64_t j = 0; j < width; ++j) {
            last[j] = z[j];
            tangent[j] = static_cast<T>(static_cast<double>(d[j]) / unit);
          }
        }
        if (move == PathMove::advance || move == PathMove::predict)
          for (std::int64_t j = 0; j < width; ++j) z[j] = step_along(last[j], tangent[j], h);
      }
    });
  });
}

template <class T>
void run(CpuQueue& queue, const VerifyPath<T>& k) {
  const std::int64_t width = k.at.width, bytes = 2 * width * sizeof(T);
  queue.note("VerifyPath", k.rows.count * bytes);
  queue.for_blocks(k.rows.count, bytes, [&](std::int64_t first, std::int64_t count) {
    at_simd_level([&](auto simd) __attribute__((always_inline)) {
      constexpr int lanes = lanes::doubles<simd.bytes>;
      for (std::int64_t i = first; i < first + count; ++i) {
        const std::int64_t row = k.rows.ids[i];
        measure<lanes>(k.states, row, k.norm, width, k.at[i], k.answer[i], false);
        verify_path(k.states, row, k.limits);
      }
    });
  });
}

template <class T>
void run(CpuQueue& queue, const EndPath<T>& k) {
  queue.note("EndPath", 0);
  for (std::int64_t i = 0; i < k.rows.count; ++i) {
    const std::int64_t row = k.rows.ids[i];
    const bool ends = k.states.running(row) || (k.unverified && k.states.report.status[row] == Status::converged);
    if (ends) end_path(k.states, row, k.status, PathEnd::stopped);
  }
}

DEQCORE_INSTANTIATE_KERNEL(CpuQueue, BeginPath);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, PosePath);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, MeasurePath);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, JudgePath);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, MovePath);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, CountPath);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, PoseRate);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, TakeRate);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, KeepBordered);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, FactorBordered);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, PoseBordered);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, TakeBordered);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, StepPath);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, VerifyPath);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, EndPath);

}  // namespace deqcore

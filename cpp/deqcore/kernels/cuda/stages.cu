// SPDX-License-Identifier: Apache-2.0
#include "deqcore/kernels/stages.hpp"

#include "deqcore/kernels/cuda/norms.cuh"
#include "deqcore/kernels/row_math.hpp"

namespace deqcore {
namespace {

// The mean of `count` numbers, by all threads of the only block; in a fixed order for that count.
__device__ double mean_of(const double* values, std::int64_t count) {
  double sum[1] = {0};
  for (std::int64_t i = threadIdx.x; i < count; i += blockDim.x) sum[0] += values[i];
  cuda::block_sum(sum, cuda::shared_doubles());
  return sum[0] / static_cast<double>(count);
}

template <class T>
__device__ void fill_unreached(const OdeStates& s, std::int64_t row, std::int32_t count, const Rows<T>& values,
                               std::int64_t stride) {
  for (std::int64_t time = s.next[row]; time < count; ++time)
    for (std::int64_t j = threadIdx.x; j < values.width; j += blockDim.x)
      values[row][time * stride + j] = std::numeric_limits<T>::quiet_NaN();
}

__device__ inline double size_of(double v) {
  return v < 0 ? -v : v;
}

// means[k] = the mean of (h value k / tolerance)^2 over a row, finite where both are; fill(j, values) gives the values
// and returns the tolerance. By all threads of a block, which all get them.
template <int Count, class Fill>
__device__ void mean_squares(std::int64_t width, double h, const Fill& fill, double (&means)[Count]) {
  cuda::row_norms(
      Norm::two, width,
      [&](std::int64_t j, double* values) {
        const double tolerance = fill(j, values);
#pragma unroll
        for (int k = 0; k < Count; ++k) values[k] /= tolerance;
      },
      means);
  double largest[Count + 1];  // of the tolerance, too
  bool all = true;
#pragma unroll
  for (int k = 0; k < Count; ++k) all = all && row_math::finite(means[k]);
  if (!all) cuda::row_largest(width, [&](std::int64_t j, double* values) { values[Count] = fill(j, values); }, largest);
#pragma unroll
  for (int k = 0; k < Count; ++k) {
    const bool quotient = !all && !row_math::finite(means[k]) && row_math::finite(largest[k]);
    if (quotient && row_math::finite(largest[Count])) means[k] = row_math::most_mean;
    means[k] = row_math::mean_square(h, means[k], width);
  }
}

}  // namespace

template <class T>
void run(CudaQueue& queue, const BeginOde<T>& k) {
  queue.note("BeginOde", 0);
  cuda::for_each_entry(queue, "BeginOde", k.rows, [k] __device__(std::int64_t row) {
    const OdeStates& s = k.states;
    const double start = k.rules.times[0];
    if (row == 0) *s.failed = 0;
    s.report.status[row] = Status::running;
    s.report.evaluations[row] = s.report.accepted[row] = s.report.rejected[row] = 0;
    s.report.reached[row] = start;
    s.h[row] = k.rules.begin();
    s.taken[row] = 0;
    s.before[row] = start;
    s.measure[row] = s.slope[row] = 0;
    s.from[row] = s.next[row] = 1;
    s.swapped[row] = s.after_rejection[row] = 0;
    s.event[row] = StepEvent::none;
    k.ids[row] = static_cast<std::int32_t>(row);
  });
}

template <class T>
void run(CudaQueue& queue, const MeasureStart<T>& k) {
  queue.note("MeasureStart", 3 * k.rows.count * k.at.width * sizeof(T));
  cuda::for_each_row(queue, "MeasureStart", k.rows.count, k.at.width, 3, [k] __device__(std::int64_t i) {
    const OdeStates& s = k.states;
    const std::int64_t row = k.rows.ids[i], width = k.at.width;
    if (!s.running(row)) return;
    const T *z = k.at[i], *answer = k.answer[i];
    T* F = k.stages.at(0, s.swapped[row], row);
    double means[2];  // of z and F
    mean_squares(
        width, 1.0,
        [k, z, answer, F](std::int64_t j, double* values) {
          const T value = k.relax ? answer[j] - z[j] : answer[j];
          F[j] = value;
          values[0] = z[j];
          values[1] = value;
          return k.atol + k.rtol * size_of(z[j]);
        },
        means);
    if (threadIdx.x != 0) return;
    s.measure[row] = means[0];
    s.slope[row] = means[1];
    s.report.evaluations[row] += 1;
  });
}

template <class T>
void run(CudaQueue& queue, const MeasureProbe<T>& k) {
  queue.note("MeasureProbe", 4 * k.rows.count * k.at.width * sizeof(T));
  cuda::for_each_row(queue, "MeasureProbe", k.rows.count, k.at.width, 2, [k] __device__(std::int64_t i) {
    const OdeStates& s = k.states;
    const std::int64_t row = k.rows.ids[i], width = k.at.width;
    if (!s.running(row)) return;
    const T *z = k.z[row], *at = k.at[i], *answer = k.answer[i], *F = k.stages.at(0, s.swapped[row], row);
    double means[1];
    mean_squares(
        width, 1.0,
        [k, z, at, answer, F](std::int64_t j, double* values) {
          values[0] = static_cast<double>(answer[j]) - F[j] - (k.relax ? static_cast<double>(at[j]) : 0.0);
          return k.atol + k.rtol * size_of(z[j]);
        },
        means);
    if (threadIdx.x != 0) return;
    s.measure[row] = means[0];
    s.report.evaluations[row] += 1;
  });
}

template <class T>
void run(CudaQueue& queue, const JudgeStart<T>& k) {
  queue.note("JudgeStart", 0);
  const std::int64_t numbers = k.rules.batch_measure ? std::max(k.rules.batch, k.rows.count) : k.rows.count;
  cuda::in_one_block(queue, "JudgeStart", numbers, 2, [k] __device__() {
    const OdeStates& s = k.states;
    const bool batch = k.rules.batch_measure != nullptr;
    const double whole = batch ? mean_of(k.rules.batch_measure, k.rules.batch) : 0;
    const double whole_slope = batch ? mean_of(k.rules.batch_slope, k.rules.batch) : 0;
    double counts[2] = {0, 0};  // running, failed
    for (std::int64_t i = threadIdx.x; i < k.rows.count; i += blockDim.x) {
      const std::int64_t row = k.rows.ids[i];
      if (!s.running(row)) continue;
      begin_step(k.rules, s, row, k.probed, batch ? whole : s.measure[row], batch ? whole_slope : s.slope[row]);
      counts[s.running(row) ? 0 : 1] += 1;
    }
    cuda::block_sum(counts, cuda::shared_doubles());
    if (threadIdx.x != 0) return;
    *s.failed += static_cast<std::int64_t>(counts[1]);
    *k.progress = {.running = static_cast<std::int64_t>(counts[0]), .failed = *s.failed};
  });
}

template <class T>
void run(CudaQueue& queue, const PoseStage<T>& k) {
  queue.note("PoseStage", (k.stage + 4) * k.rows.count * k.at.width * sizeof(T));
  cuda::for_each_row(queue, "PoseStage", k.rows.count, k.at.width, 0, [k] __device__(std::int64_t i) {
    const OdeStates& s = k.states;
    const std::int64_t row = k.rows.ids[i], width = k.at.width;
    const T* z = k.z[row];
    T* at = k.at[i];
    const double t = s.report.reached[row], h = s.h[row];
    const bool running = s.running(row), swapped = s.swapped[row], taking = k.answer.data != nullptr;
    if (threadIdx.x == 0) {
      k.time[i] = running ? t + k.c * h : t;
      if (running && taking) s.report.evaluations[row] += 1;
    }
    const T* terms[most_stages];
    T weights[most_stages];
    const int earlier = taking ? k.stage : k.stages.stages;
#pragma unroll
    for (int n = 0; n < most_stages; ++n) {
      const bool used = running && n < earlier && k.weights[n] != 0;
      terms[n] = used ? k.stages.at(n, swapped, row) : nullptr;
      weights[n] = used ? static_cast<T>(h * k.weights[n]) : T(0);
    }
    const T* answer = taking ? k.answer[k.rows.from(i)] : nullptr;
    const T* asked = taking ? k.asked[k.rows.from(i)] : nullptr;
    T* F = taking ? k.stages.at(k.stage, swapped, row) : nullptr;
    const T own = taking ? static_cast<T>(h * k.weights[k.stage]) : T(0);
    for (std::int64_t j = threadIdx.x; j < width; j += blockDim.x) {
      if (!running) {
        at[j] = z[j];
        continue;
      }
      T sum = 0;
#pragma unroll
      for (int n = 0; n < most_stages; ++n)
        if (terms[n]) sum += weights[n] * terms[n][j];
      if (taking) {
        const T value = k.relax ? answer[j] - asked[j] : answer[j];
        F[j] = value;
        sum += own * value;
      }
      at[j] = z[j] + sum;
    }
  });
}

template <class T>
void run(CudaQueue& queue, const MeasureStep<T>& k) {
  queue.note("MeasureStep", (k.fixed ? 1 : k.stages.stages + 3) * k.rows.count * k.at.width * sizeof(T));
  cuda::for_each_row(queue, "MeasureStep", k.rows.count, k.at.width, 2, [k] __device__(std::int64_t i) {
    const OdeStates& s = k.states;
    const std::int64_t row = k.rows.ids[i], width = k.at.width;
    if (!s.running(row)) return;
    const T *z = k.z[row], *at = k.at[i];
    const double h = s.h[row];
    double means[1] = {0};
    if (k.fixed) {
      for (std::int64_t j = threadIdx.x; j < width; j += blockDim.x) means[0] += 0 * static_cast<double>(at[j]);
      cuda::block_sum(means, cuda::shared_doubles());
    } else {
      const bool swapped = s.swapped[row];
      const int last = k.stages.stages - 1;
      const T* terms[most_stages];
      T weights[most_stages];
#pragma unroll
      for (int n = 0; n < most_stages; ++n) {
        const bool used = n < last && k.errors[n] != 0;
        terms[n] = used ? k.stages.at(n, swapped, row) : nullptr;
        weights[n] = used ? static_cast<T>(k.errors[n]) : T(0);
      }
      const T* answer = k.answer[i];
      T* F = k.stages.at(last, swapped, row);
      const T own = static_cast<T>(k.errors[last]);
      mean_squares(
          width, h,
          [&](std::int64_t j, double* values) {
            const T value = k.relax ? answer[j] - at[j] : answer[j];
            F[j] = value;
            T sum = 0;
#pragma unroll
            for (int n = 0; n < most_stages; ++n)
              if (terms[n]) sum += weights[n] * terms[n][j];
            values[0] = sum + own * value;
            const double old = size_of(z[j]), fresh = size_of(at[j]);
            return k.atol + k.rtol * (old > fresh ? old : fresh);
          },
          means);
    }
    if (threadIdx.x != 0) return;
    s.measure[row] = means[0];
    if (!k.fixed) s.report.evaluations[row] += 1;
  });
}

// Two launches: roots and judgement together need more registers than a thread has.
template <class T>
void run(CudaQueue& queue, const JudgeStep<T>& k) {
  queue.note("JudgeStep", 0);
  const std::int64_t numbers = k.rules.batch_measure ? std::max(k.rules.batch, k.rows.count) : k.rows.count;
  cuda::in_one_block(queue, "JudgeStep", numbers, 1, [k] __device__() {
    const OdeStates& s = k.states;
    const bool batch = k.rules.batch_measure != nullptr;
    const double whole = batch ? mean_of(k.rules.batch_measure, k.rules.batch) : 0;
    for (std::int64_t i = threadIdx.x; i < k.rows.count; i += blockDim.x) {
      const std::int64_t row = k.rows.ids[i];
      if (!s.running(row)) continue;
      const double error = sqrt(batch ? whole : s.measure[row]);
      s.measure[row] = error;
      s.slope[row] = row_math::step_factor(error, k.rules.order);
    }
  });
  cuda::in_one_block(queue, "JudgeStep", k.rows.count, 2, [k] __device__() {
    const OdeStates& s = k.states;
    double counts[2] = {0, 0};  // running, failed
    for (std::int64_t i = threadIdx.x; i < k.rows.count; i += blockDim.x) {
      const std::int64_t row = k.rows.ids[i];
      s.event[row] = StepEvent::none;
      if (!s.running(row)) continue;
      end_step(k.rules, s, row, k.stages.swaps, s.measure[row], s.slope[row]);
      counts[0] += s.running(row) ? 1 : 0;
      counts[1] += s.report.status[row] < Status::converged ? 1 : 0;
    }
    cuda::block_sum(counts, cuda::shared_doubles());
    if (threadIdx.x != 0) return;
    *s.failed += static_cast<std::int64_t>(counts[1]);
    *k.progress = {.running = static_cast<std::int64_t>(counts[0]), .failed = *s.failed};
  });
}

template <class T>
void run(CudaQueue& queue, const TakeStep<T>& k) {
  queue.note("TakeStep", 2 * k.rows.count * k.z.width * sizeof(T));
  cuda::for_each_row(queue, "TakeStep", k.rows.count, k.z.width, 0, [k] __device__(std::int64_t i) {
    const OdeStates& s = k.states;
    const std::int64_t row = k.rows.ids[i], width = k.z.width;
    if (s.event[row] == StepEvent::accepted) {
      T* z = k.z[row];
      const T* at = k.at[k.rows.from(i)];
      for (std::int32_t time = s.from[row]; time < s.next[row]; ++time) {
        T* value = k.values[row] + time * k.stride;
        const bool at_end = k.times[time] == s.report.reached[row];
        const double h = s.taken[row], theta = at_end ? 0 : (k.times[time] - s.before[row]) / h;
        const T* terms[most_stages];
        T weights[most_stages];
#pragma unroll
        for (int n = 0; n < most_stages; ++n) {  // the judgement has already swapped the stages
          const double weight = n < k.stages.stages && !at_end ? stage_weight(k.powers[n], theta) : 0.0;
          terms[n] = weight != 0 ? k.stages.at(n, !s.swapped[row], row) : nullptr;
          weights[n] = static_cast<T>(h * weight);
        }
        for (std::int64_t j = threadIdx.x; j < width; j += blockDim.x) {
          T sum = 0;
#pragma unroll
          for (int n = 0; n < most_stages; ++n)
            if (terms[n]) sum += weights[n] * terms[n][j];
          value[j] = at_end ? at[j] : z[j] + sum;
        }
      }
      for (std::int64_t j = threadIdx.x; j < width; j += blockDim.x) z[j] = at[j];
    }
    if (s.event[row] != StepEvent::none && s.report.status[row] < Status::converged)
      fill_unreached(s, row, k.count, k.values, k.stride);
  });
}

template <class T>
void run(CudaQueue& queue, const BeginPseudo<T>& k) {
  queue.note("BeginPseudo", 0);
  cuda::for_each_entry(queue, "BeginPseudo", k.rows, [k] __device__(std::int64_t row) {
    const OdeStates& s = k.states;
    s.report.evaluations[row] = 0;
    s.report.reached[row] = s.before[row] = s.taken[row] = s.measure[row] = 0;
    s.h[row] = k.h;
    s.from[row] = s.next[row] = 0;
    s.swapped[row] = s.after_rejection[row] = 0;
    s.event[row] = StepEvent::accepted;
  });
}

template <class T>
void run(CudaQueue& queue, const MeasurePseudo<T>& k) {
  queue.note("MeasurePseudo", (k.stages.stages + 2) * k.rows.count * k.at.width * sizeof(T));
  cuda::for_each_row(queue, "MeasurePseudo", k.rows.count, k.at.width, 2, [k] __device__(std::int64_t i) {
    const OdeStates& s = k.states;
    const std::int64_t row = k.rows.ids[i], width = k.at.width;
    if (!s.running(row)) return;
    const T *at = k.at[i], *answer = k.answer[i], *z = k.z[row];
    const bool swapped = s.swapped[row];
    const int last = k.stages.stages - 1;
    const T* first_stage = k.stages.at(0, swapped, row);
    T* F = k.stages.at(last, swapped, row);
    double norms[2];  // of the error, of K_0
    cuda::row_norms(
        Norm::two, width,
        [&](std::int64_t j, double* values) {
          T sum = 0;
#pragma unroll
          for (int n = 0; n < most_stages; ++n)
            if (n < last && k.errors[n] != 0) sum += static_cast<T>(k.errors[n]) * k.stages.at(n, swapped, row)[j];
          const T value = answer[j] - at[j];
          F[j] = value;
          values[0] = sum + static_cast<T>(k.errors[last]) * value;
          values[1] = first_stage[j];
        },
        norms);
    const double ratio = norms[0] == 0 ? 0 : norms[0] / norms[1] / k.accuracy;
    const bool taken = takes_pseudo_step(ratio * ratio);
    double size[1] = {0};  // of z
    if (!taken) cuda::row_norms(Norm::two, width, [z](std::int64_t j, double* values) { values[0] = z[j]; }, size);
    if (threadIdx.x != 0) return;
    s.measure[row] = ratio * ratio;
    k.trial[row] = taken ? Trial::no : after_pseudo_step<T>(s.h[row], size[0], norms[1]);
  });
}

template <class T>
void run(CudaQueue& queue, const JudgePseudo<T>& k) {
  queue.note("JudgePseudo", 0);
  cuda::for_each_entry(queue, "JudgePseudo", k.rows.count, [k] __device__(std::int64_t i) {
    const std::int64_t row = k.rows.ids[i];
    k.states.event[row] = StepEvent::none;
    if (k.states.running(row)) end_pseudo_step(k.states, row, k.order, k.states.measure[row]);
  });
}

template <class T>
void run(CudaQueue& queue, const EndOde<T>& k) {
  queue.note("EndOde", 0);
  cuda::for_each_row(queue, "EndOde", k.rows.count, k.values.width, 0, [k] __device__(std::int64_t i) {
    const OdeStates& s = k.states;
    const std::int64_t row = k.rows.ids[i];
    const bool running = s.running(row);
    __syncthreads();  // all threads have read the status before one of them writes it
    if (!running) return;
    fill_unreached(s, row, k.count, k.values, k.stride);
    if (threadIdx.x == 0) s.report.status[row] = k.status;
  });
}

DEQCORE_INSTANTIATE_KERNEL(CudaQueue, BeginOde);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, MeasureStart);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, MeasureProbe);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, JudgeStart);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, PoseStage);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, MeasureStep);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, JudgeStep);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, TakeStep);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, BeginPseudo);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, MeasurePseudo);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, JudgePseudo);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, EndOde);

}  // namespace deqcore

// SPDX-License-Identifier: Apache-2.0
#include "deqcore/kernels/step.hpp"

#include "deqcore/kernels/cuda/norms.cuh"
#include "deqcore/kernels/row_math.hpp"

namespace deqcore {
namespace {

__device__ bool same_bits(double a, double b) {
  return __double_as_longlong(a) == __double_as_longlong(b);
}

// By all threads of a block. Bits, not values: NaN equals itself and -0 differs from 0.
template <class T>
__device__ bool same_row(const T* a, const T* b, std::int64_t width) {
  using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
  const auto* bits_a = reinterpret_cast<const Bits*>(a);
  const auto* bits_b = reinterpret_cast<const Bits*>(b);
  int differs = 0;
  for (std::int64_t at = threadIdx.x; at < width; at += blockDim.x) differs |= bits_a[at] != bits_b[at];
  return !__syncthreads_or(differs);
}

template <class T>
__device__ void copy_row(const T* from, T* to, std::int64_t width) {
  for (std::int64_t at = threadIdx.x; at < width; at += blockDim.x) to[at] = from[at];
}

}  // namespace

template <class T>
void run(CudaQueue& queue, const BeginRows<T>& k) {
  queue.note("BeginRows", 0);
  cuda::for_each_entry(queue, "BeginRows", k.rows, [k] __device__(std::int64_t row) {
    const RowStates& s = k.states;
    if (row == 0) *s.failed = 0;
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
  });
}

template <class T>
void run(CudaQueue& queue, const MeasureResidual<T>& k) {
  queue.note("MeasureResidual", 2 * k.rows.count * k.z.width * sizeof(T));
  cuda::for_each_row(queue, "MeasureResidual", k.rows.count, k.z.width, 3, [k] __device__(std::int64_t i) {
    const RowStates& s = k.states;
    const std::int64_t row = k.rows.ids[i];
    if (!s.running(row)) return;
    const T *z = k.z[i], *f = k.f[i];
    const double g_before = s.g_norm[row], f_before = s.f_norm[row];
    double norms[3];  // of g, f, z
    cuda::row_norms(
        k.norm, k.z.width,
        [z, f](std::int64_t at, double* values) {
          const double point = z[at], image = f[at];
          values[0] = image - point;
          values[1] = image;
          values[2] = point;
        },
        norms);
    const bool repeats = !k.first && same_bits(norms[0], g_before) && same_bits(norms[1], f_before);
    const bool frozen = repeats && same_row(z, k.z_before[k.rows.from(i)], k.z.width);
    if (threadIdx.x != 0) return;
    s.g_norm[row] = norms[0];
    s.f_norm[row] = norms[1];
    if (k.first) s.z_norm[row] = norms[2];
    s.frozen[row] = !frozen ? 0 : s.frozen[row] < 2 ? s.frozen[row] + 1 : 2;
  });
}

template <class T>
void run(CudaQueue& queue, const JudgeRows<T>& k) {
  queue.note("JudgeRows", 0);
  cuda::in_one_block(queue, "JudgeRows", k.rows.count, 2, [k] __device__() {
    const RowStates& s = k.states;
    double counts[2] = {0, 0}, worst[1] = {0};  // running, failed
    for (std::int64_t i = threadIdx.x; i < k.rows.count; i += blockDim.x) {
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
        counts[0] += 1;
        worst[0] = verdict.ratio > worst[0] ? verdict.ratio : worst[0];
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
void run(CudaQueue& queue, const KeepBest<T>& k) {
  queue.note("KeepBest", 0);
  cuda::for_each_row(queue, "KeepBest", k.rows.count, k.z.width, 0, [k] __device__(std::int64_t i) {
    const RowStates& s = k.states;
    const std::int64_t row = k.rows.ids[i];
    const Event event = s.event[row];
    const BestAt best_at = s.best_at[row];
    __syncthreads();  // all threads have read best_at before one of them writes it
    if (event == Event::none) return;
    BestAt now = best_at;
    if (event == Event::new_best) {
      now = BestAt::block;
      if (!s.running(row)) copy_row(k.z[i], k.result[row], k.z.width);
    } else if (best_at == BestAt::block) {
      now = BestAt::result;
      copy_row(k.z_before[k.rows.from(i)], k.result[row], k.z.width);
    } else if (best_at == BestAt::nowhere) {  // the very first answer was not finite
      copy_row(k.z[i], k.result[row], k.z.width);
    }
    if (threadIdx.x == 0) s.best_at[row] = now;
  });
}

template <class T>
void run(CudaQueue& queue, const HoldRows<T>& k) {
  queue.note("HoldRows", 0);
  cuda::for_each_row(queue, "HoldRows", k.rows.count, k.z.width, 0, [k] __device__(std::int64_t i) {
    if (!k.states.running(k.rows.ids[i])) copy_row(k.z[k.rows.from(i)], k.next[i], k.z.width);
  });
}

template <class T>
void run(CudaQueue& queue, const EndRows<T>& k) {
  queue.note("EndRows", 0);
  cuda::for_each_row(queue, "EndRows", k.rows.count, k.z.width, 0, [k] __device__(std::int64_t i) {
    const RowStates& s = k.states;
    const std::int64_t row = k.rows.ids[i];
    const bool running = s.running(row);
    __syncthreads();  // all threads have read the status before one of them writes it
    if (!running) return;
    if (s.best_at[row] == BestAt::block) copy_row(k.z_before[k.rows.from(i)], k.result[row], k.z.width);
    if (s.best_at[row] == BestAt::nowhere) copy_row(k.z[i], k.result[row], k.z.width);
    if (threadIdx.x == 0) s.report.status[row] = k.status;
  });
}

template <class T>
void run(CudaQueue& queue, const SelectRows<T>& k) {
  queue.note("SelectRows", 0);
  // A row's place is the number of running rows before it, plus that of the ended ones before it that are kept.
  cuda::in_one_block(queue, "SelectRows", k.rows.count, 1, [k] __device__() {
    double* const warp_totals = cuda::shared_doubles();
    const std::int64_t fill = k.keep - k.running;
    std::int64_t running_before = 0;  // in earlier rounds
    for (std::int64_t start = 0; start < k.rows.count; start += blockDim.x) {
      const std::int64_t i = start + threadIdx.x;
      const bool running = i < k.rows.count && k.status[k.rows.ids[i]] == Status::running;
      const unsigned votes = __ballot_sync(0xffffffffu, running);
      const int lane = threadIdx.x % cuda::warp, mine = threadIdx.x / cuda::warp;
      if (lane == 0) warp_totals[mine] = __popc(votes);
      __syncthreads();
      std::int64_t before = running_before + __popc(votes & ((1u << lane) - 1));
      std::int64_t total = 0;
      for (int w = 0; w < static_cast<int>(blockDim.x) / cuda::warp; ++w) {
        if (w < mine) before += static_cast<std::int64_t>(warp_totals[w]);
        total += static_cast<std::int64_t>(warp_totals[w]);
      }
      __syncthreads();
      const std::int64_t ended_before = i - before;
      if (i < k.rows.count && (running || ended_before < fill)) {
        const std::int64_t to = before + (ended_before < fill ? ended_before : fill);
        k.ids[to] = k.rows.ids[i];
        k.source[to] = static_cast<std::int32_t>(i);
      }
      running_before += total;
    }
  });
}

DEQCORE_INSTANTIATE_KERNEL(CudaQueue, BeginRows);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, MeasureResidual);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, JudgeRows);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, KeepBest);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, HoldRows);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, EndRows);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, SelectRows);

}  // namespace deqcore

// SPDX-License-Identifier: Apache-2.0
#include "deqcore/kernels/newton.hpp"

#include "deqcore/kernels/cuda/lu_factor.cuh"
#include "deqcore/kernels/cuda/norms.cuh"

namespace deqcore {

template <class T>
void run(CudaQueue& queue, const BeginNewton<T>& k) {
  queue.note("BeginNewton", 0);
  cuda::for_each_row(queue, "BeginNewton", k.rows, k.width, 0, [k] __device__(std::int64_t row) {
    const NewtonStates& s = k.states;
    if (k.rules.dogleg)
      for (std::int64_t at = threadIdx.x; at < k.width; at += blockDim.x) k.dogleg.weights[row * k.width + at] = 0;
    if (threadIdx.x != 0) return;
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
    if (k.rules.dogleg) k.dogleg.radius[row] = 0;
    k.ids[row] = static_cast<std::int32_t>(row);
  });
}

template <class T>
void run(CudaQueue& queue, const MeasureTrial<T>& k) {
  const std::int64_t width = k.at.width;
  queue.note("MeasureTrial", 2 * k.rows.count * width * sizeof(T));
  cuda::for_each_row(queue, "MeasureTrial", k.rows.count, width, 3, [k, width] __device__(std::int64_t i) {
    const NewtonStates& s = k.states;
    const std::int64_t row = k.rows.ids[i];
    if (s.turn[row] != Status::running) return;
    const T *z = k.at[i], *f = k.answer[i];
    const double kept = k.form == Operator::matrix ? 0 : 1;
    const auto fill = [z, f, kept](std::int64_t at, double* values) {
      values[0] = f[at] - kept * static_cast<double>(z[at]);
      values[1] = f[at];
      values[2] = z[at];
    };
    double norms[3], lengths[3];
    cuda::row_norms(Norm::two, width, fill, lengths);
    for (int which = 0; which < 3; ++which) norms[which] = lengths[which];
    if (k.norm != Norm::two) cuda::row_largest(width, fill, norms);
    if (threadIdx.x != 0) return;
    s.g_norm[row] = norms[0];
    s.f_norm[row] = norms[1];
    s.z_norm[row] = norms[2];
    s.trial[row] = lengths[0];
    s.trial_size[row] = lengths[2];
  });
}

template <class T>
void run(CudaQueue& queue, const JudgeTrial<T>& k) {
  queue.note("JudgeTrial", 0);
  cuda::in_one_block(queue, "JudgeTrial", k.batch, 3, [k] __device__() {
    const NewtonStates& s = k.states;
    double counts[3] = {0, 0, 0}, worst[1] = {0};  // running, again, failed
    for (std::int64_t i = threadIdx.x; i < k.rows.count; i += blockDim.x) {
      const std::int64_t row = k.rows.ids[i];
      if (!s.running(row)) continue;
      Status status = Status::running;
      if (s.turn[row] == Status::running) {
        status = judge_trial(s, k.dogleg, row, k.limits, k.rules);
        s.report.status[row] = status;
        const bool again = status == Status::running && s.taken[row] == Taken::no;
        s.turn[row] = again ? Status::running : Status::converged;
        counts[1] += again ? 1 : 0;
      }
      if (status != Status::running) continue;
      counts[0] += 1;
      worst[0] = s.best[row] > worst[0] ? s.best[row] : worst[0];
    }
    __syncthreads();  // all verdicts are written
    for (std::int64_t row = threadIdx.x; row < k.batch; row += blockDim.x)
      counts[2] += s.report.status[row] < Status::converged ? 1 : 0;
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
void run(CudaQueue& queue, const CountNewton<T>& k) {
  queue.note("CountNewton", 0);
  cuda::in_one_block(queue, "CountNewton", k.batch, 2, [k] __device__() {
    double counts[2] = {0, 0}, worst[1] = {0};  // running, failed
    for (std::int64_t i = threadIdx.x; i < k.rows.count; i += blockDim.x) {
      const std::int64_t row = k.rows.ids[i];
      if (!k.states.running(row)) continue;
      counts[0] += 1;
      worst[0] = k.states.best[row] > worst[0] ? k.states.best[row] : worst[0];
    }
    for (std::int64_t row = threadIdx.x; row < k.batch; row += blockDim.x)
      counts[1] += k.states.report.status[row] < Status::converged ? 1 : 0;
    cuda::block_sum(counts, cuda::shared_doubles());
    cuda::block_max(worst, cuda::shared_doubles());
    if (threadIdx.x != 0) return;
    *k.progress = {.running = static_cast<std::int64_t>(counts[0]),
                   .failed = static_cast<std::int64_t>(counts[1]),
                   .again = 0,
                   .worst = worst[0]};
  });
}

template <class T>
void run(CudaQueue& queue, const TakeTrial<T>& k) {
  const std::int64_t width = k.at.width;
  queue.note("TakeTrial", 5 * k.rows.count * width * sizeof(T));
  cuda::for_each_row(queue, "TakeTrial", k.rows.count, width, 0, [k, width] __device__(std::int64_t i) {
    const std::int64_t row = k.rows.ids[i];
    const Taken taken = k.states.taken[row];
    if (taken == Taken::no) return;
    const T *at = k.at[i], *answer = k.answer[i];
    T *z = k.z[row], *r = k.r[row], *result = k.result[row];
    const bool root = k.form == Operator::matrix;
    for (std::int64_t j = threadIdx.x; j < width; j += blockDim.x) {
      z[j] = at[j];
      if (taken == Taken::as_best) result[j] = at[j];
      r[j] = root ? -answer[j] : answer[j] - at[j];
    }
    __syncthreads();  // all threads have read the flag
    if (threadIdx.x == 0) k.states.taken[row] = Taken::no;
  });
}

template <class T>
void run(CudaQueue& queue, const StartTrial<T>& k) {
  queue.note("StartTrial", 0);
  cuda::for_each_entry(queue, "StartTrial", k.rows.count,
                       [k] __device__(std::int64_t i) { start_trial(k.linear, k.states, k.rows.ids[i]); });
}

template <class T>
void run(CudaQueue& queue, const PoseTrial<T>& k) {
  const std::int64_t width = k.at.width;
  queue.note("PoseTrial", 3 * k.rows.count * width * sizeof(T));
  cuda::for_each_row(queue, "PoseTrial", k.rows.count, width, 0, [k, width] __device__(std::int64_t i) {
    const std::int64_t row = k.rows.ids[i];
    const bool tried = k.states.turn[row] == Status::running;
    const double a = tried ? k.states.along_step[row] : 0.0, b = tried ? k.states.along_descent[row] : 0.0;
    const T *z = k.z[row], *step = k.step[row];
    const double* descent = k.descent ? k.descent + row * width : nullptr;
    T* at = k.at[i];
    for (std::int64_t j = threadIdx.x; j < width; j += blockDim.x) {
      double move = a == 0 ? 0.0 : a * static_cast<double>(step[j]);
      if (descent && b != 0) move += b * descent[j];
      at[j] = static_cast<T>(static_cast<double>(z[j]) + move);
    }
  });
}

template <class T>
void run(CudaQueue& queue, const PoseDifference<T>& k) {
  const std::int64_t width = k.at.width;
  queue.note("PoseDifference", 4 * k.rows.count * width * sizeof(T));
  cuda::for_each_row(queue, "PoseDifference", k.rows.count, width, 1, [k, width] __device__(std::int64_t i) {
    const std::int64_t row = k.rows.ids[i];
    const T *z = k.z[row], *along = k.along[i];
    T* at = k.at[i];
    double length[1];
    cuda::row_norms(Norm::two, width, [along](std::int64_t j, double* values) { values[0] = along[j]; }, length);
    const double h = difference_step<T>(k.form, k.states.size[row], k.states.length[row], length[0]);
    for (std::int64_t j = threadIdx.x; j < width; j += blockDim.x)
      at[j] = static_cast<T>(static_cast<double>(z[j]) + h * static_cast<double>(along[j]));
    if (threadIdx.x == 0) k.h[i] = h;
  });
}

template <class T>
void run(CudaQueue& queue, const TakeDifference<T>& k) {
  const std::int64_t width = k.product.width;
  queue.note("TakeDifference", 4 * k.rows.count * width * sizeof(T));
  cuda::for_each_cell(queue, "TakeDifference", k.rows.count, width, [k] __device__(std::int64_t i, std::int64_t j) {
    const std::int64_t row = k.rows.ids[i];
    const double keep = k.form == Operator::matrix ? 0 : 1, sign = 2 * keep - 1;  // f = z + r, F = -r
    const double before = keep * static_cast<double>(k.z[row][j]) + sign * static_cast<double>(k.r[row][j]);
    k.product[i][j] = static_cast<T>((static_cast<double>(k.answer[i][j]) - before) / k.h[i]);
  });
}

template <class T>
void run(CudaQueue& queue, const PoseUnit<T>& k) {
  const std::int64_t width = k.along.width;
  queue.note("PoseUnit", k.along.rows * width * sizeof(T));
  cuda::for_each_cell(queue, "PoseUnit", k.along.rows, width,
                      [k] __device__(std::int64_t i, std::int64_t j) { k.along[i][j] = T(j == k.column ? 1 : 0); });
}

template <class T>
void run(CudaQueue& queue, const KeepJacobian<T>& k) {
  const std::int64_t n = k.answer.width;
  queue.note("KeepJacobian", k.rows.count * n * (sizeof(T) + sizeof(double)));
  cuda::for_each_row(queue, "KeepJacobian", k.rows.count, n, 0, [k, n] __device__(std::int64_t i) {
    const std::int64_t row = k.rows.ids[i];
    if (!k.states.running(row)) return;
    const T* answer = k.answer[i];
    double* to = k.dogleg.matrix + (row * n + k.column) * n;
    for (std::int64_t j = threadIdx.x; j < n; j += blockDim.x) {
      const double entry = answer[j];
      to[j] = k.form == Operator::matrix ? entry : (j == k.column ? 1.0 : 0.0) - entry;
    }
    if (threadIdx.x == 0) count_product(k.states, row);
  });
}

template <class T>
void run(CudaQueue& queue, const FactorJacobian<T>& k) {
  const std::int64_t n = k.z.width;
  queue.note("FactorJacobian", k.rows.count * n * n * sizeof(double));
  // as many threads as the factorisation keeps busy
  cuda::for_each_row(queue, "FactorJacobian", k.rows.count, n * n, 3, [k, n] __device__(std::int64_t i) {
    const Dogleg& d = k.dogleg;
    const std::int64_t row = k.rows.ids[i];
    if (!k.states.running(row)) return;
    double *B = d.matrix + row * n * n, *weights = d.weights + row * n, *descent = d.descent + row * n;
    double* work = d.work + row * n;
    const T *z = k.z[row], *r = k.r[row];
    T* step = k.step[row];
    const std::int64_t lane = threadIdx.x % cuda::warp, mine = threadIdx.x / cuda::warp,
                       warps = blockDim.x / cuda::warp;
    double sums[3] = {0, 0, 0};                       // slope, point, curvature
    for (std::int64_t j = mine; j < n; j += warps) {  // a warp per column
      double* const column = B + j * n;
      double square = 0, with_r = 0;
      for (std::int64_t at = lane; at < n; at += cuda::warp) square += column[at] * column[at];
      for (int by = cuda::warp / 2; by > 0; by /= 2) square += __shfl_xor_sync(0xffffffffu, square, by);
      const double weight = next_weight(weights[j], sqrt(square));
      for (std::int64_t at = lane; at < n; at += cuda::warp) {
        column[at] /= weight;
        with_r += column[at] * static_cast<double>(r[at]);
      }
      for (int by = cuda::warp / 2; by > 0; by /= 2) with_r += __shfl_xor_sync(0xffffffffu, with_r, by);
      if (lane != 0) continue;
      weights[j] = weight;
      descent[j] = with_r / weight;
      const double place = weight * static_cast<double>(z[j]);
      sums[0] += with_r * with_r;
      sums[1] += place * place;
    }
    __syncthreads();  // B is scaled, and d written
    for (std::int64_t at = threadIdx.x; at < n; at += blockDim.x) {
      double entry = 0;
      for (std::int64_t j = 0; j < n; ++j) entry += B[j * n + at] * (weights[j] * descent[j]);
      sums[2] += entry * entry;
    }
    cuda::block_sum(sums, cuda::shared_doubles());
    DoglegSums found{.slope = sums[0], .curvature = sums[2], .point = sums[1]};
    const double tiny = static_cast<double>(n) * std::numeric_limits<double>::epsilon();
    const bool regular = row_math::finite(found.slope) && cuda::factor(B, d.pivot + row * n, n, tiny);
    if (regular) {
      cuda::solve(B, d.pivot + row * n, n, r, work, [&](std::int64_t j, double y) {
        found.newton += y * y;
        found.cross += y * descent[j] * weights[j];
        step[j] = static_cast<T>(y / weights[j]);
      });
    }
    if (threadIdx.x == 0) start_dogleg(k.states, d, row, found, regular, k.descent);
  });
}

template <class T>
void run(CudaQueue& queue, const EndNewton<T>& k) {
  queue.note("EndNewton", 0);
  cuda::for_each_entry(queue, "EndNewton", k.rows.count, [k] __device__(std::int64_t i) {
    const std::int64_t row = k.rows.ids[i];
    if (k.states.running(row)) k.states.report.status[row] = k.status;
  });
}

DEQCORE_INSTANTIATE_KERNEL(CudaQueue, BeginNewton);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, MeasureTrial);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, JudgeTrial);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, CountNewton);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, TakeTrial);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, StartTrial);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, PoseTrial);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, PoseDifference);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, TakeDifference);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, PoseUnit);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, KeepJacobian);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, FactorJacobian);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, EndNewton);

}  // namespace deqcore

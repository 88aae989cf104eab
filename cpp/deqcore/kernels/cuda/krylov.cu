// SPDX-License-Identifier: Apache-2.0
#include "deqcore/kernels/krylov.hpp"

#include "deqcore/kernels/cuda/reduce.cuh"
#include "deqcore/kernels/row_math.hpp"

namespace deqcore {
namespace {

constexpr int vectors_at_once = 8;  // whose sums stay in registers while the newest vector is read once

// One entry of w = A v from the answer to a question about v.
template <class T>
__device__ T product(Operator form, T along, T answer) {
  return form == Operator::matrix ? answer : along - answer;
}

// One Gram-Schmidt pass by all threads of a block: c = V^T w, w -= V c, h += c. A thread reads only the elements of w
// that it wrote itself; c and h are written by the first.   -> |w|^2 after; `before` is set to it before
template <class T>
__device__ double orthogonalise(const Arnoldi<T>& basis, std::int64_t row, int count, T* w, double* c, double* h,
                                double& before) {
  before = 0;
  double after[1] = {0};
  for (int first = 0; first < count; first += vectors_at_once) {
    double sums[vectors_at_once + 1] = {};  // v_i . w, then w . w
    for (std::int64_t at = threadIdx.x; at < basis.width; at += blockDim.x) {
      const double entry = w[at];
#pragma unroll
      for (int i = 0; i < vectors_at_once; ++i) {
        if (first + i >= count) break;
        sums[i] += basis.vector(row, first + i)[at] * entry;
      }
      sums[vectors_at_once] += entry * entry;
    }
    cuda::block_sum(sums, cuda::shared_doubles());
    before = sums[vectors_at_once];
    if (threadIdx.x != 0) continue;
#pragma unroll
    for (int i = 0; i < vectors_at_once; ++i) {
      if (first + i >= count) break;
      c[first + i] = sums[i];
      h[first + i] += sums[i];
    }
  }
  __syncthreads();  // c is complete
  for (std::int64_t at = threadIdx.x; at < basis.width; at += blockDim.x) {
    T value = w[at];
    for (int i = 0; i < count; ++i) value -= static_cast<T>(c[i]) * basis.vector(row, i)[at];
    w[at] = value;
    after[0] += static_cast<double>(value) * value;
  }
  cuda::block_sum(after, cuda::shared_doubles());
  return after[0];
}

// Rows asked about p (krylov.hpp), by all threads of a block.
template <class T>
__device__ void first_product(const StepTwoSided<T>& k, std::int64_t i, std::int64_t row) {
  const TwoSided<T>& q = k.vectors;
  const LinearStates& s = k.states;
  const std::int64_t width = k.x.width;
  const T *along = k.along[i], *answer = k.answer[i], *r0 = q.r0[row];
  T *x = k.x[row], *r = q.r[row], *v = q.v[row];
  T* const kept = q.p_hat.data ? q.p_hat[row] : nullptr;
  const T* const p_hat = kept ? kept : q.p[row];
  const double tiny = std::numeric_limits<T>::epsilon(), goal = aim(s, row, eps4<T>);
  const double rho = q.rho[row], r0_norm = q.r0_norm[row];
  const bool last = s.report.steps[row] + 2 >= k.max_steps;

  double sums[3] = {0, 0, 0};  // r0 . v, v . v, along . along
  for (std::int64_t at = threadIdx.x; at < width; at += blockDim.x) {
    const T asked = along[at], image = product(k.form, asked, answer[at]);
    v[at] = image;
    if (kept) kept[at] = asked;
    sums[0] += static_cast<double>(r0[at]) * image;
    sums[1] += static_cast<double>(image) * image;
    sums[2] += static_cast<double>(asked) * asked;
  }
  cuda::block_sum(sums, cuda::shared_doubles());
  const double against = sums[0], size = sqrt(sums[1]), growth = sqrt(sums[1] / sums[2]);
  if (threadIdx.x == 0) {
    s.answered[row] = Answered::product;
    if (growth > s.growth[row]) s.growth[row] = growth;
  }
  if (!row_math::finite(sums[1])) {
    if (threadIdx.x == 0) s.residual[row] = sums[1];
    return;
  }
  if (fabs(against) <= tiny * r0_norm * size) {  // x stays; the next start has another r0
    if (threadIdx.x != 0) return;
    s.report.singular[row] += 1;
    s.phase[row] = Phase::residual;
    return;
  }
  const double alpha = rho / against;
  const T step = static_cast<T>(alpha);
  double squares[1] = {0};
  for (std::int64_t at = threadIdx.x; at < width; at += blockDim.x) {
    const T value = r[at] - step * v[at];
    r[at] = value;
    squares[0] += static_cast<double>(value) * value;
  }
  cuda::block_sum(squares, cuda::shared_doubles());
  const double residual = sqrt(squares[0]);
  const bool ends = last || residual <= goal;
  for (std::int64_t at = threadIdx.x; at < width && ends; at += blockDim.x) x[at] += step * p_hat[at];
  if (threadIdx.x != 0) return;
  q.alpha[row] = alpha;
  s.residual[row] = residual;
  s.phase[row] = ends ? Phase::residual : Phase::second;
}

// Rows asked about s (krylov.hpp), by all threads of a block.
template <class T>
__device__ void second_product(const StepTwoSided<T>& k, std::int64_t i, std::int64_t row) {
  const TwoSided<T>& q = k.vectors;
  const LinearStates& s = k.states;
  const std::int64_t width = k.x.width;
  const T *along = k.along[i], *answer = k.answer[i], *r0 = q.r0[row], *v = q.v[row];
  T *x = k.x[row], *r = q.r[row], *p = q.p[row];
  const T* const p_hat = q.p_hat.data ? q.p_hat[row] : p;
  const double tiny = std::numeric_limits<T>::epsilon(), goal = aim(s, row, eps4<T>);
  const double rho_before = q.rho[row], r0_norm = q.r0_norm[row], alpha = q.alpha[row], s_norm = s.residual[row];
  const bool last = s.report.steps[row] + 2 >= k.max_steps;
  const auto t = [&](std::int64_t at) {
    return product(k.form, static_cast<double>(along[at]), static_cast<double>(answer[at]));
  };

  double sums[3] = {0, 0, 0};  // t . t, t . s, along . along
  for (std::int64_t at = threadIdx.x; at < width; at += blockDim.x) {
    const double image = t(at), asked = along[at];
    sums[0] += image * image;
    sums[1] += image * r[at];
    sums[2] += asked * asked;
  }
  cuda::block_sum(sums, cuda::shared_doubles());
  const double size = sqrt(sums[0]), with_s = sums[1], growth = sqrt(sums[0] / sums[2]);
  if (threadIdx.x == 0) {
    s.answered[row] = Answered::product;
    if (growth > s.growth[row]) s.growth[row] = growth;
  }
  if (!row_math::finite(sums[0])) {
    if (threadIdx.x == 0) s.residual[row] = sums[0];
    return;
  }
  const double omega = sums[0] > 0 ? with_s / sums[0] : 0.0;
  const bool no_omega = fabs(with_s) <= tiny * size * s_norm;
  const T along_p = static_cast<T>(alpha), along_s = static_cast<T>(omega);
  double left[2] = {0, 0};  // r . r, r0 . r
  for (std::int64_t at = threadIdx.x; at < width; at += blockDim.x) {
    x[at] = x[at] + along_p * p_hat[at] + along_s * along[at];
    const T value = static_cast<T>(r[at] - omega * t(at));
    r[at] = value;
    left[0] += static_cast<double>(value) * value;
    left[1] += static_cast<double>(r0[at]) * value;
  }
  cuda::block_sum(left, cuda::shared_doubles());
  const double residual = sqrt(left[0]), rho = left[1];
  const bool ends = last || residual <= goal;
  const bool vanishes = no_omega || fabs(rho) <= tiny * r0_norm * residual;
  if (!ends && !vanishes) {
    const T beta = static_cast<T>(rho / rho_before * (alpha / omega));
    for (std::int64_t at = threadIdx.x; at < width; at += blockDim.x) p[at] = r[at] + beta * (p[at] - along_s * v[at]);
  }
  if (threadIdx.x != 0) return;
  s.residual[row] = residual;
  s.phase[row] = ends || vanishes ? Phase::residual : Phase::first;
  if (ends) return;
  if (vanishes)
    s.report.singular[row] += 1;
  else
    q.rho[row] = rho;
}

}  // namespace

template <class T>
void run(CudaQueue& queue, const ExtendBasis<T>& k) {
  queue.note("ExtendBasis", k.rows.count * (k.basis.m + 7) * k.basis.width * sizeof(T));
  cuda::for_each_row(
      queue, "ExtendBasis", k.rows.count, k.basis.width, vectors_at_once + 1, [k] __device__(std::int64_t i) {
        const Arnoldi<T>& basis = k.basis;
        const LinearStates& s = k.states;
        const std::int64_t row = k.rows.ids[i];
        if (!s.running(row) || s.phase[row] != Phase::first) return;
        const std::int32_t j = basis.column[row];
        const T *along = k.along[i], *answer = k.answer[i];
        T *w = basis.vector(row, j + 1), *kept_along = basis.Z ? basis.direction(row, j) : nullptr;
        double* const h = basis.h + row * (basis.m + 1);
        double* const c = basis.c + row * (basis.m + 1);

        // w = A v_j, orthogonal to v_0..v_j
        double asked[1] = {0};
        for (std::int64_t at = threadIdx.x; at < basis.width; at += blockDim.x) {
          const T direction = along[at];
          w[at] = product(k.form, direction, answer[at]);
          if (kept_along) kept_along[at] = direction;
          asked[0] += static_cast<double>(direction) * direction;
        }
        for (std::int64_t at = threadIdx.x; at < j + 2; at += blockDim.x) h[at] = 0;
        if (kept_along)
          cuda::block_sum(asked, cuda::shared_doubles());
        else
          asked[0] = 1;
        double size = 0, kept = 0, left = 0;  // |w|^2 at first, the part of it that the last pass kept, and after it
        for (int pass = 0; pass < 2; ++pass) {
          double before;
          left = orthogonalise(basis, row, j + 1, w, c, h, before);
          kept = left / before;
          if (pass == 0) {
            size = before;
            const double growth = sqrt(size / asked[0]);
            if (threadIdx.x == 0 && growth > s.growth[row]) s.growth[row] = growth;
          }
          if (!(kept < arnoldi::enough_kept)) break;
        }
        const bool invariant = !(kept >= arnoldi::enough_kept) || left <= arnoldi::nothing_left<T> * size;

        // the least-squares problem with one more column
        double* const rhs = basis.rhs + row * (basis.m + 1);
        if (threadIdx.x == 0) {
          h[j + 1] = invariant ? 0.0 : sqrt(left);
          basis.norm[row] = h[j + 1];
          basis.column[row] = j + 1;
          s.answered[row] = Answered::product;
          s.residual[row] = row_math::rotate_column(h, j, basis.triangle(row), basis.cosine + row * basis.m,
                                                    basis.sine + row * basis.m, rhs) +
                            0 * size;  // not finite if the product was not
        }
        __syncthreads();
        const bool last = s.report.steps[row] + 2 >= k.max_steps;  // of products, less the one that measures
        if (!invariant && !last && j + 1 < basis.m && s.residual[row] > aim(s, row, eps4<T>)) return;

        // x += V y, and its residual is asked for
        if (threadIdx.x == 0) {
          row_math::solve_upper(basis.triangle(row), j + 1, rhs, std::numeric_limits<T>::epsilon(), h);
          s.phase[row] = Phase::residual;
        }
        __syncthreads();
        T* x = k.x[row];
        for (std::int64_t at = threadIdx.x; at < basis.width; at += blockDim.x) {
          T value = x[at];
          for (std::int32_t v = 0; v <= j; ++v) value += static_cast<T>(h[v]) * basis.direction(row, v)[at];
          x[at] = value;
        }
      });
}

template <class T>
void run(CudaQueue& queue, const PoseBasis<T>& k) {
  queue.note("PoseBasis", k.rows.count * 3 * k.basis.width * sizeof(T));
  cuda::for_each_row(queue, "PoseBasis", k.rows.count, k.basis.width, 0, [k] __device__(std::int64_t i) {
    const Arnoldi<T>& basis = k.basis;
    const LinearStates& s = k.states;
    const std::int64_t row = k.rows.ids[i];
    T* along = k.along[i];
    const bool running = s.running(row);
    const Phase phase = s.phase[row];
    if (!running || phase == Phase::residual) {
      const T* x = k.x[row];
      for (std::int64_t at = threadIdx.x; at < basis.width; at += blockDim.x) along[at] = x[at];
      return;
    }
    const bool starts = phase == Phase::start;
    const std::int32_t column = starts ? 0 : basis.column[row];
    const double norm = starts ? s.length[row] : basis.norm[row];
    __syncthreads();  // all threads have read the phase before one of them writes it
    if (starts && threadIdx.x == 0) {
      basis.column[row] = 0;
      basis.norm[row] = basis.rhs[row * (basis.m + 1)] = norm;
      s.phase[row] = Phase::first;
    }
    T* v = basis.vector(row, column);
    const T length = static_cast<T>(norm);
    for (std::int64_t at = threadIdx.x; at < basis.width; at += blockDim.x) along[at] = v[at] = v[at] / length;
  });
}

template <class T>
void run(CudaQueue& queue, const StepTwoSided<T>& k) {
  queue.note("StepTwoSided", k.rows.count * 12 * k.x.width * sizeof(T));
  cuda::for_each_row(queue, "StepTwoSided", k.rows.count, k.x.width, 3, [k] __device__(std::int64_t i) {
    const std::int64_t row = k.rows.ids[i];
    if (!k.states.running(row)) return;
    const Phase phase = k.states.phase[row];
    if (phase == Phase::first) first_product(k, i, row);
    if (phase == Phase::second) second_product(k, i, row);
  });
}

template <class T>
void run(CudaQueue& queue, const PoseTwoSided<T>& k) {
  queue.note("PoseTwoSided", k.rows.count * 2 * k.x.width * sizeof(T));
  cuda::for_each_row(queue, "PoseTwoSided", k.rows.count, k.x.width, 0, [k] __device__(std::int64_t i) {
    const TwoSided<T>& q = k.vectors;
    const LinearStates& s = k.states;
    const std::int64_t row = k.rows.ids[i];
    const Phase phase = s.running(row) ? s.phase[row] : Phase::residual;
    const double length = s.length[row];
    __syncthreads();  // all threads have read the phase before one of them writes it
    const bool starts = phase == Phase::start;
    const T* from = phase == Phase::residual ? k.x[row]
                    : phase == Phase::first  ? q.p[row]
                                             : q.r[row];  // p = r at first
    T *along = k.along[i], *r0 = q.r0[row], *p = q.p[row];
    for (std::int64_t at = threadIdx.x; at < k.x.width; at += blockDim.x) {
      const T value = from[at];
      along[at] = value;
      if (starts) r0[at] = p[at] = value;
    }
    if (!starts || threadIdx.x != 0) return;
    q.r0_norm[row] = length;
    q.rho[row] = length * length;
    s.phase[row] = Phase::first;
  });
}

DEQCORE_INSTANTIATE_KERNEL(CudaQueue, ExtendBasis);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, PoseBasis);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, StepTwoSided);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, PoseTwoSided);

}  // namespace deqcore

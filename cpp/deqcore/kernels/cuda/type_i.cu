// SPDX-License-Identifier: Apache-2.0
#include "deqcore/kernels/type_i.hpp"

#include "deqcore/kernels/cuda/reduce.cuh"
#include "deqcore/kernels/row_math.hpp"

namespace deqcore {
namespace {

constexpr int pairs_at_once = 2;  // whose sums stay in registers while r and s are read once
constexpr int sums_at_once = 2 * pairs_at_once;

}  // namespace

template <class T>
void run(CudaQueue& queue, const GuardTypeI<T>& k) {
  queue.note("GuardTypeI", 0);
  cuda::for_each_entry(queue, "GuardTypeI", k.rows.count, [k] __device__(std::int64_t i) {
    const std::int64_t row = k.rows.ids[i];
    if (!k.states.running(row)) return;
    const Report& report = k.states.report;
    const double g = k.states.g_norm[row];
    if (report.steps[row] == 1) k.into.first[row] = g;
    const double steps = report.steps[row] - report.rejected[row];  // accelerated so far, and one
    const bool grew = g > k.safeguard * k.into.first[row] * pow(steps, -(1 + k.decay));
    std::int32_t& depth = k.into.pairs.depth[row];
    const bool frozen = k.states.frozen[row] > 0 && depth >= 0;
    if (frozen) depth = -1;
    k.into.averaged[row] = grew;
    report.rejected[row] += grew || frozen;
  });
}

template <class T>
void run(CudaQueue& queue, const PushTypeI<T>& k) {
  queue.note("PushTypeI", k.rows.count * (2 * k.into.pairs.m + 23) * k.into.pairs.width * sizeof(T));
  cuda::for_each_row(
      queue, "PushTypeI", k.rows.count, k.into.pairs.width, sums_at_once, [k] __device__(std::int64_t i) {
        const Secant<T>& q = k.into.pairs;
        const std::int64_t row = k.rows.ids[i];
        if (!k.states.running(row)) return;
        const T *z = k.z[k.rows.from(i)], *f = k.f[k.rows.from(i)];
        T *s = q.s[row], *r_last = q.r_last[row], *next = k.next[i];
        const bool averaged = k.into.averaged[row];
        const T beta = static_cast<T>(k.beta);
        std::int32_t depth = q.depth[row];
        __syncthreads();  // all threads have read the depth before one of them writes it
        if (depth < 0) {  // the plain step, or the averaged one
          for (std::int64_t at = threadIdx.x; at < q.width; at += blockDim.x) {
            const T r = f[at] - z[at], step = averaged ? beta * r : r;
            s[at] = step;
            r_last[at] = r;
            next[at] = averaged ? z[at] + step : f[at];
          }
          if (threadIdx.x == 0) q.depth[row] = 0;
          return;
        }
        if (depth == q.m) depth = 0;
        // p = Q^T r;  s_hat = s - Q Q^T s, which becomes the new q. A thread reads only elements that it wrote itself.
        double *a = q.a + row * q.m, *b = q.b + row * q.m, *change = q.change + row * q.m, *p = k.into.p + row * q.m;
        for (int first = 0; first < depth; first += pairs_at_once) {
          double dots[sums_at_once] = {};
          for (std::int64_t at = threadIdx.x; at < q.width; at += blockDim.x) {
            const double r = static_cast<double>(f[at]) - static_cast<double>(z[at]), step = s[at];
#pragma unroll
            for (int c = 0; c < pairs_at_once; ++c) {
              if (first + c >= depth) break;
              const double q_j = q.vector(q.V, row, first + c)[at];
              dots[c] += q_j * r;
              dots[pairs_at_once + c] += q_j * step;
            }
          }
          cuda::block_sum(dots, cuda::shared_doubles());
          if (threadIdx.x != 0) continue;
#pragma unroll
          for (int c = 0; c < pairs_at_once; ++c) {
            if (first + c >= depth) break;
            p[first + c] = dots[c];
            b[first + c] = dots[pairs_at_once + c];
          }
        }
        __syncthreads();  // the coefficients are there for all
        T* s_hat = q.vector(q.V, row, depth);
        double sizes[2] = {};  // |s_hat|^2, |s|^2
        for (std::int64_t at = threadIdx.x; at < q.width; at += blockDim.x) {
          const T step = s[at];
          T rest = step;
          for (int j = 0; j < depth; ++j) rest -= static_cast<T>(b[j]) * q.vector(q.V, row, j)[at];
          s_hat[at] = rest;
          sizes[0] += static_cast<double>(rest) * static_cast<double>(rest);
          sizes[1] += static_cast<double>(step) * static_cast<double>(step);
        }
        cuda::block_sum(sizes, cuda::shared_doubles());
        if (sizes[0] < k.independence * k.independence * sizes[1]) {
          depth = 0;
          s_hat = q.vector(q.V, row, 0);
          for (std::int64_t at = threadIdx.x; at < q.width; at += blockDim.x) s_hat[at] = s[at];
          sizes[0] = sizes[1];
        }
        // b = U^T s_hat; a = V^T r = R^T p and its change, V^T y; Q^T v = R b, the new column of R
        for (int first = 0; first < depth; first += pairs_at_once) {
          double dots[pairs_at_once] = {};
          for (std::int64_t at = threadIdx.x; at < q.width; at += blockDim.x) {
            const double rest = s_hat[at];
#pragma unroll
            for (int c = 0; c < pairs_at_once; ++c) {
              if (first + c >= depth) break;
              dots[c] += static_cast<double>(q.vector(q.U, row, first + c)[at]) * rest;
            }
          }
          cuda::block_sum(dots, cuda::shared_doubles());
          if (threadIdx.x != 0) continue;
#pragma unroll
          for (int c = 0; c < pairs_at_once; ++c)
            if (first + c < depth) b[first + c] = dots[c];
        }
        __syncthreads();
        const int m = static_cast<int>(q.m);
        double* const R = k.into.R + row * q.m * q.m;
        double sums[3] = {};  // (v, y), (v, r), |v|^2 without |s_hat|^2
        for (int j = threadIdx.x; j < depth; j += blockDim.x) {
          double with_r = 0, coefficient = 0;
          for (int l = 0; l <= j; ++l) with_r += R[l * m + j] * p[l];
          for (int l = j; l < depth; ++l) coefficient += R[j * m + l] * b[l];
          change[j] = with_r - a[j];
          a[j] = with_r;
          R[j * m + depth] = coefficient;
          sums[0] += b[j] * change[j];
          sums[1] += b[j] * a[j];
          sums[2] += coefficient * coefficient;
        }
        __syncthreads();
        // v = -s_hat + V b, s - B y = s + y - U V^T y, and r - U a, which replaces s
        T* u_new = q.vector(q.U, row, depth);
        for (std::int64_t at = threadIdx.x; at < q.width; at += blockDim.x) {
          const T r = f[at] - z[at], y = r - r_last[at];
          T w = s[at] + y, ahead = r;
          for (int j = 0; j < depth; ++j) {
            const T u_j = q.vector(q.U, row, j)[at];
            w -= static_cast<T>(change[j]) * u_j;
            ahead -= static_cast<T>(a[j]) * u_j;
          }
          u_new[at] = w;
          s[at] = ahead;
          r_last[at] = r;
          const double rest = s_hat[at];
          sums[0] -= rest * static_cast<double>(y);
          sums[1] -= rest * static_cast<double>(r);
        }
        cuda::block_sum(sums, cuda::shared_doubles());
        // u = theta (s - B y) |v| / (gamma |s_hat|^2), v <- v / |v|;  s = r - U a - u (v, r), or beta r
        const row_math::TypeIPair pair =
            row_math::regularise(sums[0], sizes[0], sizes[0] + sums[2], k.powell, std::numeric_limits<T>::max());
        const T to_u = pair.usable ? static_cast<T>(pair.to_u) : T(0);
        const T to_q = pair.usable ? static_cast<T>(1 / pair.s_norm) : T(0);
        const T along = pair.usable ? static_cast<T>(sums[1] / pair.v_norm) : T(0);
        for (std::int64_t at = threadIdx.x; at < q.width; at += blockDim.x) {
          const T u = to_u * u_new[at], step = averaged ? beta * r_last[at] : s[at] - along * u;
          u_new[at] = u;
          s_hat[at] *= to_q;
          s[at] = step;
          next[at] = z[at] + step;
        }
        if (pair.usable)
          for (int j = threadIdx.x; j < depth; j += blockDim.x) R[j * m + depth] /= pair.v_norm;
        if (threadIdx.x != 0) return;
        q.depth[row] = depth + (pair.usable ? 1 : 0);
        if (!pair.usable) {
          k.states.report.singular[row] += 1;
          return;
        }
        R[depth * m + depth] = -pair.s_norm / pair.v_norm;
        a[depth] = sums[1] / pair.v_norm;
      });
}

DEQCORE_INSTANTIATE_KERNEL(CudaQueue, GuardTypeI);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, PushTypeI);

}  // namespace deqcore

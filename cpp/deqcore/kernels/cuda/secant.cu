// SPDX-License-Identifier: Apache-2.0
#include "deqcore/kernels/secant.hpp"

#include "deqcore/kernels/cuda/reduce.cuh"
#include "deqcore/kernels/row_math.hpp"

namespace deqcore {
namespace {

constexpr int pairs_at_once = 2;  // whose sums stay in registers while r and s are read once

}  // namespace

template <class T>
void run(CudaQueue& queue, const ClearSecant<T>& k) {
  queue.note("ClearSecant", 0);
  cuda::for_each_entry(queue, "ClearSecant", k.rows, [k] __device__(std::int64_t row) { k.secant.depth[row] = -1; });
}

template <class T>
void run(CudaQueue& queue, const GuardSecant<T>& k) {
  queue.note("GuardSecant", 0);
  cuda::for_each_entry(queue, "GuardSecant", k.rows.count, [k] __device__(std::int64_t i) {
    const std::int64_t row = k.rows.ids[i];
    std::int32_t& depth = k.secant.depth[row];
    if (!k.states.running(row) || depth == -1) return;
    const bool grew = row_math::outgrown(depth, k.states.g_norm[row], k.states.report.residual[row], k.growth,
                                         k.states.report.scale[row]);
    if (grew || k.states.frozen[row] > 0) {
      depth = -1;
      k.states.report.rejected[row] += 1;
    } else if (k.restart && depth == k.secant.m) {
      depth = 0;
    }
  });
}

template <class T>
void run(CudaQueue& queue, const PushPair<T>& k) {
  queue.note("PushPair", k.rows.count * (2 * k.into.m + 16) * k.into.width * sizeof(T));
  cuda::for_each_row(queue, "PushPair", k.rows.count, k.into.width, 2 * pairs_at_once, [k] __device__(std::int64_t i) {
    const Secant<T>& q = k.into;
    const std::int64_t row = k.rows.ids[i];
    if (!k.states.running(row)) return;
    const T *z = k.z[k.rows.from(i)], *f = k.f[k.rows.from(i)];
    T *s = q.s[row], *r_last = q.r_last[row], *next = k.next[i];
    const std::int32_t depth = q.depth[row];
    __syncthreads();  // all threads have read the depth before one of them writes it
    if (depth < 0) {  // the plain step, or one by the pairs of an earlier solve
      for (std::int64_t at = threadIdx.x; at < q.width; at += blockDim.x) {
        s[at] = r_last[at] = f[at] - z[at];
        next[at] = f[at];
      }
      for (int j = 0; j < ~depth; ++j) {  // s = r - U V^T r; a thread reads only elements that it wrote itself
        double sum[1] = {};
        for (std::int64_t at = threadIdx.x; at < q.width; at += blockDim.x)
          sum[0] += static_cast<double>(q.vector(q.V, row, j)[at]) * static_cast<double>(r_last[at]);
        cuda::block_sum(sum, cuda::shared_doubles());
        const T along = static_cast<T>(sum[0]);
        for (std::int64_t at = threadIdx.x; at < q.width; at += blockDim.x) {
          s[at] -= along * q.vector(q.U, row, j)[at];
          next[at] = z[at] + s[at];
        }
        if (threadIdx.x == 0) q.a[row * q.m + j] = sum[0];
      }
      if (threadIdx.x == 0) q.depth[row] = ~depth;
      return;
    }
    // a = V^T r, b = U^T s; change = V^T y
    double *a = q.a + row * q.m, *b = q.b + row * q.m, *change = q.change + row * q.m;
    for (int first = 0; first < depth; first += pairs_at_once) {
      double dots[2 * pairs_at_once] = {};
      for (std::int64_t at = threadIdx.x; at < q.width; at += blockDim.x) {
        const double r = static_cast<double>(f[at]) - static_cast<double>(z[at]), step = s[at];
#pragma unroll
        for (int c = 0; c < pairs_at_once; ++c) {
          if (first + c >= depth) break;
          dots[c] += static_cast<double>(q.vector(q.V, row, first + c)[at]) * r;
          dots[pairs_at_once + c] += static_cast<double>(q.vector(q.U, row, first + c)[at]) * step;
        }
      }
      cuda::block_sum(dots, cuda::shared_doubles());
      if (threadIdx.x != 0) continue;
#pragma unroll
      for (int c = 0; c < pairs_at_once; ++c) {
        const int j = first + c;
        if (j >= depth) break;
        change[j] = dots[c] - a[j];
        a[j] = dots[c];
        b[j] = dots[pairs_at_once + c];
      }
    }
    __syncthreads();  // the coefficients are there for all
    // v = -s + V b, s - B y = s + y - U V^T y, and r - U a, which replaces s
    T *u_new = q.vector(q.U, row, depth), *v_new = q.vector(q.V, row, depth);
    double sums[4] = {};  // (v, y), (v, r), (v, v), (y, y)
    for (std::int64_t at = threadIdx.x; at < q.width; at += blockDim.x) {
      const T r = f[at] - z[at], step = s[at], y = r - r_last[at];
      T v = -step, w = step + y, ahead = r;
      for (int j = 0; j < depth; ++j) {
        const T u_j = q.vector(q.U, row, j)[at];
        v += static_cast<T>(b[j]) * q.vector(q.V, row, j)[at];
        w -= static_cast<T>(change[j]) * u_j;
        ahead -= static_cast<T>(a[j]) * u_j;
      }
      v_new[at] = v;
      u_new[at] = w;
      s[at] = ahead;
      r_last[at] = r;
      const double of_v = v, of_y = y, of_r = r;
      sums[0] += of_v * of_y;
      sums[1] += of_v * of_r;
      sums[2] += of_v * of_v;
      sums[3] += of_y * of_y;
    }
    cuda::block_sum(sums, cuda::shared_doubles());
    // u = (s - B y) |v| / (v, y), v <- v / |v|;  s = r - U a - u (v, r). A thread reads only elements that it wrote
    // itself.
    const double tiny = 8.0 * std::numeric_limits<T>::epsilon();
    const bool usable = fabs(sums[0]) > tiny * sqrt(sums[2]) * sqrt(sums[3]);
    const double v_norm = sqrt(sums[2]);
    const T to_u = usable ? static_cast<T>(v_norm / sums[0]) : T(0), to_v = usable ? static_cast<T>(1 / v_norm) : T(0);
    const T along = usable ? static_cast<T>(sums[1] / v_norm) : T(0);
    for (std::int64_t at = threadIdx.x; at < q.width; at += blockDim.x) {
      const T u = to_u * u_new[at], step = s[at] - along * u;
      u_new[at] = u;
      v_new[at] *= to_v;
      s[at] = step;
      next[at] = z[at] + step;
    }
    if (threadIdx.x != 0) return;
    if (!usable) {
      k.states.report.singular[row] += 1;
      return;
    }
    a[depth] = sums[1] / v_norm;
    q.depth[row] = depth + 1;
  });
}

template <class T>
void run(CudaQueue& queue, const CompressPairs<T>& k) {
  queue.note("CompressPairs", 0);
  // the Gram matrices of the rows whose memory is full
  cuda::for_each_row(queue, "CompressPairs: products", k.rows.count, k.secant.width, 2 * pairs_at_once,
                     [k] __device__(std::int64_t i) {
                       const Secant<T>& q = k.secant;
                       const std::int64_t row = k.rows.ids[i], m = q.m;
                       if (!k.states.running(row) || q.depth[row] < m) return;
                       double *const gram_u = q.gram + row * 4 * m * m, *const gram_v = gram_u + m * m;
                       for (std::int64_t j = 0; j < m; ++j)
                         for (std::int64_t first = 0; first <= j; first += pairs_at_once) {
                           double dots[2 * pairs_at_once] = {};
                           for (std::int64_t at = threadIdx.x; at < q.width; at += blockDim.x) {
                             const double u_j = q.vector(q.U, row, j)[at], v_j = q.vector(q.V, row, j)[at];
#pragma unroll
                             for (int c = 0; c < pairs_at_once; ++c) {
                               if (first + c > j) break;
                               dots[c] += u_j * static_cast<double>(q.vector(q.U, row, first + c)[at]);
                               dots[pairs_at_once + c] += v_j * static_cast<double>(q.vector(q.V, row, first + c)[at]);
                             }
                           }
                           cuda::block_sum(dots, cuda::shared_doubles());
                           if (threadIdx.x != 0) continue;
#pragma unroll
                           for (int c = 0; c < pairs_at_once; ++c) {
                             if (first + c > j) break;
                             gram_u[j * m + first + c] = dots[c];
                             gram_v[j * m + first + c] = dots[pairs_at_once + c];
                           }
                         }
                     });
  // the combinations, by one thread for each row; change[0] says to the last step which rows have them
  cuda::for_each_entry(queue, "CompressPairs: combinations", k.rows.count, [k] __device__(std::int64_t i) {
    const Secant<T>& q = k.secant;
    const std::int64_t row = k.rows.ids[i], m = q.m;
    const bool full = k.states.running(row) && q.depth[row] >= m;
    q.change[row * m] = full ? 1.0 : 0.0;
    if (!full) return;
    double* const gram = q.gram + row * 4 * m * m;
    const double* const to_v = gram + 3 * m * m;
    const std::int32_t kept =
        row_math::compress_pairs(m, k.keep, gram, gram + m * m, gram + 2 * m * m, gram + 3 * m * m);
    double *const a = q.a + row * m, *const mixed = q.b + row * m;
    for (std::int32_t c = 0; c < kept; ++c) {
      mixed[c] = 0;
      for (std::int64_t j = 0; j < m; ++j) mixed[c] += to_v[j * m + c] * a[j];
    }
    for (std::int32_t c = 0; c < kept; ++c) a[c] = mixed[c];
    q.depth[row] = kept;
  });
  // In the pairs' own place: an element's old values are read before its new ones are written, by one thread.
  cuda::for_each_row(queue, "CompressPairs: pairs", k.rows.count, k.secant.width, 0, [k] __device__(std::int64_t i) {
    const Secant<T>& q = k.secant;
    const std::int64_t row = k.rows.ids[i], m = q.m;
    if (q.change[row * m] == 0) return;
    const int kept = q.depth[row], depth = static_cast<int>(m);
    for (int side = 0; side < 2; ++side) {
      T* const vectors = q.vector(side == 0 ? q.U : q.V, row, 0);
      const double* const to = q.gram + (row * 4 + 2 + side) * m * m;
      for (std::int64_t at = threadIdx.x; at < q.width; at += blockDim.x) {
        T old[row_math::max_history];
#pragma unroll 1
        for (int j = 0; j < depth; ++j) old[j] = vectors[j * q.pitch + at];
#pragma unroll 1
        for (int c = 0; c < kept; ++c) {
          double sum = 0;
#pragma unroll 1
          for (int j = 0; j < depth; ++j) sum += to[j * depth + c] * static_cast<double>(old[j]);
          vectors[c * q.pitch + at] = static_cast<T>(sum);
        }
      }
    }
  });
}

DEQCORE_INSTANTIATE_KERNEL(CudaQueue, ClearSecant);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, GuardSecant);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, PushPair);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, CompressPairs);

}  // namespace deqcore

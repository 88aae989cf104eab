// SPDX-License-Identifier: Apache-2.0
#include "deqcore/kernels/secant.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "deqcore/kernels/cpu/lanes.hpp"
#include "deqcore/kernels/row_math.hpp"

namespace deqcore {
namespace {

constexpr std::int64_t piece = 512;  // elements that stay in the L1 cache while the pairs are read

}  // namespace

template <class T>
void run(CpuQueue& queue, const ClearSecant<T>& k) {
  queue.note("ClearSecant", 0);
  std::fill_n(k.secant.depth, k.rows, -1);
}

template <class T>
void run(CpuQueue& queue, const GuardSecant<T>& k) {
  queue.note("GuardSecant", 0);
  for (std::int64_t i = 0; i < k.rows.count; ++i) {
    const std::int64_t row = k.rows.ids[i];
    std::int32_t& depth = k.secant.depth[row];
    if (!k.states.running(row) || depth == -1) continue;
    const bool grew = row_math::outgrown(depth, k.states.g_norm[row], k.states.report.residual[row], k.growth,
                                         k.states.report.scale[row]);
    if (grew || k.states.frozen[row] > 0) {
      depth = -1;
      k.states.report.rejected[row] += 1;
    } else if (k.restart && depth == k.secant.m) {
      depth = 0;
    }
  }
}

template <class T>
void run(CpuQueue& queue, const PushPair<T>& k) {
  const Secant<T>& q = k.into;
  const std::int64_t bytes = (2 * q.m + 16) * q.width * sizeof(T);  // half full
  queue.note("PushPair", k.rows.count * bytes);
  queue.for_blocks(k.rows.count, bytes, [&](std::int64_t first, std::int64_t count) {
    at_simd_level([&](auto simd) __attribute__((always_inline)) {
      constexpr int lanes = simd.bytes / sizeof(T);
      constexpr int sums = lanes::doubles<simd.bytes>;
      for (std::int64_t i = first; i < first + count; ++i) {
        const std::int64_t row = k.rows.ids[i];
        if (!k.states.running(row)) continue;
        const T *z = k.z[k.rows.from(i)], *f = k.f[k.rows.from(i)];
        T *s = q.s[row], *r_last = q.r_last[row], *next = k.next[i];
        const std::int32_t depth = q.depth[row];
        if (depth < 0) {  // the plain step, or one by the pairs of an earlier solve
          q.depth[row] = ~depth;
          lanes::sweep<lanes>(q.width, [=]<int L>(std::int64_t at) __attribute__((always_inline)) {
            using W = simd::Vector<T, L>;
            const W r = simd::load<W>(f + at) - simd::load<W>(z + at);
            simd::store(s + at, r);
            simd::store(r_last + at, r);
            simd::store(next + at, simd::load<W>(f + at));
          });
          for (std::int32_t j = 0; j < ~depth; ++j) {  // s = r - U V^T r
            const T *u = q.vector(q.U, row, j), *v = q.vector(q.V, row, j);
            const double along = q.a[row * q.m + j] = lanes::dot<sums>(v, static_cast<const T*>(r_last), q.width);
            lanes::sweep<lanes>(q.width, [=]<int L>(std::int64_t at) __attribute__((always_inline)) {
              using W = simd::Vector<T, L>;
              const W step = simd::load<W>(s + at) - static_cast<T>(along) * simd::load<W>(u + at);
              simd::store(s + at, step);
              simd::store(next + at, simd::load<W>(z + at) + step);
            });
          }
          continue;
        }
        // a = V^T r and its change, V^T y; b = U^T s
        double *a = q.a + row * q.m, *b = q.b + row * q.m, *change = q.change + row * q.m;
        for (std::int32_t j = 0; j < depth; ++j) {
          const T *u = q.vector(q.U, row, j), *v = q.vector(q.V, row, j);
          const double old = a[j];
          a[j] = lanes::sum<sums>(q.width, [=]<int L>(std::int64_t at) __attribute__((always_inline)) {
            return lanes::load_double<L>(v + at) * (lanes::load_double<L>(f + at) - lanes::load_double<L>(z + at));
          });
          b[j] = lanes::dot<sums>(u, static_cast<const T*>(s), q.width);
          change[j] = a[j] - old;
        }
        // v = -s + V b, s - B y = s + y - U V^T y, and r - U a, which replaces s
        T *u_new = q.vector(q.U, row, depth), *v_new = q.vector(q.V, row, depth);
        double with_y = 0, with_r = 0, v_size = 0, y_size = 0;
        for (std::int64_t start = 0; start < q.width; start += piece) {
          const std::int64_t n = std::min(piece, q.width - start);
          lanes::sweep<lanes>(n, [&]<int L>(std::int64_t offset) __attribute__((always_inline)) {
            using W = simd::Vector<T, L>;
            const std::int64_t at = start + offset;
            const W r = simd::load<W>(f + at) - simd::load<W>(z + at), step = simd::load<W>(s + at);
            const W y = r - simd::load<W>(r_last + at);
            W v = -step, w = step + y, ahead = r;
            for (std::int32_t j = 0; j < depth; ++j) {
              const W u_j = simd::load<W>(q.vector(q.U, row, j) + at);
              v += static_cast<T>(b[j]) * simd::load<W>(q.vector(q.V, row, j) + at);
              w -= static_cast<T>(change[j]) * u_j;
              ahead -= static_cast<T>(a[j]) * u_j;
            }
            simd::store(v_new + at, v);
            simd::store(u_new + at, w);
            simd::store(s + at, ahead);
            simd::store(next + at, y);  // until its products are taken
            simd::store(r_last + at, r);
          });
          const T *v = v_new + start, *y = next + start, *r = r_last + start;
          with_y += lanes::dot<sums>(v, y, n);
          with_r += lanes::dot<sums>(v, r, n);
          v_size += lanes::dot<sums>(v, v, n);
          y_size += lanes::dot<sums>(y, y, n);
        }
        // u = (s - B y) |v| / (v, y), v <- v / |v|;  s = r - U a - u (v, r)
        const double tiny = 8.0 * std::numeric_limits<T>::epsilon();
        const bool usable = std::abs(with_y) > tiny * std::sqrt(v_size) * std::sqrt(y_size);
        const double v_norm = std::sqrt(v_size);
        const T to_u = usable ? static_cast<T>(v_norm / with_y) : T(0),
                to_v = usable ? static_cast<T>(1 / v_norm) : T(0);
        const T along = usable ? static_cast<T>(with_r / v_norm) : T(0);
        lanes::sweep<lanes>(q.width, [=]<int L>(std::int64_t at) __attribute__((always_inline)) {
          using W = simd::Vector<T, L>;
          const W u = to_u * simd::load<W>(u_new + at);
          const W step = simd::load<W>(s + at) - along * u;
          simd::store(u_new + at, u);
          simd::store(v_new + at, to_v * simd::load<W>(v_new + at));
          simd::store(s + at, step);
          simd::store(next + at, simd::load<W>(z + at) + step);
        });
        if (!usable) {
          k.states.report.singular[row] += 1;
          continue;
        }
        a[depth] = with_r / v_norm;
        q.depth[row] = depth + 1;
      }
    });
  });
}

template <class T>
void run(CpuQueue& queue, const CompressPairs<T>& k) {
  const Secant<T>& q = k.secant;
  const std::int64_t m = q.m, bytes = 4 * m * q.width * sizeof(T);
  queue.note("CompressPairs", 0);  // now and then
  queue.for_blocks(k.rows.count, bytes, [&](std::int64_t first, std::int64_t count) {
    at_simd_level([&](auto simd) __attribute__((always_inline)) {
      constexpr int sums = lanes::doubles<simd.bytes>;
      for (std::int64_t i = first; i < first + count; ++i) {
        const std::int64_t row = k.rows.ids[i];
        if (!k.states.running(row) || q.depth[row] < m) continue;
        double* const gram_u = q.gram + row * 4 * m * m;
        double *const gram_v = gram_u + m * m, *const to_u = gram_v + m * m, *const to_v = to_u + m * m;
        for (std::int64_t j = 0; j < m; ++j)
          for (std::int64_t l = 0; l <= j; ++l) {
            const T *u_j = q.vector(q.U, row, j), *v_j = q.vector(q.V, row, j);
            gram_u[j * m + l] = lanes::dot<sums>(u_j, static_cast<const T*>(q.vector(q.U, row, l)), q.width);
            gram_v[j * m + l] = lanes::dot<sums>(v_j, static_cast<const T*>(q.vector(q.V, row, l)), q.width);
          }
        q.depth[row] = row_math::compress_pairs(m, k.keep, gram_u, gram_v, to_u, to_v);
        // x[c] <- sum_j to[j][c] x[j]
        const std::int64_t kept = std::min<std::int64_t>(q.depth[row], m);
        double mixed[row_math::max_history];
        const auto combine = [&](const double* to, const auto& entry) {
          for (std::int64_t c = 0; c < kept; ++c) {
            mixed[c] = 0;
            for (std::int64_t j = 0; j < m; ++j) mixed[c] += to[j * m + c] * entry(j);
          }
        };
        for (T* vectors : {q.U, q.V})
          for (std::int64_t at = 0; at < q.width; ++at) {
            combine(vectors == q.U ? to_u : to_v, [&](std::int64_t j) { return q.vector(vectors, row, j)[at]; });
            for (std::int64_t c = 0; c < kept; ++c) q.vector(vectors, row, c)[at] = static_cast<T>(mixed[c]);
          }
        double* const a = q.a + row * m;
        combine(to_v, [&](std::int64_t j) { return a[j]; });
        std::copy_n(mixed, kept, a);
      }
    });
  });
}

DEQCORE_INSTANTIATE_KERNEL(CpuQueue, ClearSecant);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, GuardSecant);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, PushPair);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, CompressPairs);

}  // namespace deqcore

// SPDX-License-Identifier: Apache-2.0
#include "deqcore/kernels/type_i.hpp"

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
void run(CpuQueue& queue, const GuardTypeI<T>& k) {
  queue.note("GuardTypeI", 0);
  for (std::int64_t i = 0; i < k.rows.count; ++i) {
    const std::int64_t row = k.rows.ids[i];
    if (!k.states.running(row)) continue;
    const Report& report = k.states.report;
    const double g = k.states.g_norm[row];
    if (report.steps[row] == 1) k.into.first[row] = g;
    const double steps = report.steps[row] - report.rejected[row];  // accelerated so far, and one
    const bool grew = g > k.safeguard * k.into.first[row] * std::pow(steps, -(1 + k.decay));
    std::int32_t& depth = k.into.pairs.depth[row];
    const bool frozen = k.states.frozen[row] > 0 && depth >= 0;
    if (frozen) depth = -1;
    k.into.averaged[row] = grew;
    report.rejected[row] += grew || frozen;
  }
}

template <class T>
void run(CpuQueue& queue, const PushTypeI<T>& k) {
  const Secant<T>& q = k.into.pairs;
  const std::int64_t bytes = (2 * q.m + 23) * q.width * sizeof(T);  // half full
  queue.note("PushTypeI", k.rows.count * bytes);
  queue.for_blocks(k.rows.count, bytes, [&](std::int64_t first, std::int64_t count) {
    at_simd_level([&](auto simd) __attribute__((always_inline)) {
      constexpr int lanes = simd.bytes / sizeof(T);
      constexpr int sums = lanes::doubles<simd.bytes>;
      for (std::int64_t i = first; i < first + count; ++i) {
        const std::int64_t row = k.rows.ids[i];
        if (!k.states.running(row)) continue;
        const T *z = k.z[k.rows.from(i)], *f = k.f[k.rows.from(i)];
        T *s = q.s[row], *r_last = q.r_last[row], *next = k.next[i];
        const bool averaged = k.into.averaged[row];
        const T beta = static_cast<T>(k.beta);
        std::int32_t depth = q.depth[row];
        if (depth < 0) {  // the plain step, or the averaged one
          q.depth[row] = 0;
          lanes::sweep<lanes>(q.width, [=]<int L>(std::int64_t at) __attribute__((always_inline)) {
            using W = simd::Vector<T, L>;
            const W r = simd::load<W>(f + at) - simd::load<W>(z + at), step = averaged ? beta * r : r;
            simd::store(s + at, step);
            simd::store(r_last + at, r);
            simd::store(next + at, averaged ? simd::load<W>(z + at) + step : simd::load<W>(f + at));
          });
          continue;
        }
        if (depth == q.m) depth = 0;
        // p = Q^T r;  s_hat = s - Q Q^T s, which becomes the new q
        double *a = q.a + row * q.m, *b = q.b + row * q.m, *change = q.change + row * q.m, *p = k.into.p + row * q.m;
        for (std::int32_t j = 0; j < depth; ++j) {
          const T* q_j = q.vector(q.V, row, j);
          b[j] = lanes::dot<sums>(q_j, static_cast<const T*>(s), q.width);
          p[j] = lanes::sum<sums>(q.width, [=]<int L>(std::int64_t at) __attribute__((always_inline)) {
            return lanes::load_double<L>(q_j + at) * (lanes::load_double<L>(f + at) - lanes::load_double<L>(z + at));
          });
        }
        T* s_hat = q.vector(q.V, row, depth);
        double s_hat_size = 0, s_size = 0;
        for (std::int64_t start = 0; start < q.width; start += piece) {
          const std::int64_t n = std::min(piece, q.width - start);
          lanes::sweep<lanes>(n, [&]<int L>(std::int64_t offset) __attribute__((always_inline)) {
            using W = simd::Vector<T, L>;
            const std::int64_t at = start + offset;
            W rest = simd::load<W>(s + at);
            for (std::int32_t j = 0; j < depth; ++j)
              rest -= static_cast<T>(b[j]) * simd::load<W>(q.vector(q.V, row, j) + at);
            simd::store(s_hat + at, rest);
          });
          s_hat_size += lanes::dot<sums>(static_cast<const T*>(s_hat + start), static_cast<const T*>(s_hat + start), n);
          s_size += lanes::dot<sums>(static_cast<const T*>(s + start), static_cast<const T*>(s + start), n);
        }
        if (s_hat_size < k.independence * k.independence * s_size) {
          depth = 0;
          s_hat = q.vector(q.V, row, 0);
          std::copy_n(s, q.width, s_hat);
          s_hat_size = s_size;
        }
        // b = U^T s_hat; a = V^T r = R^T p and its change, V^T y; Q^T v = R b, the new column of R
        double* R = k.into.R + row * q.m * q.m;
        double v_y = 0, v_r = 0, v_size = s_hat_size;
        for (std::int32_t j = 0; j < depth; ++j)
          b[j] = lanes::dot<sums>(static_cast<const T*>(q.vector(q.U, row, j)), static_cast<const T*>(s_hat), q.width);
        for (std::int32_t j = 0; j < depth; ++j) {
          double with_r = 0, coefficient = 0;
          for (std::int32_t l = 0; l <= j; ++l) with_r += R[l * q.m + j] * p[l];
          for (std::int32_t l = j; l < depth; ++l) coefficient += R[j * q.m + l] * b[l];
          change[j] = with_r - a[j];
          a[j] = with_r;
          R[j * q.m + depth] = coefficient;
          v_y += b[j] * change[j];
          v_r += b[j] * a[j];
          v_size += coefficient * coefficient;
        }
        // v = -s_hat + V b, s - B y = s + y - U V^T y, and r - U a, which replaces s
        T* u_new = q.vector(q.U, row, depth);
        for (std::int64_t start = 0; start < q.width; start += piece) {
          const std::int64_t n = std::min(piece, q.width - start);
          lanes::sweep<lanes>(n, [&]<int L>(std::int64_t offset) __attribute__((always_inline)) {
            using W = simd::Vector<T, L>;
            const std::int64_t at = start + offset;
            const W r = simd::load<W>(f + at) - simd::load<W>(z + at), y = r - simd::load<W>(r_last + at);
            W w = simd::load<W>(s + at) + y, ahead = r;
            for (std::int32_t j = 0; j < depth; ++j) {
              const W u_j = simd::load<W>(q.vector(q.U, row, j) + at);
              w -= static_cast<T>(change[j]) * u_j;
              ahead -= static_cast<T>(a[j]) * u_j;
            }
            simd::store(u_new + at, w);
            simd::store(s + at, ahead);
            simd::store(next + at, y);  // until its product is taken
            simd::store(r_last + at, r);
          });
          const T* hat = s_hat + start;
          v_y -= lanes::dot<sums>(hat, static_cast<const T*>(next + start), n);
          v_r -= lanes::dot<sums>(hat, static_cast<const T*>(r_last + start), n);
        }
        // u = theta (s - B y) |v| / (gamma |s_hat|^2), v <- v / |v|;  s = r - U a - u (v, r), or beta r
        const auto [usable, s_norm, v_norm, scale] =
            row_math::regularise(v_y, s_hat_size, v_size, k.powell, std::numeric_limits<T>::max());
        const T to_u = usable ? static_cast<T>(scale) : T(0), to_q = usable ? static_cast<T>(1 / s_norm) : T(0);
        const T along = usable ? static_cast<T>(v_r / v_norm) : T(0);
        lanes::sweep<lanes>(q.width, [=]<int L>(std::int64_t at) __attribute__((always_inline)) {
          using W = simd::Vector<T, L>;
          const W u = to_u * simd::load<W>(u_new + at);
          const W step = averaged ? beta * simd::load<W>(r_last + at) : simd::load<W>(s + at) - along * u;
          simd::store(u_new + at, u);
          simd::store(s_hat + at, to_q * simd::load<W>(s_hat + at));
          simd::store(s + at, step);
          simd::store(next + at, simd::load<W>(z + at) + step);
        });
        if (usable) {
          for (std::int32_t j = 0; j < depth; ++j) R[j * q.m + depth] /= v_norm;
          R[depth * q.m + depth] = -s_norm / v_norm;
          a[depth] = v_r / v_norm;
        } else {
          k.states.report.singular[row] += 1;
        }
        q.depth[row] = depth + (usable ? 1 : 0);
      }
    });
  });
}

DEQCORE_INSTANTIATE_KERNEL(CpuQueue, GuardTypeI);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, PushTypeI);

}  // namespace deqcore

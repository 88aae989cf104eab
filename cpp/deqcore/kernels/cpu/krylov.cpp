// SPDX-License-Identifier: Apache-2.0
#include "deqcore/kernels/krylov.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "deqcore/kernels/cpu/lanes.hpp"
#include "deqcore/kernels/row_math.hpp"

namespace deqcore {
namespace {

constexpr std::int64_t piece = 512;  // elements of the newest vector that stay in the L1 cache while the basis is read

// w = A v from the answer to a question about v.
template <int Lanes, class T>
[[gnu::always_inline]] inline void product(Operator form, std::int64_t n, const T* along, const T* answer, T* w) {
  if (form == Operator::matrix) {
    std::copy_n(answer, n, w);
    return;
  }
  lanes::sweep<Lanes>(n, [=]<int L>(std::int64_t at) __attribute__((always_inline)) {
    using V = simd::Vector<T, L>;
    simd::store(w + at, simd::load<V>(along + at) - simd::load<V>(answer + at));
  });
}

// to += factor * from
template <int Lanes, class T>
[[gnu::always_inline]] inline void add_scaled(std::int64_t n, double factor, const T* from, T* to) {
  const T scale = static_cast<T>(factor);
  lanes::sweep<Lanes>(n, [=]<int L>(std::int64_t at) __attribute__((always_inline)) {
    using V = simd::Vector<T, L>;
    simd::store(to + at, simd::load<V>(to + at) + scale * simd::load<V>(from + at));
  });
}

// One Gram-Schmidt pass: c = V^T w, w -= V c, h += c.   -> |w|^2 before; `after` is set to it after
template <int Lanes, int Sums, class T>
[[gnu::always_inline]] inline double orthogonalise(const Arnoldi<T>& basis, std::int64_t row, std::int32_t count, T* w,
                                                   double* c, double* h, double& after) {
  std::fill_n(c, count, 0.0);
  double before = 0;
  for (std::int64_t start = 0; start < basis.width; start += piece) {
    const std::int64_t n = std::min(piece, basis.width - start);
    for (std::int32_t i = 0; i < count; ++i)
      c[i] += lanes::dot<Sums>(basis.vector(row, i) + start, static_cast<const T*>(w) + start, n);
    before += lanes::dot<Sums>(static_cast<const T*>(w) + start, static_cast<const T*>(w) + start, n);
  }
  after = 0;
  for (std::int64_t start = 0; start < basis.width; start += piece) {
    const std::int64_t n = std::min(piece, basis.width - start);
    for (std::int32_t i = 0; i < count; ++i) add_scaled<Lanes>(n, -c[i], basis.vector(row, i) + start, w + start);
    after += lanes::dot<Sums>(static_cast<const T*>(w) + start, static_cast<const T*>(w) + start, n);
  }
  for (std::int32_t i = 0; i < count; ++i) h[i] += c[i];
  return before;
}

}  // namespace

template <class T>
void run(CpuQueue& queue, const ExtendBasis<T>& k) {
  const Arnoldi<T>& basis = k.basis;
  const std::int64_t width = basis.width, bytes = (basis.m + 7) * width * sizeof(T);  // half a basis, read twice
  queue.note("ExtendBasis", k.rows.count * bytes);
  queue.for_blocks(k.rows.count, bytes, [&](std::int64_t first, std::int64_t count) {
    at_simd_level([&](auto simd) __attribute__((always_inline)) {
      constexpr int lanes = simd.bytes / sizeof(T);
      constexpr int sums = lanes::doubles<simd.bytes>;
      const LinearStates& s = k.states;
      for (std::int64_t i = first; i < first + count; ++i) {
        const std::int64_t row = k.rows.ids[i];
        if (!s.running(row) || s.phase[row] != Phase::first) continue;
        const std::int32_t j = basis.column[row];
        const T* along = k.along[i];
        T* w = basis.vector(row, j + 1);
        double* const h = basis.h + row * (basis.m + 1);
        double* const rhs = basis.rhs + row * (basis.m + 1);
        double* const c = basis.c + row * (basis.m + 1);

        // w = A v_j, orthogonal to v_0..v_j
        product<lanes>(k.form, width, along, k.answer[i], w);
        if (basis.Z) std::copy_n(along, width, basis.direction(row, j));
        std::fill_n(h, j + 2, 0.0);
        double after = 0;
        const double size = orthogonalise<lanes, sums>(basis, row, j + 1, w, c, h, after);
        const double asked = basis.Z ? lanes::dot<sums>(along, along, width) : 1.0;
        s.growth[row] = std::max(s.growth[row], std::sqrt(size / asked));
        double kept = after / size;
        if (kept < arnoldi::enough_kept) {
          const double once = orthogonalise<lanes, sums>(basis, row, j + 1, w, c, h, after);
          kept = after / once;
        }
        const bool invariant = !(kept >= arnoldi::enough_kept) || after <= arnoldi::nothing_left<T> * size;
        h[j + 1] = invariant ? 0.0 : std::sqrt(after);

        // the least-squares problem with one more column
        s.residual[row] =
            row_math::rotate_column(h, j, basis.triangle(row), basis.cosine + row * basis.m, basis.sine + row * basis.m,
                                    rhs) +
            0 * size;  // not finite if the product was not
        s.answered[row] = Answered::product;
        basis.norm[row] = h[j + 1];
        basis.column[row] = j + 1;
        const bool last = s.report.steps[row] + 2 >= k.max_steps;  // of products, less the one that measures
        if (!invariant && !last && j + 1 < basis.m && s.residual[row] > aim(s, row, eps4<T>)) continue;

        // x += V y, and its residual is asked for
        row_math::solve_upper(basis.triangle(row), j + 1, rhs, std::numeric_limits<T>::epsilon(), h);
        T* x = k.x[row];
        for (std::int32_t at = 0; at <= j; ++at)
          add_scaled<lanes>(width, h[at], static_cast<const T*>(basis.direction(row, at)), x);
        s.phase[row] = Phase::residual;
      }
    });
  });
}

template <class T>
void run(CpuQueue& queue, const PoseBasis<T>& k) {
  const Arnoldi<T>& basis = k.basis;
  const std::int64_t width = basis.width, bytes = 3 * width * sizeof(T);
  queue.note("PoseBasis", k.rows.count * bytes);
  queue.for_blocks(k.rows.count, bytes, [&](std::int64_t first, std::int64_t count) {
    at_simd_level([&](auto simd) __attribute__((always_inline)) {
      constexpr int lanes = simd.bytes / sizeof(T);
      const LinearStates& s = k.states;
      for (std::int64_t i = first; i < first + count; ++i) {
        const std::int64_t row = k.rows.ids[i];
        T* along = k.along[i];
        if (!s.running(row) || s.phase[row] == Phase::residual) {
          std::copy_n(k.x[row], width, along);
          continue;
        }
        if (s.phase[row] == Phase::start) {
          basis.column[row] = 0;
          basis.norm[row] = basis.rhs[row * (basis.m + 1)] = s.length[row];
          s.phase[row] = Phase::first;
        }
        T* v = basis.vector(row, basis.column[row]);
        const T length = static_cast<T>(basis.norm[row]);
        lanes::sweep<lanes>(width, [=]<int L>(std::int64_t at) __attribute__((always_inline)) {
          const auto unit = simd::load<simd::Vector<T, L>>(v + at) / length;
          simd::store(v + at, unit);
          simd::store(along + at, unit);
        });
      }
    });
  });
}

template <class T>
void run(CpuQueue& queue, const StepTwoSided<T>& k) {
  const TwoSided<T>& q = k.vectors;
  const std::int64_t width = k.x.width, bytes = 12 * width * sizeof(T);
  queue.note("StepTwoSided", k.rows.count * bytes);
  queue.for_blocks(k.rows.count, bytes, [&](std::int64_t first, std::int64_t count) {
    at_simd_level([&](auto simd) __attribute__((always_inline)) {
      constexpr int lanes = simd.bytes / sizeof(T);
      constexpr int sums = lanes::doubles<simd.bytes>;
      const LinearStates& s = k.states;
      for (std::int64_t i = first; i < first + count; ++i) {
        const std::int64_t row = k.rows.ids[i];
        const Phase phase = s.phase[row];
        if (!s.running(row) || (phase != Phase::first && phase != Phase::second)) continue;
        const T *along = k.along[i], *answer = k.answer[i], *r0 = q.r0[row];
        T *x = k.x[row], *r = q.r[row], *p = q.p[row], *v = q.v[row];
        const T* p_hat = q.p_hat.data ? q.p_hat[row] : p;
        const double tiny = std::numeric_limits<T>::epsilon();
        const bool last = s.report.steps[row] + 2 >= k.max_steps;
        s.answered[row] = Answered::product;
        if (phase == Phase::first) {
          product<lanes>(k.form, width, along, answer, v);
          if (q.p_hat.data) std::copy_n(along, width, q.p_hat[row]);
          const double against = lanes::dot<sums>(r0, static_cast<const T*>(v), width);
          const double size = lanes::dot<sums>(static_cast<const T*>(v), static_cast<const T*>(v), width);
          s.growth[row] = std::max(s.growth[row], std::sqrt(size / lanes::dot<sums>(along, along, width)));
          if (!std::isfinite(size)) {
            s.residual[row] = size;
            continue;
          }
          s.phase[row] = Phase::residual;
          if (std::abs(against) <= tiny * q.r0_norm[row] * std::sqrt(size)) {  // x stays; the next start has another r0
            s.report.singular[row] += 1;
            continue;
          }
          const double alpha = q.alpha[row] = q.rho[row] / against;
          add_scaled<lanes>(width, -alpha, static_cast<const T*>(v), r);
          s.residual[row] = std::sqrt(lanes::dot<sums>(static_cast<const T*>(r), static_cast<const T*>(r), width));
          if (last || s.residual[row] <= aim(s, row, eps4<T>))
            add_scaled<lanes>(width, alpha, p_hat, x);
          else
            s.phase[row] = Phase::second;
          continue;
        }
        // t lies in the answer, or is s - answer
        const bool minus = k.form == Operator::identity_minus;
        const auto t = [=]<int L>(std::int64_t at) __attribute__((always_inline)) {
          const auto asked = lanes::load_double<L>(along + at), product = lanes::load_double<L>(answer + at);
          return minus ? asked - product : product;
        };
        const auto s_of = [=]<int L>(std::int64_t at)
                              __attribute__((always_inline)) { return lanes::load_double<L>(r + at); };
        const double size = lanes::sum<sums>(width, [=]<int L>(std::int64_t at) __attribute__((always_inline)) {
          const auto value = t.template operator()<L>(at);
          return value * value;
        });
        const double with_s = lanes::sum<sums>(width, [=]<int L>(std::int64_t at) __attribute__((always_inline)) {
          return t.template operator()<L>(at) * s_of.template operator()<L>(at);
        });
        s.growth[row] = std::max(s.growth[row], std::sqrt(size / lanes::dot<sums>(along, along, width)));
        if (!std::isfinite(size)) {
          s.residual[row] = size;
          continue;
        }
        const double alpha = q.alpha[row], omega = size > 0 ? with_s / size : 0.0;
        const bool no_omega = std::abs(with_s) <= tiny * std::sqrt(size) * s.residual[row];
        add_scaled<lanes>(width, alpha, p_hat, x);
        add_scaled<lanes>(width, omega, along, x);
        lanes::sweep<sums>(width, [=]<int L>(std::int64_t at) __attribute__((always_inline)) {
          const auto value = s_of.template operator()<L>(at) - omega * t.template operator()<L>(at);
          simd::store(r + at, __builtin_convertvector(value, simd::Vector<T, L>));
        });
        const double length = std::sqrt(lanes::dot<sums>(static_cast<const T*>(r), static_cast<const T*>(r), width));
        const double rho = lanes::dot<sums>(r0, static_cast<const T*>(r), width);
        s.residual[row] = length;
        s.phase[row] = Phase::residual;
        if (last || length <= aim(s, row, eps4<T>)) continue;
        if (no_omega || std::abs(rho) <= tiny * q.r0_norm[row] * length) {
          s.report.singular[row] += 1;
          continue;
        }
        const T beta = static_cast<T>(rho / q.rho[row] * (alpha / omega)), step = static_cast<T>(omega);
        lanes::sweep<lanes>(width, [=]<int L>(std::int64_t at) __attribute__((always_inline)) {
          using V = simd::Vector<T, L>;
          simd::store(p + at, simd::load<V>(r + at) + beta * (simd::load<V>(p + at) - step * simd::load<V>(v + at)));
        });
        q.rho[row] = rho;
        s.phase[row] = Phase::first;
      }
    });
  });
}

template <class T>
void run(CpuQueue& queue, const PoseTwoSided<T>& k) {
  const TwoSided<T>& q = k.vectors;
  const std::int64_t width = k.x.width, bytes = 2 * width * sizeof(T);
  queue.note("PoseTwoSided", k.rows.count * bytes);
  queue.for_blocks(k.rows.count, bytes, [&](std::int64_t first, std::int64_t count) {
    for (std::int64_t i = first; i < first + count; ++i) {
      const std::int64_t row = k.rows.ids[i];
      const LinearStates& s = k.states;
      const T* from = k.x[row];
      if (s.running(row) && s.phase[row] == Phase::start) {
        std::copy_n(q.r[row], width, q.r0[row]);
        std::copy_n(q.r[row], width, q.p[row]);
        q.r0_norm[row] = s.length[row];
        q.rho[row] = s.length[row] * s.length[row];
        s.phase[row] = Phase::first;
      }
      if (s.running(row) && s.phase[row] == Phase::first) from = q.p[row];
      if (s.running(row) && s.phase[row] == Phase::second) from = q.r[row];
      std::copy_n(from, width, k.along[i]);
    }
  });
}

DEQCORE_INSTANTIATE_KERNEL(CpuQueue, ExtendBasis);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, PoseBasis);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, StepTwoSided);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, PoseTwoSided);

}  // namespace deqcore

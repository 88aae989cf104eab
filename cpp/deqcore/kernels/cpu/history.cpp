// SPDX-License-Identifier: Apache-2.0
#include "deqcore/kernels/history.hpp"

#include <algorithm>

#include "deqcore/kernels/cpu/lanes.hpp"
#include "deqcore/kernels/row_math.hpp"

namespace deqcore {
namespace {

constexpr std::int64_t piece = 512;  // elements whose differences stay in the L1 cache while the window is read

// Lanes elements of a column of dF and of dG.
template <int Lanes, class T, class V>
[[gnu::always_inline]] inline void store_columns(T* dF, T* dG, const V& of_f, const V& of_g) {
  simd::store(dF, of_f);
  simd::store(dG, of_g);
}
template <int Lanes, class V>
[[gnu::always_inline]] inline void store_columns(BFloat16* dF, BFloat16* dG, const V& of_f, const V& of_g) {
  const auto f = lanes::narrow<Lanes>(of_f), g = lanes::narrow<Lanes>(of_g);
  const auto lost = (f & 0x7f80) == 0x7f80;  // all bits, which are a NaN's
  simd::store(dF, f);
  simd::store(dG, g | simd::load<simd::Vector<std::uint16_t, Lanes>>(&lost));
}

// Columns of Ts, or of bfloat16.
template <class T, class Column>
void push(CpuQueue& queue, const PushHistory<T>& k, Column* all_dF, Column* all_dG) {
  const History<T>& h = k.into;
  const std::int64_t bytes = h.bytes(6, h.m + 2);
  queue.note("PushHistory", k.rows.count * bytes);
  queue.for_blocks(k.rows.count, bytes, [&](std::int64_t first, std::int64_t count) {
    at_simd_level([&](auto simd) __attribute__((always_inline)) {
      constexpr int lanes = simd.bytes / sizeof(T);
      constexpr int sums = lanes::doubles<simd.bytes>;
      constexpr std::int32_t at_once = simd.bytes == 64 ? 6 : 3;  // columns whose sums the registers hold
      for (std::int64_t i = first; i < first + count; ++i) {
        const std::int64_t row = k.rows.ids[i];
        if (!k.states.running(row)) continue;
        const T *z = k.z[k.rows.from(i)], *f = k.f[k.rows.from(i)];
        T *f_last = h.f_last[row], *g_last = h.g_last[row];
        if (h.depth[row] < 0) {  // nothing to take a difference with
          h.depth[row] = ~h.depth[row];
          if (h.depth[row] == 0) h.slot[row] = 0;
          lanes::sweep<lanes>(h.width, [=]<int L>(std::int64_t at) __attribute__((always_inline)) {
            using V = simd::Vector<T, L>;
            const V image = simd::load<V>(f + at);
            simd::store(f_last + at, image);
            simd::store(g_last + at, image - simd::load<V>(z + at));
          });
          for (std::int32_t j = 0; j < h.depth[row]; ++j)
            h.rhs[row * h.m + j] = lanes::dot<sums>(static_cast<const Column*>(h.column(all_dG, row, j)),
                                                    static_cast<const T*>(g_last), h.width);
          continue;
        }
        const std::int32_t slot = h.slot[row];
        const std::int32_t depth = std::min<std::int32_t>(h.depth[row] + 1, static_cast<std::int32_t>(h.m));
        Column *dF = h.column(all_dF, row, slot), *dG = h.column(all_dG, row, slot);
        double *gram = h.gram + row * h.m * h.m, *rhs = h.rhs + row * h.m;
        double line[row_math::max_history], right[row_math::max_history];
        std::fill_n(line, depth, 0.0);
        std::fill_n(right, depth, 0.0);
        for (std::int64_t start = 0; start < h.width; start += piece) {
          const std::int64_t n = std::min(piece, h.width - start);
          lanes::sweep<lanes>(n, [=]<int L>(std::int64_t offset) __attribute__((always_inline)) {
            using V = simd::Vector<T, L>;
            const std::int64_t at = start + offset;
            const V image = simd::load<V>(f + at), g = image - simd::load<V>(z + at);
            store_columns<L>(dF + at, dG + at, image - simd::load<V>(f_last + at), g - simd::load<V>(g_last + at));
            simd::store(f_last + at, image);
            simd::store(g_last + at, g);
          });
          for (std::int32_t j = 0; j < depth;) {
            const Column *columns = h.column(all_dG, row, j) + start, *newest = dG + start;
            const T* g = g_last + start;
            const auto add = [&]<int Count>() __attribute__((always_inline)) {
              lanes::add_dots<sums, Count>(columns, h.pitch, newest, g, n, line + j, right + j);
              j += Count;
            };
            const std::int32_t left = std::min(depth - j, at_once);
            if constexpr (at_once > 3) {
              switch (left) {
                case 4: add.template operator()<4>(); continue;
                case 5: add.template operator()<5>(); continue;
                case 6: add.template operator()<6>(); continue;
                default: break;
              }
            }
            switch (left) {
              case 1: add.template operator()<1>(); break;
              case 2: add.template operator()<2>(); break;
              default: add.template operator()<3>();
            }
          }
        }
        for (std::int32_t j = 0; j < depth; ++j) {
          gram[slot * h.m + j] = gram[j * h.m + slot] = line[j];
          rhs[j] = right[j];
        }
        h.depth[row] = depth;
        h.slot[row] = static_cast<std::int32_t>((slot + 1) % h.m);
      }
    });
  });
}

template <class T, class Column>
void mix(CpuQueue& queue, const MixHistory<T>& k, const Column* all_dF, const Column* all_dG) {
  const History<T>& h = k.history;
  const bool damped = k.beta != 1;
  const std::int64_t bytes = damped ? h.bytes(3, 2 * h.m) : h.bytes(2, h.m);
  queue.note("MixHistory", k.rows.count * bytes);
  queue.for_blocks(k.rows.count, bytes, [&](std::int64_t first, std::int64_t count) {
    at_simd_level([&](auto simd) __attribute__((always_inline)) {
      constexpr int lanes = simd.bytes / sizeof(T);
      const T held = static_cast<T>(1 - k.beta);
      for (std::int64_t i = first; i < first + count; ++i) {
        const std::int64_t row = k.rows.ids[i];
        if (!k.states.running(row)) continue;
        const T *z = k.z[k.rows.from(i)], *f = k.f[k.rows.from(i)];
        T* next = k.next[i];
        const std::int32_t depth = h.depth[row];
        const Column *dF = h.column(all_dF, row, 0), *dG = h.column(all_dG, row, 0);
        T gamma[row_math::max_history];
        for (std::int32_t j = 0; j < depth; ++j) gamma[j] = static_cast<T>(h.gamma[row * h.m + j]);
        const std::int64_t pitch = h.pitch;
        lanes::sweep<lanes>(h.width, [&]<int L>(std::int64_t at) __attribute__((always_inline)) {
          using V = simd::Vector<T, L>;
          V correction = {};
          for (std::int32_t j = 0; j < depth; ++j)
            correction += gamma[j] * lanes::load_column<T, L>(dF + j * pitch + at);
          const V image = simd::load<V>(f + at);
          V mixed = image - correction;
          if (damped) {
            V g = image - simd::load<V>(z + at);
            for (std::int32_t j = 0; j < depth; ++j) g -= gamma[j] * lanes::load_column<T, L>(dG + j * pitch + at);
            mixed -= held * g;
          }
          simd::store(next + at, mixed);
        });
      }
    });
  });
}

}  // namespace

template <class T>
void run(CpuQueue& queue, const ClearHistory<T>& k) {
  queue.note("ClearHistory", 0);
  std::fill_n(k.history.depth, k.rows, -1);
  std::fill_n(k.history.slot, k.rows, 0);
}

template <class T>
void run(CpuQueue& queue, const GuardHistory<T>& k) {
  queue.note("GuardHistory", 0);
  for (std::int64_t i = 0; i < k.rows.count; ++i) {
    const std::int64_t row = k.rows.ids[i];
    const std::int32_t depth = k.history.depth[row];
    if (!k.states.running(row) || depth == 0 || depth == -1) continue;
    const bool grew = row_math::outgrown(depth, k.states.g_norm[row], k.states.report.residual[row], k.growth,
                                         k.states.report.scale[row]);
    if (!grew && k.states.frozen[row] == 0) continue;
    k.history.depth[row] = -1;
    k.states.report.rejected[row] += 1;
  }
}

template <class T>
void run(CpuQueue& queue, const PushHistory<T>& k) {
  if (k.into.dF16)
    push(queue, k, k.into.dF16, k.into.dG16);
  else
    push(queue, k, k.into.dF, k.into.dG);
}

// A system per lane; a lane left over repeats the first. What a row's smaller window leaves of the matrix is zero. A
// lane has the same bits in a vector of any width, so one or two rows take a narrow one, which is filled sooner.
template <class T>
void run(CpuQueue& queue, const SolveSmall<T>& k) {
  const History<T>& h = k.history;
  queue.note("SolveSmall", 0);
  at_simd_level([&](auto simd) __attribute__((always_inline)) {
    constexpr int widest = lanes::doubles<simd.bytes>;
    std::int64_t rows[widest];
    int filled = 0;
    const auto solve = [&]<int Lanes>() __attribute__((always_inline)) {
      using V = simd::Vector<double, Lanes>;
      const double *gram[Lanes], *rhs[Lanes];
      simd::Vector<std::int64_t, Lanes> depth;
      std::int32_t deepest = 0;
      for (int l = 0; l < Lanes; ++l) {
        const std::int64_t row = rows[l < filled ? l : 0];
        gram[l] = h.gram + row * h.m * h.m;
        rhs[l] = h.rhs + row * h.m;
        depth[l] = h.depth[row];
        deepest = std::max(deepest, h.depth[row]);
      }
      const auto gather = [&](const double* const* from, std::int64_t at, int i) __attribute__((always_inline)) {
        V v;
        for (int l = 0; l < Lanes; ++l) v[l] = from[l][at];
        return depth > i ? v : V{};
      };
      const auto entry = [&](int i, int j) __attribute__((always_inline)) { return gather(gram, i * h.m + j, i); };
      const auto right = [&](int i) __attribute__((always_inline)) { return gather(rhs, i, i); };
      V gamma[row_math::max_history];
      const auto solved = row_math::solve_spd<V>(deepest, k.ridge, entry, right, gamma);
      for (int l = 0; l < filled; ++l) {
        const std::int64_t row = rows[l];
        if (solved[l]) {
          for (std::int32_t j = 0; j < h.depth[row]; ++j) h.gamma[row * h.m + j] = gamma[j][l];
          continue;
        }
        h.depth[row] = 0;  // the last f and g stay good
        h.slot[row] = 0;
        k.states.report.singular[row] += 1;
      }
    };
    const auto solve_filled = [&]() __attribute__((always_inline)) {
      if (filled <= 2)
        solve.template operator()<2>();
      else
        solve.template operator()<widest>();
      filled = 0;
    };
    for (std::int64_t i = 0; i < k.rows.count; ++i) {
      const std::int64_t row = k.rows.ids[i];
      if (!k.states.running(row) || h.depth[row] < 1) continue;
      rows[filled++] = row;
      if (filled == widest) solve_filled();
    }
    if (filled > 0) solve_filled();
  });
}

template <class T>
void run(CpuQueue& queue, const MixHistory<T>& k) {
  if (k.history.dF16)
    mix(queue, k, k.history.dF16, k.history.dG16);
  else
    mix(queue, k, k.history.dF, k.history.dG);
}

template <class T>
void run(CpuQueue& queue, const DampedStep<T>& k) {
  const bool damped = k.beta != 1;
  const std::int64_t width = k.z.width, bytes = (damped ? 3 : 2) * width * sizeof(T);
  queue.note("DampedStep", k.rows.count * bytes);
  queue.for_blocks(k.rows.count, bytes, [&](std::int64_t first, std::int64_t count) {
    at_simd_level([&](auto simd) __attribute__((always_inline)) {
      constexpr int lanes = simd.bytes / sizeof(T);
      const T beta = static_cast<T>(k.beta);
      for (std::int64_t i = first; i < first + count; ++i) {
        if (!k.states.running(k.rows.ids[i])) continue;
        const T *z = k.z[k.rows.from(i)], *f = k.f[k.rows.from(i)];
        T* next = k.next[i];
        if (!damped) {
          std::copy_n(f, width, next);
          continue;
        }
        lanes::sweep<lanes>(width, [=]<int L>(std::int64_t at) __attribute__((always_inline)) {
          using V = simd::Vector<T, L>;
          const V point = simd::load<V>(z + at);
          simd::store(next + at, point + beta * (simd::load<V>(f + at) - point));
        });
      }
    });
  });
}

DEQCORE_INSTANTIATE_KERNEL(CpuQueue, ClearHistory);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, GuardHistory);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, PushHistory);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, SolveSmall);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, MixHistory);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, DampedStep);

}  // namespace deqcore

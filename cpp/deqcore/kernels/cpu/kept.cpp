// SPDX-License-Identifier: Apache-2.0
#include "deqcore/kernels/kept.hpp"

#include <algorithm>
#include <cmath>

#include "deqcore/kernels/cpu/lanes.hpp"

namespace deqcore {
namespace {

// The n columns of a row, into a row of a handle.
template <class T, class Element>
void save_columns(const SaveRows<T>& k, Element* const* columns, std::int64_t row, std::int64_t n) {
  const RowMemory<T>& from = k.memory;
  for (int which = 0; which < 2; ++which)
    for (std::int64_t j = 0; j < n; ++j)
      std::copy_n(columns[which] + (row * from.m + j) * from.pitch, from.width,
                  k.to.template column<Element>(row, which, j));
}

// And back.
template <class T, class Element>
void load_columns(const LoadRows<T>& k, Element* const* columns, std::int64_t row, std::int64_t at, std::int64_t n) {
  const RowMemory<T>& to = k.memory;
  for (int which = 0; which < 2; ++which)
    for (std::int64_t j = 0; j < n; ++j)
      std::copy_n(k.from.template column<Element>(at, which, j), to.width,
                  columns[which] + (row * to.m + j) * to.pitch);
}

}  // namespace

template <class T>
void run(CpuQueue& queue, const SaveRows<T>& k) {
  const RowMemory<T>& from = k.memory;
  const std::int64_t bytes = 4 * from.m * from.column_bytes();
  queue.note("SaveRows", k.rows * bytes);
  queue.for_blocks(k.rows, bytes, [&](std::int64_t first, std::int64_t count) {
    for (std::int64_t row = first; row < first + count; ++row) {
      const std::int32_t depth = from.depth[row];
      const std::int32_t n = k.status[row] != Status::converged ? 0 : depth < 0 ? ~depth : depth;
      std::int32_t* const counts = k.to.counts(row);
      counts[0] = n;
      counts[1] = from.slot && n > 0 ? from.slot[row] : 0;
      for (std::int64_t i = 0; i < (from.small ? n : 0); ++i)
        std::copy_n(from.matrix + row * from.small + i * from.m, n, k.to.matrix(row) + i * from.m);
      if (from.in_16_bits)
        save_columns(k, from.columns16, row, n);
      else
        save_columns(k, from.columns, row, n);
    }
  });
}

template <class T>
void run(CpuQueue& queue, const LoadRows<T>& k) {
  const RowMemory<T>& to = k.memory;
  const std::int64_t bytes = 4 * to.m * to.column_bytes();
  queue.note("LoadRows", k.rows * bytes);
  queue.for_blocks(k.rows, bytes, [&](std::int64_t first, std::int64_t count) {
    for (std::int64_t row = first; row < first + count; ++row) {
      const std::int32_t at = k.at[row];
      const std::int32_t n = at < 0 ? 0 : k.from.counts(at)[0];
      to.depth[row] = ~n;
      if (to.slot) to.slot[row] = at < 0 ? 0 : k.from.counts(at)[1];
      for (std::int64_t i = 0; i < (to.small ? n : 0); ++i)
        std::copy_n(k.from.matrix(at) + i * to.m, n, to.matrix + row * to.small + i * to.m);
      if (to.in_16_bits)
        load_columns(k, to.columns16, row, at, n);
      else
        load_columns(k, to.columns, row, at, n);
    }
  });
}

template <class T>
void run(CpuQueue& queue, const ApplyInverseTransposed<T>& k) {
  const std::int64_t width = k.g.width, bytes = (2 * k.pairs.m + 2) * width * sizeof(T);
  queue.note("ApplyInverseTransposed", k.g.rows * bytes);
  queue.for_blocks(k.g.rows, bytes, [&](std::int64_t first, std::int64_t count) {
    at_simd_level([&](auto simd) __attribute__((always_inline)) {
      constexpr int lanes = simd.bytes / sizeof(T);
      constexpr int sums = lanes::doubles<simd.bytes>;
      for (std::int64_t i = first; i < first + count; ++i) {
        const std::int64_t at = k.at[i];
        const std::int32_t depth = at < 0 ? 0 : k.pairs.counts(at)[0];
        const T* const g = k.g[i];
        T* const w = k.w[i];
        std::copy_n(g, width, w);
        for (std::int32_t j = 0; j < depth; ++j) {
          const T *u = k.pairs.column(at, 0, j), *v = k.pairs.column(at, 1, j);
          const T along = static_cast<T>(lanes::dot<sums>(u, g, width));
          lanes::sweep<lanes>(width, [=]<int L>(std::int64_t e) __attribute__((always_inline)) {
            using V = simd::Vector<T, L>;
            simd::store(w + e, simd::load<V>(w + e) - along * simd::load<V>(v + e));
          });
        }
        const double size = lanes::norm<sums>(
            Norm::two, width,
            [=]<int L>(std::int64_t e) __attribute__((always_inline)) { return lanes::load_double<L>(w + e); });
        const double most =
            k.fallback * lanes::norm<sums>(Norm::two, width, [=]<int L>(std::int64_t e) __attribute__((always_inline)) {
              return lanes::load_double<L>(g + e);
            });
        k.fell[i] = depth == 0 || !(size <= most) ? 1 : 0;  // so is what is not a number
        if (k.fell[i]) std::copy_n(g, width, w);
      }
    });
  });
}

DEQCORE_INSTANTIATE_KERNEL(CpuQueue, SaveRows);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, LoadRows);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, ApplyInverseTransposed);

}  // namespace deqcore

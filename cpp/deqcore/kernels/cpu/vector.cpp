// SPDX-License-Identifier: Apache-2.0
#include "deqcore/kernels/vector.hpp"

#include <algorithm>

#include "deqcore/kernels/cpu/lanes.hpp"

namespace deqcore {

template <class T>
void run(CpuQueue& queue, const CopyRows<T>& k) {
  const std::int64_t bytes = 2 * k.from.width * sizeof(T);
  queue.note("CopyRows", k.from.rows * bytes);
  queue.for_blocks(k.from.rows, bytes, [&](std::int64_t first, std::int64_t count) {
    for (std::int64_t i = first; i < first + count; ++i) std::copy_n(k.from[i], k.from.width, k.to[i]);
  });
}

template <class T>
void run(CpuQueue& queue, const GatherRows<T>& k) {
  const std::int64_t bytes = 2 * k.from.width * sizeof(T);
  queue.note("GatherRows", k.source.count * bytes);
  queue.for_blocks(k.source.count, bytes, [&](std::int64_t first, std::int64_t count) {
    for (std::int64_t i = first; i < first + count; ++i) std::copy_n(k.from[k.source.ids[i]], k.from.width, k.to[i]);
  });
}

template <class T>
void run(CpuQueue& queue, const AddRows<T>& k) {
  const std::int64_t bytes = 3 * k.sum.width * sizeof(T);
  queue.note("AddRows", k.rows.count * bytes);
  queue.for_blocks(k.rows.count, bytes, [&](std::int64_t first, std::int64_t count) {
    at_simd_level([&](auto simd) __attribute__((always_inline)) {
      constexpr int lanes = simd.bytes / sizeof(T);
      for (std::int64_t i = first; i < first + count; ++i) {
        const T *a = k.a[i], *b = k.b[k.rows.ids[i]];
        T* sum = k.sum[i];
        lanes::sweep<lanes>(k.sum.width, [=]<int L>(std::int64_t at) __attribute__((always_inline)) {
          using V = simd::Vector<T, L>;
          simd::store(sum + at, simd::load<V>(a + at) + simd::load<V>(b + at));
        });
      }
    });
  });
}

template <class T>
void run(CpuQueue& queue, const ClearRows<T>& k) {
  queue.note("ClearRows", 0);  // hardly ever
  for (std::int64_t i = 0; i < k.x.rows; ++i)
    if (k.norms[i] == 0) std::fill_n(k.x[i], k.x.width, T(0));
}

template <class T>
void run(CpuQueue& queue, const MeasureRows<T>& k) {
  const std::int64_t bytes = k.x.width * sizeof(T);
  queue.note("MeasureRows", k.x.rows * bytes);
  queue.for_blocks(k.x.rows, bytes, [&](std::int64_t first, std::int64_t count) {
    at_simd_level([&](auto simd) __attribute__((always_inline)) {
      constexpr int lanes = lanes::doubles<simd.bytes>;
      for (std::int64_t i = first; i < first + count; ++i) {
        const T* x = k.x[i];
        k.norms[i] = lanes::norm<lanes>(k.norm, k.x.width, [=]<int L>(std::int64_t at) __attribute__((always_inline)) {
          return lanes::load_double<L>(x + at);
        });
      }
    });
  });
}

DEQCORE_INSTANTIATE_KERNEL(CpuQueue, CopyRows);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, GatherRows);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, AddRows);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, ClearRows);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, MeasureRows);

}  // namespace deqcore

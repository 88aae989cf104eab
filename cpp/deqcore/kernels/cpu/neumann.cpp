// SPDX-License-Identifier: Apache-2.0
#include "deqcore/kernels/neumann.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "deqcore/kernels/cpu/lanes.hpp"

namespace deqcore {

template <class T>
void run(CpuQueue& queue, const BeginNeumann<T>& k) {
  const std::int64_t width = k.w.width, bytes = 2 * width * sizeof(T);
  queue.note("BeginNeumann", k.w.rows * bytes);
  queue.for_blocks(k.w.rows, bytes, [&](std::int64_t first, std::int64_t count) {
    at_simd_level([&](auto simd) __attribute__((always_inline)) {
      constexpr int lanes = simd.bytes / sizeof(T);
      constexpr int sums = lanes::doubles<simd.bytes>;
      for (std::int64_t row = first; row < first + count; ++row) {
        const T *g = k.g[row], tau = static_cast<T>(k.tau);
        T* w = k.w[row];
        k.report.status[row] = Status::running;
        k.report.steps[row] = 0;
        k.report.residual[row] = std::numeric_limits<double>::quiet_NaN();
        k.report.scale[row] = lanes::norm<sums>(
            k.norm, width,
            [=]<int L>(std::int64_t at) __attribute__((always_inline)) { return lanes::load_double<L>(g + at); });
        k.report.rejected[row] = k.report.singular[row] = 0;
        k.ids[row] = static_cast<std::int32_t>(row);
        lanes::sweep<lanes>(width, [=]<int L>(std::int64_t at) __attribute__((always_inline)) {
          simd::store(w + at, tau * simd::load<simd::Vector<T, L>>(g + at));
        });
      }
    });
  });
}

template <class T>
void run(CpuQueue& queue, const AddTerm<T>& k) {
  const std::int64_t width = k.w.width, bytes = 4 * width * sizeof(T);
  queue.note("AddTerm", k.w.rows * bytes);
  queue.for_blocks(k.w.rows, bytes, [&](std::int64_t first, std::int64_t count) {
    at_simd_level([&](auto simd) __attribute__((always_inline)) {
      constexpr int lanes = simd.bytes / sizeof(T);
      for (std::int64_t row = first; row < first + count; ++row) {
        const T *g = k.g[row], *product = k.product[row], tau = static_cast<T>(k.tau);
        T* w = k.w[row];
        k.report.steps[row] += 1;
        lanes::sweep<lanes>(width, [=]<int L>(std::int64_t at) __attribute__((always_inline)) {
          using V = simd::Vector<T, L>;
          const V sum = simd::load<V>(w + at);
          simd::store(w + at, sum + tau * (simd::load<V>(product + at) + simd::load<V>(g + at) - sum));
        });
      }
    });
  });
}

template <class T>
void run(CpuQueue& queue, const EndNeumann<T>& k) {
  const std::int64_t width = k.w.width, bytes = 2 * width * sizeof(T);
  queue.note("EndNeumann", k.w.rows * bytes);
  queue.for_blocks(k.w.rows, bytes, [&](std::int64_t first, std::int64_t count) {
    for (std::int64_t row = first; row < first + count; ++row) {
      const T* w = k.w[row];
      T poison = 0;  // 0 x is NaN where x is not finite
      for (std::int64_t at = 0; at < width; ++at) poison += 0 * w[at];
      std::copy_n(w, width, k.result[row]);
      k.report.status[row] = poison == 0 ? k.status : Status::not_finite;
    }
  });
}

template <class T>
void run(CpuQueue& queue, const CountFailed<T>& k) {
  queue.note("CountFailed", 0);
  Progress progress;
  for (std::int64_t row = 0; row < k.rows; ++row) progress.failed += static_cast<int>(k.report.status[row]) < 0;
  *k.progress = progress;
}

DEQCORE_INSTANTIATE_KERNEL(CpuQueue, BeginNeumann);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, AddTerm);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, EndNeumann);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, CountFailed);

}  // namespace deqcore

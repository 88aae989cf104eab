// SPDX-License-Identifier: Apache-2.0
#include "deqcore/maps/packed_bfloat16.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

#include "deqcore/base/error.hpp"
#include "deqcore/device/simd.hpp"
#include "deqcore/maps/panels.hpp"

#if defined(__x86_64__)
#include <immintrin.h>
#define DEQCORE_HAS_BFLOAT16
#endif

namespace deqcore {
namespace {

constexpr std::int64_t panel = PackedMatrix<float>::panel;

// To nearest, ties to even. A NaN whose payload is full can overflow.
constexpr std::uint16_t rounded(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  return static_cast<std::uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

#ifdef DEQCORE_HAS_BFLOAT16

#define DEQCORE_BFLOAT16_TARGET gnu::target("arch=x86-64-v4,avx512bf16")

// sum[row][output] += x[row][2 k] B[output][2 k] + x[row][2 k + 1] B[output][2 k + 1]         k = 0, 1, 2, ...
template <int Height, int Panels>
[[DEQCORE_BFLOAT16_TARGET]] inline void tile(const std::uint16_t* panels, std::int64_t pairs, const std::uint16_t* x,
                                             Rows<float> y, Positions which, std::int64_t first_row,
                                             std::int64_t first_output) {
  __m512 sums[Height][Panels] = {};
  const std::uint16_t* rows = x + first_row * 2 * pairs;
  for (std::int64_t k = 0; k < pairs; ++k) {
    __m512bh w[Panels];
#pragma GCC unroll 4
    for (int p = 0; p < Panels; ++p) std::memcpy(&w[p], panels + (p * pairs + k) * 2 * panel, sizeof w[p]);
#pragma GCC unroll 8
    for (int i = 0; i < Height; ++i) {
      std::int32_t pair;
      std::memcpy(&pair, rows + (i * pairs + k) * 2, sizeof pair);
      const __m512i everywhere = _mm512_set1_epi32(pair);
      __m512bh both;
      std::memcpy(&both, &everywhere, sizeof both);
#pragma GCC unroll 4
      for (int p = 0; p < Panels; ++p) sums[i][p] = _mm512_dpbf16_ps(sums[i][p], w[p], both);
    }
  }
  for (int i = 0; i < Height; ++i)
    for (int p = 0; p < Panels; ++p) {
      const std::int64_t at = first_output + p * panel, left = std::min(panel, y.width - at);
      const auto mask = static_cast<__mmask16>((1u << left) - 1);
      _mm512_mask_storeu_ps(y[which[first_row + i]] + at, mask, sums[i][p]);
    }
}

template <int Height>
[[DEQCORE_BFLOAT16_TARGET]] inline void strip(const std::uint16_t* panels, std::int64_t pairs, const std::uint16_t* x,
                                              Rows<float> y, Positions which, std::int64_t row, std::int64_t height,
                                              std::int64_t first, std::int64_t last) {
  if constexpr (Height > 1)
    if (height < Height) return strip<Height - 1>(panels, pairs, x, y, which, row, height, first, last);
  constexpr int wide = std::clamp(16 / Height, 1, 4);
  std::int64_t p = first;
  for (; p + wide <= last; p += wide)
    tile<Height, wide>(panels + p * pairs * 2 * panel, pairs, x, y, which, row, p * panel);
  if constexpr (wide > 1)
    for (; p < last; ++p) tile<Height, 1>(panels + p * pairs * 2 * panel, pairs, x, y, which, row, p * panel);
}

#endif

}  // namespace

bool PackedBfloat16::supported() {
#ifdef DEQCORE_HAS_BFLOAT16
  return simd_level() == SimdLevel::v4 && __builtin_cpu_supports("avx512bf16");
#else
  return false;
#endif
}

PackedBfloat16::PackedBfloat16(const PackedMatrix<float>& W, int threads)
    : outputs_(W.outputs()),
      inputs_(W.inputs()),
      pairs_((W.inputs() + 1) / 2),
      panels_((W.outputs() + panel - 1) / panel * panel * pitch() * sizeof(std::uint16_t)) {
  share_panels(threads, (outputs_ + panel - 1) / panel, panel * inputs_ * std::int64_t{sizeof(float)},
               [&](std::int64_t p, std::int64_t last) {
                 for (; p < last; ++p) {
                   const float* from = W.panel_at(p);
                   auto* to = static_cast<std::uint16_t*>(panels_.data()) + p * panel * pitch();
                   if (inputs_ % 2) std::fill_n(to + (pairs_ - 1) * 2 * panel, 2 * panel, std::uint16_t{0});
                   for (std::int64_t k = 0; k < inputs_; ++k)
                     for (std::int64_t o = 0; o < panel; ++o)
                       to[(k / 2 * panel + o) * 2 + k % 2] = rounded(from[k * panel + o]);
                 }
               });
}

void PackedBfloat16::round_difference(const float* a, const float* b, std::uint16_t* to) const {
  at_simd_level([=, this](auto) __attribute__((always_inline)) {
    for (std::int64_t k = 0; k < inputs_; ++k) {
      const float x = a[k] - b[k];
      std::uint32_t bits;
      std::memcpy(&bits, &x, sizeof bits);
      to[k] = static_cast<std::uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
    }
  });
  if (inputs_ % 2) to[inputs_] = 0;
}

void PackedBfloat16::multiply(const std::uint16_t* x, Rows<float> y, Positions which, int threads) const {
  require(supported(), "bfloat16: this CPU has no products of that type");
  share_panels(threads, (outputs_ + panel - 1) / panel, panel * pitch() * std::int64_t{sizeof(std::uint16_t)},
               [&](std::int64_t first, std::int64_t last) { multiply_panels(x, y, which, first, last); });
}

void PackedBfloat16::multiply_panels([[maybe_unused]] const std::uint16_t* x, [[maybe_unused]] Rows<float> y,
                                     [[maybe_unused]] Positions which, [[maybe_unused]] std::int64_t first,
                                     [[maybe_unused]] std::int64_t last) const {
#ifdef DEQCORE_HAS_BFLOAT16
  const auto* panels = static_cast<const std::uint16_t*>(panels_.data());
  constexpr std::int64_t cached = 256 * 1024, height = 8;  // as in packed_cpu.cpp
  const std::int64_t group =
      std::max<std::int64_t>(4, cached / (panel * pitch() * std::int64_t{sizeof(std::uint16_t)}));
  for (std::int64_t p = first; p < last; p += group)
    for (std::int64_t row = 0; row < which.count; row += height)
      strip<height>(panels, pairs_, x, y, which, row, std::min(height, which.count - row), p,
                    std::min(last, p + group));
#endif
}

}  // namespace deqcore

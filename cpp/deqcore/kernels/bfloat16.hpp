// SPDX-License-Identifier: Apache-2.0
// bfloat16, in which a history may be kept: the upper half of a float, so its range with 8 significant bits.
#pragma once

#include <bit>
#include <cstdint>

namespace deqcore {

struct BFloat16 {
  std::uint16_t bits;
};

constexpr float widen(BFloat16 x) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(x.bits) << 16);
}

// To the nearest, ties to even; what is above the largest becomes infinity, and NaN stays NaN.
constexpr BFloat16 narrow(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  const std::uint32_t nearest = bits + 0x7fff + (bits >> 16 & 1);
  return {static_cast<std::uint16_t>((x == x ? nearest : bits | 0x400000) >> 16)};
}

// By way of a float rounded to odd, which no later rounding mistakes for a tie.
constexpr BFloat16 narrow(double x) {
  const auto nearest = static_cast<float>(x);
  const double back = nearest, size = x < 0 ? -x : x, size_back = back < 0 ? -back : back;
  auto bits = std::bit_cast<std::uint32_t>(nearest);
  if (size_back > size) bits -= 1;
  if (back != x) bits |= 1;
  return narrow(std::bit_cast<float>(bits));
}

constexpr bool finite(BFloat16 x) {
  return (x.bits & 0x7f80) != 0x7f80;
}

}  // namespace deqcore

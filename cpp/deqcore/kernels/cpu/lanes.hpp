// SPDX-License-Identifier: Apache-2.0
// Sums over the width of a row. Four partial vectors, then lanes, then the tail, always in this order: the result
// depends on the row and the instruction-set level only.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "deqcore/base/stop.hpp"
#include "deqcore/device/simd.hpp"

namespace deqcore::lanes {

template <int Bytes>
inline constexpr int doubles = Bytes / static_cast<int>(sizeof(double));

// Between these a sum of squares in double has lost nothing to the limits of its range.
inline constexpr double smallest_square_sum = 1e-280, largest_square_sum = 1e280;

// Lanes elements as doubles.
template <int Lanes, class T>
[[gnu::always_inline]] inline simd::Vector<double, Lanes> load_double(const T* from) {
  return __builtin_convertvector(simd::load<simd::Vector<T, Lanes>>(from), simd::Vector<double, Lanes>);
}

// Sum over i of term(i): term<L>(i) returns L doubles starting at element i.
template <int Lanes, class Term>
[[gnu::always_inline]] inline double sum(std::int64_t n, const Term& term) {
  using V = simd::Vector<double, Lanes>;
  V partial[4] = {};
  std::int64_t i = 0;
  constexpr std::int64_t chunk = std::int64_t{4} * Lanes;
  for (; i + chunk <= n; i += chunk)
    for (std::int64_t k = 0; k < 4; ++k) partial[k] += term.template operator()<Lanes>(i + k * Lanes);
  for (; i + Lanes <= n; i += Lanes) partial[0] += term.template operator()<Lanes>(i);
  const V all = (partial[0] + partial[1]) + (partial[2] + partial[3]);
  double total = 0;
  for (int k = 0; k < Lanes; ++k) total += all[k];
  for (; i < n; ++i) total += term.template operator()<1>(i)[0];
  return total;
}

template <int Lanes, class T>
[[gnu::always_inline]] inline double dot(const T* a, const T* b, std::int64_t n) {
  return sum<Lanes>(n, [=]<int L>(std::int64_t i)
                           __attribute__((always_inline)) { return load_double<L>(a + i) * load_double<L>(b + i); });
}

// The largest |value|; NaN or infinity in any element makes it not finite.
template <int Lanes, class Value>
[[gnu::always_inline]] inline double largest(std::int64_t n, const Value& value) {
  using V = simd::Vector<double, Lanes>;
  V most = {}, poison = {};  // a comparison drops NaN; 0 x does not
  std::int64_t i = 0;
  for (; i + Lanes <= n; i += Lanes) {
    const V v = value.template operator()<Lanes>(i);
    const V size = v < 0 ? -v : v;
    most = size > most ? size : most;
    poison += 0 * v;
  }
  double all = 0, wrong = 0;
  for (int k = 0; k < Lanes; ++k) {
    all = std::max(all, most[k]);
    wrong += poison[k];
  }
  for (; i < n; ++i) {
    const double v = value.template operator()<1>(i)[0];
    all = std::max(all, std::abs(v));
    wrong += 0 * v;
  }
  return all + wrong;
}

// The norm of a row whose elements value<L>(i) returns as doubles; not finite if any element is not. Squares that leave
// the range of double are avoided by dividing by the largest element first, on a second pass that hardly ever happens.
template <int Lanes, class Value>
[[gnu::always_inline]] inline double norm(Norm kind, std::int64_t n, const Value& value) {
  if (kind == Norm::inf) return largest<Lanes>(n, value);
  const double squares = sum<Lanes>(n, [&]<int L>(std::int64_t i) __attribute__((always_inline)) {
    const auto v = value.template operator()<L>(i);
    return v * v;
  });
  if (squares > smallest_square_sum && squares < largest_square_sum) [[likely]]
    return std::sqrt(squares);
  const double unit = largest<Lanes>(n, value);
  if (unit == 0 || !std::isfinite(unit)) return unit;
  return unit * std::sqrt(sum<Lanes>(n, [&]<int L>(std::int64_t i) __attribute__((always_inline)) {
           const auto v = value.template operator()<L>(i) / unit;
           return v * v;
         }));
}

// body<L>(i) for every element, L at a time and then one by one.
template <int Lanes, class Body>
[[gnu::always_inline]] inline void sweep(std::int64_t n, const Body& body) {
  std::int64_t i = 0;
  for (; i + Lanes <= n; i += Lanes) body.template operator()<Lanes>(i);
  for (; i < n; ++i) body.template operator()<1>(i);
}

}  // namespace deqcore::lanes

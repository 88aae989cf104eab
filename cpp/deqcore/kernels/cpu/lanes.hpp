// SPDX-License-Identifier: Apache-2.0
// Sums over the width of a row. Four partial vectors, then lanes, then the tail, always in this order: the result
// depends on the row and the instruction-set level only.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "deqcore/base/stop.hpp"
#include "deqcore/device/simd.hpp"
#include "deqcore/kernels/bfloat16.hpp"

namespace deqcore::lanes {

template <int Bytes>
inline constexpr int doubles = Bytes / static_cast<int>(sizeof(double));

// Between these a sum of squares in double has lost nothing to the limits of its range.
inline constexpr double smallest_square_sum = 1e-280, largest_square_sum = 1e280;

// Lanes elements as doubles. Of floats by a loop, because g++ 12 turns it into the one instruction, and
// __builtin_convertvector into two halves; of doubles at once, because g++ 12 joins such loops to wrong code where
// several follow each other (StepTwoSided at v4).
template <int Lanes, class T>
[[gnu::always_inline]] inline simd::Vector<double, Lanes> load_double(const T* from) {
  if constexpr (std::is_same_v<T, double>) return simd::load<simd::Vector<double, Lanes>>(from);
  simd::Vector<double, Lanes> v;
  for (int k = 0; k < Lanes; ++k) v[k] = static_cast<double>(from[k]);
  return v;
}

// bfloat16, as widen and narrow of bfloat16.hpp, Lanes at once.
template <int Lanes>
[[gnu::always_inline]] inline simd::Vector<float, Lanes> widen(const BFloat16* from) {
  const auto halves = simd::load<simd::Vector<std::uint16_t, Lanes>>(from);
  const auto bits = __builtin_convertvector(halves, simd::Vector<std::uint32_t, Lanes>) << 16;
  return simd::load<simd::Vector<float, Lanes>>(&bits);
}

template <int Lanes>
[[gnu::always_inline]] inline simd::Vector<double, Lanes> load_double(const BFloat16* from) {
  const auto wide = widen<Lanes>(from);
  simd::Vector<double, Lanes> v;
  for (int k = 0; k < Lanes; ++k) v[k] = static_cast<double>(wide[k]);
  return v;
}

template <int Lanes>
[[gnu::always_inline]] inline simd::Vector<std::uint16_t, Lanes> narrow(const simd::Vector<float, Lanes>& x) {
  using Bits = simd::Vector<std::uint32_t, Lanes>;
  const Bits bits = simd::load<Bits>(&x), nearest = bits + 0x7fff + (bits >> 16 & 1), quiet = bits | 0x400000;
  const Bits rounded = x == x ? nearest : quiet;  // NOLINT(misc-redundant-expression): false for NaN
  return __builtin_convertvector(rounded >> 16, simd::Vector<std::uint16_t, Lanes>);
}

template <int Lanes>
[[gnu::always_inline]] inline simd::Vector<std::uint16_t, Lanes> narrow(const simd::Vector<double, Lanes>& x) {
  using Bits = simd::Vector<std::uint32_t, Lanes>;
  using Mask = simd::Vector<std::int32_t, Lanes>;
  using V = simd::Vector<double, Lanes>;
  const auto nearest = __builtin_convertvector(x, simd::Vector<float, Lanes>);
  const V back = __builtin_convertvector(nearest, V), size = x < 0 ? -x : x, size_back = back < 0 ? -back : back;
  const Mask away = __builtin_convertvector(size_back > size, Mask), inexact = __builtin_convertvector(back != x, Mask);
  const Bits bits = (simd::load<Bits>(&nearest) + simd::load<Bits>(&away)) | (simd::load<Bits>(&inexact) & 1);
  return narrow<Lanes>(simd::load<simd::Vector<float, Lanes>>(&bits));
}

// Lanes elements of a column as Ts, whatever it is kept in.
template <class T, int Lanes>
[[gnu::always_inline]] inline simd::Vector<T, Lanes> load_column(const T* from) {
  return simd::load<simd::Vector<T, Lanes>>(from);
}
template <class T, int Lanes>
[[gnu::always_inline]] inline simd::Vector<T, Lanes> load_column(const BFloat16* from) {
  const auto wide = widen<Lanes>(from);
  if constexpr (std::is_same_v<T, float>) return wide;
  simd::Vector<T, Lanes> v;
  for (int k = 0; k < Lanes; ++k) v[k] = static_cast<T>(wide[k]);
  return v;
}

// The lanes' sum: halves are folded onto each other.
template <class V>
[[gnu::always_inline]] inline double total(const V& v) {
  constexpr int lanes = sizeof(V) / sizeof(double);
  if constexpr (lanes == 1) {
    return v[0];
  } else {
    using Half = simd::Vector<double, lanes / 2>;
    Half halves[2];
    std::memcpy(halves, &v, sizeof v);
    return total(Half(halves[0] + halves[1]));
  }
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
  double whole = total(all);
  for (; i < n; ++i) whole += term.template operator()<1>(i)[0];
  return whole;
}

template <int Lanes, class A, class B>
[[gnu::always_inline]] inline double dot(const A* a, const B* b, std::int64_t n) {
  return sum<Lanes>(n, [=]<int L>(std::int64_t i)
                           __attribute__((always_inline)) { return load_double<L>(a + i) * load_double<L>(b + i); });
}

// (column, a) and (column, b) of `Count` columns `pitch` apart are added to with_a and with_b: what several sums need
// is loaded and converted once.
template <int Lanes, int Count, class Column, class T>
[[gnu::always_inline]] inline void add_dots(const Column* columns, std::int64_t pitch, const Column* a, const T* b,
                                            std::int64_t n, double* with_a, double* with_b) {
  using V = simd::Vector<double, Lanes>;
  V sums_a[Count] = {}, sums_b[Count] = {};
  std::int64_t i = 0;
  for (; i + Lanes <= n; i += Lanes) {
    const V at_a = load_double<Lanes>(a + i), at_b = load_double<Lanes>(b + i);
#pragma GCC unroll 6
    for (int c = 0; c < Count; ++c) {
      const V column = load_double<Lanes>(columns + c * pitch + i);
      sums_a[c] += column * at_a;
      sums_b[c] += column * at_b;
    }
  }
#pragma GCC unroll 6
  for (int c = 0; c < Count; ++c) {
    double total_a = total(sums_a[c]), total_b = total(sums_b[c]);
    for (std::int64_t tail = i; tail < n; ++tail) {
      const double column = load_double<1>(columns + c * pitch + tail)[0];
      total_a += column * load_double<1>(a + tail)[0];
      total_b += column * static_cast<double>(b[tail]);
    }
    with_a[c] += total_a;
    with_b[c] += total_b;
  }
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

// The norm of a row whose squares sum to `squares`, or what squares that leave the range of double make of it: those
// are avoided by dividing by the power of two below the largest element first, which rounds nothing, on a second pass
// that hardly ever happens.
template <int Lanes, class Value>
[[gnu::always_inline]] inline double root(double squares, std::int64_t n, const Value& value) {
  if (squares > smallest_square_sum && squares < largest_square_sum) [[likely]]
    return std::sqrt(squares);
  const double most = largest<Lanes>(n, value);
  if (most == 0 || !std::isfinite(most)) return most;
  const double unit = std::ldexp(1.0, std::ilogb(most));
  return unit * std::sqrt(sum<Lanes>(n, [&]<int L>(std::int64_t i) __attribute__((always_inline)) {
           const auto v = value.template operator()<L>(i) / unit;
           return v * v;
         }));
}

// The norm of a row whose elements value<L>(i) returns as doubles; not finite if any element is not.
template <int Lanes, class Value>
[[gnu::always_inline]] inline double norm(Norm kind, std::int64_t n, const Value& value) {
  if (kind == Norm::inf) return largest<Lanes>(n, value);
  const double squares = sum<Lanes>(n, [&]<int L>(std::int64_t i) __attribute__((always_inline)) {
    const auto v = value.template operator()<L>(i);
    return v * v;
  });
  return root<Lanes>(squares, n, value);
}

// Two norms in one pass: values<L>(i) returns a pair.
template <int Lanes, class Values>
[[gnu::always_inline]] inline void norm_both(Norm kind, std::int64_t n, const Values& values, double& first,
                                             double& second) {
  const auto a = [&]<int L>(std::int64_t i)
                     __attribute__((always_inline)) { return values.template operator()<L>(i).first; };
  const auto b = [&]<int L>(std::int64_t i)
                     __attribute__((always_inline)) { return values.template operator()<L>(i).second; };
  if (kind == Norm::inf) {
    first = largest<Lanes>(n, a);
    second = largest<Lanes>(n, b);
    return;
  }
  using V = simd::Vector<double, Lanes>;
  V of_a[2] = {}, of_b[2] = {};
  std::int64_t i = 0;
  constexpr std::int64_t chunk = std::int64_t{2} * Lanes;
  for (; i + chunk <= n; i += chunk)
#pragma GCC unroll 2
    for (std::int64_t k = 0; k < 2; ++k) {
      const auto [x, y] = values.template operator()<Lanes>(i + k * Lanes);
      of_a[k] += x * x;
      of_b[k] += y * y;
    }
  const V whole_a = of_a[0] + of_a[1], whole_b = of_b[0] + of_b[1];
  double total_a = total(whole_a), total_b = total(whole_b);
  for (; i < n; ++i) {
    const auto [x, y] = values.template operator()<1>(i);
    total_a += x[0] * x[0];
    total_b += y[0] * y[0];
  }
  first = root<Lanes>(total_a, n, a);
  second = root<Lanes>(total_b, n, b);
}

// body<L>(i) for every element, L at a time and then one by one.
template <int Lanes, class Body>
[[gnu::always_inline]] inline void sweep(std::int64_t n, const Body& body) {
  std::int64_t i = 0;
  for (; i + Lanes <= n; i += Lanes) body.template operator()<Lanes>(i);
  for (; i < n; ++i) body.template operator()<1>(i);
}

}  // namespace deqcore::lanes

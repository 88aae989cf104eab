// SPDX-License-Identifier: Apache-2.0
#include "deqcore/maps/activation.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <numbers>
#include <string>
#include <type_traits>

#include "deqcore/base/error.hpp"
#include "deqcore/device/simd.hpp"

namespace deqcore {
namespace {

template <class T>
using IntOf = std::conditional_t<std::is_same_v<T, float>, std::int32_t, std::int64_t>;

template <class To, class From>
[[gnu::always_inline]] inline To bits_as(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

template <class T, int N>
consteval std::array<T, N> inverse_factorials() {  // 1 / 1!, 1 / 2!, ...
  std::array<T, N> all{};
  long double value = 1;
  for (int n = 0; n < N; ++n) all[n] = static_cast<T>(value /= n + 1);
  return all;
}

// exp(x) = power + power * rest with x = k ln 2 + r, power = 2^k, rest = exp(r) - 1 by its Taylor series, which for
// |r| <= ln(2) / 2 falls below eps within `terms`. |x| must not exceed exponent_limit.
template <class V>
struct Exponential {
  V power, rest;
  [[gnu::always_inline]] V exp() const { return power * rest + power; }
  [[gnu::always_inline]] V expm1() const { return power * rest + (power - 1); }  // no cancellation near 0
};

template <class T>
constexpr T exponent_limit = std::is_same_v<T, float> ? T(87) : T(708);

template <class T, class V>
[[gnu::always_inline]] inline Exponential<V> exponential(const V& x) {
  constexpr bool single = std::is_same_v<T, float>;
  using I = simd::Vector<IntOf<T>, sizeof(V) / sizeof(T)>;
  constexpr T ln2_high = single ? T(0.693359375) : T(6.93147180369123816490e-01);  // ends in zeros: k ln2_high is exact
  constexpr T ln2_low = single ? T(-2.12194440e-4) : T(1.90821492927058770002e-10);
  constexpr T rounder = single ? T(12582912) : T(6755399441055744);  // 1.5 * 2^23, 2^52: adding it rounds to an integer
  constexpr IntOf<T> rounder_bits = std::bit_cast<IntOf<T>>(rounder);
  constexpr int terms = single ? 7 : 13;
  constexpr int mantissa_bits = single ? 23 : 52, exponent_bias = single ? 127 : 1023;
  static constexpr std::array<T, terms> coefficients = inverse_factorials<T, terms>();

  const V shifted = x * std::numbers::log2e_v<T> + rounder;
  const V k = shifted - rounder;
  const V r = (x - k * ln2_high) - k * ln2_low;
  V series = V{} + coefficients[terms - 1];
#pragma GCC unroll 16
  for (int n = terms - 2; n >= 0; --n) series = series * r + coefficients[n];
  const I exponent = (bits_as<I>(shifted) - rounder_bits + exponent_bias) << mantissa_bits;
  return {.power = bits_as<V>(exponent), .rest = series * r};
}

// NaN passes.
template <class T, class V>
[[gnu::always_inline]] inline V at_most(const V& x, T bound) {
  return x > bound ? V{} + bound : x;
}

template <class T, class V>
[[gnu::always_inline]] inline V magnitude(const V& x) {
  using I = simd::Vector<IntOf<T>, sizeof(V) / sizeof(T)>;
  return bits_as<V>(I(bits_as<I>(x) & std::numeric_limits<IntOf<T>>::max()));
}

// size, which is not negative, with the sign of x
template <class T, class V>
[[gnu::always_inline]] inline V signed_as(const V& x, const V& size) {
  using I = simd::Vector<IntOf<T>, sizeof(V) / sizeof(T)>;
  return bits_as<V>(I((bits_as<I>(x) & std::numeric_limits<IntOf<T>>::min()) | bits_as<I>(size)));
}

// e / (e + 2) with e = exp(2 |x|) - 1
template <class T, class V>
[[gnu::always_inline]] inline V tanh(const V& x) {
  const V e = exponential<T>(V(2 * at_most<T>(magnitude<T>(x), T(20)))).expm1();
  return signed_as<T>(x, V(e / (e + T(2))));
}

// 1 - tanh^2 = 4 e / (1 + e)^2 with e = exp(-2 |x|)
template <class T, class V>
[[gnu::always_inline]] inline V tanh_slope(const V& x) {
  const V e = exponential<T>(V(-at_most<T>(V(2 * magnitude<T>(x)), exponent_limit<T>))).exp();
  return 4 * e / ((T(1) + e) * (T(1) + e));
}

// 1 / (1 + exp(-x)), from the side where exp is small
template <class T, class V>
[[gnu::always_inline]] inline V sigmoid(const V& x) {
  const V e = exponential<T>(V(-at_most<T>(magnitude<T>(x), exponent_limit<T>))).exp();
  const V s = T(1) / (T(1) + e);
  return x < 0 ? e * s : s;
}

// x where sigmoid changes with x; beyond, the bound of that range: x times a sigmoid that has stopped falling would
// grow.
template <class T, class V>
[[gnu::always_inline]] inline V bounded(const V& x) {
  constexpr T bound = std::is_same_v<T, float> ? T(90) : T(710);
  const V below = x > bound ? (V{} + bound) : x;
  return below < -bound ? (V{} - bound) : below;
}

template <class T>
T normal_cdf(T x) {
  return T(0.5) * std::erfc(-x * T(std::numbers::sqrt2_v<T> / 2));
}

template <class T>
T normal_pdf(T x) {
  constexpr T c = std::numbers::inv_sqrtpi_v<T> / std::numbers::sqrt2_v<T>;
  return c * std::exp(T(-0.5) * x * x);
}

// x <- formula(x + c), a vector at a time; the rest goes through a padded vector, so that every element sees the same
// arithmetic.
template <class T, class Formula>
void vector_loop(std::int64_t n, const T* c, T* x, const Formula& formula) {
  at_simd_level([=](auto simd) __attribute__((always_inline)) {
    constexpr int lanes = simd.bytes / sizeof(T);
    using V = simd::Vector<T, lanes>;
    std::int64_t i = 0;
    for (; i + lanes <= n; i += lanes) simd::store(x + i, V(formula(V(simd::load<V>(x + i) + simd::load<V>(c + i)))));
    if (i == n) return;
    T padded[lanes] = {};
    for (std::int64_t j = i; j < n; ++j) padded[j - i] = x[j] + c[j];
    simd::store(padded, V(formula(simd::load<V>(padded))));
    for (std::int64_t j = i; j < n; ++j) x[j] = padded[j - i];
  });
}

template <class T, class Formula>
void scalar_loop(std::int64_t n, const T* c, T* x, const Formula& formula) {
  for (std::int64_t i = 0; i < n; ++i) x[i] = formula(x[i] + c[i]);
}

}  // namespace

std::string_view name(Activation activation) {
  switch (activation) {
    case Activation::identity: return "identity";
    case Activation::relu: return "relu";
    case Activation::tanh: return "tanh";
    case Activation::sigmoid: return "sigmoid";
    case Activation::softplus: return "softplus";
    case Activation::gelu: return "gelu";
    case Activation::silu: return "silu";
    case Activation::sin: return "sin";
  }
  return "unknown";
}

Activation activation_named(std::string_view wanted) {
  std::string all;
  for (Activation activation : activations) {
    if (name(activation) == wanted) return activation;
    all += (all.empty() ? "" : ", ") + std::string(name(activation));
  }
  fail(ErrorCode::bad_argument, "activation: '" + std::string(wanted) + "' given; expected one of " + all);
}

template <class T>
void activate(Activation activation, std::int64_t n, const T* c, T* x) {
  switch (activation) {
    case Activation::identity: return vector_loop(n, c, x, [](auto v) __attribute__((always_inline)) { return v; });
    case Activation::relu:  // written so that NaN stays NaN
      return vector_loop(n, c, x, [](auto v) __attribute__((always_inline)) { return v < 0 ? (decltype(v){}) : v; });
    case Activation::tanh:
      return vector_loop(n, c, x, [](auto v) __attribute__((always_inline)) { return tanh<T>(v); });
    case Activation::sigmoid:
      return vector_loop(n, c, x, [](auto v) __attribute__((always_inline)) { return sigmoid<T>(v); });
    case Activation::silu:
      return vector_loop(
          n, c, x, [](auto v) __attribute__((always_inline)) { return (v < 0 ? bounded<T>(v) : v) * sigmoid<T>(v); });
    case Activation::softplus:
      return scalar_loop(n, c, x, [](T v) { return std::max(v, T(0)) + std::log1p(std::exp(-std::abs(v))); });
    case Activation::gelu: return scalar_loop(n, c, x, [](T v) { return v * normal_cdf(v); });
    case Activation::sin: return scalar_loop(n, c, x, [](T v) { return std::sin(v); });
  }
}

template <class T>
void differentiate(Activation activation, std::int64_t n, const T* c, T* x) {
  switch (activation) {
    case Activation::identity:
      return vector_loop(n, c, x, [](auto v) __attribute__((always_inline)) { return 0 * v + T(1); });
    case Activation::relu:
      return vector_loop(n, c, x, [](auto v) __attribute__((always_inline)) {
        return (v > 0 ? (decltype(v){} + T(1)) : (decltype(v){})) + 0 * v;
      });
    case Activation::tanh:
      return vector_loop(n, c, x, [](auto v) __attribute__((always_inline)) { return tanh_slope<T>(v); });
    case Activation::sigmoid:
      return vector_loop(
          n, c, x, [](auto v) __attribute__((always_inline)) { return sigmoid<T>(v) * sigmoid<T>(decltype(v)(-v)); });
    case Activation::silu:
      return vector_loop(n, c, x, [](auto v) __attribute__((always_inline)) {
        const auto s = sigmoid<T>(v);
        return s * (T(1) + bounded<T>(v) * sigmoid<T>(decltype(v)(-v)));
      });
    case Activation::softplus:
      return vector_loop(n, c, x, [](auto v) __attribute__((always_inline)) { return sigmoid<T>(v); });
    case Activation::gelu: return scalar_loop(n, c, x, [](T v) { return normal_cdf(v) + v * normal_pdf(v); });
    case Activation::sin: return scalar_loop(n, c, x, [](T v) { return std::cos(v); });
  }
}

template void activate<float>(Activation, std::int64_t, const float*, float*);
template void activate<double>(Activation, std::int64_t, const double*, double*);
template void differentiate<float>(Activation, std::int64_t, const float*, float*);
template void differentiate<double>(Activation, std::int64_t, const double*, double*);

}  // namespace deqcore

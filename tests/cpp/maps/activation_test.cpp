// SPDX-License-Identifier: Apache-2.0
// Against long double formulas. The bounds are in units in the last place of the result.
#include "deqcore/maps/activation.hpp"

#include <cmath>
#include <limits>
#include <vector>

#include "block.hpp"
#include "errors.hpp"
#include "queues.hpp"

namespace deqcore::test {
namespace {

using Long = long double;

Long exact(Activation activation, Long x) {
  switch (activation) {
    case Activation::identity: return x;
    case Activation::relu: return x < 0 ? 0 : x;
    case Activation::tanh: return std::tanh(x);
    case Activation::sigmoid: return 1 / (1 + std::exp(-x));
    case Activation::softplus: return std::max(x, Long(0)) + std::log1p(std::exp(-std::abs(x)));
    case Activation::gelu: return x * std::erfc(-x / std::sqrt(Long(2))) / 2;
    case Activation::silu: return x / (1 + std::exp(-x));
    case Activation::sin: return std::sin(x);
  }
  return 0;
}

Long exact_slope(Activation activation, Long x) {
  const Long s = 1 / (1 + std::exp(-x));
  switch (activation) {
    case Activation::identity: return 1;
    case Activation::relu: return x > 0 ? 1 : 0;
    case Activation::tanh: return 1 / (std::cosh(x) * std::cosh(x));
    case Activation::sigmoid: return s / (1 + std::exp(x));
    case Activation::softplus: return s;
    case Activation::gelu:
      return std::erfc(-x / std::sqrt(Long(2))) / 2 + x * std::exp(-x * x / 2) / std::sqrt(2 * std::acos(Long(-1)));
    case Activation::silu: return s * (1 + x / (1 + std::exp(x)));
    case Activation::sin: return std::cos(x);
  }
  return 0;
}

template <class T>
class Activations : public ::testing::Test {};
TYPED_TEST_SUITE(Activations, FloatAndDouble, TypeNames);

TYPED_TEST(Activations, AgreeWithTheFormulas) {
  using T = TypeParam;
  constexpr Long eps = std::numeric_limits<T>::epsilon();
  std::vector<T> inputs = {0, -T(0), 1, -1, T(1e-30), -T(1e-30), T(1e-6), T(0.3465), T(0.3467)};
  for (T x = -30; x <= 30; x += T(0.0137)) inputs.push_back(x);
  for (const Activation activation : activations) {
    std::vector<T> zeros(inputs.size()), value = inputs, slope = inputs;
    const auto n = static_cast<std::int64_t>(inputs.size());
    activate(activation, n, zeros.data(), value.data());
    differentiate(activation, n, zeros.data(), slope.data());
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      const Long x = inputs[i], f = exact(activation, x), d = exact_slope(activation, x);
      // 8 units, and for the tails of gelu and the zeros of slopes the error of their larger term
      const Long tail = activation == Activation::gelu ? 1 + x * x : 1;
      EXPECT_NEAR(value[i], f, 8 * eps * std::abs(f) * tail + 1e-37) << name(activation) << " at " << x;
      EXPECT_NEAR(slope[i], d, 8 * eps * (std::abs(d) * tail + std::abs(x) * std::exp(-std::abs(x)) + eps))
          << name(activation) << "' at " << x;
    }
  }
}

TYPED_TEST(Activations, AnElementDoesNotDependOnItsPlace) {
  using T = TypeParam;
  Random random(70);
  for (const Activation activation : activations)
    for (const std::int64_t n : {1, 2, 3, 7, 8, 15, 16, 17, 33, 100}) {
      std::vector<T> x(n), c(n);
      for (T& v : x) v = static_cast<T>(3 * random.normal());
      for (T& v : c) v = static_cast<T>(random.normal());
      std::vector<T> value = x, slope = x;
      activate(activation, n, c.data(), value.data());
      differentiate(activation, n, c.data(), slope.data());
      for (std::int64_t i = 0; i < n; ++i) {
        T alone = x[i], slope_alone = x[i];
        activate(activation, 1, &c[i], &alone);
        differentiate(activation, 1, &c[i], &slope_alone);
        EXPECT_TRUE(same_bits(&alone, &value[i], 1)) << name(activation) << " " << n << " " << i;
        EXPECT_TRUE(same_bits(&slope_alone, &slope[i], 1)) << name(activation) << "' " << n << " " << i;
      }
    }
}

TYPED_TEST(Activations, NanStaysNan) {
  using T = TypeParam;
  for (const Activation activation : activations) {
    T x[5] = {1, std::numeric_limits<T>::quiet_NaN(), 2, std::numeric_limits<T>::quiet_NaN(), 3}, zeros[5] = {};
    T slope[5] = {x[0], x[1], x[2], x[3], x[4]};
    activate(activation, 5, zeros, x);
    differentiate(activation, 5, zeros, slope);
    for (const int i : {1, 3}) {
      EXPECT_TRUE(std::isnan(x[i])) << name(activation);
      EXPECT_TRUE(std::isnan(slope[i])) << name(activation);
    }
  }
}

TEST(Activation, AnUnknownNameIsRefused) {
  EXPECT_EQ(activation_named("tanh"), Activation::tanh);
  EXPECT_TRUE(refuses("activation", [] { activation_named("Tanh"); }));
}

}  // namespace
}  // namespace deqcore::test

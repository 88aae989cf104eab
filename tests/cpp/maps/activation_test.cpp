// SPDX-License-Identifier: Apache-2.0
// Against formulas in long double, within the bounds that activation.hpp states.
#include "deqcore/maps/activation.hpp"

#include <cmath>
#include <limits>
#include <numbers>
#include <string>
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
    case Activation::gelu: return x * std::erfc(-x / std::numbers::sqrt2_v<Long>) / 2;
    case Activation::silu: return x / (1 + std::exp(-x));
    case Activation::sin: return std::sin(x);
  }
  return 0;
}

struct Slope {
  Long value;
  Long terms;  // size of the larger of the terms it is the sum of
};

Slope exact_slope(Activation activation, Long x) {
  const Long s = 1 / (1 + std::exp(-x));
  const auto plain = [](Long value) { return Slope{value, std::abs(value)}; };
  switch (activation) {
    case Activation::identity: return plain(1);
    case Activation::relu: return plain(x > 0 ? 1 : 0);
    case Activation::tanh: {
      const Long e = std::exp(-2 * std::abs(x));
      return plain(4 * e / ((1 + e) * (1 + e)));
    }
    case Activation::sigmoid: return plain(s / (1 + std::exp(x)));
    case Activation::softplus: return plain(s);
    case Activation::gelu: {
      const Long cdf = std::erfc(-x / std::numbers::sqrt2_v<Long>) / 2;
      const Long rest = x * std::exp(-x * x / 2) / std::sqrt(2 * std::numbers::pi_v<Long>);
      return {cdf + rest, std::max(cdf, std::abs(rest))};
    }
    case Activation::silu: {
      const Long rest = s * x / (1 + std::exp(x));
      return {s + rest, std::max(s, std::abs(rest))};
    }
    case Activation::sin: return plain(std::cos(x));
  }
  return plain(0);
}

template <class T>
class Activations : public ::testing::Test {
 public:
  static constexpr Long eps = std::numeric_limits<T>::epsilon();
  static constexpr Long tiny = 8 * std::numeric_limits<T>::min();  // where exp ends

  static T value(Activation activation, T x) {
    const T zero = 0;
    activate(activation, 1, &zero, &x);
    return x;
  }
  static T slope(Activation activation, T x) {
    const T zero = 0;
    differentiate(activation, 1, &zero, &x);
    return x;
  }
};
TYPED_TEST_SUITE(Activations, FloatAndDouble, TypeNames);

TYPED_TEST(Activations, KeepTheirBoundsOverTheWholeRange) {
  using T = TypeParam;
  Random random(70);
  std::vector<T> inputs = {
      0, -T(0), 1, -1, T(0.5), std::numeric_limits<T>::min(), std::numeric_limits<T>::denorm_min()};
  const double most = std::is_same_v<T, float> ? 200 : 1500;  // past the ends of exp
  for (const double size : {1e-30, 1e-6, 1e-3, 0.35, 1.0, 10.0, 40.0, most})
    for (int i = 0; i < 4000; ++i) inputs.push_back(static_cast<T>(random.uniform(-size, size)));
  const auto n = static_cast<std::int64_t>(inputs.size());
  const std::vector<T> zeros(inputs.size());
  for (const Activation activation : activations) {
    std::vector<T> value = inputs, slope = inputs;
    activate(activation, n, zeros.data(), value.data());
    differentiate(activation, n, zeros.data(), slope.data());
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      const Long x = inputs[i], f = exact(activation, x);
      const Slope d = exact_slope(activation, x);
      const Long tail = activation == Activation::gelu ? 1 + x * x : 1;
      const Long ends = activation == Activation::silu ? this->tiny * std::max(Long(1), std::abs(x)) : this->tiny;
      ASSERT_LE(std::abs(value[i] - f), 4 * this->eps * tail * std::abs(f) + ends) << name(activation) << " at " << x;
      ASSERT_LE(std::abs(slope[i] - d.value), 4 * this->eps * tail * d.terms + ends)
          << name(activation) << "' at " << x;
    }
  }
}

// Zeros of odd activations keep relative accuracy as close to zero as numbers go.
TYPED_TEST(Activations, AreAccurateNextToZero) {
  using T = TypeParam;
  for (const Activation activation : {Activation::tanh, Activation::sin, Activation::identity})
    for (T x = 1; x > std::numeric_limits<T>::min(); x /= 7)
      for (const T signed_x : {x, T(-x)})
        EXPECT_NEAR(this->value(activation, signed_x) / exact(activation, signed_x), 1, 4 * this->eps)
            << name(activation) << " at " << signed_x;
  for (const Activation activation : activations)
    EXPECT_EQ(this->value(activation, T(0)), this->value(activation, -T(0))) << name(activation);
}

TYPED_TEST(Activations, ReachTheirLimitsFarOut) {
  using T = TypeParam;
  const Long nothing = 800 * this->tiny;
  for (const T x : {T(1e4), T(1e10), T(1e30), std::numeric_limits<T>::max(), std::numeric_limits<T>::infinity()}) {
    const auto value = [&](Activation activation, T at) { return static_cast<Long>(this->value(activation, at)); };
    const auto slope = [&](Activation activation, T at) { return static_cast<Long>(this->slope(activation, at)); };
    SCOPED_TRACE(x);
    using A = Activation;
    EXPECT_EQ(value(A::identity, x), x);
    EXPECT_EQ(value(A::relu, x), x);
    EXPECT_EQ(value(A::relu, -x), 0);
    EXPECT_EQ(value(A::tanh, x), 1);
    EXPECT_EQ(value(A::tanh, -x), -1);
    EXPECT_EQ(value(A::sigmoid, x), 1);
    EXPECT_NEAR(value(A::sigmoid, -x), 0, nothing);
    EXPECT_EQ(value(A::softplus, x), x);
    EXPECT_NEAR(value(A::softplus, -x), 0, nothing);
    EXPECT_EQ(value(A::gelu, x), x);
    EXPECT_EQ(value(A::silu, x), x);
    EXPECT_NEAR(value(A::silu, -x), 0, nothing);
    EXPECT_NEAR(slope(A::tanh, x), 0, nothing);
    EXPECT_NEAR(slope(A::tanh, -x), 0, nothing);
    EXPECT_NEAR(slope(A::sigmoid, x), 0, nothing);
    EXPECT_NEAR(slope(A::sigmoid, -x), 0, nothing);
    EXPECT_EQ(slope(A::softplus, x), 1);
    EXPECT_NEAR(slope(A::softplus, -x), 0, nothing);
    EXPECT_EQ(slope(A::silu, x), 1);
    EXPECT_NEAR(slope(A::silu, -x), 0, nothing);
    if (!std::isfinite(x)) continue;
    EXPECT_EQ(value(A::gelu, -x), 0);
    EXPECT_EQ(slope(A::gelu, x), 1);
    EXPECT_EQ(slope(A::gelu, -x), 0);
    EXPECT_EQ(slope(A::identity, x), 1);
    EXPECT_EQ(slope(A::relu, x), 1);
    EXPECT_EQ(slope(A::relu, -x), 0);
    EXPECT_LE(std::abs(value(A::sin, x)), 1);
    EXPECT_LE(std::abs(slope(A::sin, x)), 1);
  }
}

TYPED_TEST(Activations, SlopesAreThoseOfTheValues) {
  for (const Activation activation : activations)
    for (double x = -6; x <= 6; x += 0.37) {
      const double h = 1e-5;
      const Long by_differences = (exact(activation, x + h) - exact(activation, x - h)) / (2 * h);
      EXPECT_NEAR(this->slope(activation, static_cast<TypeParam>(x)), by_differences, 1e-6) << name(activation);
    }
}

TYPED_TEST(Activations, TheKinkOfReluHasSlopeZero) {
  EXPECT_EQ(this->slope(Activation::relu, TypeParam(0)), 0);
  EXPECT_EQ(this->slope(Activation::relu, -TypeParam(0)), 0);
  EXPECT_EQ(this->slope(Activation::relu, std::numeric_limits<TypeParam>::denorm_min()), 1);
}

TYPED_TEST(Activations, AnElementDoesNotDependOnItsPlace) {
  using T = TypeParam;
  Random random(71);
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

TYPED_TEST(Activations, NanStaysNanAndTouchesNoNeighbour) {
  using T = TypeParam;
  for (const Activation activation : activations)
    for (std::int64_t at = 0; at < 19; ++at) {
      std::vector<T> x(19, T(0.5)), slope(19, T(0.5));
      const std::vector<T> zeros(19);
      x[at] = slope[at] = std::numeric_limits<T>::quiet_NaN();
      activate(activation, 19, zeros.data(), x.data());
      differentiate(activation, 19, zeros.data(), slope.data());
      for (std::int64_t i = 0; i < 19; ++i) {
        EXPECT_EQ(std::isnan(x[i]), i == at) << name(activation);
        EXPECT_EQ(std::isnan(slope[i]), i == at) << name(activation);
      }
    }
}

TEST(Activation, HasANameByWhichItIsFound) {
  for (const Activation activation : activations) EXPECT_EQ(activation_named(name(activation)), activation);
  EXPECT_EQ(name(static_cast<Activation>(99)), "unknown");
}

TEST(Activation, AnUnknownNameIsRefusedWithTheValidOnes) {
  for (const char* wrong : {"", "Tanh", "swish"}) {
    EXPECT_TRUE(refuses("activation", [&] { activation_named(wrong); }));
    try {
      activation_named(wrong);
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find("softplus, gelu"), std::string::npos);
    }
  }
}

}  // namespace
}  // namespace deqcore::test

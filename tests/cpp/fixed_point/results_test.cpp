// SPDX-License-Identifier: Apache-2.0
// Does a solve find the answer, and does it say so when there is none?
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "dialogue.hpp"

namespace deqcore::test {
namespace {

template <class Case>
class Results : public ::testing::Test {};
TYPED_TEST_SUITE(Results, SerialCases<Forward>, Names);

template <class Case>
constexpr double eps = std::numeric_limits<typename Case::T>::epsilon();

bool is_picard(const Method& method) {
  return std::holds_alternative<Picard>(method);
}

template <class T>
void expect_all(const Outcome<T>& outcome, Status status, const std::string& problem) {
  for (std::size_t row = 0; row < outcome.status.size(); ++row)
    EXPECT_EQ(outcome.status[row], status)
        << problem << ", row " << row << " ended as " << name(outcome.status[row]) << " after " << outcome.steps[row];
}

TYPED_TEST(Results, TheCatalogueConverges) {
  using T = typename TypeParam::T;
  for (const auto& [method_name, method] : methods_of<Forward>()) {
    SCOPED_TRACE(method_name);
    const Problem<T> problems[] = {linear_contraction<T>(0.5),
                                   linear_contraction<T>(0.9),
                                   tanh_network<T>(),
                                   monotone<T>(),
                                   non_normal<T>(),
                                   nearly_singular<T>(1e-2),
                                   different_speeds<T>(),
                                   tanh_network<T>(1, 1),
                                   linear_contraction<T>(0.7, 3, 1)};
    for (const auto& problem : problems)
      expect_all(Solve<TypeParam>(problem, {.stop = {.max_steps = 5000}}, method).run(), Status::converged,
                 problem.name);
  }
}

TYPED_TEST(Results, MapsWithoutAFixedPointNeverConverge) {
  using T = typename TypeParam::T;
  for (const auto& [method_name, method] : methods_of<Forward>()) {
    SCOPED_TRACE(method_name);
    for (const auto& problem : without_fixed_point<T>())
      for (const double rtol : {1e-2, std::sqrt(eps<TypeParam>), 4 * eps<TypeParam>})
        for (const std::int64_t max_steps : {100, 20000}) {
          const auto outcome =
              Solve<TypeParam>(problem, {.stop = {.rtol = rtol, .max_steps = max_steps}}, method).run();
          for (std::size_t row = 0; row < outcome.status.size(); ++row)
            EXPECT_LT(static_cast<int>(outcome.status[row]), 0)
                << problem.name << ", rtol " << rtol << ", row " << row << " after " << outcome.steps[row] << " steps";
        }
  }
}

TYPED_TEST(Results, HalvingEndsAtOnceAtZeroAndSoonFromElsewhere) {
  using T = typename TypeParam::T;
  for (const auto& [method_name, method] : methods_of<Forward>()) {
    SCOPED_TRACE(method_name);
    auto problem = halving<T>();
    const auto at_once = Solve<TypeParam>(problem, {}, method).run();
    expect_all(at_once, Status::converged, problem.name);
    EXPECT_EQ(at_once.longest(), 1);
    EXPECT_EQ(at_once.residual[0], 0);
    for (const T v : at_once.value) EXPECT_EQ(v, T(0));
    for (const double size : {1e-30, 1e-3, 1.0, 1e30}) {
      for (std::int64_t i = 0; i < problem.rows; ++i)
        for (std::int64_t j = 0; j < problem.width; ++j)
          problem.z0(i, j) = static_cast<T>(size * static_cast<double>(i + j + 1));
      const auto outcome = Solve<TypeParam>(problem, {}, method).run();
      expect_all(outcome, Status::converged, problem.name);
      // 2^-k <= 4 eps; damping makes the factor 1 - beta / 2
      const double factor = is_picard(method) ? 1 - std::get<Picard>(method).beta / 2 : 0.5;
      const double stages = std::holds_alternative<SteadyState>(method) ? 6 : 1;  // whose evaluations make one step
      EXPECT_LE(outcome.longest(), stages * std::ceil(std::log(2 * eps<TypeParam>) / std::log(factor)) + 2) << size;
      for (const T v : outcome.value)
        EXPECT_LE(std::abs(static_cast<double>(v)), 100 * eps<TypeParam> * size * 10) << size;
    }
  }
}

TYPED_TEST(Results, SlowContractionsConvergeInDouble) {
  using T = typename TypeParam::T;
  if (std::is_same_v<T, float>) return;  // 0.9999 is beyond what float can resolve
  for (const auto& [method_name, method] : methods_of<Forward>()) {
    SCOPED_TRACE(method_name);
    const bool forgets = (std::holds_alternative<Broyden>(method) && std::get<Broyden>(method).history < 16) ||
                         (std::holds_alternative<AndersonTypeI>(method) && std::get<AndersonTypeI>(method).history < 8);
    const bool plain = is_picard(method) || std::holds_alternative<SteadyState>(method);
    for (const double factor : {0.9, 0.99, 0.999, 0.9999}) {
      if (forgets && factor > 0.99) continue;  // pairs for fewer than the width's directions
      const auto problem = linear_contraction<T>(factor);
      const auto outcome = Solve<TypeParam>(problem, {.stop = {.max_steps = plain ? 1'000'000 : 2000}}, method).run();
      expect_all(outcome, Status::converged, std::to_string(factor));
    }
  }
}

// |z - z*| <= |g| / (1 - factor), with z* from a solve to the last digits in double.
TYPED_TEST(Results, AConvergedPointIsAsCloseAsItsResidualPromises) {
  using T = typename TypeParam::T;
  for (const auto& [method_name, method] : methods_of<Forward>()) {
    SCOPED_TRACE(method_name);
    using Exact = Case<Forward, On<CpuQueue, double, 1>>;
    for (const double factor : {0.5, 0.9}) {
      Random random(100);
      const auto exact =
          Solve<Exact>(linear_contraction<double>(factor), {.stop = {.rtol = 1e-15, .max_steps = 10000}}).run();
      const auto outcome = Solve<TypeParam>(linear_contraction<T>(factor), {}, method).run();
      for (std::size_t row = 0; row < outcome.status.size(); ++row) {
        double error = 0;
        for (std::int64_t j = 0; j < outcome.width; ++j) {
          const std::size_t at = row * outcome.width + j;
          error += std::pow(static_cast<double>(outcome.value[at]) - exact.value[at], 2);
        }
        const double noise = 20 * eps<TypeParam> * outcome.scale[row] / (1 - factor);  // of the map in T
        EXPECT_LE(std::sqrt(error), outcome.residual[row] / (1 - factor) + noise) << factor;
      }
    }
  }
}

// A map that cannot be evaluated more precisely than some 40 eps: its residual never falls below.
TYPED_TEST(Results, AMapThatIsAllNoiseStalls) {
  using T = typename TypeParam::T;
  for (const auto& [method_name, method] : methods_of<Forward>()) {
    SCOPED_TRACE(method_name);
    Problem<T> problem{.name = "noise", .rows = 2, .width = 4, .z0 = Block<T>(2, 4, 0, T(1.5))};
    problem.value = [](std::int64_t, const T* z, T* f) {
      for (int j = 0; j < 4; ++j) f[j] = 1 + 10 * std::numeric_limits<T>::epsilon() * (z[j] > 1 ? T(-1) : T(1));
    };
    Solve<TypeParam> solve(problem, {.stop = {.rtol = 4 * eps<TypeParam>}}, method);
    const auto outcome = solve.run();
    for (std::size_t row = 0; row < 2; ++row) {
      EXPECT_EQ(outcome.status[row], Status::stalled) << name(outcome.status[row]) << " " << outcome.residual[row];
      EXPECT_LE(outcome.residual[row], 100 * eps<TypeParam> * outcome.scale[row]);
    }
  }
}

TYPED_TEST(Results, AStepThatChangesNoBitStalls) {
  using T = typename TypeParam::T;
  Problem<T> problem{.name = "a step too short", .rows = 1, .width = 3, .z0 = Block<T>(1, 3, 0, T(1))};
  problem.value = [](std::int64_t, const T* z, T* f) {
    for (int j = 0; j < 3; ++j) f[j] = z[j] / 2 + 1;
  };
  const double beta = eps<TypeParam> / 4;
  const auto outcome = Solve<TypeParam>(problem, {}, Picard{.beta = beta}).run();
  EXPECT_EQ(outcome.status[0], Status::stalled);
  EXPECT_EQ(outcome.steps[0], 3) << "after two such steps";
}

TYPED_TEST(Results, ARunawayDiverges) {
  using T = typename TypeParam::T;
  Problem<T> problem{.name = "z^2 + z + 1", .rows = 2, .width = 3, .z0 = Block<T>(2, 3, 0, T(1))};
  problem.value = [](std::int64_t, const T* z, T* f) {
    for (int j = 0; j < 3; ++j) f[j] = z[j] * z[j] * std::abs(z[j]) + z[j] + 1;
  };
  Solve<TypeParam> solve(problem, {.stop = {.max_steps = 1000}}, Picard{});
  const auto outcome = solve.run();
  expect_all(outcome, Status::diverged, problem.name);
  for (const T v : outcome.value) EXPECT_EQ(v, T(1)) << "the answer is the best point, not the last";
}

TYPED_TEST(Results, AMapThatLeavesItsDomainIsNotFinite) {
  using T = typename TypeParam::T;
  for (const auto& [method_name, method] : methods_of<Forward>()) {
    SCOPED_TRACE(method_name);
    Problem<T> problem{.name = "log", .rows = 3, .width = 2, .z0 = Block<T>(3, 2, 0, T(0.2))};
    problem.value = [](std::int64_t, const T* z, T* f) {
      for (int j = 0; j < 2; ++j) f[j] = std::log(z[j]);
    };
    // the flow ends at 0: steps towards it become shorter and shorter
    const std::int64_t max_steps = std::holds_alternative<SteadyState>(method) ? 5000 : 200;
    const auto outcome = Solve<TypeParam>(problem, {.stop = {.max_steps = max_steps}}, method).run();
    expect_all(outcome, Status::not_finite, problem.name);
    for (const T v : outcome.value) EXPECT_TRUE(std::isfinite(v));
  }
}

TYPED_TEST(Results, TooFewStepsAreOutOfSteps) {
  using T = typename TypeParam::T;
  for (const auto& [method_name, method] : methods_of<Forward>()) {
    SCOPED_TRACE(method_name);
    const auto outcome =
        Solve<TypeParam>(nearly_singular<T>(1e-3), {.stop = {.rtol = 1e-6, .max_steps = 4}}, method).run();
    expect_all(outcome, Status::out_of_steps, "nearly singular");
    EXPECT_EQ(outcome.longest(), 4);
  }
}

// An infinite start is not finite at once; a start at the fixed point converges at once.
TYPED_TEST(Results, AStartThatIsNotFiniteIsSaidSo) {
  using T = typename TypeParam::T;
  for (const auto& [method_name, method] : methods_of<Forward>()) {
    SCOPED_TRACE(method_name);
    auto problem = different_speeds<T>();
    problem.z0(1, 3) = std::numeric_limits<T>::infinity();
    problem.z0(2, 0) = std::numeric_limits<T>::quiet_NaN();
    const auto outcome = Solve<TypeParam>(problem, {}, method).run();
    for (std::size_t row = 0; row < outcome.status.size(); ++row)
      EXPECT_EQ(outcome.status[row], row == 1 || row == 2 ? Status::not_finite : Status::converged);
  }
}

TYPED_TEST(Results, AStartAtTheFixedPointConvergesInOneStep) {
  using T = typename TypeParam::T;
  for (const auto& [method_name, method] : methods_of<Forward>()) {
    SCOPED_TRACE(method_name);
    auto problem = tanh_network<T>();
    const auto found = Solve<TypeParam>(problem, {.stop = {.rtol = 1e-6}}, method).run();
    std::copy(found.value.begin(), found.value.end(), problem.z0.view().data);
    const auto again = Solve<TypeParam>(problem, {.stop = {.rtol = 1e-6}}, method).run();
    expect_all(again, Status::converged, problem.name);
    EXPECT_EQ(again.longest(), 1);
    EXPECT_TRUE(same_bits(again.value, found.value));
  }
}

// f(z) = 2^exponent g(2^-exponent z)
template <class T>
Problem<T> in_units(Problem<T> problem, int exponent) {
  problem.value = [value = problem.value, width = problem.width, exponent](std::int64_t row, const T* z, T* f) {
    std::vector<T> scaled(width);
    for (std::int64_t j = 0; j < width; ++j) scaled[j] = std::ldexp(z[j], -exponent);
    value(row, scaled.data(), f);
    for (std::int64_t j = 0; j < width; ++j) f[j] = std::ldexp(f[j], exponent);
  };
  return problem;
}

TYPED_TEST(Results, AnAnswerDoesNotDependOnTheUnitsToTheBit) {
  using T = typename TypeParam::T;
  const int far = std::is_same_v<T, float> ? 100 : 480;
  for (const auto& [method_name, method] : methods_of<Forward>()) {
    SCOPED_TRACE(method_name);
    const auto reference = Solve<TypeParam>(tanh_network<T>(), {}, method).run();
    const auto* anderson = std::get_if<Anderson>(&method);
    for (const int exponent : {-far, -60, 60, far}) {
      if (std::abs(exponent) == far && anderson && anderson->storage == Storage::bfloat16) continue;  // past its range
      const auto outcome = Solve<TypeParam>(in_units(tanh_network<T>(), exponent), {}, method).run();
      EXPECT_EQ(outcome.steps, reference.steps) << exponent;
      EXPECT_EQ(outcome.status, reference.status) << exponent;
      for (std::size_t i = 0; i < outcome.value.size(); ++i)
        EXPECT_EQ(outcome.value[i], std::ldexp(reference.value[i], exponent)) << exponent;
    }
  }
}

// Where squares leave the range of double, Anderson's small systems do too: it may need more steps, and no less truth.
TYPED_TEST(Results, ConvergedIsTrueAtTheEndsOfTheRange) {
  using T = typename TypeParam::T;
  const int far = std::is_same_v<T, float> ? 120 : 1000;
  for (const auto& [method_name, method] : methods_of<Forward>()) {
    SCOPED_TRACE(method_name);
    const auto reference = Solve<TypeParam>(tanh_network<T>(), {}, method).run();
    for (const int exponent : {-far, far}) {
      const auto outcome = Solve<TypeParam>(in_units(tanh_network<T>(), exponent), {}, method).run();
      expect_all(outcome, Status::converged, std::to_string(exponent));
      for (std::size_t i = 0; i < outcome.value.size(); ++i)
        EXPECT_NEAR(std::ldexp(outcome.value[i], -exponent), reference.value[i], 100 * std::sqrt(eps<TypeParam>));
    }
  }
}

}  // namespace
}  // namespace deqcore::test

// SPDX-License-Identifier: Apache-2.0
// The methods against their formulas, iterate by iterate.
#include "deqcore/fixed_point/methods.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "dialogue.hpp"
#include "errors.hpp"

namespace deqcore::test {
namespace {

using Wide = std::vector<long double>;

template <class Case>
class Methods : public ::testing::Test {};
TYPED_TEST_SUITE(Methods, SerialCases<Forward>, Names);

// The points asked about for row 0, step by step.
template <class Case>
std::vector<Wide> points_asked(const Problem<typename Case::T>& problem, const Method& method, std::int64_t steps) {
  Solve<Case> solve(problem, {.stop = {.max_steps = steps}, .ids = {0}}, method);
  std::vector<Wide> points;
  for (auto question = solve.start(); question; question = solve.solver->advance(solve.answer(question)))
    points.emplace_back(question.at[0], question.at[0] + solve.width);
  return points;
}

Wide evaluate(const Problem<double>& problem, const Wide& z) {
  const std::vector<double> point(z.begin(), z.end());
  std::vector<double> f(point.size());
  problem.value(0, point.data(), f.data());
  return {f.begin(), f.end()};
}

long double distance(const Wide& a, const Wide& b) {
  long double sum = 0;
  for (std::size_t j = 0; j < a.size(); ++j) sum += (a[j] - b[j]) * (a[j] - b[j]);
  return std::sqrt(sum);
}

TYPED_TEST(Methods, PicardStepsByTheFormula) {
  using T = typename TypeParam::T;
  const auto exact_map = linear_contraction<double>(0.9);
  for (const double beta : {1.0, 0.5, 1.3}) {
    const auto points = points_asked<TypeParam>(linear_contraction<T>(0.9), Picard{.beta = beta}, 12);
    ASSERT_EQ(points.size(), 12u);
    Wide z(points[0].size(), 0);
    for (const Wide& point : points) {
      EXPECT_LE(distance(point, z), 100 * std::numeric_limits<T>::epsilon());
      const Wide f = evaluate(exact_map, z);
      for (std::size_t j = 0; j < z.size(); ++j) z[j] += beta * (f[j] - z[j]);
    }
  }
}

// One step of the textbook: minimise |g - dG gamma| by modified Gram-Schmidt in long double, without a ridge.
Wide textbook_anderson(const std::vector<Wide>& z, const std::vector<Wide>& f, std::size_t m, double beta) {
  const std::size_t last = z.size() - 1, n = z[0].size(), depth = std::min(m, last);
  const auto residual = [&](std::size_t k) {
    Wide g(n);
    for (std::size_t j = 0; j < n; ++j) g[j] = f[k][j] - z[k][j];
    return g;
  };
  const auto dot = [&](const Wide& a, const Wide& b) {
    long double sum = 0;
    for (std::size_t j = 0; j < n; ++j) sum += a[j] * b[j];
    return sum;
  };
  std::vector<Wide> Q, F;  // orthonormal columns of dG, and the same combinations of dF
  Wide g = residual(last), next = f[last];
  for (std::size_t k = last - depth; k < last; ++k) {
    Wide q = residual(k + 1), image(n);
    const Wide before = residual(k);
    for (std::size_t j = 0; j < n; ++j) {
      q[j] -= before[j];
      image[j] = f[k + 1][j] - f[k][j];
    }
    for (std::size_t c = 0; c < Q.size(); ++c) {
      const long double along = dot(Q[c], q);
      for (std::size_t j = 0; j < n; ++j) {
        q[j] -= along * Q[c][j];
        image[j] -= along * F[c][j];
      }
    }
    const long double size = std::sqrt(dot(q, q));
    for (std::size_t j = 0; j < n; ++j) {
      q[j] /= size;
      image[j] /= size;
    }
    Q.push_back(q);
    F.push_back(image);
  }
  for (std::size_t c = 0; c < Q.size(); ++c) {
    const long double along = dot(Q[c], g);
    for (std::size_t j = 0; j < n; ++j) {
      g[j] -= along * Q[c][j];
      next[j] -= along * F[c][j];
    }
  }
  for (std::size_t j = 0; j < n; ++j) next[j] -= (1 - static_cast<long double>(beta)) * g[j];
  return next;
}

TYPED_TEST(Methods, AndersonStepsByTheFormula) {
  using T = typename TypeParam::T;
  const auto exact_map = tanh_network<double>();
  for (const std::int64_t m : {1, 2, 4})
    for (const double beta : {1.0, 0.6}) {
      const std::int64_t steps = 6;  // the window slides; conditioning still leaves digits to compare
      const auto points =
          points_asked<TypeParam>(tanh_network<T>(), Anderson{.history = m, .beta = beta, .ridge = 0}, steps);
      ASSERT_EQ(static_cast<std::int64_t>(points.size()), steps);
      std::vector<Wide> z, f;
      Wide next(points[0].size(), 0);
      for (const Wide& point : points) {
        EXPECT_LE(distance(point, next), 1e4 * std::numeric_limits<T>::epsilon()) << z.size() << " " << m;
        z.push_back(next);
        f.push_back(evaluate(exact_map, next));
        next = textbook_anderson(z, f, m, beta);
      }
    }
}

// On a linear map, Anderson with a full window is GMRES: it ends after as many steps as there are eigenvalues.
TYPED_TEST(Methods, AndersonSolvesALinearMapInAsManyStepsAsEigenvalues) {
  using T = typename TypeParam::T;
  Random random(50);
  const std::int64_t width = 24;
  std::vector<double> values(width);
  for (std::int64_t k = 0; k < width; ++k) values[k] = std::vector{0.9, -0.7, 0.3}[k % 3];
  const auto problem =
      affine("three eigenvalues", 2, width, reflected(random, values), Block<T>::random(random, 2, width));
  const auto outcome = Solve<TypeParam>(problem).run();
  for (std::int64_t row = 0; row < 2; ++row) {
    EXPECT_EQ(outcome.status[row], Status::converged);
    EXPECT_LE(outcome.steps[row], 6);
  }
}

// A residual that jumps clears the window; the report says how often.
TYPED_TEST(Methods, AndersonRejectsStepsThatMakeTheResidualGrow) {
  using T = typename TypeParam::T;
  Problem<T> problem{.name = "waves", .rows = 1, .width = 3, .z0 = Block<T>(1, 3, 0, T(2))};
  problem.value = [](std::int64_t, const T* z, T* f) {
    for (int j = 0; j < 3; ++j) f[j] = 3 * std::sin(3 * z[j] + static_cast<T>(j));
  };
  const auto guarded = Solve<TypeParam>(problem, {.stop = {.max_steps = 60}}, Anderson{.growth = 1.5}).run();
  EXPECT_GT(guarded.rejected[0], 0);
  const auto free = Solve<TypeParam>(problem, {.stop = {.max_steps = 60}},
                                     Anderson{.growth = std::numeric_limits<double>::infinity()})
                        .run();
  EXPECT_EQ(free.rejected[0], 0);
}

// f = z + 1: every residual is the same, every difference of residuals zero.
TYPED_TEST(Methods, AndersonTakesPlainStepsWhereDifferencesVanish) {
  using T = typename TypeParam::T;
  Problem<T> problem{.name = "shift", .rows = 1, .width = 3, .z0 = Block<T>(1, 3)};
  problem.value = [](std::int64_t, const T* z, T* f) {
    for (int j = 0; j < 3; ++j) f[j] = z[j] + 1;
  };
  for (const double ridge : {0.0, Anderson{}.ridge}) {
    Solve<TypeParam> solve(problem, {.stop = {.max_steps = 10}}, Anderson{.ridge = ridge});
    T expected = 0;
    for (auto question = solve.start(); question; question = solve.solver->advance(solve.answer(question))) {
      EXPECT_EQ(question.at[0][0], expected);
      expected += 1;
    }
    EXPECT_EQ(solve.report.status[0], Status::out_of_steps);
    EXPECT_EQ(solve.report.singular[0], 0) << "a column of zeros takes no part";
  }
}

// On a linear map, type I with a full window ends after as many steps as there are eigenvalues, too.
TYPED_TEST(Methods, AndersonTypeISolvesALinearMapInAsManyStepsAsEigenvalues) {
  const auto outcome =
      Solve<TypeParam>(linear_contraction<typename TypeParam::T>(0.9), {.stop = {.max_steps = 12}}, AndersonTypeI{})
          .run();
  for (std::int64_t row = 0; row < 5; ++row) {
    EXPECT_EQ(outcome.status[row], Status::converged);
    EXPECT_LE(outcome.steps[row], 10);
  }
}

// f = z + 1: the residual stays, so the bound 2 |r_0| / (n + 1) lets one accelerated step pass.
TYPED_TEST(Methods, AndersonTypeITakesAveragedStepsWhereTheResidualDoesNotFall) {
  using T = typename TypeParam::T;
  Problem<T> problem{.name = "shift", .rows = 1, .width = 3, .z0 = Block<T>(1, 3)};
  problem.value = [](std::int64_t, const T* z, T* f) {
    for (int j = 0; j < 3; ++j) f[j] = z[j] + 1;
  };
  Solve<TypeParam> solve(problem, {.stop = {.max_steps = 10}}, AndersonTypeI{.beta = 0.5, .safeguard = 2});
  T expected = 0;
  for (auto question = solve.start(); question; question = solve.solver->advance(solve.answer(question))) {
    EXPECT_EQ(question.at[0][0], expected);
    expected += expected == 0 ? T(1) : T(0.5);
  }
  EXPECT_EQ(solve.report.status[0], Status::out_of_steps);
  EXPECT_EQ(solve.report.rejected[0], 8) << "every step but the first and the last";
}

TYPED_TEST(Methods, OptionsOutOfRangeAreRefusedByName) {
  using T = typename TypeParam::T;
  using Solver = FixedPoint<typename TypeParam::Queue, T>;
  const double nan = std::numeric_limits<double>::quiet_NaN(), infinity = std::numeric_limits<double>::infinity();
  const auto make = [](const Method& method, const Stop& stop = {}) {
    return [=] { Solver::scratch_bytes(3, 4, method, stop); };
  };
  for (const double beta : {0.0, -1.0, 2.0, nan, infinity}) {
    EXPECT_TRUE(refuses("beta", make(Picard{.beta = beta}))) << beta;
    EXPECT_TRUE(refuses("beta", make(Anderson{.beta = beta}))) << beta;
  }
  for (const std::int64_t history : {0, -1, 33}) EXPECT_TRUE(refuses("history", make(Anderson{.history = history})));
  for (const std::int64_t history : {0, 501}) EXPECT_TRUE(refuses("history", make(Broyden{.history = history})));
  for (const std::int64_t history : {2, 33})
    EXPECT_TRUE(refuses("history", make(Broyden{.history = history, .full = Broyden::Full::compress})));
  EXPECT_NO_THROW(make(Broyden{.history = 500})());
  for (const double ridge : {-1e-12, nan, infinity}) EXPECT_TRUE(refuses("ridge", make(Anderson{.ridge = ridge})));
  for (const double growth : {1.0, 0.0, nan}) EXPECT_TRUE(refuses("growth", make(Anderson{.growth = growth})));
  for (const std::int64_t history : {0, 33}) EXPECT_TRUE(refuses("history", make(AndersonTypeI{.history = history})));
  for (const double beta : {0.0, -1.0, 1.1, nan}) EXPECT_TRUE(refuses("beta", make(AndersonTypeI{.beta = beta})));
  for (const double share : {0.0, -1.0, 1.0, nan}) {
    EXPECT_TRUE(refuses("powell", make(AndersonTypeI{.powell = share})));
    EXPECT_TRUE(refuses("independence", make(AndersonTypeI{.independence = share})));
  }
  for (const double safeguard : {0.0, -1.0, nan})
    EXPECT_TRUE(refuses("safeguard", make(AndersonTypeI{.safeguard = safeguard})));
  for (const double decay : {0.0, -1.0, nan, infinity})
    EXPECT_TRUE(refuses("decay", make(AndersonTypeI{.decay = decay})));
  EXPECT_NO_THROW(make(AndersonTypeI{.history = 32, .beta = 1, .safeguard = infinity})());
  for (const double rtol : {0.0, -1.0, nan, infinity, 3.9 * std::numeric_limits<T>::epsilon()})
    EXPECT_TRUE(refuses("rtol", make(Picard{}, {.rtol = rtol}))) << rtol;
  for (const double atol : {-1e-300, nan, infinity}) EXPECT_TRUE(refuses("atol", make(Picard{}, {.atol = atol})));
  for (const std::int64_t steps : {std::int64_t{0}, std::int64_t{-1}, std::int64_t{1} << 31})
    EXPECT_TRUE(refuses("max_steps", make(Picard{}, {.max_steps = steps})));
  for (const std::int64_t look : {0, -1}) EXPECT_TRUE(refuses("look_every", make(Picard{}, {.look_every = look})));
  EXPECT_NO_THROW(make(Anderson{.history = 32, .beta = 1.99, .ridge = 0, .growth = infinity},
                       {.rtol = 4 * std::numeric_limits<T>::epsilon(), .max_steps = (std::int64_t{1} << 31) - 1})());
}

// A solve beside the end of an earlier one, with and without what that one remembered. Rows change places, and one row
// takes nothing.
TYPED_TEST(Methods, ASolveGoesOnWithWhatAnEarlierOneRemembered) {
  using T = typename TypeParam::T;
  using Solver = FixedPoint<typename TypeParam::Queue, T>;
  const auto problem = linear_contraction<T>(0.9, 4, 9);
  for (const Method& method : std::initializer_list<Method>{
           Anderson{.history = 9}, Anderson{.history = 9, .storage = Storage::bfloat16}, Broyden{.history = 30}}) {
    Solve<TypeParam> first(problem, {.stop = {.rtol = 1e-6}, .gap = 2}, method);
    ASSERT_EQ(first.run().status, std::vector<Status>(4, Status::converged));
    const std::int64_t words = first.solver->history_words();
    ASSERT_EQ(words, Solver::history_words(9, method));
    std::vector<std::int64_t> handle(4 * words);
    first.solver->save({.to = handle.data()});
    const std::vector<std::int32_t> at = {3, 1, -1, 0};
    std::vector<std::int32_t> steps[2];
    for (const bool goes_on : {false, true}) {
      Solve<TypeParam> next(problem, {.stop = {.rtol = 1e-6}, .ids = {3, 1, 2, 0}}, method);
      for (std::int64_t i = 0; i < 4; ++i)
        for (std::int64_t j = 0; j < 9; ++j)
          next.start_point(i, j) = first.result(next.ids[i], j) + static_cast<T>(0.02 * std::cos(1.0 + i + 3 * j));
      const auto question = next.start();
      if (goes_on) next.solver->load({.from = handle.data(), .at = at.data()});
      next.run_to_end(question);
      EXPECT_EQ(next.outcome_now().status, std::vector<Status>(4, Status::converged));
      steps[goes_on] = next.report.steps;
    }
    EXPECT_EQ(steps[true][2], steps[false][2]);
    for (const int i : {0, 1, 3}) EXPECT_LT(steps[true][i], steps[false][i]) << "row " << i;
  }
}

// 2 m columns: of 16 bits they are half of float's and a quarter of double's. The rest is the same.
TYPED_TEST(Methods, AHistoryIn16BitsHasHalfTheBytes) {
  using T = typename TypeParam::T;
  using Solver = FixedPoint<typename TypeParam::Queue, T>;
  const std::int64_t rows = 5, width = 320, m = 7;
  const Method full = Anderson{.history = m}, half = Anderson{.history = m, .storage = Storage::bfloat16};
  const std::size_t spared = 2 * m * width * (sizeof(T) - 2);
  EXPECT_EQ(Solver::scratch_bytes(rows, width, full, {}) - Solver::scratch_bytes(rows, width, half, {}), rows * spared);
  EXPECT_EQ(static_cast<std::size_t>(8 * (Solver::history_words(width, full) - Solver::history_words(width, half))),
            spared);
}

TYPED_TEST(Methods, AHistoryIsLoadedBeforeTheFirstAnswerAndSavedAfterTheLast) {
  using T = typename TypeParam::T;
  const auto problem = linear_contraction<T>(0.9);
  Solve<TypeParam> solve(problem, {}, Broyden{}), picard(problem, {}, Picard{});
  std::vector<std::int64_t> handle(solve.rows * solve.solver->history_words());
  const std::vector<std::int32_t> at(solve.rows, -1);
  const KeptHistory from = {.from = handle.data(), .at = at.data()}, to = {.to = handle.data()};
  EXPECT_TRUE(refuses("load", [&] { solve.solver->load(from); }));
  auto question = solve.start();
  EXPECT_TRUE(refuses("save", [&] { solve.solver->save(to); }));
  question = solve.solver->advance(solve.answer(question));
  EXPECT_TRUE(refuses("load", [&] { solve.solver->load(from); }));
  solve.run_to_end(question);
  EXPECT_NO_THROW(solve.solver->save(to));
  EXPECT_EQ(picard.solver->history_words(), 0);
  const auto first = picard.start();
  EXPECT_TRUE(refuses("load", [&] { picard.solver->load(from); }));
  picard.run_to_end(first);
  EXPECT_TRUE(refuses("save", [&] { picard.solver->save(to); }));
}

}  // namespace
}  // namespace deqcore::test

// SPDX-License-Identifier: Apache-2.0
#include "deqcore/kernels/row_math.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "block.hpp"

namespace deqcore::test {
namespace {

using row_math::Evaluation;
using row_math::judge;
using row_math::solve_spd;
using row_math::Verdict;

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double nan = std::numeric_limits<double>::quiet_NaN();
constexpr Limits limits{
    .rtol = 1e-3, .atol = 0, .floor = 1e-6, .overflow = 1e4, .noise = 1e-4, .relative = Relative::to_image};
constexpr std::int32_t max_steps = 100, patience = 20;

// A row in the middle of an ordinary solve: scale 1, image 1, some progress.
constexpr Evaluation ordinary{
    .g = 0.5, .f = 1, .z = 1, .scale = 1, .best = 600, .steps = 5, .best_step = 4, .frozen = 0};

Verdict judged(const Evaluation& evaluation, const Limits& under = limits) {
  return judge(evaluation, under, max_steps, patience);
}

TEST(Judge, IsAConstantExpression) {
  static_assert(judge(ordinary, limits, max_steps, patience).status == Status::running);
}

TEST(Judge, GoesOnAboveTheThreshold) {
  const Verdict verdict = judged(ordinary);
  EXPECT_EQ(verdict.status, Status::running);
  EXPECT_DOUBLE_EQ(verdict.ratio, 0.5 / 1e-3);
  EXPECT_TRUE(verdict.new_best);
  EXPECT_EQ(verdict.scale, 1);
}

TEST(Judge, ConvergesAtTheThresholdAndNotAbove) {
  Evaluation e = ordinary;
  e.g = 1e-3;
  EXPECT_EQ(judged(e).status, Status::converged);
  e.g = std::nextafter(1e-3, 1);
  EXPECT_EQ(judged(e).status, Status::running);
}

TEST(Judge, MeasuresAgainstTheImage) {
  Evaluation e = ordinary;
  e.g = 2e-3;
  e.f = 3;
  EXPECT_EQ(judged(e).status, Status::converged);
  e.f = 0.1;
  e.g = 2e-4;
  EXPECT_EQ(judged(e).status, Status::running);
}

TEST(Judge, CapsTheImageAtTenTimesTheScale) {
  Evaluation e = ordinary;
  e.f = 1000;
  e.g = 10 * 1e-3;
  EXPECT_EQ(judged(e).status, Status::converged);
  e.g = 10.01 * 1e-3;
  EXPECT_EQ(judged(e).status, Status::running);
}

TEST(Judge, MeasuresAgainstTheScaleIfAsked) {
  Limits to_scale = limits;
  to_scale.relative = Relative::to_scale;
  Evaluation e = ordinary;
  e.f = 1e-9;
  e.g = 0.9999e-3;
  EXPECT_EQ(judged(e, to_scale).status, Status::converged);
  e.f = 100;
  e.g = 1.01e-3;
  EXPECT_EQ(judged(e, to_scale).status, Status::running);
}

// limits.floor is 4 eps, and half an eps of the image is what its rounding may hide.
TEST(Judge, BelievesAResidualOnlyAsFarAsItsImageIsRounded) {
  Limits to_scale = limits;
  to_scale.relative = Relative::to_scale;
  Evaluation e = ordinary;
  e.f = 4000;  // noise 0.5e-3
  e.g = 0.49e-3;
  EXPECT_EQ(judged(e, to_scale).status, Status::converged);
  e.g = 0.51e-3;
  EXPECT_EQ(judged(e, to_scale).status, Status::running) << "a little further";
  e.f = 8001;
  e.g = 0.1e-3;
  EXPECT_EQ(judged(e, to_scale).status, Status::stalled) << "it will never be known";
  EXPECT_EQ(judged(e).status, Status::converged) << "against its own image";
}

using row_math::judge_linear;
using row_math::LinearEvaluation;

constexpr LinearEvaluation measured{
    .residual = 0.5, .goal = 1e-3, .length = 0.5, .before = 1, .noise = 1e-9, .steps = 5};

TEST(JudgeLinear, EndsWhatIsReachedStuckOrOutOfSteps) {
  static_assert(judge_linear(measured, max_steps) == Status::running);
  LinearEvaluation e = measured;
  e.residual = e.length = 0.999e-3;
  EXPECT_EQ(judge_linear(e, max_steps), Status::converged);
  e.noise = 1e-5;
  EXPECT_EQ(judge_linear(e, max_steps), Status::running) << "not known that finely";
  e.noise = 1e-3;
  EXPECT_EQ(judge_linear(e, max_steps), Status::stalled);
  e = measured;
  e.steps = max_steps;
  EXPECT_EQ(judge_linear(e, max_steps), Status::out_of_steps);
  e.length = 0.9995;
  EXPECT_EQ(judge_linear(e, max_steps), Status::out_of_steps);
  e.steps = 5;
  EXPECT_EQ(judge_linear(e, max_steps), Status::breakdown) << "it would repeat itself";
  e.noise = 0.01;
  EXPECT_EQ(judge_linear(e, max_steps), Status::stalled) << "at the noise";
  for (double LinearEvaluation::* part :
       {&LinearEvaluation::residual, &LinearEvaluation::length, &LinearEvaluation::goal})
    for (const double wrong : {nan, infinity}) {
      e = measured;
      e.*part = wrong;
      EXPECT_EQ(judge_linear(e, max_steps), Status::not_finite);
    }
}

// A random Hessenberg matrix, column by column: R y = rhs is its least-squares problem.
TEST(RotateColumn, SolvesTheLeastSquaresProblem) {
  constexpr int m = 7;
  Random random(41);
  double H[m + 1][m] = {}, R[m * (m + 1) / 2], cosine[m], sine[m], rhs[m + 1] = {2.5}, y[m];
  double residual = 0;
  for (int j = 0; j < m; ++j) {
    double h[m + 1] = {};
    for (int i = 0; i <= j; ++i) h[i] = H[i][j] = random.normal();
    h[j + 1] = H[j + 1][j] = j == 3 ? 0.0 : std::abs(random.normal());
    residual = row_math::rotate_column(h, j, R, cosine, sine, rhs);
  }
  row_math::solve_upper(R, m, rhs, 1e-15, y);
  double left[m + 1], squares = 0;
  for (int i = 0; i <= m; ++i) {
    left[i] = i == 0 ? 2.5 : 0.0;
    for (int j = 0; j < m; ++j) left[i] -= H[i][j] * y[j];
    squares += left[i] * left[i];
  }
  EXPECT_NEAR(std::sqrt(squares), residual, 1e-12);
  for (int j = 0; j < m; ++j) {  // what is left is orthogonal to every column
    double dot = 0;
    for (int i = 0; i <= m; ++i) dot += H[i][j] * left[i];
    EXPECT_NEAR(dot, 0, 1e-11);
  }
}

TEST(SolveUpper, LeavesOutWhatIsSingular) {
  const double R[] = {2, 3, 1e-20, 1, 1, 4}, rhs[] = {2, 5, 8};
  double y[3];
  row_math::solve_upper(R, 3, rhs, 1e-15, y);
  EXPECT_EQ(y[2], 2);
  EXPECT_EQ(y[1], 0);
  EXPECT_EQ(y[0], 0);
}

TEST(Judge, AddsTheAbsoluteTolerance) {
  Limits with_atol = limits;
  with_atol.atol = 0.5;
  Evaluation e = ordinary;
  e.g = 0.501;
  EXPECT_EQ(judged(e, with_atol).status, Status::converged);
  e.g = 0.502;
  EXPECT_EQ(judged(e, with_atol).status, Status::running);
}

TEST(Judge, HasAFloorBelowWhichEverythingConverges) {
  Evaluation e = ordinary;
  e.f = e.g = 1e-6;  // the image goes to zero with the residual
  EXPECT_EQ(judged(e).status, Status::converged);
  e.f = e.g = 1.01e-6;
  EXPECT_EQ(judged(e).status, Status::running);
}

TEST(Judge, TakesTheScaleFromTheFirstEvaluation) {
  Evaluation e = ordinary;
  e.scale = 0;
  e.steps = 1;
  e.best = infinity;
  e.z = 3;
  e.f = 2;
  EXPECT_EQ(judged(e).scale, 3);
  e.f = 4;
  EXPECT_EQ(judged(e).scale, 4);
  e.scale = 7;
  EXPECT_EQ(judged(e).scale, 7);
}

TEST(Judge, ConvergesAtTheZeroMap) {
  const Verdict verdict =
      judged({.g = 0, .f = 0, .z = 0, .scale = 0, .best = infinity, .steps = 1, .best_step = 0, .frozen = 0});
  EXPECT_EQ(verdict.status, Status::converged);
  EXPECT_EQ(verdict.ratio, 0);
  EXPECT_TRUE(verdict.new_best);
}

TEST(Judge, NeverCallsARunawayConverged) {
  Evaluation e = ordinary;
  e.f = 1.0001e4;
  e.g = 0;
  const Verdict verdict = judged(e);
  EXPECT_EQ(verdict.status, Status::diverged);
  EXPECT_FALSE(verdict.new_best);
  e.f = 1e4;
  e.g = 5;
  EXPECT_EQ(judged(e).status, Status::running);
}

TEST(Judge, KeepsTheFirstPointOfARowThatRunsAwayAtOnce) {
  Evaluation e = ordinary;
  e.steps = 1;
  e.best = infinity;
  e.f = 1e6;
  EXPECT_EQ(judged(e).status, Status::diverged);
  EXPECT_TRUE(judged(e).new_best);
}

TEST(Judge, EndsWhatIsNotFinite) {
  for (const double wrong : {nan, infinity, -infinity}) {
    Evaluation e = ordinary;
    e.g = wrong;
    EXPECT_EQ(judged(e).status, Status::not_finite);
    EXPECT_FALSE(judged(e).new_best);
    e = ordinary;
    e.f = wrong;
    EXPECT_EQ(judged(e).status, Status::not_finite);
    e.steps = 1;
    EXPECT_FALSE(judged(e).new_best);
  }
}

TEST(Judge, EndsAFrozenRowAsStalled) {
  Evaluation e = ordinary;
  e.frozen = 1;  // the step may have been an accelerated one; a plain one is still to come
  EXPECT_EQ(judged(e).status, Status::running);
  e.frozen = 2;
  EXPECT_EQ(judged(e).status, Status::stalled);
  e.g = 1e-4;
  EXPECT_EQ(judged(e).status, Status::converged);
}

TEST(Judge, StallsAfterPatienceAtTheNoiseLevelOnly) {
  Limits strict = limits;
  strict.rtol = 1e-9;
  strict.floor = 1e-9;
  Evaluation e = ordinary;
  e.best = 1;  // better than now
  e.g = 0.99e-4;
  e.best_step = 10;
  e.steps = 10 + patience;
  EXPECT_EQ(judged(e, strict).status, Status::running);
  e.steps += 1;
  EXPECT_EQ(judged(e, strict).status, Status::stalled);
  e.g = 1e-4;
  EXPECT_EQ(judged(e, strict).status, Status::running);
  e.g = 0.99e-4;
  e.best = infinity;  // a new best is progress
  EXPECT_EQ(judged(e, strict).status, Status::running);
}

TEST(Judge, EndsAtTheLastStep) {
  Evaluation e = ordinary;
  e.steps = max_steps;
  EXPECT_EQ(judged(e).status, Status::out_of_steps);
  e.g = 1e-3;
  EXPECT_EQ(judged(e).status, Status::converged);
}

TEST(Judge, CallsOnlyASmallerRatioABest) {
  Evaluation e = ordinary;
  e.best = 500;
  e.g = 0.5;
  EXPECT_FALSE(judged(e).new_best);
  e.g = 0.499;
  EXPECT_TRUE(judged(e).new_best);
}

// Gaussian elimination with pivoting in long double.
std::vector<double> eliminate(std::vector<long double> A, std::vector<long double> b) {
  const auto n = static_cast<int>(b.size());
  for (int k = 0; k < n; ++k) {
    int pivot = k;
    for (int i = k; i < n; ++i)
      if (std::abs(A[i * n + k]) > std::abs(A[pivot * n + k])) pivot = i;
    for (int j = 0; j < n; ++j) std::swap(A[k * n + j], A[pivot * n + j]);
    std::swap(b[k], b[pivot]);
    for (int i = k + 1; i < n; ++i) {
      const long double factor = A[i * n + k] / A[k * n + k];
      for (int j = k; j < n; ++j) A[i * n + j] -= factor * A[k * n + j];
      b[i] -= factor * b[k];
    }
  }
  std::vector<double> x(n);
  for (int i = n; i-- > 0;) {
    long double sum = b[i];
    for (int j = i + 1; j < n; ++j) sum -= A[i * n + j] * x[j];
    x[i] = static_cast<double>(sum / A[i * n + i]);
  }
  return x;
}

TEST(SolveSpd, AgreesWithElimination) {
  Random random(20);
  for (int n = 1; n <= row_math::max_history; ++n)
    for (const double ridge : {0.0, 1e-10, 1e-3}) {
      const int m = n + 3;  // a larger window than is in use
      std::vector<double> factors(n * 2 * n), A(m * m, nan), b(n), x(n, nan);
      for (double& v : factors) v = random.normal();
      for (int i = 0; i < n; ++i)
        for (int j = 0; j < n; ++j) {
          A[i * m + j] = 0;
          for (int k = 0; k < 2 * n; ++k) A[i * m + j] += factors[i * 2 * n + k] * factors[j * 2 * n + k];
        }
      for (double& v : b) v = random.normal();
      ASSERT_TRUE(solve_spd(A.data(), m, n, ridge, b.data(), x.data()));
      std::vector<long double> ridged(n * n);
      for (int i = 0; i < n; ++i)
        for (int j = 0; j < n; ++j) ridged[i * n + j] = A[i * m + j] * (i == j ? 1 + ridge : 1.0);
      const auto exact = eliminate(ridged, {b.begin(), b.end()});
      for (int i = 0; i < n; ++i) EXPECT_NEAR(x[i], exact[i], 1e-11 * (1 + std::abs(exact[i]))) << n << " " << ridge;
    }
}

TEST(SolveSpd, RefusesASingularMatrixAndLeavesXAlone) {
  const std::vector<double> A = {4, 2, 2, 1}, b = {1, 1};
  std::vector<double> x = {7, 8};
  EXPECT_FALSE(solve_spd(A.data(), 2, 2, 0, b.data(), x.data()));
  EXPECT_EQ(x, (std::vector<double>{7, 8}));
  EXPECT_TRUE(solve_spd(A.data(), 2, 2, 1e-10, b.data(), x.data()));  // the ridge makes it definite
}

TEST(SolveSpd, RefusesAnIndefiniteMatrix) {
  const std::vector<double> A = {1, 2, 2, 1}, b = {1, 1};
  std::vector<double> x = {7, 8};
  EXPECT_FALSE(solve_spd(A.data(), 2, 2, 1e-10, b.data(), x.data()));
  EXPECT_EQ(x, (std::vector<double>{7, 8}));
}

TEST(SolveSpd, GivesAnEmptyColumnTheCoefficientZero) {
  const std::vector<double> A = {4, 0, 0, 0}, b = {2, 0};
  std::vector<double> x = {7, 8};
  for (const double ridge : {0.0, 1e-12}) {
    EXPECT_TRUE(solve_spd(A.data(), 2, 2, ridge, b.data(), x.data()));
    EXPECT_NEAR(x[0], 0.5, 1e-12);
    EXPECT_EQ(x[1], 0);
  }
}

TEST(SolveSpd, RefusesWhatIsNotFinite) {
  std::vector<double> x = {7, 8};
  for (const double v : {nan, infinity}) {
    const std::vector<double> A = {v, 0, 0, v}, b = {1, 1};
    EXPECT_FALSE(solve_spd(A.data(), 2, 2, 1e-10, b.data(), x.data())) << v;
  }
  const std::vector<double> hidden = {1, nan, nan, 1}, b = {1, 1}, good = {2, 0, 0, 3}, bad = {nan, 1};
  EXPECT_FALSE(solve_spd(hidden.data(), 2, 2, 0, b.data(), x.data()));
  EXPECT_FALSE(solve_spd(good.data(), 2, 2, 0, bad.data(), x.data()));
  EXPECT_EQ(x, (std::vector<double>{7, 8}));
}

// Columns that shrink from step to step by many orders, as those of a solve do.
TEST(SolveSpd, ScalesEachColumn) {
  const std::vector<double> size = {1, 1e-8, 1e-16, 1e-24}, b = {1, 2, 3, 4};
  std::vector<double> A(16), scaled(4), x(4);
  std::vector<long double> plain(16);
  for (int i = 0; i < 4; ++i) {
    scaled[i] = b[i] * size[i];
    for (int j = 0; j < 4; ++j) {
      plain[i * 4 + j] = i == j ? 2 : 0.5;
      A[i * 4 + j] = static_cast<double>(plain[i * 4 + j]) * size[i] * size[j];
    }
  }
  ASSERT_TRUE(solve_spd(A.data(), 4, 4, 0, scaled.data(), x.data()));
  const auto exact = eliminate(plain, {b.begin(), b.end()});
  for (int i = 0; i < 4; ++i) EXPECT_NEAR(x[i] * size[i], exact[i], 1e-13);
}

TEST(SolveSpd, IsIndependentOfTheScale) {
  const std::vector<double> b = {1, 2};
  for (const double scale : {1e-200, 1e-20, 1.0, 1e20, 1e200}) {
    const std::vector<double> A = {4 * scale, 1 * scale, 1 * scale, 3 * scale};
    std::vector<double> x(2);
    ASSERT_TRUE(solve_spd(A.data(), 2, 2, 0, b.data(), x.data())) << scale;
    EXPECT_NEAR(x[0] * scale, 1.0 / 11, 1e-15);
    EXPECT_NEAR(x[1] * scale, 7.0 / 11, 1e-15);
  }
}

}  // namespace
}  // namespace deqcore::test

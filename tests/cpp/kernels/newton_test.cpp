// SPDX-License-Identifier: Apache-2.0
#include "deqcore/kernels/newton.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "block.hpp"
#include "queues.hpp"
#include "row_states.hpp"
#include "shapes.hpp"

namespace deqcore::test {
namespace {

using Wide = long double;
constexpr double infinity = std::numeric_limits<double>::infinity();

struct NewtonBuffer {
  explicit NewtonBuffer(std::int64_t rows, std::int64_t width = 1, std::int64_t trace_steps = 0)
      : report(rows, trace_steps),
        turn(rows, Status::running),
        taken(rows),
        numbers(11, std::vector<double>(rows, -1)),
        matrix(rows * width * width),
        pivot(rows * width),
        vectors(3, std::vector<double>(rows * width)),
        scalars(7, std::vector<double>(rows)) {
    report.status.assign(rows, Status::running);
  }

  NewtonStates view() {
    return {.report = report.view(),
            .turn = turn.data(),
            .taken = taken.data(),
            .g_norm = numbers[0].data(),
            .f_norm = numbers[1].data(),
            .z_norm = numbers[2].data(),
            .trial = numbers[3].data(),
            .trial_size = numbers[4].data(),
            .length = numbers[5].data(),
            .size = numbers[6].data(),
            .best = numbers[7].data(),
            .forcing = numbers[8].data(),
            .along_step = numbers[9].data(),
            .along_descent = numbers[10].data()};
  }

  Dogleg dogleg() {
    return {.matrix = matrix.data(),
            .pivot = pivot.data(),
            .weights = vectors[0].data(),
            .descent = vectors[1].data(),
            .work = vectors[2].data(),
            .radius = scalars[0].data(),
            .newton = scalars[1].data(),
            .slope = scalars[2].data(),
            .curvature = scalars[3].data(),
            .cross = scalars[4].data(),
            .length = scalars[5].data(),
            .point = scalars[6].data()};
  }

  ReportBuffer report;
  std::vector<Status> turn;
  std::vector<Taken> taken;
  std::vector<std::vector<double>> numbers;
  std::vector<double> matrix;
  std::vector<std::int32_t> pivot;
  std::vector<std::vector<double>> vectors, scalars;
};

const Limits limits{.rtol = 1e-6, .atol = 0, .floor = 1e-15, .overflow = 1e8, .noise = 1e-13};

template <class Entry>
class NewtonKernels : public ::testing::Test {};
TYPED_TEST_SUITE(NewtonKernels, Types<Queues>, Names);

TYPED_TEST(NewtonKernels, MeasureTrialMeasuresTheRowsWhoseTurnItIs) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  Random random(60);
  for (const Shape& shape : shapes())
    for (const Norm norm : {Norm::two, Norm::inf})
      for (const Operator form : {Operator::identity_minus, Operator::matrix}) {
        DEQCORE_TRACE_SHAPE(shape);
        const ActiveBuffer active = ActiveBuffer::odd_rows_left(2 * shape.rows);
        const auto z = Block<T>::random(random, shape.rows, shape.width, shape.gap);
        const auto f = Block<T>::random(random, shape.rows, shape.width, shape.gap + 1);
        NewtonBuffer states(2 * shape.rows);
        if (shape.rows > 2) states.turn[active.ids[2]] = Status::converged;
        run(queue, MeasureTrial<T>{.rows = active.view(),
                                   .norm = norm,
                                   .form = form,
                                   .at = z.view(),
                                   .answer = f.view(),
                                   .states = states.view()});
        for (std::int64_t i = 0; i < shape.rows; ++i) {
          const std::int64_t row = active.ids[i];
          if (states.turn[row] != Status::running) {
            for (int which = 0; which < 5; ++which) EXPECT_EQ(states.numbers[which][row], -1);
            continue;
          }
          const auto residual = [&](std::int64_t j) {
            return form == Operator::matrix ? Wide(f(i, j)) : Wide(f(i, j)) - Wide(z(i, j));
          };
          const auto image = [&](std::int64_t j) { return Wide(f(i, j)); };
          const auto point = [&](std::int64_t j) { return Wide(z(i, j)); };
          const double expected[] = {textbook_norm(norm, shape.width, residual),
                                     textbook_norm(norm, shape.width, image), textbook_norm(norm, shape.width, point),
                                     textbook_norm(Norm::two, shape.width, residual),
                                     textbook_norm(Norm::two, shape.width, point)};
          for (int which = 0; which < 5; ++which)
            EXPECT_NEAR(states.numbers[which][row], expected[which], 1e-14 * expected[which]);
        }
      }
}

TYPED_TEST(NewtonKernels, TakeTrialTakesWhatWasAccepted) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  Random random(61);
  for (const Shape& shape : shapes())
    for (const Operator form : {Operator::identity_minus, Operator::matrix}) {
      DEQCORE_TRACE_SHAPE(shape);
      const ActiveBuffer active = ActiveBuffer::odd_rows_left(2 * shape.rows);
      const auto at = Block<T>::random(random, shape.rows, shape.width, shape.gap);
      const auto answer = Block<T>::random(random, shape.rows, shape.width, 1);
      Block<T> z(2 * shape.rows, shape.width, 2, T(-1)), r(2 * shape.rows, shape.width, 0, T(-1)),
          result(2 * shape.rows, shape.width, shape.gap, T(-1));
      NewtonBuffer states(2 * shape.rows);
      for (std::int64_t i = 0; i < shape.rows; ++i)
        states.taken[active.ids[i]] = i % 3 == 1 ? Taken::no : i % 3 == 0 ? Taken::yes : Taken::as_best;
      run(queue, TakeTrial<T>{.rows = active.view(),
                              .form = form,
                              .at = at.view(),
                              .answer = answer.view(),
                              .z = z.view(),
                              .r = r.view(),
                              .result = result.view(),
                              .states = states.view()});
      for (std::int64_t row = 0; row < 2 * shape.rows; ++row) {
        const std::int64_t i = row / 2;
        const bool taken = row % 2 == 1 && i % 3 != 1;
        EXPECT_EQ(states.taken[row], Taken::no);
        for (std::int64_t j = 0; j < shape.width; ++j) {
          ASSERT_EQ(z(row, j), taken ? at(i, j) : T(-1));
          ASSERT_EQ(result(row, j), taken && i % 3 == 2 ? at(i, j) : T(-1));
          const T residual = form == Operator::matrix ? -answer(i, j) : answer(i, j) - at(i, j);
          ASSERT_EQ(r(row, j), taken ? residual : T(-1));
        }
      }
      EXPECT_TRUE(z.gaps_intact() && r.gaps_intact() && result.gaps_intact());
    }
}

TYPED_TEST(NewtonKernels, PoseTrialAddsTheStepAndTheDescent) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  Random random(62);
  for (const Shape& shape : shapes())
    for (const bool bends : {false, true}) {
      DEQCORE_TRACE_SHAPE(shape);
      const ActiveBuffer active = ActiveBuffer::odd_rows_left(2 * shape.rows);
      const auto z = Block<T>::random(random, 2 * shape.rows, shape.width, shape.gap);
      const auto step = Block<T>::random(random, 2 * shape.rows, shape.width, 1);
      NewtonBuffer states(2 * shape.rows);
      std::vector<double> descent(2 * shape.rows * shape.width);
      for (double& entry : descent) entry = random.normal();
      for (std::int64_t row = 0; row < 2 * shape.rows; ++row) {
        states.numbers[9][row] = row % 4 == 1 ? 0.0 : 0.3;
        states.numbers[10][row] = 0.7;
        if (row % 5 == 3) states.turn[row] = Status::converged;
      }
      Block<T> at(shape.rows, shape.width, shape.gap);
      run(queue, PoseTrial<T>{.rows = active.view(),
                              .z = z.view(),
                              .step = step.view(),
                              .descent = bends ? descent.data() : nullptr,
                              .at = at.view(),
                              .states = states.view()});
      for (std::int64_t i = 0; i < shape.rows; ++i) {
        const std::int64_t row = active.ids[i];
        for (std::int64_t j = 0; j < shape.width; ++j) {
          Wide expected = z(row, j);
          if (states.turn[row] == Status::running) {
            expected += static_cast<Wide>(states.numbers[9][row]) * step(row, j);
            if (bends) expected += static_cast<Wide>(0.7) * descent[row * shape.width + j];
          }
          ASSERT_NEAR(at(i, j), static_cast<double>(expected), 4 * std::numeric_limits<T>::epsilon());
        }
      }
      EXPECT_TRUE(at.gaps_intact());
    }
}

// Of a bilinear map the difference along any direction is the product, to rounding.
TYPED_TEST(NewtonKernels, DifferencesAreProducts) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  Random random(63);
  for (const Shape& shape : shapes())
    for (const Operator form : {Operator::identity_minus, Operator::matrix}) {
      DEQCORE_TRACE_SHAPE(shape);
      const ActiveBuffer active = ActiveBuffer::odd_rows_left(2 * shape.rows);
      const auto z = Block<T>::random(random, 2 * shape.rows, shape.width, shape.gap);
      const auto along = Block<T>::random(random, shape.rows, shape.width, 1);
      Block<T> r(2 * shape.rows, shape.width), at(shape.rows, shape.width, 1), answer(shape.rows, shape.width),
          product(shape.rows, shape.width, shape.gap);
      NewtonBuffer states(2 * shape.rows);
      std::vector<double> h(shape.rows);
      const auto image = [](T x) { return T(0.25) * x; };
      for (std::int64_t row = 0; row < 2 * shape.rows; ++row) {
        states.numbers[5][row] = 0.5;
        states.numbers[6][row] = textbook_norm(Norm::two, shape.width, [&](std::int64_t j) { return Wide(z(row, j)); });
        for (std::int64_t j = 0; j < shape.width; ++j)
          r(row, j) = form == Operator::matrix ? -image(z(row, j)) : image(z(row, j)) - z(row, j);
      }
      run(queue, PoseDifference<T>{.rows = active.view(),
                                   .form = form,
                                   .z = z.view(),
                                   .along = along.view(),
                                   .at = at.view(),
                                   .h = h.data(),
                                   .states = states.view()});
      for (std::int64_t i = 0; i < shape.rows; ++i)
        for (std::int64_t j = 0; j < shape.width; ++j) answer(i, j) = image(at(i, j));
      run(queue, TakeDifference<T>{.rows = active.view(),
                                   .form = form,
                                   .z = z.view(),
                                   .r = std::as_const(r).view(),
                                   .answer = std::as_const(answer).view(),
                                   .product = product.view(),
                                   .h = h.data()});
      const double unit = std::sqrt(static_cast<double>(std::numeric_limits<T>::epsilon()));
      for (std::int64_t i = 0; i < shape.rows; ++i) {
        const double length = textbook_norm(Norm::two, shape.width, [&](std::int64_t j) { return Wide(along(i, j)); });
        const double point = states.numbers[6][active.ids[i]], residual = states.numbers[5][active.ids[i]];
        const double size = form == Operator::matrix ? std::max(point, 1.0) : point + residual;
        EXPECT_NEAR(h[i], unit * size / length, 1e-12 * h[i]);
        for (std::int64_t j = 0; j < shape.width; ++j)
          ASSERT_NEAR(product(i, j), 0.25 * along(i, j), 8 * unit * length);
      }
      EXPECT_TRUE(at.gaps_intact() && product.gaps_intact());
    }
  EXPECT_GT(difference_step<T>(Operator::identity_minus, 0, 0, 0), 0);
}

// Column by column, then the step, the descent and the numbers of the dogleg against textbook formulas.
TYPED_TEST(NewtonKernels, FactorJacobianSolvesScaledSystems) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  Random random(64);
  for (const std::int64_t n : {1, 2, 5, 33, 40})
    for (const Operator form : {Operator::identity_minus, Operator::matrix}) {
      SCOPED_TRACE(n);
      const std::int64_t rows = 6, ended = 3;
      const std::int64_t singular = form == Operator::matrix && n > 1 ? 5 : -1;  // rounded, I - J is not
      const ActiveBuffer active = ActiveBuffer::odd_rows_left(rows);             // 1, 3, 5
      NewtonBuffer states(rows, n, n);
      states.report.status[ended] = Status::converged;
      Block<T> z = Block<T>::random(random, rows, n, 1), r = Block<T>::random(random, rows, n), step(rows, n, 2, T(-1));
      std::vector<std::vector<double>> A(3, std::vector<double>(n * n));
      for (std::int64_t column = 0; column < n; ++column) {
        Block<T> along(3, n), answer(3, n);
        run(queue, PoseUnit<T>{.column = column, .along = along.view()});
        for (std::int64_t i = 0; i < 3; ++i)
          for (std::int64_t j = 0; j < n; ++j) {
            EXPECT_EQ(along(i, j), T(j == column ? 1 : 0));
            const double size = std::pow(10.0, static_cast<double>(column % 5));  // badly scaled
            const bool same = active.ids[i] == singular && column > 0;            // all columns are alike
            answer(i, j) = same ? static_cast<T>(A[i][j]) : static_cast<T>(size * random.normal());
            A[i][column * n + j] = answer(i, j);
          }
        if (form == Operator::identity_minus)
          for (std::int64_t i = 0; i < 3; ++i)
            for (std::int64_t j = 0; j < n; ++j) {  // what gives the same A
              answer(i, j) = static_cast<T>((j == column ? 1.0 : 0.0) - A[i][column * n + j]);
              A[i][column * n + j] = (j == column ? 1.0 : 0.0) - static_cast<double>(answer(i, j));
            }
        run(queue, KeepJacobian<T>{.rows = active.view(),
                                   .column = column,
                                   .form = form,
                                   .answer = std::as_const(answer).view(),
                                   .states = states.view(),
                                   .dogleg = states.dogleg()});
      }
      for (std::int64_t i = 0; i < 3; ++i) {
        const std::int64_t row = active.ids[i];
        EXPECT_EQ(states.report.steps[row], row == ended ? 0 : n);
        states.numbers[5][row] = 1;
      }
      run(queue, FactorJacobian<T>{.rows = active.view(),
                                   .z = std::as_const(z).view(),
                                   .r = std::as_const(r).view(),
                                   .step = step.view(),
                                   .descent = true,
                                   .states = states.view(),
                                   .dogleg = states.dogleg()});
      const Dogleg d = states.dogleg();
      for (std::int64_t i = 0; i < 3; ++i) {
        const std::int64_t row = active.ids[i];
        if (row == ended) {
          EXPECT_EQ(step(row, 0), T(-1));
          continue;
        }
        Wide slope = 0, point = 0, newton = 0, cross = 0, curvature = 0;
        std::vector<Wide> q(n), residual(n), image(n);
        for (std::int64_t j = 0; j < n; ++j) {
          Wide square = 0;
          for (std::int64_t k = 0; k < n; ++k) square += Wide(A[i][j * n + k]) * A[i][j * n + k];
          const double weight = d.weights[row * n + j];
          EXPECT_NEAR(weight, static_cast<double>(std::sqrt(square)), 1e-13 * weight);
          for (std::int64_t k = 0; k < n; ++k) q[j] += Wide(A[i][j * n + k]) * r(row, k) / weight;
          EXPECT_NEAR(d.descent[row * n + j] * weight, static_cast<double>(q[j]), 1e-12 * (1 + std::abs(q[j])));
          slope += q[j] * q[j];
          point += Wide(weight) * z(row, j) * weight * z(row, j);
          for (std::int64_t k = 0; k < n; ++k) {
            image[k] += Wide(A[i][j * n + k]) * d.descent[row * n + j];
            residual[k] += Wide(A[i][j * n + k]) * step(row, j);
          }
          newton += Wide(weight) * step(row, j) * weight * step(row, j);
          cross += Wide(weight) * step(row, j) * q[j];
        }
        for (const Wide entry : image) curvature += entry * entry;
        EXPECT_NEAR(d.slope[row], slope, 1e-12 * slope);
        EXPECT_NEAR(d.curvature[row], curvature, 1e-11 * curvature);
        EXPECT_NEAR(d.point[row], std::sqrt(point), 1e-12 * std::sqrt(point));
        EXPECT_EQ(states.turn[row], Status::running);
        if (row == singular) {
          EXPECT_EQ(d.newton[row], infinity);
          EXPECT_EQ(states.report.singular[row], 1);
          EXPECT_EQ(states.numbers[9][row], 0) << "the descent alone";
          continue;
        }
        EXPECT_EQ(states.report.singular[row], 0);
        const double rounding = 100 * std::numeric_limits<T>::epsilon();
        EXPECT_NEAR(d.newton[row], std::sqrt(newton), rounding * std::sqrt(newton));
        EXPECT_NEAR(d.cross[row], cross, rounding * std::sqrt(newton * slope));
        for (std::int64_t k = 0; k < n; ++k)  // A s = r, as far as s can be held in T
          EXPECT_NEAR(residual[k], r(row, k), rounding * std::sqrt(newton));
      }
    }
}

TYPED_TEST(NewtonKernels, NoDescentAndNoNumberEndARow) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  NewtonBuffer states(3, 2);
  const ActiveBuffer active = ActiveBuffer::all(3);
  Block<T> z(3, 2, 0, T(1)), r(3, 2, 0, T(1)), step(3, 2);
  for (const int row : {0, 1, 2})
    for (const int at : {0, 3}) states.matrix[row * 4 + at] = row == 0 ? 0.0 : row == 1 ? infinity : 2.0;
  run(queue, FactorJacobian<T>{.rows = active.view(),
                               .z = std::as_const(z).view(),
                               .r = std::as_const(r).view(),
                               .step = step.view(),
                               .descent = true,
                               .states = states.view(),
                               .dogleg = states.dogleg()});
  EXPECT_EQ(states.report.status, (std::vector<Status>{Status::breakdown, Status::not_finite, Status::running}));
  EXPECT_EQ(states.turn, (std::vector<Status>{Status::converged, Status::converged, Status::running}));
}

// The numbers of a dogleg for B = diag(4, 1) and r = (1, 1), in scaled variables.
Dogleg example(NewtonBuffer& states, double radius) {
  const Dogleg d = states.dogleg();
  states.numbers[5][0] = std::sqrt(2.0);
  d.radius[0] = radius;
  d.newton[0] = std::sqrt(0.25 * 0.25 + 1);
  d.slope[0] = 17;
  d.curvature[0] = 16 * 16 + 1;
  d.cross[0] = 0.25 * 4 + 1;
  d.point[0] = 1;
  return d;
}

TEST(Dogleg, ThePathLengthensAndTheModelFalls) {
  double before = 2;
  for (double radius = 0.01; radius < 3; radius *= 1.3) {
    NewtonBuffer states(1);
    const NewtonStates s = states.view();
    const Dogleg d = example(states, radius);
    bend_dogleg(s, d, 0);
    const double a = s.along_step[0], b = s.along_descent[0];
    const double p[] = {a * 0.25 + b * 4, a + b};  // B^-1 r = (1/4, 1), q = (4, 1)
    const double length = std::hypot(p[0], p[1]), model = std::pow(1 - 4 * p[0], 2) + std::pow(1 - p[1], 2);
    EXPECT_NEAR(length, std::min(radius, d.newton[0]), 1e-12);
    EXPECT_NEAR(d.length[0], length, 1e-12);
    EXPECT_LE(model, before + 1e-12);
    EXPECT_EQ(a == 1, radius >= d.newton[0]);
    before = model;
  }
  EXPECT_NEAR(before, 0, 1e-12);
}

TEST(Dogleg, TheRadiusFollowsTheAgreement) {
  const auto judged = [](double after, bool usable = true) {
    NewtonBuffer states(1);
    const NewtonStates s = states.view();
    const Dogleg d = example(states, 2);
    bend_dogleg(s, d, 0);  // the whole step: the model says 0
    s.trial[0] = after * s.length[0];
    const bool taken = judge_dogleg(s, d, 0, usable);
    return std::pair{taken, d.radius[0] / d.length[0]};
  };
  EXPECT_EQ(judged(0.1), std::pair(true, 2.0));
  EXPECT_EQ(judged(0.95).first, true);
  EXPECT_NEAR(judged(0.95).second, 0.5, 1e-15);
  EXPECT_EQ(judged(1.1).first, false);
  EXPECT_NEAR(judged(100).second, 0.1, 1e-15);
  EXPECT_EQ(judged(0.1, false), std::pair(false, 0.25));
}

TEST(Backtracking, TakesWhatFallsAndShortensByTheParabola) {
  const auto judged = [](double after, double fraction, double forcing, bool usable = true) {
    NewtonBuffer states(1);
    const NewtonStates s = states.view();
    s.length[0] = 3;
    s.trial[0] = 3 * after;
    s.forcing[0] = forcing;
    s.along_step[0] = fraction;
    const bool taken = judge_fraction(s, 0, usable);
    return std::pair{taken, s.along_step[0]};
  };
  EXPECT_EQ(judged(0.9, 1, 0.1), std::pair(true, 1.0));
  EXPECT_EQ(judged(0.99999, 1, 0.1), std::pair(false, 0.5)) << "not by enough";
  EXPECT_NEAR(judged(2, 1, 0).second, 0.2, 1e-15) << "1 - 2 t + 5 t^2 is least at 0.2";
  EXPECT_NEAR(judged(100, 1, 0).second, 0.1, 1e-15) << "never by more than ten times";
  EXPECT_NEAR(judged(1, 0.5, 0, false).second, 0.125, 1e-15);
}

TEST(JudgeTrial, SetsForcingByProgressAndEndsRows) {
  const NewtonRules rules{.max_steps = 9,
                          .reserve = 2,
                          .form = Operator::identity_minus,
                          .dogleg = false,
                          .descent = true,
                          .fixed_forcing = 0};
  NewtonBuffer states(1, 1, 9);
  const NewtonStates s = states.view();
  states.report.scale[0] = 0;
  s.length[0] = infinity;
  s.forcing[0] = newton::first_forcing;
  const auto trial = [&](double g) {
    s.g_norm[0] = s.trial[0] = g;
    s.f_norm[0] = s.z_norm[0] = s.trial_size[0] = 1;
    s.along_step[0] = 1;
    return judge_trial(s, {}, 0, limits, rules);
  };
  EXPECT_EQ(trial(1), Status::running);  // the first is taken whatever it is
  EXPECT_EQ(s.report.scale[0], 1);
  EXPECT_EQ(s.forcing[0], newton::first_forcing);
  EXPECT_EQ(trial(0.5), Status::running);
  EXPECT_NEAR(s.forcing[0], 0.9 * 0.25, 1e-15);
  EXPECT_EQ(trial(0.6), Status::running);
  EXPECT_EQ(s.taken[0], Taken::no);
  EXPECT_EQ(s.report.rejected[0], 1);
  EXPECT_EQ(s.report.residual[0], 0.5);
  EXPECT_EQ(trial(std::numeric_limits<double>::quiet_NaN()), Status::running);
  EXPECT_EQ(s.report.residual[0], 0.5);
  EXPECT_EQ(trial(0.05), Status::running);
  EXPECT_NEAR(s.forcing[0], 0.9 * 0.01, 1e-15);
  EXPECT_EQ(trial(2e-6), Status::running);
  EXPECT_NEAR(s.forcing[0], 0.4, 1e-12) << "no more than the threshold asks";
  EXPECT_EQ(trial(9e-7), Status::converged);
  EXPECT_EQ(s.report.steps[0], 7);
  EXPECT_EQ(s.report.trace[4], 0.05);
  states.report.steps[0] = 7;
  s.length[0] = 1;
  EXPECT_EQ(trial(1e-6 * 1.5), Status::out_of_steps) << "a product and an evaluation more do not fit";
}

TEST(JudgeTrial, ATrialThatGoesNowhereEndsByWhereItIs) {
  const NewtonRules rules{.max_steps = 99,
                          .reserve = 2,
                          .form = Operator::identity_minus,
                          .dogleg = false,
                          .descent = true,
                          .fixed_forcing = 0.1};
  for (const auto& [at, g, expected] : {std::tuple{1e-3, 1.0, Status::breakdown},
                                        {1e-14, 1.0, Status::stalled},
                                        {1e-3, infinity, Status::not_finite}}) {
    NewtonBuffer states(1);
    const NewtonStates s = states.view();
    states.report.scale[0] = 1;
    states.report.residual[0] = s.length[0] = at;
    s.best[0] = 2;
    s.forcing[0] = 0.1;
    s.along_step[0] = 2e-6;
    s.g_norm[0] = s.trial[0] = g;
    s.f_norm[0] = s.z_norm[0] = s.trial_size[0] = 1;
    EXPECT_EQ(judge_trial(s, {}, 0, limits, rules), expected);
  }
}

TYPED_TEST(NewtonKernels, JudgeTrialCountsWhatRunsAndWhatIsTriedAgain) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  for (const std::int64_t rows : {6, 700}) {
    NewtonBuffer states(rows);
    const ActiveBuffer active = ActiveBuffer::odd_rows_left(rows);
    const NewtonStates s = states.view();
    std::int64_t again = 0, running = 0, failed = 0;
    for (std::int64_t row = 0; row < rows; ++row) {
      states.report.scale[row] = s.length[row] = s.f_norm[row] = s.z_norm[row] = s.trial_size[row] = 1;
      s.best[row] = 1e6;
      s.forcing[row] = 0.1;
      s.along_step[row] = 1;
      const int kind = static_cast<int>(row / 2 % 4);  // better, worse, not its turn, ended before
      s.g_norm[row] = s.trial[row] = kind == 0 ? 0.5 : 2;
      if (kind == 2) s.turn[row] = Status::converged;
      if (kind == 3 || row % 2 == 0) states.report.status[row] = row % 3 == 0 ? Status::diverged : Status::converged;
      failed += states.report.status[row] == Status::diverged;
      if (row % 2 == 0 || kind == 3) continue;
      running += 1;
      again += kind == 1;
    }
    Progress& progress = *queue.mailbox();
    run(queue, JudgeTrial<T>{.rows = active.view(),
                             .limits = limits,
                             .rules = {.max_steps = 9,
                                       .reserve = 2,
                                       .form = Operator::identity_minus,
                                       .dogleg = false,
                                       .descent = true,
                                       .fixed_forcing = 0},
                             .states = s,
                             .dogleg = {},
                             .batch = rows,
                             .progress = &progress});
    EXPECT_EQ(progress.running, running);
    EXPECT_EQ(progress.again, again);
    EXPECT_EQ(progress.failed, failed);
    EXPECT_EQ(progress.worst, 1e6);
    for (std::int64_t row = 1; row < rows; row += 2)
      if (row / 2 % 4 < 2) {
        EXPECT_EQ(s.turn[row] == Status::running, row / 2 % 4 == 1);
      }
  }
}

TYPED_TEST(NewtonKernels, StartTrialEndsRowsWhoseSolveFoundNothing) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  NewtonBuffer states(5);
  ReportBuffer linear(5);
  linear.scale.assign(5, 1);
  linear.residual = {0.1, 1, 0.1, 0.9, 0.1};
  linear.status = {Status::converged, Status::breakdown, Status::not_finite, Status::breakdown, Status::converged};
  states.report.status[4] = Status::converged;
  run(queue, StartTrial<T>{.rows = ActiveBuffer::all(5).view(), .linear = linear.view(), .states = states.view()});
  EXPECT_EQ(states.report.status, (std::vector<Status>{Status::running, Status::breakdown, Status::not_finite,
                                                       Status::running, Status::converged}));
  for (const int row : {0, 1, 2, 3, 4}) EXPECT_EQ(states.turn[row] == Status::running, row == 0 || row == 3);
  EXPECT_EQ(states.numbers[9][0], 1);
  for (double& ratio : states.numbers[7]) ratio = 7;
  Progress& progress = *queue.mailbox();
  run(queue,
      CountNewton<T>{.rows = ActiveBuffer::all(5).view(), .states = states.view(), .batch = 5, .progress = &progress});
  EXPECT_EQ(progress.running, 2);
  EXPECT_EQ(progress.failed, 2);
  EXPECT_EQ(progress.worst, 7);
}

}  // namespace
}  // namespace deqcore::test

// SPDX-License-Identifier: Apache-2.0
#include "deqcore/kernels/linear.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "block.hpp"
#include "linear_states.hpp"
#include "queues.hpp"
#include "row_states.hpp"
#include "shapes.hpp"

namespace deqcore::test {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double nan = std::numeric_limits<double>::quiet_NaN();

template <class Entry>
class LinearKernels : public ::testing::Test {};
TYPED_TEST_SUITE(LinearKernels, Types<Queues>, Names);

TYPED_TEST(LinearKernels, BeginLinearStartsFromZeroOrFromTheGivenPoint) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  Random random(50);
  const Limits limits{.rtol = 1e-3, .atol = 1e-5, .floor = 1e-6};
  for (const Shape& shape : shapes())
    for (const Norm norm : {Norm::two, Norm::inf})
      for (const bool given : {false, true}) {
        DEQCORE_TRACE_SHAPE(shape);
        const Operator form = given ? Operator::matrix : Operator::identity_minus;
        auto b = Block<T>::random(random, shape.rows, shape.width, shape.gap);
        const auto x0 = Block<T>::random(random, shape.rows, shape.width, shape.gap + 1);
        if (shape.rows > 2) {
          for (std::int64_t j = 0; j < shape.width; ++j) b(1, j) = T(0);
          b(2, shape.width - 1) = static_cast<T>(nan);
        }
        Block<T> x(shape.rows, shape.width, 2, T(-1)), r(shape.rows, shape.width, 3, T(-1)),
            result(shape.rows, shape.width, shape.gap, T(-1));
        LinearBuffer states(shape.rows);
        states.report.status.assign(shape.rows, Status::diverged);
        states.report.singular = states.report.rejected = states.report.steps =
            std::vector<std::int32_t>(shape.rows, 9);
        states.new_best.assign(shape.rows, 1);
        states.failed = 9;
        std::vector<std::int32_t> ids(shape.rows, -1);
        run(queue, BeginLinear<T>{.rows = {.count = shape.rows},
                                  .number = ids.data(),
                                  .norm = norm,
                                  .limits = limits,
                                  .form = form,
                                  .b = std::as_const(b).view(),
                                  .x0 = given ? x0.view() : Rows<const T>{},
                                  .x = x.view(),
                                  .r = r.view(),
                                  .result = result.view(),
                                  .states = states.view()});
        EXPECT_EQ(states.failed, 0);
        for (std::int64_t i = 0; i < shape.rows; ++i) {
          const bool empty = shape.rows > 2 && i == 1, broken = shape.rows > 2 && i == 2;
          const bool zero = empty || !given, known = !empty && !broken && !given;
          for (std::int64_t j = 0; j < shape.width; ++j) {
            ASSERT_EQ(x(i, j), zero ? T(0) : x0(i, j));
            ASSERT_EQ(result(i, j), zero ? T(0) : x0(i, j));
            ASSERT_EQ(r(i, j), known ? b(i, j) : T(-1));
          }
          const auto entry = [&](std::int64_t j) { return static_cast<long double>(b(i, j)); };
          const double scale = textbook_norm(norm, shape.width, entry), slack = 1e-14 * scale;
          const double length = textbook_norm(Norm::two, shape.width, entry);
          EXPECT_EQ(states.report.status[i], Status::running);
          EXPECT_EQ(states.report.steps[i] + states.report.rejected[i] + states.report.singular[i], 0);
          EXPECT_EQ(states.new_best[i], 0);
          EXPECT_EQ(states.answered[i], Answered::product);
          EXPECT_EQ(states.phase[i], known ? Phase::start : Phase::residual);
          EXPECT_EQ(states.growth[i], form == Operator::matrix ? 0 : 1);
          EXPECT_EQ(states.before[i], infinity);
          EXPECT_EQ(ids[i], i);
          if (broken) {
            EXPECT_FALSE(std::isfinite(states.report.scale[i]));
            EXPECT_TRUE(std::isnan(states.report.residual[i]));
            continue;
          }
          EXPECT_NEAR(states.report.scale[i], scale, slack);
          EXPECT_NEAR(states.residual[i], scale, slack);
          EXPECT_NEAR(states.goal[i], 1e-5 + 1e-3 * scale, 1e-14 * (1 + scale));
          if (!zero)
            EXPECT_TRUE(std::isnan(states.report.residual[i])) << "nothing was measured";
          else
            EXPECT_NEAR(states.report.residual[i], scale, slack);
          if (!known) {
            EXPECT_EQ(states.length[i], infinity);
            EXPECT_EQ(states.best[i], infinity);
            continue;
          }
          EXPECT_NEAR(states.length[i], length, 1e-14 * length);
          EXPECT_NEAR(states.best[i], scale / states.goal[i], 1e-14 * states.best[i]);
        }
        EXPECT_TRUE(x.gaps_intact() && r.gaps_intact() && result.gaps_intact());
      }
}

TYPED_TEST(LinearKernels, MeasureLinearIsTheResidualAndItsNorms) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  Random random(51);
  for (const Shape& shape : shapes())
    for (const Norm norm : {Norm::two, Norm::inf})
      for (const Operator form : {Operator::matrix, Operator::identity_minus}) {
        DEQCORE_TRACE_SHAPE(shape);
        const std::int64_t batch = 2 * shape.rows;
        const auto b = Block<T>::random(random, batch, shape.width, shape.gap);
        const auto x = Block<T>::random(random, batch, shape.width, 1);
        const auto answer = Block<T>::random(random, shape.rows, shape.width, shape.gap + 1);
        Block<T> r(batch, shape.width, 2, T(-1));
        LinearBuffer states(batch);
        states.phase.assign(batch, Phase::residual);
        states.length.assign(batch, 3);
        if (shape.rows > 2) {
          states.report.status[3] = Status::converged;
          states.phase[5] = Phase::first;
        }
        const LinearBuffer untouched = states;
        run(queue, MeasureLinear<T>{.rows = ActiveBuffer::odd_rows_left(batch).view(),
                                    .norm = norm,
                                    .form = form,
                                    .b = b.view(),
                                    .x = x.view(),
                                    .answer = answer.view(),
                                    .r = r.view(),
                                    .states = states.view()});
        for (std::int64_t row = 0; row < batch; ++row) {
          if (row % 2 == 0 || (shape.rows > 2 && (row == 3 || row == 5))) {
            EXPECT_TRUE(same_bits(states.row(row), untouched.row(row)));
            ASSERT_EQ(r(row, 0), T(-1));
            continue;
          }
          const auto exact = [&](std::int64_t j) {
            const long double product = answer(row / 2, j), point = x(row, j);
            return b(row, j) - (form == Operator::matrix ? product : point - product);
          };
          for (std::int64_t j = 0; j < shape.width; ++j) ASSERT_NEAR(r(row, j), static_cast<T>(exact(j)), 2e-15);
          const double size = textbook_norm(norm, shape.width, exact);
          const double length = textbook_norm(Norm::two, shape.width, exact);
          const double point = textbook_norm(Norm::two, shape.width, [&](std::int64_t j) { return x(row, j); });
          const double slack = 1e-15 * static_cast<double>(8 + shape.width);
          EXPECT_NEAR(states.residual[row], size, slack * (1 + size));
          EXPECT_NEAR(states.length[row], length, slack * (1 + length));
          EXPECT_NEAR(states.size[row], point, slack * point);
          EXPECT_EQ(states.before[row], 3);
          EXPECT_EQ(states.phase[row], Phase::start);
          EXPECT_EQ(states.answered[row], Answered::measured);
        }
        EXPECT_TRUE(r.gaps_intact());
      }
}

TYPED_TEST(LinearKernels, MeasureLinearSeesWhatIsNotFiniteAndWhatHasNoSquare) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  const double tiny = static_cast<double>(std::numeric_limits<T>::min()) * 16;
  for (const Norm norm : {Norm::two, Norm::inf}) {
    const Block<T> b(3, 4), x(3, 4);
    Block<T> answer(3, 4), r(3, 4);
    answer(0, 3) = static_cast<T>(nan);
    answer(1, 0) = static_cast<T>(infinity);
    answer(2, 1) = static_cast<T>(3 * tiny);
    answer(2, 2) = static_cast<T>(4 * tiny);
    LinearBuffer states(3);
    states.phase.assign(3, Phase::residual);
    run(queue, MeasureLinear<T>{.rows = ActiveBuffer::all(3).view(),
                                .norm = norm,
                                .form = Operator::matrix,
                                .b = b.view(),
                                .x = x.view(),
                                .answer = answer.view(),
                                .r = r.view(),
                                .states = states.view()});
    EXPECT_FALSE(std::isfinite(states.residual[0]) || std::isfinite(states.length[0]));
    EXPECT_FALSE(std::isfinite(states.residual[1]) || std::isfinite(states.length[1]));
    EXPECT_DOUBLE_EQ(states.length[2], 5 * tiny);
    EXPECT_DOUBLE_EQ(states.residual[2], (norm == Norm::two ? 5 : 4) * tiny);
    EXPECT_EQ(states.size[2], 0);
  }
}

TYPED_TEST(LinearKernels, MeasureLinearGivesAResidualTheSameBitsWhereverXStands) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  Random random(53);
  const std::int64_t pairs = 16, width = 33;
  auto b = Block<T>::random(random, 2 * pairs, width), x = Block<T>::random(random, 2 * pairs, width);
  const Block<T> answer(2 * pairs, width);
  for (std::int64_t i = 0; i < pairs; ++i)
    for (std::int64_t j = 0; j < width; ++j) {
      b(pairs + i, j) = b(i, j);
      x(pairs + i, j) = T(0);  // has no square, and is measured again in another way
    }
  Block<T> r(2 * pairs, width);
  LinearBuffer states(2 * pairs);
  states.phase.assign(2 * pairs, Phase::residual);
  run(queue, MeasureLinear<T>{.rows = ActiveBuffer::all(2 * pairs).view(),
                              .norm = Norm::two,
                              .form = Operator::matrix,
                              .b = std::as_const(b).view(),
                              .x = std::as_const(x).view(),
                              .answer = answer.view(),
                              .r = r.view(),
                              .states = states.view()});
  for (std::int64_t i = 0; i < pairs; ++i) {
    EXPECT_EQ(states.residual[i], states.residual[pairs + i]);
    EXPECT_EQ(states.length[i], states.length[pairs + i]);
    EXPECT_EQ(states.size[pairs + i], 0);
  }
}

TYPED_TEST(LinearKernels, JudgeLinearWritesReportBestAndProgress) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  using S = Status;
  using A = Answered;
  struct Case {
    const char* what;
    Answered answered;
    double residual, before, growth;
    int steps;
    Status status;
    bool best;
  };
  // goal 1, length = residual, size 1, floor 0.16: noise 0.01 growth; best so far 100; 50 steps
  const std::vector<Case> cases = {
      {"within the goal", A::measured, 0.9, 200, 1, 3, S::converged, true},
      {"within the goal at the last step", A::measured, 0.9, 200, 1, 49, S::converged, true},
      {"within the goal, but not beyond doubt", A::measured, 0.995, 200, 1, 3, S::running, true},
      {"above", A::measured, 40, 200, 1, 3, S::running, true},
      {"above, and worse than the best", A::measured, 120, 200, 1, 3, S::running, false},
      {"within the goal and the noise", A::measured, 0.5, 200, 101, 3, S::stalled, true},
      {"no progress near the noise", A::measured, 3, 3, 1, 3, S::stalled, true},
      {"no progress far above it", A::measured, 5, 5, 1, 3, S::breakdown, true},
      {"out of steps", A::measured, 40, 200, 1, 49, S::out_of_steps, true},
      {"measured NaN", A::measured, nan, 200, 1, 3, S::not_finite, false},
      {"an estimate", A::product, 60, 200, 1, 3, S::running, false},
      {"an estimate within the goal", A::product, 0.1, 200, 1, 3, S::running, false},
      {"an estimate at the last step", A::product, 60, 200, 1, 49, S::out_of_steps, false},
      {"an infinite estimate", A::product, infinity, 200, 1, 3, S::not_finite, false},
      {"broken down", A::broke_down, 60, 200, 1, 3, S::breakdown, false},
      {"broken down, not finite", A::broke_down, nan, 200, 1, 3, S::not_finite, false},
      {"not asked about", A::measured, 1, 200, 1, 3, S::running, false},
      {"ended before", A::measured, 1, 200, 1, 3, S::stalled, false},
  };
  const auto count = static_cast<std::int64_t>(cases.size()), ended = count - 1, absent = count - 2;
  LinearBuffer states(count, 50);
  states.report.trace.assign(50 * count, -1);
  states.report.residual.assign(count, 7);
  states.goal.assign(count, 1);
  states.size.assign(count, 1);
  states.best.assign(count, 100);
  states.new_best.assign(count, 1);
  states.report.status[ended] = Status::stalled;
  states.failed = 2;
  ActiveBuffer active;
  for (std::int64_t row = 0; row < count; ++row) {
    const Case& c = cases[row];
    states.answered[row] = c.answered;
    states.residual[row] = states.length[row] = c.residual;
    states.before[row] = c.before;
    states.growth[row] = c.growth;
    states.report.steps[row] = c.steps;
    if (row != absent) active.ids.push_back(static_cast<std::int32_t>(row));
  }
  Progress progress{.running = 77, .failed = 77, .worst = 777};
  run(queue, JudgeLinear<T>{.rows = active.view(),
                            .limits = {.floor = 0.16},
                            .max_steps = 50,
                            .states = states.view(),
                            .progress = &progress});
  std::int64_t running = 0, failed = 2;
  for (std::int64_t row = 0; row < count; ++row) {
    const Case& c = cases[row];
    SCOPED_TRACE(c.what);
    const bool judged = row != ended && row != absent;
    EXPECT_EQ(states.report.status[row], c.status);
    EXPECT_EQ(states.new_best[row], row == absent ? 1 : c.best);
    EXPECT_EQ(states.best[row], c.best ? c.residual : 100);
    EXPECT_EQ(states.report.residual[row], c.best ? c.residual : 7);
    EXPECT_EQ(states.report.steps[row], c.steps + judged);
    const double traced = states.report.trace[c.steps * count + row];
    EXPECT_TRUE(judged ? traced == c.residual || std::isnan(c.residual) : traced == -1);
    running += judged && c.status == Status::running;
    failed += judged && c.status != Status::running && c.status != Status::converged;
  }
  EXPECT_EQ(progress.running, running);
  EXPECT_EQ(progress.failed, failed);
  EXPECT_EQ(states.failed, failed);
  EXPECT_DOUBLE_EQ(progress.worst, 120);
}

TYPED_TEST(LinearKernels, JudgeLinearCountsManyRows) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  const std::int64_t rows = 1301;
  LinearBuffer states(rows);
  for (std::int64_t row = 0; row < rows; ++row) {
    states.goal[row] = 1;
    states.residual[row] = row % 3 == 0 ? nan : static_cast<double>(row);
  }
  Progress progress;
  run(queue,
      JudgeLinear<T>{
          .rows = ActiveBuffer::all(rows).view(), .max_steps = 9, .states = states.view(), .progress = &progress});
  EXPECT_EQ(progress.running, 867);
  EXPECT_EQ(progress.failed, 434);
  EXPECT_EQ(progress.worst, 1300);
}

TYPED_TEST(LinearKernels, RowsAreKeptEndedAndTakenWhereTheyShould) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  Random random(52);
  for (const Shape& shape : shapes()) {
    DEQCORE_TRACE_SHAPE(shape);
    const std::int64_t batch = 2 * shape.rows;
    const auto x = Block<T>::random(random, batch, shape.width, shape.gap);
    const auto answer = Block<T>::random(random, shape.rows, shape.width, 1);
    Block<T> result(batch, shape.width, 2, T(-1)), along(shape.rows, shape.width, shape.gap, T(-1));
    LinearBuffer states(batch);
    for (std::int64_t row = 0; row < batch; ++row) {
      states.new_best[row] = row % 4 < 2;
      states.phase[row] = std::vector{Phase::first, Phase::second, Phase::residual}[row / 2 % 3];
      if (row == 7) states.report.status[row] = Status::converged;
    }
    const LinearBuffer before = states;
    const ActiveBuffer active = ActiveBuffer::odd_rows_left(batch);
    run(queue, KeepSolution<T>{.rows = active.view(), .x = x.view(), .result = result.view(), .states = states.view()});
    run(queue, TakeDirection<T>{
                   .rows = active.view(), .answer = answer.view(), .along = along.view(), .states = states.view()});
    for (std::int64_t row = 0; row < batch; ++row) {
      EXPECT_TRUE(same_bits(states.row(row), before.row(row)));
      for (std::int64_t j = 0; j < shape.width; ++j) {
        ASSERT_EQ(result(row, j), row % 4 == 1 ? x(row, j) : T(-1));
        if (row % 2 == 0) continue;
        const bool taken = states.phase[row] != Phase::residual && row != 7;
        ASSERT_EQ(along(row / 2, j), taken ? answer(row / 2, j) : T(-1));
      }
    }
    EXPECT_TRUE(result.gaps_intact() && along.gaps_intact());
    run(queue, EndLinear<T>{.rows = active.view(), .status = Status::cancelled, .states = states.view()});
    for (std::int64_t row = 0; row < batch; ++row)
      EXPECT_EQ(states.report.status[row], row % 2 == 0 ? Status::running
                                           : row == 7   ? Status::converged
                                                        : Status::cancelled);
  }
}

TYPED_TEST(LinearKernels, NoRowsTouchNothing) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  Block<T> block(1, 5, 0, T(7));
  const Block<T> untouched = block;
  LinearBuffer states(1);
  states.failed = 3;
  const LinearBuffer before = states;
  const LinearStates view = states.view();
  const Rows<T> rows = block.view();
  Progress progress{.running = 5, .worst = 5};
  run(queue, MeasureLinear<T>{
                 .rows = {}, .norm = {}, .form = {}, .b = rows, .x = rows, .answer = rows, .r = rows, .states = view});
  run(queue, JudgeLinear<T>{.rows = {}, .max_steps = 5, .states = view, .progress = &progress});
  run(queue, KeepSolution<T>{.rows = {}, .x = rows, .result = rows, .states = view});
  run(queue, EndLinear<T>{.rows = {}, .status = Status::cancelled, .states = view});
  run(queue, TakeDirection<T>{.rows = {}, .answer = rows, .along = rows, .states = view});
  EXPECT_TRUE(block == untouched);
  EXPECT_TRUE(same_bits(states.row(0), before.row(0)));
  EXPECT_EQ(progress.running, 0);
  EXPECT_EQ(progress.failed, 3);
  EXPECT_EQ(progress.worst, 0);
}

}  // namespace
}  // namespace deqcore::test

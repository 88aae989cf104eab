// SPDX-License-Identifier: Apache-2.0
#include "deqcore/kernels/step.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "block.hpp"
#include "queues.hpp"
#include "row_states.hpp"
#include "shapes.hpp"

namespace deqcore::test {
namespace {

template <class Entry>
class StepKernels : public ::testing::Test {};
TYPED_TEST_SUITE(StepKernels, Types<Queues>, Names);

TYPED_TEST(StepKernels, BeginRowsForgetsEverything) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  for (const bool given : {false, true}) {
    StateBuffer states(5);
    states.report.status.assign(5, Status::diverged);
    for (auto* of : {&states.report.steps, &states.report.rejected, &states.report.singular, &states.best_step})
      of->assign(5, 9);
    for (auto* of :
         {&states.report.residual, &states.report.scale, &states.g_norm, &states.f_norm, &states.z_norm, &states.best})
      of->assign(5, 9);
    states.best_at.assign(5, BestAt::result);
    states.event.assign(5, Event::measured);
    states.frozen.assign(5, 1);
    std::vector<std::int32_t> ids(5, -1);
    const std::vector<double> scale = {1, 2, 3, 4, 5};
    run(queue,
        BeginRows<T>{
            .rows = 5, .given_scale = given ? scale.data() : nullptr, .states = states.view(), .ids = ids.data()});
    for (int row = 0; row < 5; ++row) {
      EXPECT_EQ(states.report.status[row], Status::running);
      EXPECT_EQ(states.report.steps[row], 0);
      EXPECT_TRUE(std::isnan(states.report.residual[row]));
      EXPECT_EQ(states.report.scale[row], given ? scale[row] : 0);
      EXPECT_EQ(states.report.rejected[row], 0);
      EXPECT_EQ(states.report.singular[row], 0);
      EXPECT_EQ(states.best[row], std::numeric_limits<double>::infinity());
      EXPECT_EQ(states.best_step[row], 0);
      EXPECT_EQ(states.best_at[row], BestAt::nowhere);
      EXPECT_EQ(states.event[row], Event::none);
      EXPECT_EQ(states.frozen[row], 0);
      EXPECT_EQ(ids[row], row);
    }
  }
}

TYPED_TEST(StepKernels, MeasureResidualIsTheThreeNorms) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  Random random(30);
  for (const Shape& shape : shapes())
    for (const Norm norm : {Norm::two, Norm::inf})
      for (const bool first : {true, false}) {
        DEQCORE_TRACE_SHAPE(shape);
        const auto z = Block<T>::random(random, shape.rows, shape.width, shape.gap);
        const auto f = Block<T>::random(random, shape.rows, shape.width, shape.gap + 1);
        StateBuffer states(2 * shape.rows);
        states.g_norm.assign(2 * shape.rows, -1);
        states.f_norm.assign(2 * shape.rows, -1);
        states.z_norm.assign(2 * shape.rows, -1);
        ActiveBuffer active = ActiveBuffer::odd_rows_left(2 * shape.rows);
        const auto before = Block<T>::random(random, 2 * shape.rows, shape.width);
        states.report.status[1] = Status::converged;
        run(queue, MeasureResidual<T>{.rows = active.view(),
                                      .norm = norm,
                                      .first = first,
                                      .z = z.view(),
                                      .f = f.view(),
                                      .z_before = before.view(),
                                      .states = states.view()});
        const double slack = norm == Norm::inf ? 0 : 1e-15 * static_cast<double>(4 + shape.width);
        for (std::int64_t i = 0; i < shape.rows; ++i) {
          const std::int64_t row = 2 * i + 1;
          if (row == 1) {  // an ended row is left alone
            EXPECT_EQ(states.g_norm[row], -1);
            EXPECT_EQ(states.f_norm[row], -1);
            EXPECT_EQ(states.z_norm[row], -1);
            continue;
          }
          const auto g = [&](std::int64_t j) { return static_cast<double>(f(i, j)) - static_cast<double>(z(i, j)); };
          const double exact_g = textbook_norm(norm, shape.width, g);
          const double exact_f = textbook_norm(norm, shape.width, [&](std::int64_t j) { return f(i, j); });
          const double exact_z = textbook_norm(norm, shape.width, [&](std::int64_t j) { return z(i, j); });
          EXPECT_NEAR(states.g_norm[row], exact_g, slack * exact_g);
          EXPECT_NEAR(states.f_norm[row], exact_f, slack * exact_f);
          if (first)
            EXPECT_NEAR(states.z_norm[row], exact_z, slack * exact_z);
          else
            EXPECT_EQ(states.z_norm[row], -1);
          EXPECT_EQ(states.g_norm[row - 1], -1) << "not among the active rows";
          EXPECT_EQ(states.frozen[row], 0);
        }
      }
}

// A row is frozen if its point has the bits of the step before, where it may have stood at another position.
TYPED_TEST(StepKernels, MeasureResidualSeesAFrozenPoint) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  Random random(31);
  for (std::int64_t width : {1, 3, 17, 513}) {
    const auto before = Block<T>::random(random, 6, width, 2);
    Block<T> z(3, width, 1);
    const ActiveBuffer active = ActiveBuffer::odd_rows_left(6);
    for (std::int64_t i = 0; i < 3; ++i) std::copy_n(&before(2 * i + 1, 0), width, &z(i, 0));
    auto f = Block<T>::random(random, 3, width);
    StateBuffer states(6);
    const auto measure = [&](bool first) {
      run(queue, MeasureResidual<T>{.rows = active.view(),
                                    .norm = Norm::two,
                                    .first = first,
                                    .z = z.view(),
                                    .f = f.view(),
                                    .z_before = before.view(),
                                    .states = states.view()});
    };
    measure(true);
    for (int row : {1, 3, 5}) EXPECT_EQ(states.frozen[row], 0) << "nothing comes before the first evaluation";
    for (const int repeats : {1, 2, 2}) {
      measure(false);
      for (int row : {1, 3, 5}) EXPECT_EQ(states.frozen[row], repeats) << "counts to two";
    }
    f(1, width - 1) += T(1);  // the same point with another answer
    measure(false);
    EXPECT_EQ(states.frozen[1], 2);
    EXPECT_EQ(states.frozen[3], 0);
    measure(false);
    EXPECT_EQ(states.frozen[3], 1);
    z(2, 0) = -z(2, 0);  // another point, measured twice: its norms repeat
    f(2, 0) = T(0);
    measure(false);
    measure(false);
    EXPECT_EQ(states.frozen[5], 0);
  }
}

TYPED_TEST(StepKernels, JudgeRowsWritesReportBestAndProgress) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  const Limits limits{.rtol = 1e-3, .floor = 1e-6, .overflow = 1e4, .noise = 1e-4};
  StateBuffer states(6, 10);
  states.report.trace.assign(60, -1);
  //                 converged  running  running, worse  not finite  ended before  not asked about
  states.g_norm = {1e-4, 0.1, 0.4, std::nan(""), 1e-9, 0.2};
  states.f_norm.assign(6, 1);
  states.z_norm.assign(6, 1);
  states.report.scale = {1, 1, 1, 1, 1, 1};
  states.report.steps.assign(6, 3);
  states.report.residual.assign(6, 0.25);
  states.best.assign(6, 250);
  states.best_step.assign(6, 2);
  states.event.assign(6, Event::measured);
  states.report.status[4] = Status::stalled;
  ActiveBuffer active;
  active.ids = {0, 1, 2, 3, 4};
  Progress progress{.running = 77, .worst = 77};
  run(queue, JudgeRows<T>{.rows = active.view(),
                          .limits = limits,
                          .max_steps = 50,
                          .patience = 20,
                          .states = states.view(),
                          .progress = &progress});
  using S = Status;
  EXPECT_EQ(states.report.status,
            (std::vector<S>{S::converged, S::running, S::running, S::not_finite, S::stalled, S::running}));
  EXPECT_EQ(states.report.steps, (std::vector<std::int32_t>{4, 4, 4, 4, 3, 3}));
  EXPECT_EQ(states.report.residual, (std::vector<double>{1e-4, 0.1, 0.25, 0.25, 0.25, 0.25}));
  EXPECT_EQ(states.best_step, (std::vector<std::int32_t>{4, 4, 2, 2, 2, 2}));
  EXPECT_DOUBLE_EQ(states.best[1], 100);
  EXPECT_EQ(states.best[2], 250);
  using E = Event;
  EXPECT_EQ(states.event, (std::vector<E>{E::new_best, E::new_best, E::measured, E::measured, E::none, E::measured}));
  EXPECT_EQ(progress.running, 2);
  EXPECT_DOUBLE_EQ(progress.worst, 400);
  for (int step = 0; step < 10; ++step)
    for (int row = 0; row < 6; ++row) {
      const double entry = states.report.trace[step * 6 + row];
      if (step == 3 && row < 4)
        EXPECT_TRUE(entry == states.g_norm[row] || (std::isnan(entry) && row == 3));
      else
        EXPECT_EQ(entry, -1) << step << " " << row;
    }
}

// Points that a method gives up end no row, unless there is nothing shorter to try.
TYPED_TEST(StepKernels, JudgeRowsPassesOverTrials) {
  using T = typename TypeParam::T;
  using S = Status;
  auto queue = TypeParam::make();
  const Limits limits{.rtol = 1e-3, .floor = 1e-6, .overflow = 1e4, .noise = 1e-4};
  constexpr double nan = std::numeric_limits<double>::quiet_NaN();
  const auto judged = [&](Trials trials, std::int32_t steps) {
    StateBuffer states(6);
    const ActiveBuffer active = ActiveBuffer::all(6);
    states.report.steps.assign(6, steps);
    states.report.scale.assign(6, 1.0);
    states.report.residual = {0.5, 0.5, 0.5, 0.5, 0.5, limits.noise / 2};
    states.best.assign(6, 1e-3);
    states.g_norm = {0.9, 1e300, nan, 0.0, 0.9, 1e300};
    states.f_norm = {1.0, 1e300, nan, 1.0, 1.0, 1e300};
    Progress progress;
    run(queue, JudgeRows<T>{.rows = active.view(),
                            .limits = limits,
                            .max_steps = 50,
                            .patience = 20,
                            .trials = trials,
                            .states = states.view(),
                            .progress = &progress});
    EXPECT_EQ(progress.running, std::count(states.report.status.begin(), states.report.status.end(), S::running));
    EXPECT_EQ(progress.failed, std::count_if(states.report.status.begin(), states.report.status.end(),
                                             [](S s) { return s < S::converged; }));
    return states.report.status;
  };
  EXPECT_EQ(judged({}, 3),
            (std::vector<S>{S::running, S::diverged, S::not_finite, S::converged, S::running, S::diverged}));
  EXPECT_EQ(judged({.all = Trial::yes}, 3),
            (std::vector<S>{S::running, S::running, S::running, S::converged, S::running, S::running}));
  EXPECT_EQ(judged({.all = Trial::yes}, 49), (std::vector<S>{S::out_of_steps, S::out_of_steps, S::out_of_steps,
                                                             S::converged, S::out_of_steps, S::out_of_steps}));
  const std::vector<Trial> by_row{Trial::last, Trial::last, Trial::last, Trial::last, Trial::no, Trial::last};
  EXPECT_EQ(judged({.by_row = by_row.data()}, 3), (std::vector<S>{S::step_underflow, S::step_underflow, S::not_finite,
                                                                  S::converged, S::running, S::stalled}));
}

TYPED_TEST(StepKernels, JudgeRowsWithoutRowsSaysThatNothingRuns) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  StateBuffer states(1);
  Progress progress{.running = 5, .worst = 5};
  run(queue, JudgeRows<T>{.rows = {}, .max_steps = 5, .states = states.view(), .progress = &progress});
  EXPECT_EQ(progress.running, 0);
  EXPECT_EQ(progress.worst, 0);
}

TYPED_TEST(StepKernels, KeepBestSavesThePointThatWouldBeLost) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  Random random(33);
  for (std::int64_t width : {1, 7, 33}) {
    const auto z = Block<T>::random(random, 6, width, 1);
    const auto before = Block<T>::random(random, 12, width, 2);
    StateBuffer states(12);
    // by row: 1 new best, running   3 new best, ended   5 worse after a best in the block   7 worse, best in result
    //         9 nothing measured (ended before)         11 first answer not finite
    states.event.assign(12, Event::none);
    states.event[1] = states.event[3] = Event::new_best;
    states.event[5] = states.event[7] = states.event[11] = Event::measured;
    states.report.status[3] = Status::converged;
    states.report.status[9] = Status::converged;
    states.report.status[11] = Status::not_finite;
    states.best_at.assign(12, BestAt::block);
    states.best_at[7] = BestAt::result;
    states.best_at[11] = BestAt::nowhere;
    Block<T> result(12, width, 3, T(-1));
    run(queue, KeepBest<T>{.rows = ActiveBuffer::odd_rows_left(12).view(),
                           .z = z.view(),
                           .z_before = before.view(),
                           .result = result.view(),
                           .states = states.view()});
    for (std::int64_t j = 0; j < width; ++j) {
      for (int row : {0, 1, 2, 4, 6, 7, 8, 9, 10}) EXPECT_EQ(result(row, j), T(-1)) << row;
      EXPECT_EQ(result(3, j), z(1, j));
      EXPECT_EQ(result(5, j), before(5, j));
      EXPECT_EQ(result(11, j), z(5, j));
    }
    EXPECT_EQ(states.best_at[1], BestAt::block);
    EXPECT_EQ(states.best_at[5], BestAt::result);
    EXPECT_EQ(states.best_at[7], BestAt::result);
    EXPECT_TRUE(result.gaps_intact());
  }
}

TYPED_TEST(StepKernels, HoldRowsKeepsEndedPointsAndWritesNoOther) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  Random random(34);
  for (std::int64_t width : {1, 7, 33}) {
    const auto z = Block<T>::random(random, 8, width, 1);
    StateBuffer states(8);
    states.report.status[3] = Status::stalled;
    Block<T> next(4, width, 1, T(-1));
    run(queue, HoldRows<T>{.rows = ActiveBuffer::odd_rows_left(8).view(),
                           .z = z.view(),
                           .next = next.view(),
                           .states = states.view()});
    for (std::int64_t j = 0; j < width; ++j) {
      EXPECT_EQ(next(1, j), z(3, j));
      for (int position : {0, 2, 3}) EXPECT_EQ(next(position, j), T(-1));
    }
    EXPECT_TRUE(next.gaps_intact());
  }
}

TYPED_TEST(StepKernels, EndRowsEndsRunningRowsAtTheirBest) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  Random random(35);
  const std::int64_t width = 9;
  const auto z = Block<T>::random(random, 4, width);
  const auto before = Block<T>::random(random, 8, width);
  StateBuffer states(8);
  states.best_at[1] = BestAt::block;
  states.best_at[3] = BestAt::result;
  states.best_at[5] = BestAt::nowhere;
  states.best_at[7] = BestAt::block;
  states.report.status[7] = Status::converged;
  Block<T> result(8, width, 0, T(-1));
  run(queue, EndRows<T>{.rows = ActiveBuffer::odd_rows_left(8).view(),
                        .status = Status::cancelled,
                        .z = z.view(),
                        .z_before = before.view(),
                        .result = result.view(),
                        .states = states.view()});
  for (std::int64_t j = 0; j < width; ++j) {
    EXPECT_EQ(result(1, j), before(1, j));
    EXPECT_EQ(result(3, j), T(-1));
    EXPECT_EQ(result(5, j), z(2, j));
    EXPECT_EQ(result(7, j), T(-1));
  }
  for (int row : {1, 3, 5}) EXPECT_EQ(states.report.status[row], Status::cancelled);
  EXPECT_EQ(states.report.status[7], Status::converged);
  for (int row : {0, 2, 4, 6}) EXPECT_EQ(states.report.status[row], Status::running) << "not among the active rows";
}

TYPED_TEST(StepKernels, SelectRowsKeepsTheOrderAndTheFirstEndedOnes) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  StateBuffer states(10);
  for (int row : {2, 5, 6, 8}) states.report.status[row] = Status::converged;
  ActiveBuffer active;
  active.ids = {1, 2, 4, 5, 6, 7, 8, 9};  // running: 1 4 7 9
  for (std::int64_t keep = 4; keep <= 8; ++keep) {
    std::vector<std::int32_t> ids(9, -1), source(9, -1);
    run(queue, SelectRows<T>{.rows = active.view(),
                             .keep = keep,
                             .running = 4,
                             .status = states.view().report.status,
                             .ids = ids.data(),
                             .source = source.data()});
    std::vector<std::int32_t> expected_ids, expected_source;
    std::int64_t fill = keep - 4;
    for (std::int32_t i = 0; i < 8; ++i) {
      if (!states.view().running(active.ids[i]) && fill-- <= 0) continue;
      expected_ids.push_back(active.ids[i]);
      expected_source.push_back(i);
    }
    ASSERT_EQ(static_cast<std::int64_t>(expected_ids.size()), keep);
    expected_ids.resize(9, -1);
    expected_source.resize(9, -1);
    EXPECT_EQ(ids, expected_ids);
    EXPECT_EQ(source, expected_source);
  }
}

TYPED_TEST(StepKernels, NoRowsTouchNothing) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  StateBuffer states(2);
  states.g_norm = {4, 5};
  Block<T> block(2, 5, 0, T(7));
  const Block<T> untouched = block;
  const RowStates view = states.view();
  run(queue, BeginRows<T>{.rows = 0, .given_scale = nullptr, .states = view, .ids = nullptr});
  run(queue, MeasureResidual<T>{.rows = {},
                                .norm = Norm::two,
                                .first = true,
                                .z = block.view(),
                                .f = block.view(),
                                .z_before = block.view(),
                                .states = view});
  run(queue,
      KeepBest<T>{.rows = {}, .z = block.view(), .z_before = block.view(), .result = block.view(), .states = view});
  run(queue, HoldRows<T>{.rows = {}, .z = block.view(), .next = block.view(), .states = view});
  run(queue, EndRows<T>{.rows = {},
                        .status = Status::cancelled,
                        .z = block.view(),
                        .z_before = block.view(),
                        .result = block.view(),
                        .states = view});
  run(queue, SelectRows<T>{
                 .rows = {}, .keep = 0, .running = 0, .status = view.report.status, .ids = nullptr, .source = nullptr});
  EXPECT_TRUE(block == untouched);
  EXPECT_EQ(states.g_norm, (std::vector<double>{4, 5}));
  EXPECT_EQ(states.report.status, (std::vector<Status>{Status::running, Status::running}));
}

}  // namespace
}  // namespace deqcore::test

// SPDX-License-Identifier: Apache-2.0
#include "deqcore/continuation/homotopy.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "dialogue_checks.hpp"

namespace deqcore::test {
namespace {

const bool registered = register_dialogues<Following>(static_cast<SolverQueues*>(nullptr));

template <class Case>
class FollowOnly : public ::testing::Test {};
TYPED_TEST_SUITE(FollowOnly, SerialCases<Following>, Names);

// Maps of one kind for all rows, with what is asked counted. H is the fixed-point homotopy, written out by the caller.
template <class Case>
struct Paths {
  using T = typename Case::T;
  using Queue = typename Case::Queue;
  using Function = std::function<void(std::int64_t row, const T* z, T* value)>;

  Paths(std::int64_t rows_, std::int64_t width_, Function f_, Homotopy method_ = {}, HomotopyForm form_ = {})
      : rows(rows_),
        width(width_),
        f(std::move(f_)),
        method(method_),
        form(form_),
        z0(rows, width),
        z(rows, width),
        report(rows),
        path(rows, 4000, {0}) {
    form.differences = true;
  }

  void solve(const Stop& stop = {.rtol = std::is_same_v<T, float> ? 1e-5 : 1e-10, .max_steps = 200000}) {
    auto queue = Case::make_queue(1);
    HostBuffer memory(FollowPath<Queue, T>::scratch_bytes(rows, width, method, stop, form));
    Arena arena = memory.arena();
    FollowPath<Queue, T> solver(queue, rows, width, method, stop, form, arena);
    Block<T> answers(rows, width);
    const Block<T>& start = z0;
    auto question = solver.start(start.view(), z.view(), report.view(), path.view());
    const std::int64_t before = Case::allocations();
    while (question) {
      map_was_asked = map_was_asked || !question.time;
      for (std::int64_t at = 0; at < question.count; ++at) {
        const std::int64_t row = question.rows[at];
        const T* point = question.at[at];
        T* answer = &answers(at, 0);
        f(row, point, answer);
        if (!question.time) continue;
        const auto lambda = static_cast<T>(question.time[at]);
        for (std::int64_t j = 0; j < width; ++j)
          answer[j] = question.kind == Ask::rate ? z0(row, j) - answer[j]
                                                 : point[j] - lambda * answer[j] - (1 - lambda) * z0(row, j);
      }
      question = solver.advance(static_cast<const Block<T>&>(answers).view().slice(0, question.count));
    }
    EXPECT_EQ(Case::allocations(), before);
  }

  double residual(std::int64_t row) {
    std::vector<T> value(width);
    f(row, &z(row, 0), value.data());
    double sum = 0;
    for (std::int64_t j = 0; j < width; ++j) sum += std::pow(static_cast<double>(value[j]) - z(row, j), 2);
    return std::sqrt(sum);
  }

  std::int64_t rows, width;
  Function f;
  Homotopy method;
  HomotopyForm form;
  Block<T> z0, z;
  ReportBuffer report;
  PathBuffer path;
  bool map_was_asked = false;
};

// 3 tanh(4 z) - 1 / 2, a little different in every row.
template <class T>
void folded(std::int64_t row, const T* z, T* f) {
  const T shift = T(-0.5) - T(0.01) * static_cast<T>(row);
  f[0] = 3 * std::tanh(4 * z[0]) + shift;
}

TYPED_TEST(FollowOnly, StepsOfBothLinearSolversEndAtAFixedPoint) {
  using T = typename TypeParam::T;
  for (const std::int64_t dense_width : {0, 64}) {
    Paths<TypeParam> paths(3, 1, folded<T>, {.dense_width = dense_width});
    for (int row = 0; row < 3; ++row) paths.z0(row, 0) = T(0.6);
    paths.solve();
    for (int row = 0; row < 3; ++row) {
      EXPECT_EQ(paths.report.status[row], Status::converged);
      EXPECT_EQ(paths.path.end[row], PathEnd::converged);
      EXPECT_EQ(paths.path.lambda[row], 1);
      EXPECT_NEAR(paths.report.residual[row], paths.residual(row), 1e-12);
      EXPECT_GT(paths.path.solves[row], 0);
    }
  }
}

// f is made so that the path from z0 = 0 is lambda = z / 2 + 0.4 sin(3 z), which turns twice before it reaches 1.
TYPED_TEST(FollowOnly, FoldsAreCounted) {
  using T = typename TypeParam::T;
  const auto bent = [](std::int64_t, const T* z, T* value) {
    const T x = z[0], lambda = T(0.5) * x + T(0.4) * std::sin(3 * x);
    value[0] = std::abs(x) < T(1e-3) ? T(1) / T(1.7) : x / lambda;
  };
  Paths<TypeParam> paths(1, 1, bent, {.first_step = 0.02, .most_step = 0.05});
  paths.solve();
  EXPECT_EQ(paths.report.status[0], Status::converged);
  EXPECT_EQ(paths.path.folds[0], 2);
  EXPECT_NEAR(0.5 * paths.z(0, 0) + 0.4 * std::sin(3 * paths.z(0, 0)), 1, 1e-3);

  Paths<TypeParam> natural(1, 1, bent, {.tracker = Tracker::natural});
  natural.solve();
  EXPECT_EQ(natural.path.end[0], PathEnd::step_underflow);
  EXPECT_EQ(natural.report.status[0], Status::breakdown);
  EXPECT_LT(natural.path.lambda[0], 1);
  EXPECT_NEAR(natural.report.residual[0], natural.residual(0), 1e-5);
}

TYPED_TEST(FollowOnly, APathToInfinityIsABlowUp) {
  using T = typename TypeParam::T;
  const auto ramp = [](std::int64_t, const T* z, T* f) {
    for (int j = 0; j < 2; ++j) f[j] = std::max(2 * z[j] + 1, T(0));
  };
  for (const std::int64_t dense_width : {0, 64}) {
    Paths<TypeParam> paths(2, 2, ramp, {.dense_width = dense_width});
    paths.solve();
    EXPECT_EQ(paths.path.end, std::vector<PathEnd>(2, PathEnd::blow_up));
    EXPECT_EQ(paths.report.status, std::vector<Status>(2, Status::diverged));
    EXPECT_NEAR(paths.path.lambda[0], 0.5, 1e-3);
  }
}

TYPED_TEST(FollowOnly, BudgetsAreHeldAndNamed) {
  using T = typename TypeParam::T;
  const auto f = [](std::int64_t, const T* z, T* value) {
    for (int j = 0; j < 5; ++j) value[j] = std::cos(z[j] + T(j));
  };
  for (const std::int64_t dense_width : {0, 64})
    for (const std::int64_t max_steps : {1, 2, 6, 7, 8, 20, 40}) {
      Paths<TypeParam> paths(1, 5, f, {.dense_width = dense_width});
      paths.solve({.max_steps = max_steps});
      EXPECT_LE(paths.report.steps[0], max_steps);
      EXPECT_EQ(paths.report.status[0], Status::out_of_steps) << max_steps;
      EXPECT_EQ(paths.path.end[0], PathEnd::out_of_budget);
      EXPECT_NEAR(paths.report.residual[0], paths.residual(0), 1e-6);
    }
  Paths<TypeParam> few(1, 5, f, {.max_solves = 3});
  few.solve();
  EXPECT_EQ(few.path.solves[0], 3);
  EXPECT_EQ(few.path.end[0], PathEnd::out_of_budget);
}

TYPED_TEST(FollowOnly, TheEvaluationThatVerifiesIsAStepLikeAnyOther) {
  using T = typename TypeParam::T;
  const auto f = [](std::int64_t, const T* z, T* value) {
    for (int j = 0; j < 3; ++j) value[j] = std::cos(z[j] + T(j));
  };
  for (const std::int64_t dense_width : {0, 64})
    for (const Tracker tracker : {Tracker::arclength, Tracker::natural})
      for (std::int64_t max_steps = 1; max_steps <= 30; ++max_steps) {
        Paths<TypeParam> paths(2, 3, f, {.kind = HomotopyKind::own, .tracker = tracker, .dense_width = dense_width});
        paths.report = ReportBuffer(2, max_steps);
        paths.report.trace.assign(2 * max_steps, -7);
        paths.solve({.max_steps = max_steps});
        EXPECT_EQ(paths.map_was_asked, max_steps > 1);
        for (int row = 0; row < 2; ++row) {
          const std::int32_t steps = paths.report.steps[row];
          ASSERT_LE(steps, max_steps);
          for (std::int32_t step = 0; step < steps; ++step) EXPECT_GE(paths.report.trace[2 * step + row], 0);
          if (max_steps == 1) continue;
          EXPECT_EQ(paths.report.trace[2 * (steps - 1) + row], paths.report.residual[row]);
          EXPECT_GT(paths.report.scale[row], 0);
        }
      }
}

TYPED_TEST(FollowOnly, AnOwnHomotopyIsFollowedAndItsEndsAreVerified) {
  using T = typename TypeParam::T;
  const auto f = [](std::int64_t row, const T* z, T* value) {
    for (int j = 0; j < 3; ++j) value[j] = std::tanh(T(1.5) * z[(j + 1) % 3] + T(0.3) * static_cast<T>(row + j));
  };
  for (const std::int64_t dense_width : {0, 64})
    for (const bool rate_differences : {false, true}) {
      Paths<TypeParam> own(4, 3, f, {.kind = HomotopyKind::own, .dense_width = dense_width},
                           {.rate_differences = rate_differences});
      own.solve();
      Paths<TypeParam> named(4, 3, f, {.dense_width = dense_width});
      named.solve();
      EXPECT_TRUE(own.map_was_asked);
      for (int row = 0; row < 4; ++row) {
        EXPECT_EQ(own.report.status[row], Status::converged);
        EXPECT_NEAR(own.report.residual[row], own.residual(row), 1e-12);
        for (int j = 0; j < 3; ++j) EXPECT_NEAR(own.z(row, j), named.z(row, j), 1e-3);
      }
      Paths<TypeParam> unverified(4, 3, f, {.kind = HomotopyKind::own}, {.rate_differences = true, .verify = false});
      unverified.solve();
      EXPECT_FALSE(unverified.map_was_asked);
      EXPECT_EQ(unverified.report.status, std::vector<Status>(4, Status::converged));
    }
}

TYPED_TEST(FollowOnly, AnEndThatTheMapDoesNotConfirmIsAFailure) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make_queue(1);
  using Solver = FollowPath<typename TypeParam::Queue, T>;
  const Homotopy method{.kind = HomotopyKind::own};
  const HomotopyForm form{.differences = true, .rate_differences = true};
  const Stop stop{.rtol = 1e-4, .max_steps = 10000};
  HostBuffer memory(Solver::scratch_bytes(2, 1, method, stop, form));
  Arena arena = memory.arena();
  Solver solver(queue, 2, 1, method, stop, form, arena);
  Block<T> z0(2, 1), z(2, 1), answers(2, 1);
  ReportBuffer report(2);
  PathBuffer path(2);
  const Block<T>& start = z0;
  for (auto question = solver.start(start.view(), z.view(), report.view(), path.view()); question;
       question = solver.advance(static_cast<const Block<T>&>(answers).view().slice(0, question.count)))
    for (std::int64_t at = 0; at < question.count; ++at) {
      const T x = question.at[at][0];  // the path z = lambda; the map has its fixed point at 1 in row 0, at 2 in row 1
      answers(at, 0) = question.time ? x - static_cast<T>(question.time[at]) : static_cast<T>(question.rows[at] + 1);
    }
  EXPECT_EQ(report.status, (std::vector<Status>{Status::converged, Status::breakdown}));
  EXPECT_EQ(path.end, (std::vector<PathEnd>{PathEnd::converged, PathEnd::not_verified}));
  EXPECT_NEAR(report.residual[0], 0, 1e-3);
  EXPECT_NEAR(report.residual[1], 1, 1e-3);
}

TYPED_TEST(FollowOnly, TheRecordHoldsEveryEvaluationInOrder) {
  using T = typename TypeParam::T;
  Paths<TypeParam> paths(2, 1, folded<T>, {.first_step = 1});
  paths.z0(0, 0) = paths.z0(1, 0) = T(-1);
  paths.solve();
  for (int row = 0; row < 2; ++row) {
    const std::int32_t entries = paths.path.count[row];
    ASSERT_GT(entries, 3);
    ASSERT_LE(entries, paths.path.capacity);
    EXPECT_EQ(paths.path.numbers[4 * row], 0) << "lambda of the first";
    EXPECT_EQ(paths.path.points[row], -1);
    std::int32_t accepted = 0;
    for (std::int32_t entry = 0; entry < entries; ++entry) {
      const std::int32_t kind = paths.path.kinds[entry * 2 + row], stage = kind & 3, verdict = kind >> 2 & 3;
      EXPECT_LE(stage, 2);
      const double slope = paths.path.numbers[4 * (entry * 2 + row) + 3];
      accepted += stage == 1 && !std::isnan(slope) ? 1 : 0;
      if (!std::isnan(slope)) {
        EXPECT_EQ(verdict, 1);
        EXPECT_LE(std::abs(slope), 1 + 1e-12);
      }
    }
    EXPECT_EQ(accepted, paths.path.accepted[row]);
    EXPECT_EQ(paths.path.kinds[(entries - 1) * 2 + row] & 15, 2 + 4 * 3) << "at the end, ended";
    EXPECT_EQ(paths.path.points[(entries - 1) * 2 + row], paths.z(row, 0));
  }
}

TYPED_TEST(FollowOnly, OptionsOutsideTheirRangeAreRefused) {
  using T = typename TypeParam::T;
  using Solver = FollowPath<typename TypeParam::Queue, T>;
  const auto bytes = [](const Homotopy& method) { return [=] { Solver::scratch_bytes(1, 3, method, {}, {}); }; };
  const double nan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_TRUE(refuses("first_step", bytes({.first_step = -1})));
  EXPECT_TRUE(refuses("most_step", bytes({.most_step = 0})));
  EXPECT_TRUE(refuses("least_step", bytes({.least_step = 1})));
  EXPECT_TRUE(refuses("tolerance", bytes({.tolerance = nan})));
  EXPECT_TRUE(refuses("corrections", bytes({.corrections = 0})));
  EXPECT_TRUE(refuses("angle", bytes({.angle = 1})));
  EXPECT_TRUE(refuses("blow_up", bytes({.blow_up = 1})));
  EXPECT_TRUE(refuses("max_solves", bytes({.max_solves = 0})));
  EXPECT_TRUE(refuses("dense_width", bytes({.dense_width = -1})));
  EXPECT_TRUE(refuses("restart", bytes({.dense_width = 0, .restart = 0})));
}

}  // namespace
}  // namespace deqcore::test

// SPDX-License-Identifier: Apache-2.0
#include "deqcore/continuation/ode.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "block.hpp"
#include "counting.hpp"
#include "deqcore/device/buffer.hpp"
#include "errors.hpp"
#include "queues.hpp"

namespace deqcore::test {
namespace {

template <class Entry>
class Ode : public ::testing::Test {};
TYPED_TEST_SUITE(Ode, Types<SolverQueues>, Names);

template <class T>
using FieldOf = std::function<void(std::int64_t row, double t, const T* z, T* F)>;

constexpr std::int64_t width = 9;

// dz/dt = -rate z + sin t, a rate per row
template <class T>
FieldOf<T> decay(std::vector<double> rates) {
  return [rates](std::int64_t row, double t, const T* z, T* F) {
    for (std::int64_t j = 0; j < width; ++j)
      F[j] = static_cast<T>(-rates[row] * static_cast<double>(z[j]) + std::sin(t) + 0.1 * static_cast<double>(j));
  };
}

// The exact solution of it.
double decayed(double rate, std::int64_t j, double z0, double t0, double t) {
  const auto particular = [&](double s) {
    return (rate * std::sin(s) - std::cos(s)) / (rate * rate + 1) + 0.1 * static_cast<double>(j) / rate;
  };
  return particular(t) + (z0 - particular(t0)) * std::exp(-rate * (t - t0));
}

template <class T>
struct Integrated {
  std::vector<T> values;  // time by time
  std::vector<Status> status;
  std::vector<std::int32_t> evaluations, accepted, rejected, calls;
  std::vector<double> reached;
  Counts counts;
  std::int64_t waits = 0, allocations = 0;
};

template <class Entry>
Integrated<typename Entry::T> integrate(const FieldOf<typename Entry::T>& field, std::vector<std::int64_t> ids,
                                        const std::vector<double>& times, const OdeOptions& options,
                                        std::int64_t stop_after = -1) {
  using T = typename Entry::T;
  const auto rows = static_cast<std::int64_t>(ids.size()), count = static_cast<std::int64_t>(times.size());
  Integrated<T> out{.values = std::vector<T>(rows * count * width, T(-7)),
                    .status = std::vector<Status>(rows),
                    .evaluations = std::vector<std::int32_t>(rows),
                    .accepted = std::vector<std::int32_t>(rows),
                    .rejected = std::vector<std::int32_t>(rows),
                    .calls = std::vector<std::int32_t>(rows),
                    .reached = std::vector<double>(rows),
                    .counts = {}};
  Block<T> z0(rows, width, 2), answers(rows, width);
  for (std::int64_t i = 0; i < rows; ++i)
    for (std::int64_t j = 0; j < width; ++j) z0(i, j) = static_cast<T>(std::cos(1.0 + 2.0 * ids[i] + j));
  auto queue = Entry::make();
  using Solver = OdeSolve<typename Entry::Queue, T>;
  const HostBuffer memory(Solver::scratch_bytes(rows, width, options));
  Arena arena = memory.arena();
  Solver solver(queue, rows, width, options, arena);
  const std::int64_t allocations = Entry::allocations(), waits = queue.counts().waits;
  Question<T> question = solver.start(std::as_const(z0).view(), times.data(), count,
                                      dense_rows(out.values.data(), rows, width), rows * width,
                                      {.status = out.status.data(),
                                       .evaluations = out.evaluations.data(),
                                       .accepted = out.accepted.data(),
                                       .rejected = out.rejected.data(),
                                       .reached = out.reached.data()});
  while (question) {
    if (stop_after-- == 0) {
      solver.cancel();
      break;
    }
    for (std::int64_t i = 0; i < question.count; ++i) {
      const std::int64_t row = question.rows[i];
      if (out.status[row] == Status::running) out.calls[row] += 1;
      field(ids[row], question.time[i], question.at[i], &answers(i, 0));
    }
    question = solver.advance(std::as_const(answers).view().slice(0, question.count));
  }
  out.allocations = Entry::allocations() - allocations;
  out.waits = queue.counts().waits - waits;
  out.counts = solver.counts();
  return out;
}

constexpr OdeMethod all_methods[] = {OdeMethod::euler, OdeMethod::midpoint, OdeMethod::rk4, OdeMethod::bogacki_shampine,
                                     OdeMethod::dormand_prince};

TYPED_TEST(Ode, FixedStepsHaveTheOrderOfTheirMethod) {
  using T = typename TypeParam::T;
  if (std::is_same_v<T, float>) return;  // rounding hides the order
  const double orders[] = {1, 2, 4, 3, 5};
  for (int m = 0; m < 5; ++m) {
    std::vector<double> errors;
    for (const std::int64_t steps : {8, 16, 32}) {
      const auto out =
          integrate<TypeParam>(decay<T>({1.3, 0.7}), {0, 1}, {0, 0.5, 2}, {.method = all_methods[m], .steps = steps});
      double error = 0;
      for (std::int64_t row = 0; row < 2; ++row)
        for (std::int64_t j = 0; j < width; ++j)
          error = std::max(error, std::abs(out.values[(2 * 2 + row) * width + j] -
                                           decayed(row ? 0.7 : 1.3, j, std::cos(1.0 + 2.0 * row + j), 0, 2)));
      errors.push_back(error);
      EXPECT_EQ(out.status, std::vector<Status>(2, Status::finished));
      EXPECT_EQ(out.evaluations, std::vector<std::int32_t>(2, 2 * steps * stages(all_methods[m])));
      EXPECT_EQ(out.accepted, std::vector<std::int32_t>(2, 2 * steps));
    }
    for (int k = 0; k < 2; ++k) EXPECT_NEAR(std::log2(errors[k] / errors[k + 1]), orders[m], 0.35) << m;
  }
}

TYPED_TEST(Ode, StepsByTheErrorKeepTheTolerance) {
  using T = typename TypeParam::T;
  const std::vector<double> rates = {1, 3, 0.2};
  for (const bool backward : {false, true})
    for (const Control control : {Control::rows, Control::batch})
      for (const OdeMethod method : {OdeMethod::bogacki_shampine, OdeMethod::dormand_prince}) {
        std::vector<double> times = {0, 0.1, 0.9, 1, 3};
        if (backward) std::reverse(times.begin(), times.end());
        const double rtol = 1e-5;
        const auto out = integrate<TypeParam>(decay<T>(rates), {0, 1, 2}, times,
                                              {.method = method, .rtol = rtol, .atol = rtol, .control = control});
        for (std::size_t time = 0; time < times.size(); ++time)
          for (std::int64_t row = 0; row < 3; ++row)
            for (std::int64_t j = 0; j < width; ++j) {
              const double z0 = static_cast<double>(static_cast<T>(std::cos(1.0 + 2.0 * row + j)));
              const double exact = decayed(rates[row], j, z0, times[0], times[time]);
              ASSERT_NEAR(out.values[(time * 3 + row) * width + j], exact,
                          50 * rtol * (1 + std::abs(exact)) * (backward ? 400 : 1));
            }
        EXPECT_EQ(out.reached, std::vector<double>(3, times.back())) << "exactly";
      }
}

TYPED_TEST(Ode, ReportsWhatWasCountedAndAllocatesNothing) {
  using T = typename TypeParam::T;
  for (const OdeMethod method : all_methods)
    for (const Control control : {Control::rows, Control::batch})
      for (const Retire retire : {Retire::on, Retire::off}) {
        const bool pair = method >= OdeMethod::bogacki_shampine;
        const auto out =
            integrate<TypeParam>(decay<T>({1, 40, 5, 0.1}), {0, 1, 2, 3}, {0, 1},
                                 {.method = method, .steps = pair ? 0 : 60, .control = control, .retire = retire});
        EXPECT_EQ(out.status, std::vector<Status>(4, Status::finished));
        EXPECT_EQ(out.evaluations, out.calls);
        EXPECT_EQ(out.allocations, 0);
        EXPECT_EQ(out.waits, out.counts.looks);
        std::int64_t sum = 0;
        for (const std::int32_t calls : out.calls) sum += calls;
        if (retire == Retire::on && control == Control::rows) {
          EXPECT_LE(static_cast<double>(out.counts.rows_asked), 1.35 * static_cast<double>(sum));
        }
        for (int row = 0; pair && row < 4; ++row)
          EXPECT_EQ(out.evaluations[row], 2 + stages(method) * (out.accepted[row] + out.rejected[row]));
      }
}

TYPED_TEST(Ode, ARowAloneHasTheBitsOfTheRowInTheBatch) {
  using T = typename TypeParam::T;
  const auto field = decay<T>({1, 200, 5, 0.1, 30});
  const std::vector<double> times = {0, 0.3, 1};
  for (const OdeMethod method : all_methods) {
    OdeOptions options = {.method = method, .steps = method >= OdeMethod::bogacki_shampine ? 0 : 150};
    const auto whole = integrate<TypeParam>(field, {0, 1, 2, 3, 4}, times, options);
    for (const Retire retire : {Retire::off, Retire::halve})
      for (const std::int64_t look : {1, 3}) {
        options.retire = retire;
        options.look_every = look;
        EXPECT_TRUE(same_bits(whole.values, integrate<TypeParam>(field, {0, 1, 2, 3, 4}, times, options).values));
      }
    for (std::int64_t row = 0; row < 5; ++row) {
      const auto alone = integrate<TypeParam>(field, {row}, times, options);
      for (std::int64_t time = 0; time < 3; ++time)
        EXPECT_TRUE(same_bits(&alone.values[time * width], &whole.values[(time * 5 + row) * width], width));
      EXPECT_EQ(alone.evaluations[0], whole.evaluations[row]);
    }
  }
}

TYPED_TEST(Ode, AStiffRowCostsTheOthersNothing) {
  using T = typename TypeParam::T;
  std::vector<double> rates(256, 1.0);
  std::vector<std::int64_t> ids(256);
  for (std::int64_t i = 0; i < 256; ++i) ids[i] = i;
  const auto easy = integrate<TypeParam>(decay<T>(rates), ids, {0, 1}, {});
  rates[100] = 1000;
  const auto mixed = integrate<TypeParam>(decay<T>(rates), ids, {0, 1}, {});
  for (std::int64_t i = 0; i < 256; ++i) EXPECT_EQ(mixed.evaluations[i] == easy.evaluations[i], i != 100);
  EXPECT_GT(mixed.evaluations[100], 20 * easy.evaluations[100]);
  EXPECT_LT(mixed.counts.rows_asked, easy.counts.rows_asked + 2 * mixed.evaluations[100] + 300);
}

TYPED_TEST(Ode, RowsThatCannotGoOnSaySoAndTouchNobody) {
  using T = typename TypeParam::T;
  const auto smooth = decay<T>({1, 1, 1, 1});
  const FieldOf<T> field = [&](std::int64_t row, double t, const T* z, T* F) {
    smooth(row, t, z, F);
    if (row == 0) F[2] = std::numeric_limits<T>::quiet_NaN();            // at once
    if (row == 2 && t > 0.5) F[0] = std::numeric_limits<T>::infinity();  // on the way
    if (row == 3) F[0] = 100 + z[0] * z[0];                              // runs away before the end
  };
  const std::vector<double> times = {0, 0.25, 1};
  for (const bool fixed : {false, true}) {
    const OdeOptions options = {.steps = fixed ? 40 : 0};
    const auto out = integrate<TypeParam>(field, {0, 1, 2, 3}, times, options);
    EXPECT_EQ(out.status[0], Status::not_finite);
    EXPECT_EQ(out.status[1], Status::finished);
    EXPECT_EQ(out.status[2], Status::not_finite);
    EXPECT_EQ(out.status[3], fixed ? Status::not_finite : Status::step_underflow);
    const auto alone = integrate<TypeParam>(field, {1}, times, options);
    for (std::int64_t time = 0; time < 3; ++time) {
      EXPECT_TRUE(same_bits(&alone.values[time * width], &out.values[(time * 4 + 1) * width], width));
      const auto lost = [&](std::int64_t row) { return std::isnan(out.values[(time * 4 + row) * width]); };
      EXPECT_EQ(lost(0), time > 0);
      EXPECT_EQ(lost(2), time > 1);
      EXPECT_EQ(lost(3), time > 1 || (time == 1 && out.reached[3] < 0.25));
    }
    EXPECT_NEAR(out.reached[2], 0.5, fixed ? 0.03 : 1e-9);
  }
  const auto together = integrate<TypeParam>(field, {0, 1}, times, {.control = Control::batch});
  EXPECT_EQ(together.status, std::vector<Status>(2, Status::not_finite)) << "one system";
}

TYPED_TEST(Ode, NumbersWhoseSquaresLeaveTheRangeAreIntegrated) {
  using T = typename TypeParam::T;
  constexpr bool single = std::is_same_v<T, float>;
  for (const double slope : {0.0, single ? 1e-38 : 1e-300, single ? 1e37 : 1e150, single ? 1e37 : 1e300})
    for (const double end : {1.0, single ? 1e30 : 1e160, single ? 1e37 : 1e300}) {
      if (slope > 1 && end > 1) continue;  // the solution leaves the range itself
      const FieldOf<T> field = [&](std::int64_t, double, const T*, T* F) {
        for (std::int64_t j = 0; j < width; ++j) F[j] = static_cast<T>(slope);
      };
      for (const Control control : {Control::rows, Control::batch}) {
        const auto out = integrate<TypeParam>(field, {0, 1}, {0, end}, {.atol = 1e-9, .control = control});
        EXPECT_EQ(out.status, std::vector<Status>(2, Status::finished)) << slope << " to " << end;
        EXPECT_LT(out.evaluations[0], 2000);
      }
    }
}

TYPED_TEST(Ode, StepsRunOutAndASolveCanBeCancelled) {
  using T = typename TypeParam::T;
  const auto field = decay<T>({1, 500});
  const auto short_ = integrate<TypeParam>(field, {0, 1}, {0, 1}, {.max_steps = 30});
  EXPECT_EQ(short_.status, (std::vector<Status>{Status::finished, Status::out_of_steps}));
  EXPECT_EQ(short_.accepted[1] + short_.rejected[1], 30);
  EXPECT_TRUE(std::isnan(short_.values[3 * width]));
  const auto cancelled = integrate<TypeParam>(field, {0, 1}, {0, 1}, {}, 20);
  EXPECT_EQ(cancelled.status[1], Status::cancelled);
  EXPECT_EQ(cancelled.counts.questions, 20);
  EXPECT_TRUE(std::isnan(cancelled.values[3 * width]));
}

TYPED_TEST(Ode, StartsAtZeroAndAtRestAreQuick) {
  using T = typename TypeParam::T;
  const FieldOf<T> towards_one = [](std::int64_t row, double, const T* z, T* F) {
    for (std::int64_t j = 0; j < width; ++j) F[j] = row == 0 ? T(1) - z[j] : T(0);
  };
  auto queue = TypeParam::make();
  using Solver = OdeSolve<typename TypeParam::Queue, T>;
  const OdeOptions options = {};
  const HostBuffer memory(Solver::scratch_bytes(2, width, options));
  Arena arena = memory.arena();
  Solver solver(queue, 2, width, options, arena);
  const Block<T> z0(2, width);
  Block<T> values(4, width), answers(2, width);
  std::vector<Status> status(2);
  std::vector<std::int32_t> evaluations(2), accepted(2), rejected(2);
  std::vector<double> reached(2);
  const double times[] = {0, 1};
  auto question = solver.start(z0.view(), times, 2, values.view().slice(0, 2), 2 * width,
                               {status.data(), evaluations.data(), accepted.data(), rejected.data(), reached.data()});
  while (question) {
    for (std::int64_t i = 0; i < question.count; ++i)
      towards_one(question.rows[i], question.time[i], question.at[i], &answers(i, 0));
    question = solver.advance(std::as_const(answers).view().slice(0, question.count));
  }
  EXPECT_NEAR(values(2, 0), 1 - std::exp(-1.0), 1e-3);
  EXPECT_LE(evaluations[0], 26);
  EXPECT_EQ(evaluations[1], 8) << "one step, where nothing moves";
}

TYPED_TEST(Ode, TilesThatGoTogetherHaveTheBitsOfTheWhole) {
  using T = typename TypeParam::T;
  if constexpr (std::is_same_v<typename TypeParam::Queue, CpuQueue>) {
    const auto field = decay<T>({1, 20, 5, 0.1, 3});
    const std::vector<double> times = {0, 0.4, 1};
    const OdeOptions options = {.control = Control::batch};
    const auto whole = integrate<TypeParam>(field, {0, 1, 2, 3, 4}, times, options);
    std::vector<double> measure(5), slope(5);
    std::vector<T> values(3 * 5 * width);
    std::vector<Status> status(5);
    std::vector<std::int32_t> evaluations(5), accepted(5), rejected(5);
    std::vector<double> reached(5);
    const OdeReport report = {status.data(), evaluations.data(), accepted.data(), rejected.data(), reached.data()};
    Block<T> z0(5, width), answers(5, width);
    for (std::int64_t i = 0; i < 5; ++i)
      for (std::int64_t j = 0; j < width; ++j) z0(i, j) = static_cast<T>(std::cos(1.0 + 2.0 * i + j));
    auto queue = TypeParam::make();
    const HostBuffer memory(2 * OdeSolve<CpuQueue, T>::scratch_bytes(5, width, options));
    Arena arena = memory.arena();
    const std::int64_t firsts[] = {0, 2, 5};
    std::vector<std::unique_ptr<OdeSolve<CpuQueue, T>>> tiles;
    for (int k = 0; k < 2; ++k) {
      const std::int64_t first = firsts[k], count = firsts[k + 1] - first;
      tiles.push_back(std::make_unique<OdeSolve<CpuQueue, T>>(
          queue, count, width, options, arena,
          OdeBatch{.measure = measure.data(), .slope = slope.data(), .rows = 5, .first = first}));
      tiles[k]->start(std::as_const(z0).view().slice(first, count), times.data(), 3,
                      dense_rows(values.data() + first * width, count, width), 5 * width, report.slice(first));
    }
    while (tiles[0]->question()) {
      bool measured = false;
      for (int k = 0; k < 2; ++k) {
        const Question<T> question = tiles[k]->question();
        for (std::int64_t i = 0; i < question.count; ++i)
          field(firsts[k] + question.rows[i], question.time[i], question.at[i], &answers(i, 0));
        measured = tiles[k]->absorb(std::as_const(answers).view().slice(0, question.count));
      }
      for (int k = 0; measured && k < 2; ++k) tiles[k]->settle();
    }
    EXPECT_TRUE(same_bits(values, whole.values));
    EXPECT_EQ(evaluations, whole.evaluations);
  }
}

TYPED_TEST(Ode, OptionsAndSizesOutOfRangeAreRefusedByName) {
  using T = typename TypeParam::T;
  using Solver = OdeSolve<typename TypeParam::Queue, T>;
  const double nan = std::numeric_limits<double>::quiet_NaN(), infinity = std::numeric_limits<double>::infinity();
  const auto make = [](const OdeOptions& options) { return [=] { Solver::scratch_bytes(3, 4, options); }; };
  for (const OdeMethod method : {OdeMethod::euler, OdeMethod::midpoint, OdeMethod::rk4})
    EXPECT_TRUE(refuses("steps", make({.method = method})));
  EXPECT_TRUE(refuses("steps", make({.steps = -1})));
  for (const double rtol : {0.0, -1.0, nan, infinity}) EXPECT_TRUE(refuses("rtol", make({.rtol = rtol})));
  for (const double atol : {-1.0, nan, infinity}) EXPECT_TRUE(refuses("atol", make({.atol = atol})));
  for (const double step : {-1.0, nan, infinity}) EXPECT_TRUE(refuses("first_step", make({.first_step = step})));
  EXPECT_TRUE(refuses("max_steps", make({.max_steps = 0})));
  EXPECT_TRUE(refuses("look_every", make({.look_every = 0})));
  EXPECT_TRUE(refuses("rows", [] { Solver::scratch_bytes(0, 4, {}); }));
  EXPECT_TRUE(refuses("width", [] { Solver::scratch_bytes(4, 0, {}); }));
  EXPECT_TRUE(refuses("stage", [] { stage_weights(OdeMethod::rk4, 5); }));
  EXPECT_TRUE(refuses("advance", [] {
    auto queue = TypeParam::make();
    const HostBuffer memory(Solver::scratch_bytes(1, 1, {}));
    Arena arena = memory.arena();
    Solver solver(queue, 1, 1, {}, arena);
    const T answer = 0;
    solver.advance({&answer, 1, 1, 1});
  }));
  if constexpr (std::is_same_v<typename TypeParam::Queue, CpuQueue>) {
    for (const std::vector<double>& times :
         {std::vector<double>{0}, {0, 0}, {0, 1, 0.5}, {1, 0, 0.5}, {0, nan}, {0, infinity}})
      EXPECT_TRUE(refuses("times", [&] { integrate<TypeParam>(decay<T>({1}), {0}, times, {}); }));
  }
}

}  // namespace
}  // namespace deqcore::test

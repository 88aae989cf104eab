// SPDX-License-Identifier: Apache-2.0
#include "deqcore/kernels/stages.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "block.hpp"
#include "queues.hpp"
#include "row_states.hpp"
#include "shapes.hpp"

namespace deqcore::test {
namespace {

template <class Entry>
class StageKernels : public ::testing::Test {};
TYPED_TEST_SUITE(StageKernels, Types<Queues>, Names);

constexpr double weights[most_stages] = {0.3, 0, -0.7, 0.2, 0.05, 1.1, -0.4};

// What kernels keep by row, and the stages of one batch.
template <class T>
struct Steps {
  Steps(Random& random, const Shape& shape, int stages_, bool swaps)
      : rows(shape.rows),
        width(shape.width),
        z(Block<T>::random(random, rows, width, shape.gap)),
        at(Block<T>::random(random, rows, width, shape.gap)),
        answer(Block<T>::random(random, rows, width, 1)),
        active(ActiveBuffer::all(rows)) {
    for (int s = 0; s < stages_; ++s) blocks.push_back(Block<T>::random(random, rows, width, s % 3));
    stages.stages = stages_;
    stages.swaps = swaps;
    for (int s = 0; s < stages_; ++s) stages.block[s] = blocks[s].view();
    for (std::vector<double>* numbers : {&reached, &h, &taken, &before, &measure, &slope})
      for (std::int64_t row = 0; row < rows; ++row) numbers->push_back(random.uniform(0.1, 0.4));
    for (std::int64_t row = 0; row < rows; ++row) swapped[row] = static_cast<std::int8_t>(swaps && row % 2);
  }

  OdeStates view() {
    return {.report = {.status = status.data(),
                       .evaluations = evaluations.data(),
                       .accepted = accepted.data(),
                       .rejected = rejected.data(),
                       .reached = reached.data()},
            .h = h.data(),
            .taken = taken.data(),
            .before = before.data(),
            .measure = measure.data(),
            .slope = slope.data(),
            .from = from.data(),
            .next = next.data(),
            .after_rejection = after_rejection.data(),
            .swapped = swapped.data(),
            .event = event.data(),
            .failed = &failed};
  }

  // K_stage of a row, as the kernels must find it
  double stage(int s, std::int64_t row, std::int64_t j) const {
    const int last = stages.stages - 1;
    const bool other = stages.swaps && swapped[row];
    return blocks[other && s == 0 ? last : other && s == last ? 0 : s](row, j);
  }

  double sum(int count, const double* factors, std::int64_t row, std::int64_t j) const {
    double total = 0;
    for (int s = 0; s < count; ++s) total += factors[s] * stage(s, row, j);
    return total;
  }

  std::int64_t rows, width;
  Block<T> z, at, answer;
  std::vector<Block<T>> blocks;
  StageBlocks<T> stages;
  ActiveBuffer active;
  std::vector<Status> status = std::vector<Status>(rows, Status::running);
  std::vector<std::int32_t> evaluations = std::vector<std::int32_t>(rows, 3),
                            accepted = std::vector<std::int32_t>(rows), rejected = accepted,
                            from = std::vector<std::int32_t>(rows, 1), next = from;
  std::vector<double> reached, h, taken, before, measure, slope;
  std::vector<std::int8_t> after_rejection = std::vector<std::int8_t>(rows), swapped = after_rejection;
  std::vector<StepEvent> event = std::vector<StepEvent>(rows, StepEvent::none);
  std::int64_t failed = 0;
};

// Without weights of the error.
template <class T>
MeasureStep<T> measure_step(Steps<T>& s, double rtol, double atol) {
  return {.rows = s.active.view(),
          .fixed = false,
          .relax = false,
          .rtol = rtol,
          .atol = atol,
          .errors = {},
          .answer = std::as_const(s.answer).view(),
          .at = std::as_const(s.at).view(),
          .z = std::as_const(s.z).view(),
          .stages = s.stages,
          .states = s.view()};
}

template <class T>
double rounding(double size) {
  return 20 * std::numeric_limits<T>::epsilon() * (1 + size);
}

TYPED_TEST(StageKernels, PoseStageIsTheFormula) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  Random random(300);
  for (const Shape& shape : shapes())
    for (const int stage : {-1, 0, 3, 5})
      for (const bool relax : {false, true}) {
        DEQCORE_TRACE_SHAPE(shape);
        Steps<T> s(random, shape, 7, true);
        if (s.rows > 2) s.status[1] = Status::finished;
        const Steps<T> old = s;
        std::vector<double> time(s.rows, -1);
        PoseStage<T> kernel = {.rows = s.active.view(),
                               .stage = stage,
                               .relax = relax,
                               .weights = {},
                               .c = 0.25,
                               .asked = std::as_const(s.at).view(),
                               .answer = stage < 0 ? Rows<const T>{} : std::as_const(s.answer).view(),
                               .z = std::as_const(s.z).view(),
                               .at = s.at.view(),
                               .time = time.data(),
                               .stages = s.stages,
                               .states = s.view()};
        std::copy_n(weights, most_stages, kernel.weights);
        run(queue, kernel);
        for (std::int64_t row = 0; row < s.rows; ++row) {
          const bool runs = s.status[row] == Status::running;
          EXPECT_DOUBLE_EQ(time[row], old.reached[row] + (runs ? 0.25 * old.h[row] : 0));
          EXPECT_EQ(s.evaluations[row], 3 + (runs && stage >= 0 ? 1 : 0));
          for (std::int64_t j = 0; j < s.width; ++j) {
            const double value = static_cast<double>(old.answer(row, j)) - (relax ? old.at(row, j) : T(0));
            if (stage >= 0 && runs) {
              ASSERT_NEAR(s.stage(stage, row, j), value, rounding<T>(std::abs(value)));
            }
            const double sum = s.sum(stage < 0 ? 7 : stage + 1, weights, row, j);
            ASSERT_NEAR(s.at(row, j), old.z(row, j) + (runs ? old.h[row] * sum : 0), rounding<T>(10));
          }
        }
        EXPECT_TRUE(s.at.gaps_intact());
        for (const Block<T>& block : s.blocks) EXPECT_TRUE(block.gaps_intact());
      }
}

TYPED_TEST(StageKernels, MeasureStartIsTheMeanSquare) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  Random random(301);
  for (const Shape& shape : shapes())
    for (const bool relax : {false, true}) {
      DEQCORE_TRACE_SHAPE(shape);
      Steps<T> s(random, shape, 4, true);
      run(queue, MeasureStart<T>{.rows = s.active.view(),
                                 .rtol = 0.1,
                                 .atol = 0.02,
                                 .relax = relax,
                                 .at = std::as_const(s.at).view(),
                                 .answer = std::as_const(s.answer).view(),
                                 .stages = s.stages,
                                 .states = s.view()});
      for (std::int64_t row = 0; row < s.rows; ++row) {
        long double of_z = 0, of_F = 0;
        for (std::int64_t j = 0; j < s.width; ++j) {
          const double z = s.at(row, j), F = s.stage(0, row, j), tolerance = 0.02 + 0.1 * std::abs(z);
          ASSERT_NEAR(F, static_cast<double>(s.answer(row, j)) - (relax ? z : 0), rounding<T>(10));
          of_z += z / tolerance * (z / tolerance);
          of_F += F / tolerance * (F / tolerance);
        }
        const auto width = static_cast<long double>(s.width);
        EXPECT_NEAR(s.measure[row], static_cast<double>(of_z / width), 1e-12 * static_cast<double>(of_z));
        EXPECT_NEAR(s.slope[row], static_cast<double>(of_F / width), 1e-12 * static_cast<double>(of_F));
        EXPECT_EQ(s.evaluations[row], 4);
      }
    }
}

TYPED_TEST(StageKernels, MeasureProbeIsTheMeanSquareOfTheChange) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  Random random(302);
  for (const Shape& shape : shapes())
    for (const bool relax : {false, true}) {
      DEQCORE_TRACE_SHAPE(shape);
      Steps<T> s(random, shape, 4, true);
      run(queue, MeasureProbe<T>{.rows = s.active.view(),
                                 .rtol = 0.1,
                                 .atol = 0.02,
                                 .relax = relax,
                                 .at = std::as_const(s.at).view(),
                                 .answer = std::as_const(s.answer).view(),
                                 .z = std::as_const(s.z).view(),
                                 .stages = s.stages,
                                 .states = s.view()});
      for (std::int64_t row = 0; row < s.rows; ++row) {
        long double sum = 0;
        for (std::int64_t j = 0; j < s.width; ++j) {
          const double change = static_cast<double>(s.answer(row, j)) -
                                (relax ? static_cast<double>(s.at(row, j)) : 0) - s.stage(0, row, j);
          const double scaled = change / (0.02 + 0.1 * std::abs(static_cast<double>(s.z(row, j))));
          sum += scaled * scaled;
        }
        EXPECT_NEAR(s.measure[row], static_cast<double>(sum / static_cast<long double>(s.width)),
                    1e-12 * static_cast<double>(sum));
      }
    }
}

TYPED_TEST(StageKernels, MeasureStepIsTheErrorAgainstTheTolerance) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  Random random(303);
  for (const Shape& shape : shapes())
    for (const int stages : {4, 7})
      for (const bool relax : {false, true}) {
        DEQCORE_TRACE_SHAPE(shape);
        Steps<T> s(random, shape, stages, true);
        MeasureStep<T> kernel = measure_step(s, 0.1, 0.02);
        kernel.relax = relax;
        std::copy_n(weights, stages, kernel.errors);
        run(queue, kernel);
        for (std::int64_t row = 0; row < s.rows; ++row) {
          long double sum = 0;
          for (std::int64_t j = 0; j < s.width; ++j) {
            ASSERT_NEAR(s.stage(stages - 1, row, j),
                        static_cast<double>(s.answer(row, j)) - (relax ? static_cast<double>(s.at(row, j)) : 0),
                        rounding<T>(10));
            const double size = std::max(std::abs(s.z(row, j)), std::abs(s.at(row, j)));
            const double scaled = s.h[row] * s.sum(stages, weights, row, j) / (0.02 + 0.1 * size);
            sum += scaled * scaled;
          }
          const double mean = static_cast<double>(sum / static_cast<long double>(s.width));
          EXPECT_NEAR(s.measure[row], mean, 100 * std::numeric_limits<T>::epsilon() * (mean + 1));
        }
      }
}

// Squares, and quotients with the tolerance, that leave the range of double: a mean is finite where the numbers are.
TYPED_TEST(StageKernels, MeansAreFiniteWhereTheNumbersAre) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  Random random(306);
  constexpr bool single = std::is_same_v<T, float>;
  const double huge = single ? 1e38 : 1e250, tiny = single ? 1e-38 : 1e-250;
  const auto measure = [&](Steps<T>& s, double atol) {
    MeasureStep<T> kernel = measure_step(s, 0, atol);
    kernel.errors[3] = 1;
    run(queue, kernel);
  };
  for (const std::int64_t width : {1, 7, 33}) {
    Steps<T> s(random, {.rows = 3, .width = width, .gap = 1}, 4, true);
    for (std::int64_t row = 0; row < 3; ++row)
      for (std::int64_t j = 0; j < width; ++j) s.answer(row, j) = static_cast<T>(row == 0 ? huge : row == 1 ? tiny : 0);
    s.h = {tiny, huge, 1e300};
    measure(s, 1);
    EXPECT_NEAR(s.measure[0], 1, 1e-6);
    EXPECT_NEAR(s.measure[1], 1, 1e-6);
    EXPECT_EQ(s.measure[2], 0);
    s.h = {1e200, 1, 1};
    measure(s, 1e-100);
    EXPECT_EQ(s.measure[0], row_math::most_mean);
    run(queue, MeasureStart<T>{.rows = s.active.view(),
                               .rtol = 0,
                               .atol = 1e-250,
                               .relax = false,
                               .at = std::as_const(s.at).view(),
                               .answer = std::as_const(s.answer).view(),
                               .stages = s.stages,
                               .states = s.view()});
    EXPECT_EQ(s.slope[0], row_math::most_mean);
    s.answer(0, width - 1) = std::numeric_limits<T>::infinity();
    s.answer(1, 0) = std::numeric_limits<T>::quiet_NaN();
    measure(s, 1);
    for (int row = 0; row < 2; ++row) EXPECT_FALSE(std::isfinite(s.measure[row]));
    run(queue, MeasureProbe<T>{.rows = s.active.view(),
                               .rtol = 0,
                               .atol = 1e-300,
                               .relax = false,
                               .at = std::as_const(s.at).view(),
                               .answer = std::as_const(s.answer).view(),
                               .z = std::as_const(s.z).view(),
                               .stages = s.stages,
                               .states = s.view()});
    for (int row = 0; row < 2; ++row) EXPECT_FALSE(std::isfinite(s.measure[row]));
    EXPECT_TRUE(std::isfinite(s.measure[2]));
  }
}

TYPED_TEST(StageKernels, AFixedStepIsLookedAtForWhatIsNotFinite) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  Random random(304);
  for (const Shape& shape : shapes()) {
    Steps<T> s(random, shape, 4, false);
    s.at(0, s.width - 1) = std::numeric_limits<T>::infinity();
    run(queue, MeasureStep<T>{.rows = s.active.view(),
                              .fixed = true,
                              .relax = false,
                              .rtol = 0,
                              .atol = 0,
                              .errors = {},
                              .answer = {},
                              .at = std::as_const(s.at).view(),
                              .z = std::as_const(s.z).view(),
                              .stages = s.stages,
                              .states = s.view()});
    EXPECT_TRUE(std::isnan(s.measure[0]));
    for (std::int64_t row = 1; row < s.rows; ++row) EXPECT_EQ(s.measure[row], 0);
  }
}

TYPED_TEST(StageKernels, TakeStepInterpolatesAndFillsWhatWasNotReached) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  Random random(305);
  const std::vector<double> times = {0, 0.25, 0.5, 1, 2};
  for (const Shape& shape : shapes()) {
    DEQCORE_TRACE_SHAPE(shape);
    Steps<T> s(random, shape, 7, true);
    const auto count = static_cast<std::int32_t>(times.size());
    Block<T> values(s.rows * count, s.width, 0, T(-3));
    for (std::int64_t row = 0; row < s.rows; ++row) {
      s.event[row] = StepEvent::accepted;
      s.before[row] = 0.125;
      s.taken[row] = 0.875;
      s.reached[row] = 1;
      s.from[row] = 1;
      s.next[row] = 4;
    }
    if (s.rows > 2) {
      s.event[1] = StepEvent::rejected;
      s.event[2] = StepEvent::failed;
      s.status[2] = Status::step_underflow;
    }
    const Steps<T> old = s;
    TakeStep<T> kernel = {.rows = s.active.view(),
                          .times = times.data(),
                          .count = count,
                          .powers = {},
                          .at = std::as_const(s.at).view(),
                          .z = s.z.view(),
                          .values = values.view().slice(0, s.rows),
                          .stride = s.rows * s.width,
                          .stages = s.stages,
                          .states = s.view()};
    for (int k = 0; k < 7; ++k)
      for (int p = 0; p < most_powers; ++p) kernel.powers[k][p] = std::cos(1.0 + k + 3 * p);
    run(queue, kernel);
    for (std::int64_t row = 0; row < s.rows; ++row)
      for (std::int64_t j = 0; j < s.width; ++j) {
        const auto at_time = [&](std::int64_t time) { return values(time * s.rows + row, j); };
        EXPECT_EQ(at_time(0), T(-3));
        if (old.event[row] == StepEvent::accepted) {
          for (const std::int64_t time : {1, 2}) {
            const double theta = (times[time] - 0.125) / 0.875;
            double sum = 0;
            // the judgement has swapped the stages: they are found as before it
            for (int k = 0; k < 7; ++k) {
              double power = 0;
              for (int p = 0; p < most_powers; ++p) power += kernel.powers[k][p] * std::pow(theta, p + 1);
              const int place = old.swapped[row] ? k : k == 0 ? 6 : k == 6 ? 0 : k;
              sum += power * old.blocks[place](row, j);
            }
            ASSERT_NEAR(at_time(time), old.z(row, j) + 0.875 * sum, rounding<T>(40));
          }
          ASSERT_EQ(at_time(3), old.at(row, j));
          ASSERT_EQ(at_time(4), T(-3));
          ASSERT_EQ(s.z(row, j), old.at(row, j));
        } else {
          ASSERT_EQ(s.z(row, j), old.z(row, j));
          ASSERT_EQ(std::isnan(at_time(4)), old.event[row] == StepEvent::failed);
          ASSERT_EQ(at_time(3), T(-3));
        }
      }
    EXPECT_TRUE(s.z.gaps_intact());
  }
}

TYPED_TEST(StageKernels, JudgeStepByRowsAndByTheBatch) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  Random random(306);
  const std::vector<double> times = {0, 10};
  for (const std::int64_t rows : {1, 4, 700})
    for (const bool together : {false, true}) {
      Steps<T> s(random, {rows, 1, 0}, 7, true);
      for (std::int64_t row = 0; row < rows; ++row) s.measure[row] = row % 2 ? 4.0 : 0.25;
      const double mean = std::accumulate(s.measure.begin(), s.measure.end(), 0.0) / static_cast<double>(rows);
      const Steps<T> old = s;
      Progress progress;
      run(queue, JudgeStep<T>{.rows = s.active.view(),
                              .rules = {.times = times.data(),
                                        .count = 2,
                                        .rtol = 1e-3,
                                        .atol = 1e-6,
                                        .order = 5,
                                        .max_steps = 100,
                                        .batch_measure = together ? s.measure.data() : nullptr,
                                        .batch = rows},
                              .states = s.view(),
                              .stages = s.stages,
                              .progress = &progress});
      EXPECT_EQ(progress.running, rows);
      for (std::int64_t row = 0; row < rows; ++row) {
        const double error = std::sqrt(together ? mean : old.measure[row]);
        const bool accepts = error <= 1;
        EXPECT_EQ(s.event[row], accepts ? StepEvent::accepted : StepEvent::rejected);
        EXPECT_EQ(s.accepted[row], accepts ? 1 : 0);
        EXPECT_EQ(s.rejected[row], accepts ? 0 : 1);
        EXPECT_EQ(s.swapped[row] != old.swapped[row], accepts);
        EXPECT_EQ(s.reached[row], old.reached[row] + (accepts ? old.h[row] : 0));
        EXPECT_NEAR(s.h[row], old.h[row] * 0.9 * std::pow(error, -0.2), 1e-12);
      }
    }
}

TYPED_TEST(StageKernels, PseudoTimeComparesTheErrorWithTheStep) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  Random random(307);
  for (const Shape& shape : shapes()) {
    DEQCORE_TRACE_SHAPE(shape);
    Steps<T> s(random, shape, 4, true);
    std::vector<Trial> trial(s.rows, Trial::last);
    for (std::int64_t row = 0; row < s.rows; row += 3) s.h[row] = 1e-3 * std::numeric_limits<T>::epsilon();
    MeasurePseudo<T> kernel = {.rows = s.active.view(),
                               .accuracy = 0.5,
                               .errors = {},
                               .answer = std::as_const(s.answer).view(),
                               .at = std::as_const(s.at).view(),
                               .z = std::as_const(s.z).view(),
                               .trial = trial.data(),
                               .stages = s.stages,
                               .states = s.view()};
    std::copy_n(weights, 4, kernel.errors);
    run(queue, kernel);
    for (std::int64_t row = 0; row < s.rows; ++row) {
      long double error = 0, slope = 0;
      for (std::int64_t j = 0; j < s.width; ++j) {
        ASSERT_NEAR(s.stage(3, row, j), static_cast<double>(s.answer(row, j)) - static_cast<double>(s.at(row, j)),
                    rounding<T>(10));
        error += std::pow(s.sum(4, weights, row, j), 2);
        slope += std::pow(s.stage(0, row, j), 2);
      }
      const auto ratio = static_cast<double>(error / slope / 0.25L);
      EXPECT_NEAR(s.measure[row], ratio, 1e3 * std::numeric_limits<T>::epsilon() * (ratio + 1));
      EXPECT_EQ(trial[row], s.measure[row] <= 1 ? Trial::no : row % 3 == 0 ? Trial::last : Trial::yes);
      s.measure[row] = row % 2 ? 4 : 0.25;
    }
    const Steps<T> old = s;
    run(queue, JudgePseudo<T>{.rows = s.active.view(), .order = 3, .states = s.view()});
    for (std::int64_t row = 0; row < s.rows; ++row) {
      EXPECT_EQ(s.event[row], row % 2 ? StepEvent::rejected : StepEvent::accepted);
      EXPECT_EQ(s.rejected[row], row % 2);
      EXPECT_EQ(s.swapped[row] != old.swapped[row], row % 2 == 0);
      EXPECT_NEAR(s.h[row], old.h[row] * 0.9 * std::pow(row % 2 ? 2 : 0.5, -1.0 / 3), 1e-12);
    }
    run(queue, BeginPseudo<T>{.rows = s.rows, .h = 0.75, .states = s.view()});
    EXPECT_EQ(s.h, std::vector<double>(s.rows, 0.75));
    EXPECT_EQ(s.event, std::vector<StepEvent>(s.rows, StepEvent::accepted));
  }
}

// Rows that have left: what is asked and answered stands where it stood before.
TYPED_TEST(StageKernels, RowsAreFoundWhereTheyStoodBefore) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  Random random(308);
  const Shape shape = {6, 33, 1};
  Steps<T> s(random, shape, 4, true);
  const ActiveBuffer left = ActiveBuffer::odd_rows_left(6);
  Block<T> next(3, 33, 2);
  std::vector<double> time(3);
  PoseStage<T> kernel = {.rows = left.view(),
                         .stage = 1,
                         .relax = true,
                         .weights = {},
                         .c = 0,
                         .asked = std::as_const(s.at).view(),
                         .answer = std::as_const(s.answer).view(),
                         .z = std::as_const(s.z).view(),
                         .at = next.view(),
                         .time = time.data(),
                         .stages = s.stages,
                         .states = s.view()};
  std::copy_n(weights, most_stages, kernel.weights);
  run(queue, kernel);
  for (std::int64_t i = 0; i < 3; ++i)
    for (std::int64_t j = 0; j < 33; ++j) {
      const std::int64_t row = 2 * i + 1;
      ASSERT_NEAR(s.stage(1, row, j), static_cast<double>(s.answer(row, j)) - static_cast<double>(s.at(row, j)),
                  rounding<T>(10));
      ASSERT_NEAR(next(i, j), s.z(row, j) + s.h[row] * s.sum(2, weights, row, j), rounding<T>(10));
    }
}

TEST(StepMath, NthRootIsTheRoot) {
  for (const double x : {0.0, 1e-300, 1e-9, 0.3, 1.0, 1.7, 1e6, 1e300})
    for (const int n : {2, 3, 5}) {
      const double root = row_math::nth_root(x, n);
      EXPECT_NEAR(std::pow(root, n), x, 1e-14 * x) << n;
    }
  EXPECT_TRUE(std::isinf(row_math::nth_root(std::numeric_limits<double>::infinity(), 5)));
}

TEST(StepMath, TheFirstStepFromZeroIsDecidedBySlopeAlone) {
  const double slope = 1e6;  // of F against atol 1e-6
  EXPECT_NEAR(row_math::probe_step(0, slope, 5, 1e-6), std::pow(0.01 / slope, 0.2), 1e-12);
  EXPECT_EQ(row_math::probe_step(1e6, slope, 5, 1e-6), 0.01);
  EXPECT_TRUE(std::isinf(row_math::probe_step(1e6, 0, 5, 1e-6)));
  EXPECT_GT(row_math::first_step(row_math::probe_step(0, slope, 5, 1e-6), slope, 0, 5), 0.01);
}

}  // namespace
}  // namespace deqcore::test

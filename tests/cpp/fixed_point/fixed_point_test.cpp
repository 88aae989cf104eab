// SPDX-License-Identifier: Apache-2.0
#include "deqcore/fixed_point/fixed_point.hpp"

#include <gtest/gtest.h>

#include "dialogue_checks.hpp"

namespace deqcore::test {
namespace {

const bool registered = register_dialogues<Forward>(static_cast<SolverQueues*>(nullptr));

template <class Case>
class FixedPointOnly : public ::testing::Test {};
TYPED_TEST_SUITE(FixedPointOnly, SerialCases<Forward>, Names);

TYPED_TEST(FixedPointOnly, AStartOfTheWrongShapeIsRefused) {
  using T = typename TypeParam::T;
  Solve<TypeParam> solve(different_speeds<T>());
  const Block<T> good = solve.start_point;
  for (const auto& [rows, width] : {std::pair{solve.rows + 1, solve.width}, {solve.rows, solve.width - 1}}) {
    solve.start_point = Block<T>(rows, width);
    EXPECT_TRUE(refuses("z0", [&] { solve.start(); }));
  }
  solve.start_point = good;
  EXPECT_TRUE(same_answer(solve.run(), Solve<TypeParam>(different_speeds<T>()).run()));
}

TYPED_TEST(FixedPointOnly, AResultThatOverlapsTheStartIsRefused) {
  using T = typename TypeParam::T;
  Solve<TypeParam> solve(different_speeds<T>());
  const std::int64_t n = solve.rows * solve.width;
  std::vector<T> memory(2 * n, T(0.5));
  const auto at = [&](std::int64_t offset) { return dense_rows(memory.data() + offset, solve.rows, solve.width); };
  const auto start = [&](std::int64_t z0, std::int64_t result) {
    solve.solver->start(at(z0), at(result), solve.report.view());
  };
  EXPECT_TRUE(refuses("result", [&] { start(0, 0); }));
  EXPECT_TRUE(refuses("result", [&] { start(0, n - 1); }));
  EXPECT_TRUE(refuses("result", [&] { start(n - 1, 0); }));
  EXPECT_NO_THROW(start(0, n));
  EXPECT_NO_THROW(start(n, 0));
}

TYPED_TEST(FixedPointOnly, AnAnswerThatOverlapsTheQuestionIsRefused) {
  Solve<TypeParam> solve(different_speeds<typename TypeParam::T>());
  const auto question = solve.start();
  EXPECT_TRUE(refuses("answer", [&] { solve.solver->advance(question.at); }));
  auto shifted = question.at;
  shifted.data += 1;
  EXPECT_TRUE(refuses("answer", [&] { solve.solver->advance(shifted); }));
  solve.run_to_end(solve.solver->advance(solve.answer(question)));
  EXPECT_TRUE(same_answer(solve.outcome_now(), Solve<TypeParam>(different_speeds<typename TypeParam::T>()).run()));
}

TYPED_TEST(FixedPointOnly, QuestionsAskForValuesAtDenseRows) {
  Solve<TypeParam> solve(different_speeds<typename TypeParam::T>());
  auto question = solve.start();
  EXPECT_TRUE(same_bits(question.at.data, solve.start_point.view().data, solve.rows * solve.width));
  const auto* const first = solve.solver->block(0).data;
  const auto* const second = solve.solver->block(1).data;
  for (int step = 0; question; ++step) {
    EXPECT_EQ(question.kind, Ask::value);
    EXPECT_EQ(question.at.rows, question.count);
    EXPECT_EQ(question.at.width, solve.width);
    EXPECT_EQ(question.at.pitch, solve.width);
    EXPECT_EQ(question.at.data, step % 2 ? second : first);
    EXPECT_EQ(question.along.data, nullptr);
    EXPECT_EQ(question.time, nullptr);
    question = solve.solver->advance(solve.answer(question));
  }
  EXPECT_EQ(question.kind, Ask::done);
  EXPECT_EQ(question.count, 0);
}

TYPED_TEST(FixedPointOnly, OneRowCanStartTheWholeBatch) {
  using T = typename TypeParam::T;
  const auto problem = different_speeds<T>();
  Solve<TypeParam> spread(problem), copied(problem);
  for (std::int64_t i = 0; i < copied.rows; ++i)
    for (std::int64_t j = 0; j < copied.width; ++j) copied.start_point(i, j) = spread.start_point(0, j);
  spread.run_to_end(spread.solver->start({spread.start_point.view().data, spread.rows, spread.width, 0},
                                         spread.result.view(), spread.report.view()));
  EXPECT_TRUE(same_bits(copied.run().value, spread.outcome_now().value));
}

TYPED_TEST(FixedPointOnly, AGivenScaleReplacesTheMeasuredOne) {
  using T = typename TypeParam::T;
  const auto problem = different_speeds<T>();
  Solve<TypeParam> solve(problem, {.stop = {.rtol = 1e-3, .relative = Relative::to_scale}});
  std::vector<double> scale(solve.rows, 1.0);
  scale[3] = 50;
  solve.run_to_end(
      solve.solver->start(solve.start_point.view(), solve.result.view(), solve.report.view(), scale.data()));
  EXPECT_EQ(solve.report.scale, scale);
  for (std::int64_t i = 0; i < solve.rows; ++i) {
    EXPECT_EQ(solve.report.status[i], Status::converged);
    EXPECT_LE(solve.report.residual[i], 1e-3 * scale[i]);
  }
  EXPECT_LT(solve.report.steps[3], Solve<TypeParam>(problem, {.stop = {.rtol = 1e-3}}).run().steps[3]);
}

TYPED_TEST(FixedPointOnly, TheScaleIsTheLargerOfStartAndFirstImage) {
  for (const Norm norm : {Norm::two, Norm::inf}) {
    Solve<TypeParam> solve(different_speeds<typename TypeParam::T>(), {.stop = {.norm = norm}});
    const auto outcome = solve.run();
    std::vector<typename TypeParam::T> f(solve.width);
    for (std::int64_t i = 0; i < solve.rows; ++i) {
      solve.problem.value(solve.ids[i], &solve.start_point(i, 0), f.data());
      const double start = textbook_norm(norm, solve.width, [&](std::int64_t j) { return solve.start_point(i, j); });
      const double image = textbook_norm(norm, solve.width, [&](std::int64_t j) { return f[j]; });
      EXPECT_NEAR(outcome.scale[i], std::max(start, image), 1e-13 * outcome.scale[i]);
    }
  }
}

TYPED_TEST(FixedPointOnly, ConvergedMeansWhatStopSays) {
  using T = typename TypeParam::T;
  for (const auto& [method_name, method] : methods_of<Forward>())
    for (const double rtol : {1e-2, 1e-4, 1e-6})
      for (const double atol : {0.0, 1e-2}) {
        SCOPED_TRACE(method_name);
        Solve<TypeParam> solve(different_speeds<T>(), {.stop = {.rtol = rtol, .atol = atol}}, method);
        const auto outcome = solve.run();
        std::vector<T> f(solve.width);
        for (std::int64_t i = 0; i < solve.rows; ++i) {
          ASSERT_EQ(outcome.status[i], Status::converged);
          solve.problem.value(solve.ids[i], &solve.result(i, 0), f.data());
          const double image = textbook_norm(Norm::two, solve.width, [&](std::int64_t j) { return f[j]; });
          EXPECT_LE(outcome.residual[i], (atol + rtol * std::min(image, 10 * outcome.scale[i])) * (1 + 1e-12));
        }
      }
}

TYPED_TEST(FixedPointOnly, SolveWithACallableIsTheSameDialogue) {
  using T = typename TypeParam::T;
  using Queue = typename TypeParam::Queue;
  const auto problem = different_speeds<T>();
  Solve<TypeParam> solve(problem);
  auto map = [&](Queue&, const Question<T>& question, Rows<T> answer) {
    for (std::int64_t i = 0; i < question.count; ++i) problem.value(question.rows[i], question.at[i], answer[i]);
  };
  const Block<T>& z0 = solve.start_point;
  deqcore::solve(solve.queue, *solve.solver, MapRef<Queue, T>(map), z0.view(), solve.result.view(), solve.report.view(),
                 solve.answers.view().data);
  EXPECT_TRUE(same_answer(solve.outcome_now(), Solve<TypeParam>(problem).run()));
}

// Retiring: the map is asked about little more than what each row needs alone.
TYPED_TEST(FixedPointOnly, ABatchCostsTheSumOfWhatItsRowsNeed) {
  const auto problem = different_speeds<typename TypeParam::T>(256, 32, 0.95);
  for (const auto& [method_name, method] : methods_of<Forward>()) {
    SCOPED_TRACE(method_name);
    const auto outcome = Solve<TypeParam>(problem, {.stop = {.rtol = 1e-6, .max_steps = 1000}}, method).run();
    std::int64_t needed = 0;
    for (const std::int32_t steps : outcome.steps) needed += steps;
    EXPECT_LE(static_cast<double>(outcome.map.rows), 1.15 * static_cast<double>(needed));
    EXPECT_LT(outcome.map.rows, problem.rows * outcome.longest() * 3 / 4);
  }
}

}  // namespace
}  // namespace deqcore::test

// SPDX-License-Identifier: Apache-2.0
// The checks that every solver gets, for every method, queue and type.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "deqcore/device/pool.hpp"
#include "dialogue.hpp"
#include "errors.hpp"

namespace deqcore::test {

template <class Case>
class Dialogue : public ::testing::Test {
 public:
  using Kind = typename Case::Kind;
  using Queue = typename Case::Queue;
  using T = typename Case::T;
  using Method = typename Kind::Method;
  using Check = void (Dialogue::*)();
  static constexpr bool newton = in_turns<Kind>;  // not every row has its turn in every question
  static constexpr bool backward = !newton && !std::is_same_v<Kind, Forward>;

  Dialogue(Check check, const Method& method) : check_(check), method_(method) {}

  void TestBody() override { (this->*check_)(); }

  void SolvingTwiceGivesTheSameBits() {
    auto solve = make(batch());
    const auto first = solve.run();
    EXPECT_EQ(first.status, std::vector<Status>(solve.rows, Status::converged));
    solve.result = Block<T>(solve.rows, solve.width);
    const auto second = solve.run();
    EXPECT_TRUE(same_answer(first, second));
    EXPECT_EQ(first.counts.questions, second.counts.questions);
    EXPECT_TRUE(same_answer(first, make(batch()).run())) << "another object";
  }

  void ARowAloneEqualsTheRowInABatch() {
    const auto problem = batch();
    const auto together = make(problem).run();
    for (std::int64_t row = 0; row < problem.rows; row += problem.rows > 12 ? 5 : 1) {
      const auto alone = make(problem, {.ids = {row}}).run();
      EXPECT_TRUE(same_row(alone, 0, together, row));
    }
  }

  void PermutingRowsPermutesResults() {
    const auto problem = batch();
    const auto together = make(problem).run();
    auto ids = first_rows(problem.rows);
    std::reverse(ids.begin(), ids.end());
    std::swap(ids[1], ids[4]);
    const auto permuted = make(problem, {.ids = ids}).run();
    for (std::int64_t i = 0; i < problem.rows; ++i) EXPECT_TRUE(same_row(permuted, i, together, ids[i]));
  }

  void LookingRetiringAndThreadsChangeNoBit() {
    const auto problem = batch();
    const auto reference = make(problem, {.stop = {.look_every = 1, .retire = Retire::off}, .threads = 1}).run();
    for (const std::int64_t look_every : {1, 2, 3, 7})
      for (const Retire retire : {Retire::off, Retire::on, Retire::halve}) {
        SCOPED_TRACE(::testing::Message() << "look_every " << look_every << ", retire " << static_cast<int>(retire));
        const Setting setting{.stop = {.look_every = look_every, .retire = retire}};
        EXPECT_TRUE(same_answer(reference, make(problem, setting).run()));
      }
    for (const int threads : {2, 3}) {
      SCOPED_TRACE(threads);
      EXPECT_TRUE(same_answer(reference, make(problem, {.threads = threads}).run()));
    }
  }

  void NothingAllocatesAfterConstruction() {
    parallel_for(2, 2, [](std::int64_t) {});  // the workers start once per process
    for (const Retire retire : {Retire::off, Retire::on}) {
      auto solve = make(batch(), {.stop = {.retire = retire}});
      const std::int64_t before = Case::allocations();
      solve.run_to_end(solve.start());
      EXPECT_EQ(Case::allocations(), before);
      EXPECT_EQ(solve.report.status[0], Status::converged);
    }
  }

  void TheStepLimitIsExact() {
    for (const std::int64_t max_steps : {1, 2, 5})
      for (const std::int64_t look_every : {1, 3}) {
        auto solve = make(batch(), {.stop = {.rtol = 1e-6, .max_steps = max_steps, .look_every = look_every}});
        const auto outcome = solve.run();
        EXPECT_EQ(outcome.map.calls, max_steps);
        EXPECT_EQ(outcome.longest(), max_steps);
        EXPECT_EQ(std::count(outcome.status.begin(), outcome.status.end(), Status::running), 0);
        for (std::int64_t i = 0; i < solve.rows; ++i)
          if (outcome.status[i] != Status::converged) {
            EXPECT_EQ(outcome.status[i], Status::out_of_steps);
            EXPECT_EQ(outcome.steps[i], max_steps);
          }
        EXPECT_GT(std::count(outcome.status.begin(), outcome.status.end(), Status::out_of_steps), 0);
      }
  }

  void AStepMoreChangesNoEarlierStep() {
    const auto problem = batch();
    const auto trace_of = [&](std::int64_t max_steps) {
      return make(problem, {.stop = {.rtol = 1e-6, .max_steps = max_steps}, .trace_steps = max_steps}).run().trace;
    };
    const auto three = trace_of(3), five = trace_of(5);
    const std::size_t to_measure = estimates(method_) ? problem.rows : 0;  // the last product of a shorter solve
    for (std::size_t i = 0; i < three.size() - to_measure; ++i) EXPECT_EQ(three[i], five[i]);
  }

  void AnAnswerOfTheWrongShapeIsRefusedAndTheSolveGoesOn() {
    const auto problem = batch();
    const auto expected = make(problem).run();
    auto solve = make(problem);
    auto question = solve.start();
    for (int step = 0; question; ++step) {
      const auto answer = solve.answer(question);
      if (step < 3) {
        auto fewer = answer, narrower = answer;
        fewer.rows -= 1;
        narrower.width -= 1;
        EXPECT_TRUE(refuses("answer", [&] { solve.solver->advance(fewer); }));
        EXPECT_TRUE(refuses("answer", [&] { solve.solver->advance(narrower); }));
      }
      question = solve.solver->advance(answer);
    }
    EXPECT_TRUE(same_answer(expected, solve.outcome_now()));
  }

  void AdvanceWithoutAnOpenQuestionIsRefused() {
    auto solve = make(batch());
    const auto answers = static_cast<const Block<T>&>(solve.answers).view();
    EXPECT_TRUE(refuses("advance", [&] { solve.solver->advance(answers); })) << "before start";
    solve.run();
    EXPECT_TRUE(refuses("advance", [&] { solve.solver->advance(answers); })) << "after the end";
    solve.start();
    solve.solver->cancel();
    EXPECT_TRUE(refuses("advance", [&] { solve.solver->advance(answers); })) << "after cancel";
    EXPECT_TRUE(same_answer(solve.run(), make(batch()).run()));
  }

  void AResultOfTheWrongShapeIsRefusedAndTheSolverStaysUsable() {
    const auto problem = batch();
    auto solve = make(problem);
    const Block<T> good = solve.result;
    const auto question = solve.start();
    solve.solver->advance(solve.answer(question));
    for (const auto& [rows, width] : {std::pair{solve.rows - 1, solve.width}, {solve.rows, solve.width + 1}}) {
      solve.result = Block<T>(rows, width);
      EXPECT_TRUE(refuses("result", [&] { solve.start(); }));
    }
    solve.result = good;
    EXPECT_TRUE(same_answer(solve.run(), make(problem).run()));
  }

  void UsableAfterAMapThatThrows() {
    const auto problem = batch();
    auto solve = make(problem);
    int calls = 0;
    const auto map = [&](auto&, const Question<T>& question, Rows<T> answer) {
      if (++calls == 3) throw std::domain_error("from the map");
      const auto right = solve.answer(question);
      for (std::int64_t i = 0; i < question.count; ++i) std::copy_n(right[i], solve.width, answer[i]);
    };
    Block<T> answers(solve.rows, solve.width);
    using Map = MapRef<Queue, T>;
    EXPECT_THROW(converse(solve.queue, *solve.solver, solve.start(), Map(map), answers.view().data), std::domain_error);
    EXPECT_EQ(calls, 3);
    EXPECT_TRUE(same_answer(solve.run(), make(problem).run()));
  }

  void CancelKeepsTheBestPointOfEveryRow() {
    const auto problem = batch();
    const auto whole = make(problem, {.stop = {.rtol = 1e-6}}).run();
    for (int answered = 0; answered < 6; ++answered) {
      SCOPED_TRACE(answered);
      auto solve = make(problem, {.stop = {.rtol = 1e-6}});
      auto question = solve.start();
      for (int step = 0; step < answered; ++step) question = solve.solver->advance(solve.answer(question));
      ASSERT_TRUE(question);
      solve.solver->cancel();
      const auto outcome = solve.outcome_now();
      EXPECT_GT(std::count(outcome.status.begin(), outcome.status.end(), Status::cancelled), 0);
      for (std::int64_t i = 0; i < solve.rows; ++i) {
        EXPECT_TRUE(outcome.status[i] == Status::cancelled || outcome.status[i] == Status::converged);
        if (answered == 0) {
          EXPECT_TRUE(std::isnan(outcome.residual[i]));
          EXPECT_TRUE(same_bits(&solve.result(i, 0), &solve.start_point(i, 0), solve.width));
        } else {
          const double residual = solve.residual_at(i, &solve.result(i, 0));
          EXPECT_NEAR(outcome.residual[i], residual, solve.rounding(residual));
        }
      }
      solve.solver->cancel();  // nothing is open: does nothing
      EXPECT_EQ(solve.outcome_now().status, outcome.status);
      EXPECT_TRUE(same_answer(solve.run(), whole));
    }
  }

  void AMapThatFailsEndsTheRowsThatRan() {
    const auto problem = batch();
    auto solve = make(problem, {.stop = {.rtol = 1e-6}});
    int calls = 0;
    const auto map = [&](auto&, const Question<T>& question, Rows<T> answer) -> int {
      if (++calls == 5) return 3;
      const auto right = solve.answer(question);
      for (std::int64_t i = 0; i < question.count; ++i) std::copy_n(right[i], solve.width, answer[i]);
      return 0;
    };
    Block<T> answers(solve.rows, solve.width);
    using Map = MapRef<Queue, T>;
    converse(solve.queue, *solve.solver, solve.start(), Map(map), answers.view().data);
    EXPECT_EQ(calls, 5);
    EXPECT_GT(std::count(solve.report.status.begin(), solve.report.status.end(), Status::map_failed), 0);
    for (std::int64_t i = 0; i < solve.rows; ++i) {
      EXPECT_TRUE(solve.report.status[i] == Status::map_failed || solve.report.status[i] == Status::converged);
      const double residual = solve.residual_at(i, &solve.result(i, 0));
      EXPECT_NEAR(solve.report.residual[i], residual, solve.rounding(residual));
    }
  }

  void AnInterruptEndsTheSolve() {
    auto solve = make(batch(), {.stop = {.rtol = 1e-6}});
    const auto never = [] { return false; };
    Interrupt interrupt(never);
    const auto map = [&](auto&, const Question<T>& question, Rows<T> answer) {
      const auto right = solve.answer(question);
      for (std::int64_t i = 0; i < question.count; ++i) std::copy_n(right[i], solve.width, answer[i]);
      if (solve.map.calls == 2) interrupt.request();
    };
    Block<T> answers(solve.rows, solve.width);
    using Map = MapRef<Queue, T>;
    converse(solve.queue, *solve.solver, solve.start(), Map(map), answers.view().data, &interrupt);
    EXPECT_EQ(solve.map.calls, 2);
    EXPECT_GT(std::count(solve.report.status.begin(), solve.report.status.end(), Status::cancelled), 0);
  }

  void ANonFiniteRowTouchesNoNeighbour() {
    const auto problem = batch();
    const auto healthy = make(problem).run();
    const std::int64_t bad = 2;
    for (const int from : {1, 2, 4})
      for (const Retire retire : {Retire::off, Retire::on}) {
        SCOPED_TRACE(::testing::Message() << "from evaluation " << from);
        ASSERT_GE(healthy.steps[bad], 4);
        auto solve = make(poisoned(problem, bad, from), {.stop = {.retire = retire}});
        const auto outcome = solve.run();
        EXPECT_EQ(outcome.status[bad], Status::not_finite);
        if (gives_up_trials() && from > 1)
          EXPECT_GE(outcome.steps[bad], from);  // a trial that is not finite is one that went too far
        else
          EXPECT_EQ(outcome.steps[bad], from);
        for (std::int64_t j = 0; j < solve.width; ++j) EXPECT_TRUE(std::isfinite(solve.result(bad, j)));
        if (from == 1) {
          EXPECT_TRUE(std::isnan(outcome.residual[bad]));
          EXPECT_TRUE(same_bits(&solve.result(bad, 0), &solve.start_point(bad, 0), solve.width));
        } else {
          const double residual = make(problem).residual_at(bad, &solve.result(bad, 0));
          EXPECT_NEAR(outcome.residual[bad], residual, solve.rounding(residual)) << "the best point before";
        }
        for (std::int64_t row = 0; row < solve.rows; ++row)
          if (row != bad) {
            EXPECT_TRUE(same_row(outcome, row, healthy, row));
          }
      }
  }

  void CountsEqualTheCallsAndRowsOfTheMap() {
    for (const std::int64_t look_every : {1, 3})
      for (const Retire retire : {Retire::off, Retire::on, Retire::halve}) {
        auto solve = make(batch(), {.stop = {.look_every = look_every, .retire = retire}});
        const auto outcome = solve.run();
        EXPECT_EQ(outcome.counts.questions, outcome.map.calls);
        EXPECT_EQ(outcome.counts.rows_asked, outcome.map.rows);
        if (newton) continue;
        const std::int64_t rounded_up = (outcome.longest() + look_every - 1) / look_every * look_every;
        EXPECT_EQ(outcome.map.calls, rounded_up);
        if (retire == Retire::off) {
          EXPECT_EQ(outcome.map.rows, outcome.map.calls * solve.rows);
        }
        if (retire == Retire::on && look_every == 1 && !takes_matrices()) {
          EXPECT_LT(outcome.map.rows, outcome.map.calls * solve.rows);
        }
      }
  }

  void TheHostWaitsOnlyWhenItLooks() {
    for (const std::int64_t look_every : {1, 2, 3, 7, 1000}) {
      auto solve = make(batch(), {.stop = {.look_every = look_every}});
      const auto outcome = solve.run();
      EXPECT_EQ(outcome.waits, outcome.counts.looks);
      if (newton) {
        EXPECT_LE(outcome.waits, 2 * outcome.map.calls);  // at each trial, each step, and between products
        continue;
      }
      EXPECT_EQ(outcome.waits, (outcome.map.calls + look_every - 1) / look_every);
      EXPECT_EQ(outcome.waits, (outcome.longest() + look_every - 1) / look_every);
    }
  }

  void ProgressIsWhatRunsAndHowFarTheWorstIs() {
    auto solve = make(batch(), {.stop = {.rtol = 1e-6}});
    auto question = solve.start();
    EXPECT_EQ(solve.solver->progress().running, solve.rows);
    while (question) {
      question = solve.solver->advance(solve.answer(question));
      const auto& status = solve.report.status;
      const std::int64_t running = std::count(status.begin(), status.end(), Status::running);
      EXPECT_EQ(solve.solver->progress().running, running);
      if (running)
        EXPECT_GT(solve.solver->progress().worst, backward ? 0 : 1);  // backward, a small one may not be believed yet
      else
        EXPECT_EQ(solve.solver->progress().worst, 0);
    }
  }

  void ScratchIsExactlyWhatWasAnnounced() {
    auto queue = Case::make_queue(1);
    for (const auto& [rows, width] : {std::pair<std::int64_t, std::int64_t>{1, 1}, {1, 17}, {7, 3}, {33, 100}}) {
      const std::size_t bytes = Kind::template bytes<Queue, T>(rows, width, method_, {});
      HostBuffer memory(bytes);
      Arena arena = memory.arena();
      Kind::template make<Queue, T>(queue, rows, width, method_, {}, arena);
      EXPECT_EQ(arena.used(), bytes);
      Arena smaller(memory.data(), bytes - 1);
      const auto make_in_less = [&] { Kind::template make<Queue, T>(queue, rows, width, method_, {}, smaller); };
      EXPECT_TRUE(refuses("memory", make_in_less));
    }
  }

  void ASolverThatOnlyMeasuresCannotStart() {
    auto solve = make(batch());
    Arena counting;
    solve.solver = Kind::template make<Queue, T>(solve.queue, solve.rows, solve.width, method_, {}, counting);
    EXPECT_TRUE(refuses("scratch", [&] { solve.start(); }));
  }

  void EmptyShapesAreRefused() {
    const auto bytes = [this](std::int64_t rows, std::int64_t width) {
      return [this, rows, width] { Kind::template bytes<Queue, T>(rows, width, method_, {}); };
    };
    EXPECT_TRUE(refuses("rows", bytes(0, 5)));
    EXPECT_TRUE(refuses("rows", bytes(-3, 5)));
    EXPECT_TRUE(refuses("rows", bytes(std::int64_t{1} << 31, 5)));
    EXPECT_TRUE(refuses("width", bytes(5, 0)));
    EXPECT_TRUE(refuses("width", bytes(5, -1)));
  }

  void TheResidualIsThatOfTheReturnedPoint() {
    for (const Norm norm : {Norm::two, Norm::inf})
      for (const std::int64_t max_steps : {1, 4, 200}) {
        auto solve = make(batch(), {.stop = {.max_steps = max_steps, .norm = norm}});
        const auto outcome = solve.run();
        for (std::int64_t i = 0; i < solve.rows; ++i) {
          const double residual = solve.residual_at(i, &solve.result(i, 0));
          EXPECT_NEAR(outcome.residual[i], residual, solve.rounding(residual));
        }
      }
  }

  void TheTraceHoldsEveryResidualAndNothingElse() {
    const std::int64_t trace_steps = 100;
    auto solve = make(batch(), {.stop = {.max_steps = trace_steps, .look_every = 2}, .trace_steps = trace_steps});
    solve.report.trace.assign(solve.report.trace.size(), -1);
    auto question = solve.start();
    for (std::int64_t step = 0; question; ++step) {
      for (std::int64_t at = 0; at < question.count; ++at) {
        const std::int64_t row = question.rows[at];
        if (solve.report.status[row] != Status::running) continue;
        const auto* point = backward ? question.along[at] : question.at[at];
        solve.report.trace[step * solve.rows + row] =
            -2 - solve.residual_at(row, point);  // expected, until it is written
      }
      std::vector<double> expected = solve.report.trace;
      question = solve.solver->advance(solve.answer(question));
      for (std::size_t i = 0; i < expected.size(); ++i) {
        if (expected[i] <= -2 && estimates(method_)) {
          EXPECT_GE(solve.report.trace[i], 0);
        } else if (expected[i] <= -2) {
          const double residual = -2 - expected[i];
          EXPECT_NEAR(solve.report.trace[i], residual, 1e-12 * (residual + 2));
        } else {
          EXPECT_EQ(solve.report.trace[i], expected[i]);
        }
      }
    }
    for (std::int64_t row = 0; row < solve.rows; ++row) {
      int found = 0;
      for (std::int32_t step = 0; step < solve.report.steps[row]; ++step)
        found += solve.report.trace[step * solve.rows + row] == solve.report.residual[row];
      EXPECT_GE(found, 1) << "the reported residual is one of those measured";
    }
  }

  void RowsThatHaveEndedAreNotWrittenAgain() {
    for (const Retire retire : {Retire::off, Retire::on}) {
      auto solve = make(batch(), {.stop = {.retire = retire}});
      auto question = solve.start();
      while (question) {
        const auto before = solve.outcome_now();
        question = solve.solver->advance(solve.answer(question));
        const auto after = solve.outcome_now();
        for (std::int64_t row = 0; row < solve.rows; ++row)
          if (before.status[row] != Status::running) {
            EXPECT_TRUE(same_row(before, row, after, row));
          }
      }
    }
  }

  void EveryRunningRowIsAskedOnceAndRetiredRowsNever() {
    for (const Retire retire : {Retire::off, Retire::on, Retire::halve}) {
      auto solve = make(batch(), {.stop = {.retire = retire}});
      auto question = solve.start();
      while (question) {
        std::vector<int> asked(solve.rows, 0);
        for (std::int64_t at = 0; at < question.count; ++at) {
          asked[question.rows[at]] += 1;
          if (at > 0) {
            EXPECT_LT(question.rows[at - 1], question.rows[at]) << "the order is stable";
          }
        }
        std::int64_t running = 0;
        for (std::int64_t row = 0; row < solve.rows; ++row) {
          const bool runs = solve.report.status[row] == Status::running;
          running += runs;
          EXPECT_EQ(asked[row], runs ? 1 : asked[row]);
          EXPECT_LE(asked[row], 1);
        }
        if (retire == Retire::off) {
          EXPECT_EQ(question.count, solve.rows);
        }
        if (retire == Retire::on) {
          EXPECT_LE(0.9 * static_cast<double>(question.count), static_cast<double>(running));
        }
        if (retire == Retire::halve) {
          EXPECT_LT(question.count, 2 * running);
          EXPECT_TRUE(question.count == solve.rows || (question.count & (question.count - 1)) == 0);
        }
        question = solve.solver->advance(solve.answer(question));
      }
    }
  }

  void StridedInputsAndResultGiveTheSameBits() {
    const auto problem = batch();
    const auto dense = make(problem).run();
    auto solve = make(problem, {.gap = 5});
    const auto z = solve.z, g = solve.g, start_point = solve.start_point;
    EXPECT_TRUE(same_answer(dense, solve.run()));
    EXPECT_TRUE(solve.result.gaps_intact());
    EXPECT_TRUE(solve.z == z && solve.g == g && solve.start_point == start_point) << "inputs are not written";
  }

  // Nested and interleaved solves: two objects on one queue, a step of each in turn.
  void TwoSolvesOnOneQueueDoNotDisturbEachOther() {
    const auto problem = batch();
    const Setting setting{.stop = {.look_every = 2}};
    const auto expected = make(problem, setting).run();
    auto one = make(problem, setting), two = make(problem, setting);
    Arena arena = two.memory.arena();
    two.solver = Kind::template make<Queue, T>(one.queue, two.rows, two.width, method_, two.stop, arena);
    auto first = one.start();
    first = one.solver->advance(one.answer(first));
    auto second = two.start();
    while (first || second) {
      if (first) first = one.solver->advance(one.answer(first));
      if (second) second = two.solver->advance(two.answer(second));
    }
    EXPECT_TRUE(same_answer(expected, one.outcome_now()));
    EXPECT_TRUE(same_answer(expected, two.outcome_now()));
  }

  static std::vector<std::pair<const char*, Check>> checks() {
    std::vector<std::pair<const char*, Check>> of_turns;
    if (!newton)
      of_turns = {
          {"TheStepLimitIsExact", &Dialogue::TheStepLimitIsExact},
          {"AStepMoreChangesNoEarlierStep", &Dialogue::AStepMoreChangesNoEarlierStep},
          {"TheTraceHoldsEveryResidualAndNothingElse", &Dialogue::TheTraceHoldsEveryResidualAndNothingElse},
          {"EveryRunningRowIsAskedOnceAndRetiredRowsNever", &Dialogue::EveryRunningRowIsAskedOnceAndRetiredRowsNever}};
    std::vector<std::pair<const char*, Check>> all = {
        {"SolvingTwiceGivesTheSameBits", &Dialogue::SolvingTwiceGivesTheSameBits},
        {"ARowAloneEqualsTheRowInABatch", &Dialogue::ARowAloneEqualsTheRowInABatch},
        {"PermutingRowsPermutesResults", &Dialogue::PermutingRowsPermutesResults},
        {"LookingRetiringAndThreadsChangeNoBit", &Dialogue::LookingRetiringAndThreadsChangeNoBit},
        {"NothingAllocatesAfterConstruction", &Dialogue::NothingAllocatesAfterConstruction},
        {"AnAnswerOfTheWrongShapeIsRefusedAndTheSolveGoesOn",
         &Dialogue::AnAnswerOfTheWrongShapeIsRefusedAndTheSolveGoesOn},
        {"AdvanceWithoutAnOpenQuestionIsRefused", &Dialogue::AdvanceWithoutAnOpenQuestionIsRefused},
        {"AResultOfTheWrongShapeIsRefusedAndTheSolverStaysUsable",
         &Dialogue::AResultOfTheWrongShapeIsRefusedAndTheSolverStaysUsable},
        {"UsableAfterAMapThatThrows", &Dialogue::UsableAfterAMapThatThrows},
        {"CancelKeepsTheBestPointOfEveryRow", &Dialogue::CancelKeepsTheBestPointOfEveryRow},
        {"AMapThatFailsEndsTheRowsThatRan", &Dialogue::AMapThatFailsEndsTheRowsThatRan},
        {"AnInterruptEndsTheSolve", &Dialogue::AnInterruptEndsTheSolve},
        {"ANonFiniteRowTouchesNoNeighbour", &Dialogue::ANonFiniteRowTouchesNoNeighbour},
        {"CountsEqualTheCallsAndRowsOfTheMap", &Dialogue::CountsEqualTheCallsAndRowsOfTheMap},
        {"TheHostWaitsOnlyWhenItLooks", &Dialogue::TheHostWaitsOnlyWhenItLooks},
        {"ProgressIsWhatRunsAndHowFarTheWorstIs", &Dialogue::ProgressIsWhatRunsAndHowFarTheWorstIs},
        {"ScratchIsExactlyWhatWasAnnounced", &Dialogue::ScratchIsExactlyWhatWasAnnounced},
        {"ASolverThatOnlyMeasuresCannotStart", &Dialogue::ASolverThatOnlyMeasuresCannotStart},
        {"EmptyShapesAreRefused", &Dialogue::EmptyShapesAreRefused},
        {"TheResidualIsThatOfTheReturnedPoint", &Dialogue::TheResidualIsThatOfTheReturnedPoint},
        {"RowsThatHaveEndedAreNotWrittenAgain", &Dialogue::RowsThatHaveEndedAreNotWrittenAgain},
        {"StridedInputsAndResultGiveTheSameBits", &Dialogue::StridedInputsAndResultGiveTheSameBits},
        {"TwoSolvesOnOneQueueDoNotDisturbEachOther", &Dialogue::TwoSolvesOnOneQueueDoNotDisturbEachOther}};
    all.insert(all.end(), of_turns.begin(), of_turns.end());
    return all;
  }

 private:
  // Where there are threads, a batch that is worth waking them.
  Problem<T> batch() const {
    if (Case::threads == 1 || takes_matrices()) return different_speeds<T>();
    const std::int64_t rows = std::is_same_v<Kind, Following> ? 8 : 24;  // a path is many solves
    return different_speeds<T>(rows, std::is_same_v<T, float> ? 2801 : 1401, 0.6);
  }

  // Whether a point without an image is given up for one nearer by.
  bool gives_up_trials() const {
    if constexpr (std::is_same_v<Kind, Forward>)
      return std::holds_alternative<SteadyState>(method_);
    else
      return newton;
  }

  // Whether the method factors matrices: for narrow rows, and every row takes equally many steps.
  bool takes_matrices() const {
    if constexpr (std::is_same_v<Kind, Following>)
      return method_.options.dense_width > 0;
    else if constexpr (newton)
      return std::holds_alternative<deqcore::Newton>(method_.options);
    else
      return std::visit([]<class Options>(const Options&) { return std::is_same_v<Options, Direct>; }, method_);
  }

  Solve<Case> make(const Problem<T>& problem, const Setting& setting = {}) const {
    return Solve<Case>(problem, setting, method_);
  }

  Check check_;
  Method method_;
};

// Method x queue x type, as tests of their own. Called while static objects are made.
template <class Case>
void register_dialogue() {
  for (const auto& method : methods_of<typename Case::Kind>())
    for (const auto& [name, check] : Dialogue<Case>::checks())
      ::testing::RegisterTest(
          (Case::Kind::name() + "/" + method.name + Case::name()).c_str(), name, nullptr, nullptr, __FILE__, __LINE__,
          [check, options = method.method]() -> ::testing::Test* { return new Dialogue<Case>(check, options); });
}

template <class Kind, class... Entries>
bool register_dialogues(const std::tuple<Entries...>*) {
  (register_dialogue<Case<Kind, Entries>>(), ...);
  return true;
}

}  // namespace deqcore::test

// SPDX-License-Identifier: Apache-2.0
#include "deqcore/linear/linear_solve.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "dialogue_checks.hpp"

namespace deqcore::test {
namespace {

const bool registered = register_dialogues<Linear>(static_cast<SolverQueues*>(nullptr));

template <class Case>
class LinearOnly : public ::testing::Test {};
TYPED_TEST_SUITE(LinearOnly, SerialCases<Linear>, Names);

// A x = b for a matrix per row, through a solver of its own.
template <class Case>
struct System {
  using T = typename Case::T;
  using Queue = typename Case::Queue;

  System(std::int64_t rows_, std::int64_t width_)
      : rows(rows_), width(width_), A(rows * width, width), b(rows, width), x0(rows, width), x(rows, width) {
    Random random(300 + static_cast<std::uint64_t>(width));
    for (std::int64_t i = 0; i < rows; ++i)
      for (std::int64_t j = 0; j < width; ++j) {
        b(i, j) = static_cast<T>(random.normal());
        for (std::int64_t k = 0; k < width; ++k)
          A(i * width + j, k) = static_cast<T>((j == k ? 1.0 : 0.0) + 0.3 * random.normal() / std::sqrt(width));
      }
  }

  // -> times the preconditioner was asked. `precondition(row, from, to)` may be empty.
  int solve(const LinearMethod& method, const Stop& stop = {}, bool from_x0 = false,
            const std::function<void(std::int64_t, const T*, T*)>& precondition = {}) {
    auto queue = Case::make_queue(1);
    const LinearForm form{.preconditioned = static_cast<bool>(precondition)};
    HostBuffer memory(LinearSolve<Queue, T>::scratch_bytes(rows, width, method, stop, form));
    Arena arena = memory.arena();
    LinearSolve<Queue, T> solver(queue, rows, width, method, stop, form, arena);
    Block<T> answers(rows, width);
    const Block<T>&right = b, &start = x0;
    int preconditions = 0;
    asked.clear();
    auto question = solver.start(right.view(), from_x0 ? start.view() : Rows<const T>{}, x.view(), report.view());
    while (question) {
      for (std::int64_t i = 0; i < question.count; ++i) {
        const std::int64_t row = question.rows[i];
        if (question.kind == Ask::precondition)
          precondition(row, question.along[i], &answers(i, 0));
        else
          product(row, question.along[i], &answers(i, 0));
      }
      preconditions += question.kind == Ask::precondition;
      if (question.kind == Ask::product) asked.emplace_back(question.along[0], question.along[0] + width);
      const Block<T>& answer = answers;
      question = solver.advance(answer.view().slice(0, question.count));
    }
    counts = solver.counts();
    return preconditions;
  }

  void product(std::int64_t row, const T* from, T* to) const {
    for (std::int64_t j = 0; j < width; ++j) {
      T sum = 0;
      for (std::int64_t k = 0; k < width; ++k) sum += A(row * width + j, k) * from[k];
      to[j] = sum;
    }
  }

  // |b - A x| in long double
  double residual(std::int64_t row) const {
    return textbook_norm(Norm::two, width, [&](std::int64_t j) {
      long double sum = b(row, j);
      for (std::int64_t k = 0; k < width; ++k)
        sum -= static_cast<long double>(A(row * width + j, k)) * static_cast<long double>(x(row, k));
      return sum;
    });
  }

  std::int64_t rows, width;
  Block<T> A, b, x0, x;
  ReportBuffer report{rows};
  Counts counts;
  std::vector<std::vector<T>> asked;  // of row 0
};

const LinearMethod all_methods[] = {GMRES{}, GMRES{.restart = 5}, BiCGSTAB{}, Direct{}};

TYPED_TEST(LinearOnly, SolvesMatricesOfEveryShape) {
  using T = typename TypeParam::T;
  const double rtol = 100.0 * std::numeric_limits<T>::epsilon();
  for (const LinearMethod& method : all_methods)
    for (const auto& [rows, width] : {std::pair{1, 1}, {3, 2}, {2, 13}, {1, 65}}) {
      SCOPED_TRACE(::testing::Message() << "method " << method.index() << ", " << rows << " x " << width);
      System<TypeParam> system(rows, width);
      system.solve(method, {.rtol = rtol});
      for (std::int64_t i = 0; i < rows; ++i) {
        EXPECT_EQ(system.report.status[i], Status::converged);
        const double size = textbook_norm(Norm::two, width, [&](std::int64_t j) { return system.b(i, j); });
        EXPECT_LE(system.residual(i), 2 * rtol * size);
        EXPECT_NEAR(system.report.scale[i], size, 1e-13 * size);
      }
    }
}

TYPED_TEST(LinearOnly, FromNothingTheFirstProductIsADirectionAndTheResidualIsKnown) {
  using T = typename TypeParam::T;
  for (const LinearMethod& method : all_methods) {
    System<TypeParam> cold(2, 9), zero(2, 9);
    cold.solve(method);
    zero.solve(method, {}, true);                               // from zeros that are given, and measured
    EXPECT_EQ(cold.report.steps[0] + 2, zero.report.steps[0]);  // |A| is asked for, and the zeros are measured
    EXPECT_TRUE(same_bits(&cold.x(0, 0), &zero.x(0, 0), 9));
    EXPECT_EQ(*std::max_element(zero.asked[1].begin(), zero.asked[1].end()), T(0));
    EXPECT_TRUE(same_bits(cold.asked[0].data(), zero.asked[2].data(), 9));
    cold.solve(method, {.max_steps = 1});
    EXPECT_EQ(cold.report.status[0], Status::out_of_steps);
    EXPECT_EQ(cold.report.residual[0], cold.report.scale[0]);
    for (std::int64_t j = 0; j < 9; ++j) EXPECT_EQ(cold.x(0, j), T(0));
  }
}

TYPED_TEST(LinearOnly, AGoodStartIsMeasuredAndKept) {
  for (const LinearMethod& method : all_methods) {
    System<TypeParam> system(3, 12);
    system.solve(method);
    system.x0 = system.x;
    system.solve(method, {}, true);
    for (std::int64_t i = 0; i < 3; ++i) {
      EXPECT_EQ(system.report.status[i], Status::converged);
      EXPECT_EQ(system.report.steps[i], 2);
      EXPECT_TRUE(same_bits(&system.x(i, 0), &system.x0(i, 0), 12));
    }
  }
}

TYPED_TEST(LinearOnly, AZeroRightSideGivesZeroWhateverTheStart) {
  using T = typename TypeParam::T;
  for (const LinearMethod& method : all_methods) {
    System<TypeParam> system(2, 7);
    for (std::int64_t j = 0; j < 7; ++j) {
      system.b(1, j) = T(0);
      system.x0(1, j) = T(3);
    }
    system.solve(method, {}, true);
    EXPECT_EQ(system.report.status[1], Status::converged);
    EXPECT_EQ(system.report.steps[1], 2);
    for (std::int64_t j = 0; j < 7; ++j) EXPECT_EQ(system.x(1, j), T(0));
  }
}

TYPED_TEST(LinearOnly, TheExactInverseAsPreconditionerLeavesNothingToDo) {
  using T = typename TypeParam::T;
  for (const LinearMethod& method : {LinearMethod(GMRES{}), LinearMethod(BiCGSTAB{})}) {
    System<TypeParam> system(2, 8);
    for (std::int64_t i = 0; i < 2; ++i)
      for (std::int64_t j = 0; j < 8; ++j)
        for (std::int64_t k = 0; k < 8; ++k) system.A(i * 8 + j, k) = j == k ? static_cast<T>(1 << (2 * j)) : T(0);
    const auto inverse = [](std::int64_t, const T* from, T* to) {
      for (std::int64_t j = 0; j < 8; ++j) to[j] = from[j] / static_cast<T>(1 << (2 * j));
    };
    System<TypeParam> plain = system;
    plain.solve(method);
    const int preconditions = system.solve(method, {}, false, inverse);
    EXPECT_EQ(preconditions + 1, system.counts.questions);  // |A| is asked for without it
    for (std::int64_t i = 0; i < 2; ++i) {
      EXPECT_EQ(system.report.status[i], Status::converged);
      EXPECT_LE(system.report.steps[i], 4);
      EXPECT_GT(plain.report.steps[i], 6);
    }
  }
}

TYPED_TEST(LinearOnly, ASingularMatrixIsNeverCalledSolved) {
  using T = typename TypeParam::T;
  for (const LinearMethod& method : all_methods) {
    SCOPED_TRACE(method.index());
    System<TypeParam> system(2, 6);
    for (std::int64_t k = 0; k < 6; ++k) system.A(5, k) = T(0);  // row 0: its last equation is 0 = b
    system.solve(method, {.max_steps = 500});
    EXPECT_LT(static_cast<int>(system.report.status[0]), 0);  // broken down, or stalled where x has become long
    EXPECT_EQ(system.report.status[1], Status::converged);
    EXPECT_LE(system.report.residual[0], system.report.scale[0]);
    const double residual = system.residual(0);
    EXPECT_NEAR(system.report.residual[0], residual, 1e-5 * residual);
  }
}

TYPED_TEST(LinearOnly, GMRESNeedsNoMoreProductsThanTheWidthAndOneToMeasure) {
  using T = typename TypeParam::T;
  System<TypeParam> system(4, 23);
  system.solve(GMRES{}, {.rtol = 50.0 * std::numeric_limits<T>::epsilon()});
  for (std::int64_t i = 0; i < 4; ++i) {
    EXPECT_EQ(system.report.status[i], Status::converged);
    EXPECT_LE(system.report.steps[i], 24);
  }
}

TYPED_TEST(LinearOnly, DirectAsksForTheColumnsInOrder) {
  using T = typename TypeParam::T;
  System<TypeParam> system(1, 5);
  system.solve(Direct{});
  ASSERT_GE(system.asked.size(), 6u);
  for (std::int64_t column = 0; column < 5; ++column)
    for (std::int64_t j = 0; j < 5; ++j) EXPECT_EQ(system.asked[column][j], j == column ? T(1) : T(0));
  EXPECT_TRUE(same_bits(system.asked.back().data(), &system.x(0, 0), 5));
}

// I - M with one eigenvalue so close to 0 that rounding alone decides the residual.
TYPED_TEST(LinearOnly, AResidualBelowItsOwnRoundingIsNotBelieved) {
  using T = typename TypeParam::T;
  for (const LinearMethod& method : all_methods) {
    Solve<TypeParam> solve(nearly_singular<T>(std::numeric_limits<T>::epsilon()), {.stop = {.max_steps = 500}}, method);
    const auto outcome = solve.run();
    for (std::int64_t i = 0; i < solve.rows; ++i) EXPECT_LT(static_cast<int>(outcome.status[i]), 0);
  }
}

// A start that lies where the matrix is nearly singular: without a product that shows |A| the residual would be taken
// for exact.
TYPED_TEST(LinearOnly, ALongStartIsNotBelievedEither) {
  using T = typename TypeParam::T;
  for (const LinearMethod& method : all_methods) {
    System<TypeParam> system(1, 2);
    const double tilt = 8.0 * std::numeric_limits<T>::epsilon();
    system.A(0, 0) = system.A(0, 1) = system.A(1, 0) = T(1);
    system.A(1, 1) = static_cast<T>(1 + tilt);
    system.b(0, 0) = T(1), system.b(0, 1) = T(0);
    system.x0(0, 0) = static_cast<T>(1 / tilt + 1), system.x0(0, 1) = static_cast<T>(-1 / tilt);
    system.solve(method, {.rtol = 100.0 * std::numeric_limits<T>::epsilon(), .max_steps = 50}, true);
    EXPECT_LT(static_cast<int>(system.report.status[0]), 0);
  }
}

TYPED_TEST(LinearOnly, WrongOptionsAreRefusedByName) {
  using T = typename TypeParam::T;
  const auto bytes = [](const LinearMethod& method, std::int64_t width, bool preconditioned = false) {
    return [=] { LinearSolve<CpuQueue, T>::scratch_bytes(2, width, method, {}, {.preconditioned = preconditioned}); };
  };
  EXPECT_TRUE(refuses("restart", bytes(GMRES{.restart = 0}, 5)));
  EXPECT_TRUE(refuses("restart", bytes(GMRES{.restart = 501}, 5)));
  EXPECT_TRUE(refuses("max_width", bytes(Direct{.max_width = 0}, 5)));
  EXPECT_TRUE(refuses("width", bytes(Direct{.max_width = 4}, 5)));
  EXPECT_TRUE(refuses("preconditioner", bytes(Direct{}, 5, true)));
}

TYPED_TEST(LinearOnly, OverlapsAndShapesAreRefusedByName) {
  using T = typename TypeParam::T;
  Solve<TypeParam> solve(different_speeds<T>());
  const Block<T>&b = solve.g, &x0 = solve.start_point;
  const auto start = [&](Rows<const T> right, Rows<const T> from, Rows<T> result) {
    return [&solve, right, from, result] { solve.solver->start(right, from, result, solve.report.view()); };
  };
  const Block<T> other(solve.rows + 1, solve.width);
  EXPECT_TRUE(refuses("b", start(other.view(), {}, solve.result.view())));
  EXPECT_TRUE(refuses("x0", start(b.view(), other.view(), solve.result.view())));
  EXPECT_TRUE(refuses("result", start(b.view(), x0.view(), solve.g.view())));
  EXPECT_TRUE(refuses("result", start(b.view(), x0.view(), solve.start_point.view())));
  EXPECT_TRUE(same_answer(solve.run(), Solve<TypeParam>(different_speeds<T>()).run()));
}

}  // namespace
}  // namespace deqcore::test

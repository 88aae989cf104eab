// SPDX-License-Identifier: Apache-2.0
#include "deqcore/adjoint/adjoint.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "dialogue_checks.hpp"

namespace deqcore::test {
namespace {

const bool registered = register_dialogues<Backward>(static_cast<SolverQueues*>(nullptr));

template <class Case>
class AdjointOnly : public ::testing::Test {};
TYPED_TEST_SUITE(AdjointOnly, SerialCases<Backward>, Names);

// Solves (I - J)^T u = g for row i by Gaussian elimination with pivoting; J^T column by column from the products.
template <class Case>
std::vector<double> dense_solve(const Solve<Case>& solve, std::int64_t i) {
  using T = typename Case::T;
  const std::int64_t n = solve.width;
  std::vector<long double> A(n * n), b(n);
  std::vector<T> unit(n), column(n);
  for (std::int64_t k = 0; k < n; ++k) {
    unit.assign(n, T(0));
    unit[k] = T(1);
    solve.problem.vjp(solve.ids[i], &solve.z(i, 0), unit.data(), column.data());
    for (std::int64_t j = 0; j < n; ++j) A[j * n + k] = (j == k ? 1 : 0) - static_cast<long double>(column[j]);
    b[k] = solve.g(i, k);
  }
  for (std::int64_t k = 0; k < n; ++k) {
    std::int64_t pivot = k;
    for (std::int64_t j = k; j < n; ++j)
      if (std::abs(A[j * n + k]) > std::abs(A[pivot * n + k])) pivot = j;
    for (std::int64_t j = 0; j < n; ++j) std::swap(A[k * n + j], A[pivot * n + j]);
    std::swap(b[k], b[pivot]);
    for (std::int64_t j = k + 1; j < n; ++j) {
      const long double factor = A[j * n + k] / A[k * n + k];
      for (std::int64_t c = k; c < n; ++c) A[j * n + c] -= factor * A[k * n + c];
      b[j] -= factor * b[k];
    }
  }
  std::vector<double> u(n);
  for (std::int64_t k = n; k-- > 0;) {
    long double sum = b[k];
    for (std::int64_t c = k + 1; c < n; ++c) sum -= A[k * n + c] * u[c];
    u[k] = static_cast<double>(sum / A[k * n + k]);
  }
  return u;
}

TYPED_TEST(AdjointOnly, SolvesTheTransposedSystem) {
  using T = typename TypeParam::T;
  const double eps = std::numeric_limits<T>::epsilon();
  const std::pair<Problem<T>, double> problems[] = {// with a bound on |(I - J)^-1|
                                                    {linear_contraction<T>(0.9), 10},
                                                    {tanh_network<T>(), 10},
                                                    {nearly_singular<T>(1e-2), 100},
                                                    {non_normal<T>(), 2000},
                                                    {different_speeds<T>(), 5}};
  for (const auto& [method_name, method] : methods_of<Backward>())
    for (const auto& [problem, inverse] : problems) {
      SCOPED_TRACE(method_name);
      const double rtol = std::max(20.0, 4 * inverse) * eps;  // u is up to `inverse` times g: so is the noise
      Solve<TypeParam> solve(problem, {.stop = {.rtol = rtol, .max_steps = 20000}}, method);
      const auto outcome = solve.run();
      for (std::int64_t i = 0; i < solve.rows; ++i) {
        if (problem.name == "non-normal" && std::string(method_name) == "ShortGMRES") {  // stagnates
          ASSERT_LE(outcome.status[i], Status::converged);
          if (outcome.status[i] != Status::converged) continue;
        }
        ASSERT_EQ(outcome.status[i], Status::converged) << problem.name << " " << i;
        const auto exact = dense_solve(solve, i);
        double error = 0;
        for (std::int64_t j = 0; j < solve.width; ++j)
          error += std::pow(static_cast<double>(solve.result(i, j)) - exact[j], 2);
        const double size = textbook_norm(Norm::two, solve.width, [&](std::int64_t j) { return exact[j]; });
        // the residual, and a few roundings of the size of u in each product
        const double residual = rtol * outcome.scale[i] + 20 * eps * size;
        EXPECT_LE(std::sqrt(error), inverse * residual) << problem.name << " " << i;
      }
    }
}

TYPED_TEST(AdjointOnly, TheScaleIsTheSizeOfG) {
  using T = typename TypeParam::T;
  for (const Norm norm : {Norm::two, Norm::inf}) {
    Solve<TypeParam> solve(different_speeds<T>(), {.stop = {.rtol = 1e-3, .norm = norm}});
    for (std::int64_t j = 0; j < solve.width; ++j) solve.g(3, j) *= T(1e6);
    const auto outcome = solve.run();
    for (std::int64_t i = 0; i < solve.rows; ++i) {
      const double size = textbook_norm(norm, solve.width, [&](std::int64_t j) { return solve.g(i, j); });
      EXPECT_NEAR(outcome.scale[i], size, 1e-13 * size);
      EXPECT_EQ(outcome.status[i], Status::converged);
      EXPECT_LE(outcome.residual[i], 1e-3 * size * (1 + 1e-13));
    }
  }
}

TYPED_TEST(AdjointOnly, AZeroGradientGivesZeroAtOnce) {
  using T = typename TypeParam::T;
  Solve<TypeParam> solve(different_speeds<T>());
  for (std::int64_t j = 0; j < solve.width; ++j) solve.g(4, j) = T(0);
  const auto outcome = solve.run();
  EXPECT_EQ(outcome.status[4], Status::converged);
  EXPECT_EQ(outcome.steps[4], 1);
  for (std::int64_t j = 0; j < solve.width; ++j) EXPECT_EQ(solve.result(4, j), T(0));
}

TYPED_TEST(AdjointOnly, AZeroGradientGivesZeroWhateverTheStart) {
  using T = typename TypeParam::T;
  for (const auto& [method_name, method] : methods_of<Backward>()) {
    SCOPED_TRACE(method_name);
    Solve<TypeParam> solve(different_speeds<T>(), {}, method);
    for (std::int64_t j = 0; j < solve.width; ++j) {
      solve.g(4, j) = T(0);
      solve.start_point(4, j) = T(3);
    }
    const auto outcome = solve.run();
    EXPECT_EQ(outcome.status[4], Status::converged);
    for (std::int64_t j = 0; j < solve.width; ++j) EXPECT_EQ(solve.result(4, j), T(0));
  }
}

TYPED_TEST(AdjointOnly, QuestionsAskForTransposedProductsAtThePointsOfTheRows) {
  using T = typename TypeParam::T;
  for (const Retire retire : {Retire::off, Retire::on, Retire::halve}) {
    Solve<TypeParam> solve(different_speeds<T>(), {.stop = {.retire = retire}});
    auto question = solve.start();
    while (question) {
      EXPECT_EQ(question.kind, Ask::vjp);
      EXPECT_EQ(question.at.rows, question.count);
      EXPECT_EQ(question.along.rows, question.count);
      EXPECT_EQ(question.along.width, solve.width);
      for (std::int64_t at = 0; at < question.count; ++at)
        EXPECT_TRUE(same_bits(question.at[at], static_cast<const T*>(&solve.z(question.rows[at], 0)), solve.width));
      question = solve.solver->advance(solve.answer(question));
    }
  }
}

TYPED_TEST(AdjointOnly, PointsNeedNotBeGathered) {
  using T = typename TypeParam::T;
  using Queue = typename TypeParam::Queue;
  const auto problem = different_speeds<T>();
  Solve<TypeParam> solve(problem);
  const auto expected = Solve<TypeParam>(problem).run();
  const std::size_t bytes = Adjoint<Queue, T>::scratch_bytes(solve.rows, solve.width, Anderson{}, {}, false);
  EXPECT_LT(bytes, solve.memory.bytes());
  HostBuffer memory(bytes);
  Arena arena = memory.arena();
  Adjoint<Queue, T> lean(solve.queue, solve.rows, solve.width, Anderson{}, {}, false, arena);
  EXPECT_EQ(arena.used(), bytes);
  const Block<T>&g = solve.g, &u0 = solve.start_point;
  auto question = lean.start({}, g.view(), u0.view(), solve.result.view(), solve.report.view());
  while (question) {
    EXPECT_EQ(question.at.rows, 0);
    for (std::int64_t at = 0; at < question.count; ++at) {
      const std::int64_t row = question.rows[at];
      problem.vjp(row, &solve.z(row, 0), question.along[at], &solve.answers(at, 0));
    }
    const Block<T>& answers = solve.answers;
    question = lean.advance(answers.view().slice(0, question.count));
  }
  const auto outcome = solve.outcome_now();
  EXPECT_TRUE(same_bits(outcome.value, expected.value));
  EXPECT_TRUE(same_bits(outcome.residual, expected.residual));
  EXPECT_EQ(outcome.steps, expected.steps);
}

TYPED_TEST(AdjointOnly, AnotherStartGivesTheSameSolution) {
  using T = typename TypeParam::T;
  const auto problem = different_speeds<T>();
  Solve<TypeParam> cold(problem), warm(problem);
  const auto from_zero = cold.run();
  std::copy(from_zero.value.begin(), from_zero.value.end(), warm.start_point.view().data);
  const auto from_solution = warm.run();
  EXPECT_EQ(from_solution.longest(), 1);
  EXPECT_TRUE(same_bits(from_solution.value, from_zero.value));
}

TYPED_TEST(AdjointOnly, WrongShapesAreRefusedByName) {
  using T = typename TypeParam::T;
  const auto problem = different_speeds<T>();
  for (const auto& [rows, width] : {std::pair{problem.rows - 1, problem.width}, {problem.rows, problem.width + 1}}) {
    Solve<TypeParam> solve(problem);
    const auto good_z = solve.z, good_g = solve.g, good_u0 = solve.start_point;
    solve.z = Block<T>(rows, width);
    EXPECT_TRUE(refuses("z", [&] { solve.start(); }));
    solve.z = good_z;
    solve.g = Block<T>(rows, width);
    EXPECT_TRUE(refuses("g", [&] { solve.start(); }));
    solve.g = good_g;
    solve.start_point = Block<T>(rows, width);
    EXPECT_TRUE(refuses("u0", [&] { solve.start(); }));
    solve.start_point = good_u0;
    EXPECT_TRUE(same_answer(solve.run(), Solve<TypeParam>(problem).run()));
  }
}

// z and g are read until the end, so a result on top of them would be a silent error.
TYPED_TEST(AdjointOnly, AResultThatOverlapsAnInputIsRefused) {
  using T = typename TypeParam::T;
  Solve<TypeParam> solve(different_speeds<T>());
  const Block<T>&z = solve.z, &g = solve.g, &u0 = solve.start_point;
  const auto start = [&](Rows<T> result) {
    return [&solve, &z, &g, &u0, result] {
      solve.solver->start(z.view(), g.view(), u0.view(), result, solve.report.view());
    };
  };
  EXPECT_TRUE(refuses("result", start(solve.z.view())));
  EXPECT_TRUE(refuses("result", start(solve.g.view())));
  EXPECT_TRUE(refuses("result", start(solve.start_point.view())));
  EXPECT_NO_THROW(start(solve.result.view())());
}

TYPED_TEST(AdjointOnly, AGradientThatIsNotFiniteIsSaidSo) {
  using T = typename TypeParam::T;
  Solve<TypeParam> solve(different_speeds<T>());
  solve.g(2, 1) = std::numeric_limits<T>::quiet_NaN();
  solve.g(5, 0) = std::numeric_limits<T>::infinity();
  const auto outcome = solve.run();
  for (std::int64_t i = 0; i < solve.rows; ++i)
    EXPECT_EQ(outcome.status[i], i == 2 || i == 5 ? Status::not_finite : Status::converged);
}

// Row i of u = tau sum_{i < k} (tau J^T + (1 - tau) I)^i g, term by term.
template <class Case>
std::vector<double> textbook_neumann(const Solve<Case>& solve, std::int64_t i, const Neumann& method) {
  using T = typename Case::T;
  std::vector<T> term(solve.width), product(solve.width);
  std::vector<double> u(solve.width);
  for (std::int64_t j = 0; j < solve.width; ++j) term[j] = solve.g(i, j);
  for (std::int64_t k = 0; k < method.k; ++k) {
    for (std::int64_t j = 0; j < solve.width; ++j) u[j] += method.tau * term[j];
    solve.problem.vjp(solve.ids[i], &solve.z(i, 0), term.data(), product.data());
    for (std::int64_t j = 0; j < solve.width; ++j)
      term[j] = static_cast<T>(method.tau * product[j] + (1 - method.tau) * term[j]);
  }
  return u;
}

TYPED_TEST(AdjointOnly, NeumannIsTheSumOfItsTerms) {
  using T = typename TypeParam::T;
  for (const Neumann& method : {Neumann{}, Neumann{.k = 1}, Neumann{.k = 2, .tau = 0.5}, Neumann{.k = 9, .tau = 1.4}})
    for (const auto& problem : {tanh_network<T>(), different_speeds<T>(), linear_contraction<T>(0.9, 1, 1)}) {
      Solve<TypeParam> solve(problem, {}, method);
      const auto outcome = solve.run();
      EXPECT_EQ(outcome.map.calls, method.k - 1);
      EXPECT_EQ(outcome.counts.questions, method.k - 1);
      EXPECT_EQ(outcome.waits, 1);
      for (std::int64_t i = 0; i < solve.rows; ++i) {
        EXPECT_EQ(outcome.status[i], Status::approximate);
        EXPECT_EQ(outcome.steps[i], method.k - 1);
        EXPECT_TRUE(std::isnan(outcome.residual[i]));
        const double size = textbook_norm(Norm::two, solve.width, [&](std::int64_t j) { return solve.g(i, j); });
        EXPECT_NEAR(outcome.scale[i], size, 1e-13 * size);
        const auto u = textbook_neumann(solve, i, method);
        for (std::int64_t j = 0; j < solve.width; ++j)
          EXPECT_NEAR(static_cast<double>(solve.result(i, j)), u[j], 300.0 * std::numeric_limits<T>::epsilon() * size);
      }
    }
}

TYPED_TEST(AdjointOnly, NeumannSaysWhatIsNotFiniteAndWhatWasCancelled) {
  using T = typename TypeParam::T;
  Solve<TypeParam> poison(poisoned(different_speeds<T>(), 2, 3), {}, Neumann{});
  const auto outcome = poison.run();
  for (std::int64_t i = 0; i < poison.rows; ++i)
    EXPECT_EQ(outcome.status[i], i == 2 ? Status::not_finite : Status::approximate);
  EXPECT_EQ(poison.solver->progress().failed, 1);
  Solve<TypeParam> stopped(different_speeds<T>(), {}, Neumann{});
  const auto question = stopped.start();
  stopped.solver->advance(stopped.answer(question));
  stopped.solver->cancel();
  for (const Status status : stopped.outcome_now().status) EXPECT_EQ(status, Status::cancelled);
  EXPECT_EQ(stopped.solver->counts().questions, 1);
}

TYPED_TEST(AdjointOnly, NeumannsOptionsAreRefusedByName) {
  using T = typename TypeParam::T;
  using Queue = typename TypeParam::Queue;
  const auto bytes = [](const Neumann& method) {
    return [=] { Adjoint<Queue, T>::scratch_bytes(2, 3, method, {}, true); };
  };
  EXPECT_TRUE(refuses("k", bytes({.k = 0})));
  EXPECT_TRUE(refuses("k", bytes({.k = 10001})));
  EXPECT_TRUE(refuses("tau", bytes({.tau = 0})));
  EXPECT_TRUE(refuses("tau", bytes({.tau = 2})));
}

// An eigenvalue of J at 1, and g with a part along it: there is no u.
TYPED_TEST(AdjointOnly, AnInconsistentSystemNeverConverges) {
  using T = typename TypeParam::T;
#ifdef DEQCORE_EMULATE_CUDA
  const int max_steps = 300;  // 3000 take a minute under sanitizers; the CPU takes them all
#else
  const int max_steps = 3000;
#endif
  for (const auto& [method_name, method] : methods_of<Backward>())
    for (const double rtol : {1e-2, 1e-3, 20.0 * std::numeric_limits<T>::epsilon()}) {
      SCOPED_TRACE(method_name);
      Solve<TypeParam> solve(without_fixed_point<T>().back(), {.stop = {.rtol = rtol, .max_steps = max_steps}}, method);
      for (std::int64_t i = 0; i < solve.rows; ++i)
        for (std::int64_t j = 0; j < solve.width; ++j) solve.g(i, j) = T(1);
      for (const Status status : solve.run().status) EXPECT_LT(static_cast<int>(status), 0) << name(status);
    }
}

}  // namespace
}  // namespace deqcore::test

// SPDX-License-Identifier: Apache-2.0
#include "deqcore/newton/newton_solve.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "dialogue_checks.hpp"

namespace deqcore::test {
namespace {

const bool registered = register_dialogues<Newtonian>(static_cast<SolverQueues*>(nullptr));

template <class Case>
class NewtonOnly : public ::testing::Test {};
TYPED_TEST_SUITE(NewtonOnly, SerialCases<Newtonian>, Names);

// One solve of any system, root or fixed point, with everything that was asked.
template <class Case>
struct System {
  using T = typename Case::T;
  using Queue = typename Case::Queue;
  using Function = std::function<void(const T* z, T* value)>;

  System(std::int64_t width_, Function value_, NewtonForm form_ = {.differences = true})
      : width(width_), value(std::move(value_)), form(form_), z0(1, width), z(1, width), report(1, 4000) {}

  void solve(const NewtonMethod& method, const Stop& stop = {}) {
    auto queue = Case::make_queue(1);
    HostBuffer memory(NewtonSolve<Queue, T>::scratch_bytes(1, width, method, stop, form));
    Arena arena = memory.arena();
    NewtonSolve<Queue, T> solver(queue, 1, width, method, stop, form, arena);
    Block<T> answer(1, width);
    const Block<T>& start = z0;
    for (auto question = solver.start(start.view(), z.view(), report.view()); question;
         question = solver.advance(static_cast<const Block<T>&>(answer).view())) {
      ASSERT_EQ(question.kind, Ask::value);
      value(question.at[0], &answer(0, 0));
      asked += 1;
    }
    EXPECT_EQ(report.steps[0], asked);
    counts = solver.counts();
  }

  std::int64_t width;
  Function value;
  NewtonForm form;
  Block<T> z0, z;
  ReportBuffer report;
  Counts counts;
  int asked = 0;
};

const NewtonForm root_form{.root = true, .differences = true};

TYPED_TEST(NewtonOnly, ALinearSystemTakesOneStep) {
  using T = typename TypeParam::T;
  for (const NewtonMethod& method : {NewtonMethod(NewtonKrylov{.forcing = 1e-6}), NewtonMethod(Newton{})}) {
    System<TypeParam> system(3,
                             [](const T* z, T* f) {
                               f[0] = T(0.5) * z[0] + z[1] + 1;
                               f[1] = T(-0.25) * z[1] + z[2] + 2;
                               f[2] = T(3) * z[0] - 1;
                             },
                             {});
    // products, in place of differences, which are not exact
    auto queue = TypeParam::make_queue(1);
    HostBuffer memory(NewtonSolve<typename TypeParam::Queue, T>::scratch_bytes(1, 3, method, {}, {}));
    Arena arena = memory.arena();
    NewtonSolve<typename TypeParam::Queue, T> solver(queue, 1, 3, method, {}, {}, arena);
    Block<T> answer(1, 3);
    const Block<T>& start = system.z0;
    int values = 0, products = 0;
    for (auto question = solver.start(start.view(), system.z.view(), system.report.view()); question;
         question = solver.advance(static_cast<const Block<T>&>(answer).view())) {
      if (question.kind == Ask::value) {
        values += 1;
        system.value(question.at[0], &answer(0, 0));
      } else {
        products += 1;
        const T* v = question.along[0];
        answer(0, 0) = T(0.5) * v[0] + v[1];
        answer(0, 1) = T(-0.25) * v[1] + v[2];
        answer(0, 2) = T(3) * v[0];
      }
    }
    EXPECT_EQ(system.report.status[0], Status::converged);
    EXPECT_EQ(values, 2);
    EXPECT_EQ(products, 3);
    EXPECT_EQ(solver.counts().products, products);
    EXPECT_EQ(solver.counts().questions, values + products);
    EXPECT_EQ(system.report.steps[0], values + products);
  }
}

TYPED_TEST(NewtonOnly, SteepRampsOfReluTakeOneStep) {
  using T = typename TypeParam::T;
  constexpr bool coarse = std::is_same_v<T, float>;  // differences are
  const T slope = coarse ? T(0.9) : T(0.999);
  System<TypeParam> system(4, [slope](const T* z, T* f) {
    for (int j = 0; j < 4; ++j) f[j] = std::max(slope * z[j] + T(j + 1), T(0));
  });
  system.solve(Newton{});
  EXPECT_EQ(system.report.status[0], Status::converged);
  EXPECT_LE(system.asked, (coarse ? 3 : 2) * (1 + 4) + 1);  // differences leave a second, small step
  for (int j = 0; j < 4; ++j) EXPECT_NEAR(system.z(0, j) / ((j + 1) / (1 - static_cast<double>(slope))), 1, 1e-3);
}

TYPED_TEST(NewtonOnly, RosenbrockAndPowellFromTheirStarts) {
  using T = typename TypeParam::T;
  System<TypeParam> rosenbrock(
      2,
      [](const T* z, T* F) {
        F[0] = 10 * (z[1] - z[0] * z[0]);
        F[1] = 1 - z[0];
      },
      root_form);
  rosenbrock.z0(0, 0) = T(-1.2);
  rosenbrock.z0(0, 1) = T(1);
  rosenbrock.solve(Newton{}, {.max_steps = 2000});
  EXPECT_EQ(rosenbrock.report.status[0], Status::converged);
  EXPECT_NEAR(rosenbrock.z(0, 0), 1, 1e-3);
  EXPECT_NEAR(rosenbrock.z(0, 1), 1, 2e-3);
  EXPECT_NEAR(rosenbrock.report.scale[0], std::sqrt(4.4 * 4.4 + 2.2 * 2.2), 1e-5) << "|F(z0)|";

  System<TypeParam> singular(  // whose Jacobian is singular at the solution
      4,
      [](const T* z, T* F) {
        F[0] = z[0] + 10 * z[1];
        F[1] = std::sqrt(T(5)) * (z[2] - z[3]);
        F[2] = (z[1] - 2 * z[2]) * (z[1] - 2 * z[2]);
        F[3] = std::sqrt(T(10)) * (z[0] - z[3]) * (z[0] - z[3]);
      },
      root_form);
  const T start[] = {3, -1, 0, 1};
  std::copy_n(start, 4, &singular.z0(0, 0));
  singular.solve(Newton{}, {.max_steps = 2000});
  EXPECT_EQ(singular.report.status[0], Status::converged);
}

TYPED_TEST(NewtonOnly, StepsAndTraceNeverPassTheLimit) {
  using T = typename TypeParam::T;
  const auto problem = different_speeds<T>();
  for (const auto& named : methods_of<Newtonian>())
    for (const std::int64_t max_steps : {1, 2, 3, 5, 19, 20, 30}) {
      Solve<TypeParam> solve(problem, {.stop = {.rtol = 1e-6, .max_steps = max_steps}, .trace_steps = max_steps},
                             named.method);
      std::fill(solve.report.trace.begin(), solve.report.trace.end(), -1);
      const auto outcome = solve.run();
      EXPECT_LE(outcome.longest(), max_steps) << named.name;
      for (std::int64_t row = 0; row < solve.rows; ++row) {
        EXPECT_NE(outcome.status[row], Status::running);
        bool found = false;
        for (std::int64_t step = 0; step < max_steps; ++step) {
          const double traced = outcome.trace[step * solve.rows + row];
          EXPECT_EQ(traced >= 0, step < outcome.steps[row]) << named.name << " row " << row << " step " << step;
          found = found || traced == outcome.residual[row];
        }
        EXPECT_TRUE(found) << "the reported residual is one of those measured";
      }
    }
}

TYPED_TEST(NewtonOnly, ARowWithoutAFixedPointEndsAndKeepsItsBestPoint) {
  using T = typename TypeParam::T;
  for (const auto& problem : without_fixed_point<T>())
    for (const auto& named : methods_of<Newtonian>()) {
      if (!named.method.differences) continue;
      const auto outcome = Solve<TypeParam>(problem, {.stop = {.max_steps = 500}}, named.method).run();
      for (std::int64_t row = 0; row < problem.rows; ++row)
        EXPECT_LT(outcome.status[row], Status::converged) << problem.name << ", " << named.name;
    }
}

// sqrt(z^2 + 1) - z goes to zero at infinity alone; a local minimum of |z^2 + 1| is at zero.
TYPED_TEST(NewtonOnly, ALocalMinimumOfTheResidualIsABreakdown) {
  using T = typename TypeParam::T;
  for (const NewtonMethod& method : {NewtonMethod(NewtonKrylov{}), NewtonMethod(Newton{})}) {
    System<TypeParam> system(1, [](const T* z, T* F) { F[0] = z[0] * z[0] + 1; }, root_form);
    system.z0(0, 0) = T(0.7);
    system.solve(method, {.max_steps = 3000});
    EXPECT_EQ(system.report.status[0], Status::breakdown);
    EXPECT_NEAR(system.report.residual[0], 1, 0.05);
    EXPECT_NEAR(system.report.residual[0], system.z(0, 0) * system.z(0, 0) + 1, 1e-6);
  }
}

// Whole steps leave the local minimum at zero that descent ends in.
TYPED_TEST(NewtonOnly, WithoutDescentTheBestPointIsKept) {
  using T = typename TypeParam::T;
  for (const NewtonMethod& method :
       {NewtonMethod(NewtonKrylov{.descent = false}), NewtonMethod(Newton{.descent = false})}) {
    System<TypeParam> system(1, [](const T* z, T* F) { F[0] = z[0] * z[0] * z[0] - 2 * z[0] + 2; }, root_form);
    system.z0(0, 0) = T(0.5);
    system.solve(method, {.max_steps = 3000});
    EXPECT_EQ(system.report.status[0], Status::converged);
    EXPECT_NEAR(system.z(0, 0), -1.769292354, 1e-3);
    system.asked = 0;
    system.solve(method, {.max_steps = 8});
    const double z = system.z(0, 0);
    EXPECT_NEAR(system.report.residual[0], std::abs(z * z * z - 2 * z + 2), 1e-5);
  }
}

TYPED_TEST(NewtonOnly, OptionsOutsideTheirRangeAreRefused) {
  using T = typename TypeParam::T;
  using Solver = NewtonSolve<typename TypeParam::Queue, T>;
  const auto bytes = [](const NewtonMethod& method, std::int64_t width) {
    return [=] { Solver::scratch_bytes(1, width, method, {}, {}); };
  };
  EXPECT_TRUE(refuses("forcing", bytes(NewtonKrylov{.forcing = 1}, 3)));
  EXPECT_TRUE(refuses("forcing", bytes(NewtonKrylov{.forcing = -0.1}, 3)));
  EXPECT_TRUE(refuses("forcing", bytes(NewtonKrylov{.forcing = std::numeric_limits<double>::quiet_NaN()}, 3)));
  EXPECT_TRUE(refuses("restart", bytes(NewtonKrylov{.restart = 0}, 3)));
  EXPECT_TRUE(refuses("max_width", bytes(Newton{.max_width = 0}, 3)));
  EXPECT_TRUE(refuses("width", bytes(Newton{.max_width = 4}, 5)));
}

}  // namespace
}  // namespace deqcore::test

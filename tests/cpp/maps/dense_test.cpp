// SPDX-License-Identifier: Apache-2.0
#include "deqcore/maps/dense.hpp"

#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <thread>
#include <vector>

#include "block.hpp"
#include "deqcore/device/buffer.hpp"
#include "deqcore/maps/packed.hpp"
#include "errors.hpp"
#include "queues.hpp"

namespace deqcore::test {
namespace {

template <class T>
class Maps : public ::testing::Test {};
TYPED_TEST_SUITE(Maps, FloatAndDouble, TypeNames);

TYPED_TEST(Maps, PackedProductIsTheProductAndARowHasTheSameBitsAlone) {
  using T = TypeParam;
  Random random(80);
  for (const std::int64_t outputs : {1, 2, 7, 8, 15, 16, 17, 33, 65, 129})
    for (const std::int64_t inputs : {1, 3, 16, 37})
      for (const std::int64_t rows : {1, 2, 5, 6, 7, 13, 20}) {
        const auto W = Block<T>::random(random, outputs, inputs, 2);
        const auto x = Block<T>::random(random, rows, inputs, 1);
        Block<T> y(rows, outputs, 3), alone(1, outputs);
        const PackedMatrix<T> packed(outputs, inputs, W.view().data, W.view().pitch, 1);
        packed.multiply(x.view(), y.view());
        EXPECT_TRUE(y.gaps_intact());
        for (std::int64_t i = 0; i < rows; ++i) {
          packed.multiply(x.view().slice(i, 1), alone.view());
          ASSERT_TRUE(same_bits(alone.view()[0], y.view()[i], outputs)) << rows << " " << outputs << " " << inputs;
          for (std::int64_t o = 0; o < outputs; ++o) {
            double sum = 0, size = 0;
            for (std::int64_t k = 0; k < inputs; ++k) {
              sum += double(W(o, k)) * x(i, k);
              size += std::abs(double(W(o, k)) * x(i, k));
            }
            ASSERT_NEAR(y(i, o), sum, (inputs + 1) * std::numeric_limits<T>::epsilon() * size);
          }
        }
      }
}

TYPED_TEST(Maps, PackedTransposeIsReadThroughStrides) {
  using T = TypeParam;
  Random random(81);
  const auto W = Block<T>::random(random, 5, 9);
  const auto x = Block<T>::random(random, 3, 5);
  Block<T> y(3, 9);
  PackedMatrix<T>(9, 5, W.view().data, 1, 9).multiply(x.view(), y.view());
  for (std::int64_t i = 0; i < 3; ++i)
    for (std::int64_t o = 0; o < 9; ++o) {
      double sum = 0;
      for (std::int64_t k = 0; k < 5; ++k) sum += double(W(k, o)) * x(i, k);
      EXPECT_NEAR(y(i, o), sum, 1e-5);
    }
}

// A contraction, and inputs for it.
template <class T>
struct Problem {
  Problem(std::int64_t rows_, std::int64_t width_, Activation activation = Activation::tanh)
      : rows(rows_),
        width(width_),
        W(rows_ ? Block<T>::random(random, width_, width_) : Block<T>(0, 0)),
        c(Block<T>::random(random, rows_, width_)),
        z0(rows_, width_),
        map((shrink(), std::as_const(W).view()), activation) {}

  void shrink() {
    for (std::int64_t i = 0; i < width; ++i)
      for (std::int64_t j = 0; j < width; ++j) W(i, j) *= T(0.45) / std::sqrt(T(width));
  }

  std::vector<T> solved(int threads, ReportBuffer& report, Interrupt* interrupt = nullptr) const {
    Block<T> result(rows, width);
    map.solve(threads, Anderson{}, {}, z0.view(), c.view(), result.view(), report.view(), nullptr, interrupt);
    return {result.view().data, result.view().data + rows * width};
  }

  Random random{82};
  std::int64_t rows, width;
  Block<T> W, c, z0;
  Dense<T> map;
};

TYPED_TEST(Maps, ANativeSolveHasTheBitsOfTheDialogueOnAnyNumberOfThreads) {
  using T = TypeParam;
  for (const auto& [rows, width] : {std::pair<std::int64_t, std::int64_t>{1, 5}, {70, 33}, {130, 96}}) {
    const Problem<T> p(rows, width);
    ReportBuffer one(rows), many(rows), dialogue(rows);
    const std::vector<T> by_one = p.solved(1, one);
    for (const int threads : {2, 3}) {
      EXPECT_TRUE(same_bits(p.solved(threads, many), by_one));
      EXPECT_TRUE(same_bits(many.residual, one.residual));
      EXPECT_EQ(many.steps, one.steps);
    }
    for (const Status status : one.status) EXPECT_EQ(status, Status::converged);

    CpuQueue queue;
    const HostBuffer memory(FixedPoint<CpuQueue, T>::scratch_bytes(rows, width, Anderson{}, {}));
    Arena scratch = memory.arena();
    FixedPoint<CpuQueue, T> solver(queue, rows, width, Anderson{}, {}, scratch);
    Block<T> result(rows, width), own(rows, width), answer(rows, width);
    const auto map = [&](CpuQueue& on, const Question<T>& question, Rows<T> f) {
      for (std::int64_t i = 0; i < question.count; ++i) std::copy_n(p.c.view()[question.rows[i]], width, own.view()[i]);
      p.map.value(on, question.at, std::as_const(own).view().slice(0, question.count), f);
    };
    solve(queue, solver, MapRef<CpuQueue, T>(map), p.z0.view(), result.view(), dialogue.view(), answer.view().data);
    EXPECT_TRUE(same_bits(result.view().data, by_one.data(), rows * width));
    EXPECT_TRUE(same_bits(dialogue.residual, one.residual));
  }
}

TYPED_TEST(Maps, ABackwardSolveSolvesTheTransposedSystem) {
  using T = TypeParam;
  const Problem<T> p(30, 21);
  Random random(83);
  ReportBuffer forward(30), backward(30);
  const std::vector<T> solved = p.solved(1, forward);
  const Rows<const T> z = dense_rows<const T>(solved.data(), 30, 21);
  const auto g = Block<T>::random(random, 30, 21);
  Block<T> u(30, 21), JTu(30, 21), again(30, 21);
  const Stop stop{.rtol = 1e-5};
  p.map.solve_adjoint(1, Anderson{}, stop, z, p.c.view(), g.view(), g.view(), u.view(), backward.view(), nullptr);
  p.map.vjp(CpuQueue(), z, p.c.view(), std::as_const(u).view(), JTu.view());
  for (std::int64_t i = 0; i < 30; ++i) {
    EXPECT_EQ(backward.status[i], Status::converged);
    double wrong = 0, size = 0;
    for (std::int64_t j = 0; j < 21; ++j) {
      wrong += std::pow(double(JTu(i, j)) + g(i, j) - u(i, j), 2);
      size += std::pow(double(g(i, j)), 2);
    }
    EXPECT_LE(std::sqrt(wrong), 1.1e-5 * std::sqrt(size));
  }
  p.map.solve_adjoint(2, Anderson{}, stop, z, p.c.view(), g.view(), g.view(), again.view(), backward.view(), nullptr);
  EXPECT_TRUE(again == u);
}

TYPED_TEST(Maps, DerivativesAreThoseOfTheFormula) {
  using T = TypeParam;
  const T tolerance = 200 * std::numeric_limits<T>::epsilon();
  for (const Activation activation : activations) {
    const std::int64_t rows = 4, n = 6;
    const Problem<T> p(rows, n, activation);
    Random random(84);
    const auto z = Block<T>::random(random, rows, n), v = Block<T>::random(random, rows, n);
    Block<T> f(rows, n), Jv(rows, n), JTv(rows, n), dW(n, n), dc(rows, n), dc_one(1, n);
    const CpuQueue queue;
    p.map.value(queue, z.view(), p.c.view(), f.view());
    p.map.jvp(queue, z.view(), p.c.view(), v.view(), Jv.view());
    p.map.vjp(queue, z.view(), p.c.view(), v.view(), JTv.view());
    p.map.parameter_gradients(queue, z.view(), p.c.view(), v.view(), dW.view(), dc.view());
    std::vector<double> d(rows * n), a(rows * n), sum_dW(n * n), Wv(rows * n), WTdv(rows * n);
    for (std::int64_t i = 0; i < rows; ++i)
      for (std::int64_t j = 0; j < n; ++j) {
        double s = p.c(i, j), w = 0;
        for (std::int64_t k = 0; k < n; ++k) {
          s += double(p.W(j, k)) * z(i, k);
          w += double(p.W(j, k)) * v(i, k);
        }
        double value = s, slope = s;
        const double zero = 0;
        activate<double>(activation, 1, &zero, &value);
        differentiate<double>(activation, 1, &zero, &slope);
        d[i * n + j] = slope;
        a[i * n + j] = value;
        Wv[i * n + j] = w;
      }
    for (std::int64_t i = 0; i < rows; ++i)
      for (std::int64_t j = 0; j < n; ++j)
        for (std::int64_t k = 0; k < n; ++k) {
          WTdv[i * n + k] += double(p.W(j, k)) * d[i * n + j] * v(i, j);
          sum_dW[j * n + k] += d[i * n + j] * v(i, j) * z(i, k);
        }
    for (std::int64_t i = 0; i < rows; ++i)
      for (std::int64_t j = 0; j < n; ++j) {
        EXPECT_NEAR(f(i, j), a[i * n + j], tolerance) << name(activation);
        EXPECT_NEAR(Jv(i, j), d[i * n + j] * Wv[i * n + j], tolerance) << name(activation);
        EXPECT_NEAR(JTv(i, j), WTdv[i * n + j], tolerance) << name(activation);
        EXPECT_NEAR(dc(i, j), d[i * n + j] * v(i, j), tolerance) << name(activation);
      }
    for (std::int64_t j = 0; j < n; ++j)
      for (std::int64_t k = 0; k < n; ++k) EXPECT_NEAR(dW(j, k), sum_dW[j * n + k], tolerance) << name(activation);
  }
}

TEST(Dense, RefusesShapesThatDoNotFit) {
  const Problem<float> p(3, 4);
  Block<float> narrow(3, 3), two(2, 4), f(3, 4);
  EXPECT_TRUE(refuses("W", [&] { Dense<float>(std::as_const(two).view(), Activation::tanh); }));
  EXPECT_TRUE(refuses("z", [&] { p.map.value(CpuQueue(), std::as_const(narrow).view(), p.c.view(), f.view()); }));
  EXPECT_TRUE(refuses("injection", [&] { p.map.value(CpuQueue(), p.z0.view(), std::as_const(two).view(), f.view()); }));
}

TEST(Dense, AnInterruptCancelsEveryRow) {
  const Problem<double> p(40, 16);
  ReportBuffer report(40);
  const auto never = [] { return false; };
  Interrupt interrupt(never);
  interrupt.request();
  const std::vector<double> result = p.solved(2, report, &interrupt);
  for (const Status status : report.status) EXPECT_EQ(status, Status::cancelled);
  EXPECT_EQ(result, std::vector<double>(40 * 16, 0.0)) << "the starting points";
}

TEST(Dense, SolvesFromSeveralThreadsWhileItsWeightsAreReplacedByTheSame) {
  Problem<float> p(50, 32);
  ReportBuffer first(50);
  const std::vector<float> expected = p.solved(1, first);
  std::vector<std::thread> solvers;
  for (int t = 0; t < 3; ++t)
    solvers.emplace_back([&] {
      for (int round = 0; round < 20; ++round) {
        ReportBuffer report(50);
        EXPECT_TRUE(same_bits(p.solved(2, report), expected));
      }
    });
  for (int round = 0; round < 200; ++round) p.map.update(std::as_const(p.W).view());
  for (std::thread& solver : solvers) solver.join();
}

TEST(Dense, SolvesInTheChildOfAFork) {
  const Problem<double> p(200, 64);
  ReportBuffer report(200);
  const std::vector<double> expected = p.solved(2, report);
  const pid_t child = fork();
  if (child == 0) {
    alarm(30);
    _exit(same_bits(p.solved(2, report), expected) ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

TEST(Dense, ATileHoldsExactlyWhatItWasPromised) {
  const Problem<float> p(300, 48);
  const Tiling tiling = tile_rows(300, 4000, 2 * 48 * 48, 2);
  std::int64_t covered = 0;
  for (std::int64_t tile = 0; tile < tiling.tiles; ++tile) {
    const std::int64_t rows = tiling.first(tile + 1) - tiling.first(tile);
    EXPECT_GE(rows, 1);
    EXPECT_LE(rows, tiling.tallest());
    covered += rows;
  }
  EXPECT_EQ(covered, 300);
  EXPECT_GT(p.map.solve_bytes(2, Anderson{}, {}, 300), p.map.solve_bytes(1, Picard{}, {}, 300) / 2);
}

}  // namespace
}  // namespace deqcore::test

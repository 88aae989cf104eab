// SPDX-License-Identifier: Apache-2.0
#include "deqcore/maps/dense.hpp"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <thread>
#include <utility>
#include <vector>

#include "block.hpp"
#include "deqcore/device/buffer.hpp"
#include "errors.hpp"
#include "queues.hpp"

namespace deqcore::test {
namespace {

// A contraction whose rows differ, and inputs for it.
template <class T>
struct Problem {
  Problem(std::int64_t rows_, std::int64_t width_, Activation activation = Activation::tanh, double size = 0.45)
      : rows(rows_),
        width(width_),
        W(weights(size)),
        c(Block<T>::random(random, rows_, width_)),
        z0(Block<T>::random(random, rows_, width_)),
        g(Block<T>::random(random, rows_, width_)),
        map(std::as_const(W).view(), activation) {}

  Block<T> weights(double size) {
    auto some = Block<T>::random(random, width, width, 1);
    for (std::int64_t i = 0; i < width; ++i)
      for (std::int64_t j = 0; j < width; ++j)
        some(i, j) *= static_cast<T>(size / std::sqrt(static_cast<double>(width)));
    return some;
  }

  Random random{90};
  std::int64_t rows, width;
  Block<T> W;
  const Block<T> c, z0, g;
  Dense<T> map;
};

template <class T>
struct Solution {
  explicit Solution(const Problem<T>& p) : value(p.rows, p.width, 0, T(-77)), report(p.rows) {}
  Block<T> value;
  ReportBuffer report;
  Counts counts;
};

template <class T>
Solution<T> solved(const Problem<T>& p, int threads, const Method& method = Anderson{}, const Stop& stop = {},
                   Interrupt* interrupt = nullptr) {
  Solution<T> s(p);
  s.counts =
      p.map.solve(threads, method, stop, p.z0.view(), p.c.view(), s.value.view(), s.report.view(), nullptr, interrupt);
  return s;
}

// Backward from the point z0, starting at zero.
template <class T>
Solution<T> solved_back(const Problem<T>& p, int threads, const AdjointMethod& method = Anderson{},
                        const Stop& stop = {}, Interrupt* interrupt = nullptr) {
  Solution<T> s(p);
  const Block<T> zero(p.rows, p.width);
  s.counts = p.map.solve_adjoint(threads, method, stop, p.z0.view(), p.c.view(), p.g.view(), zero.view(),
                                 s.value.view(), s.report.view(), interrupt);
  return s;
}

template <class T>
::testing::AssertionResult same(const Solution<T>& a, const Solution<T>& b) {
  if (!(a.value == b.value)) return ::testing::AssertionFailure() << "results differ";
  if (auto equal = same_bits(a.report.residual, b.report.residual); !equal) return equal << " of the residual";
  if (auto equal = same_bits(a.report.scale, b.report.scale); !equal) return equal << " of the scale";
  if (auto equal = same_bits(a.report.steps, b.report.steps); !equal) return equal << " of the steps";
  return same_bits(a.report.status, b.report.status);
}

template <class T>
class DenseMap : public ::testing::Test {};
TYPED_TEST_SUITE(DenseMap, FloatAndDouble, TypeNames);

constexpr std::pair<std::int64_t, std::int64_t> shapes[] = {{1, 1}, {1, 5}, {3, 16}, {7, 17}, {70, 33}, {130, 96}};

// --- products

TYPED_TEST(DenseMap, ValueAndDerivativesAreThoseOfTheFormula) {
  using T = TypeParam;
  for (const Activation activation : activations)
    for (const bool one_injection : {false, true}) {
      SCOPED_TRACE(name(activation));
      const std::int64_t rows = 5, n = 9;
      const Problem<T> p(rows, n, activation);
      Random random(91);
      const auto v = Block<T>::random(random, rows, n, 2);
      const Rows<const T> c = p.c.view().slice(0, one_injection ? 1 : rows);
      Block<T> f(rows, n, 1), Jv(rows, n, 1), JTv(rows, n, 1), dW(n, n, 1), dc(one_injection ? 1 : rows, n, 1);
      const CpuQueue queue;
      p.map.value(queue, p.z0.view(), c, f.view());
      p.map.jvp(queue, p.z0.view(), c, v.view(), Jv.view());
      p.map.vjp(queue, p.z0.view(), c, v.view(), JTv.view());
      p.map.parameter_gradients(queue, p.z0.view(), c, v.view(), dW.view(), dc.view());
      for (const Block<T>* block : {&f, &Jv, &JTv, &dW, &dc}) EXPECT_TRUE(block->gaps_intact());

      Block<double> d(rows, n), Wv(rows, n), exact_JTv(rows, n), exact_dW(n, n), exact_dc(dc.rows(), n);
      const double slack = 100 * std::numeric_limits<T>::epsilon();
      for (std::int64_t i = 0; i < rows; ++i)
        for (std::int64_t j = 0; j < n; ++j) {
          double s = c[one_injection ? 0 : i][j];
          for (std::int64_t k = 0; k < n; ++k) {
            s += static_cast<double>(p.W(j, k)) * p.z0(i, k);
            Wv(i, j) += static_cast<double>(p.W(j, k)) * v(i, k);
          }
          const double zero = 0;
          double value = s;
          d(i, j) = s;
          activate(activation, 1, &zero, &value);
          differentiate(activation, 1, &zero, &d(i, j));
          EXPECT_NEAR(f(i, j), value, slack);
          EXPECT_NEAR(Jv(i, j), d(i, j) * Wv(i, j), slack);
        }
      for (std::int64_t i = 0; i < rows; ++i)
        for (std::int64_t j = 0; j < n; ++j) {
          const double du = d(i, j) * v(i, j);
          exact_dc(one_injection ? 0 : i, j) += du;
          for (std::int64_t k = 0; k < n; ++k) {
            exact_JTv(i, k) += p.W(j, k) * du;
            exact_dW(j, k) += du * p.z0(i, k);
          }
        }
      for (std::int64_t i = 0; i < rows; ++i)
        for (std::int64_t j = 0; j < n; ++j) EXPECT_NEAR(JTv(i, j), exact_JTv(i, j), slack);
      for (std::int64_t i = 0; i < dc.rows(); ++i)
        for (std::int64_t j = 0; j < n; ++j) EXPECT_NEAR(dc(i, j), exact_dc(i, j), slack);
      for (std::int64_t j = 0; j < n; ++j)
        for (std::int64_t k = 0; k < n; ++k) EXPECT_NEAR(dW(j, k), exact_dW(j, k), slack);
    }
}

TEST(DenseDerivatives, AgreeWithFiniteDifferences) {
  for (const Activation activation : activations) {
    SCOPED_TRACE(name(activation));
    const std::int64_t rows = 3, n = 5;
    Problem<double> p(rows, n, activation);
    Random random(92);
    const auto v = Block<double>::random(random, rows, n), u = Block<double>::random(random, rows, n);
    Block<double> Jv(rows, n), JTu(rows, n), dW(n, n), dc(rows, n);
    const CpuQueue queue;
    p.map.jvp(queue, p.z0.view(), p.c.view(), v.view(), Jv.view());
    p.map.vjp(queue, p.z0.view(), p.c.view(), u.view(), JTu.view());
    p.map.parameter_gradients(queue, p.z0.view(), p.c.view(), u.view(), dW.view(), dc.view());
    const double h = 1e-6;
    // (f(z + h v, c + h e) - f(z - h v, c - h e)) / 2h
    const auto difference = [&](const Block<double>& along_z, const Block<double>& along_c) {
      Block<double> sides[2] = {Block<double>(rows, n), Block<double>(rows, n)};
      for (const int side : {0, 1}) {
        Block<double> z = p.z0, c = p.c;
        for (std::int64_t i = 0; i < rows; ++i)
          for (std::int64_t j = 0; j < n; ++j) {
            z(i, j) += (side ? h : -h) * along_z(i, j);
            c(i, j) += (side ? h : -h) * along_c(i, j);
          }
        p.map.value(queue, std::as_const(z).view(), std::as_const(c).view(), sides[side].view());
      }
      Block<double> slope(rows, n);
      for (std::int64_t i = 0; i < rows; ++i)
        for (std::int64_t j = 0; j < n; ++j) slope(i, j) = (sides[1](i, j) - sides[0](i, j)) / (2 * h);
      return slope;
    };
    const auto dot = [&](const Block<double>& a, const Block<double>& b) {
      double sum = 0;
      for (std::int64_t i = 0; i < rows; ++i)
        for (std::int64_t j = 0; j < n; ++j) sum += a(i, j) * b(i, j);
      return sum;
    };
    const Block<double> nothing(rows, n);
    const auto by_z = difference(v, nothing), by_c = difference(nothing, v);
    for (std::int64_t i = 0; i < rows; ++i)
      for (std::int64_t j = 0; j < n; ++j) EXPECT_NEAR(Jv(i, j), by_z(i, j), 1e-8);
    EXPECT_NEAR(dot(JTu, v), dot(u, by_z), 1e-7);
    EXPECT_NEAR(dot(dc, v), dot(u, by_c), 1e-7);
    const auto direction = Block<double>::random(random, n, n);
    double along_W = 0;
    Block<double> sides[2] = {Block<double>(rows, n), Block<double>(rows, n)};
    for (const int side : {0, 1}) {
      Block<double> W = p.W;
      for (std::int64_t j = 0; j < n; ++j)
        for (std::int64_t k = 0; k < n; ++k) W(j, k) += (side ? h : -h) * direction(j, k);
      p.map.update(std::as_const(W).view());
      p.map.value(queue, p.z0.view(), p.c.view(), sides[side].view());
    }
    for (std::int64_t j = 0; j < n; ++j)
      for (std::int64_t k = 0; k < n; ++k) along_W += dW(j, k) * direction(j, k);
    EXPECT_NEAR(along_W, (dot(u, sides[1]) - dot(u, sides[0])) / (2 * h), 1e-7);
  }
}

TYPED_TEST(DenseMap, ProductsHaveTheSameBitsOnAnyNumberOfThreadsAndForARowAlone) {
  using T = TypeParam;
  const Problem<T> p(150, 190);  // worth waking threads for
  Random random(93);
  const auto u = Block<T>::random(random, p.rows, p.width);
  struct Products {
    Block<T> f, Jv, JTv, dW, dc;
  };
  const auto products = [&](int threads, std::int64_t first, std::int64_t rows) {
    const CpuQueue queue(threads);
    Products out{Block<T>(rows, p.width), Block<T>(rows, p.width), Block<T>(rows, p.width), Block<T>(p.width, p.width),
                 Block<T>(rows, p.width)};
    const auto z = p.z0.view().slice(first, rows), c = p.c.view().slice(first, rows), v = u.view().slice(first, rows);
    p.map.value(queue, z, c, out.f.view());
    p.map.jvp(queue, z, c, v, out.Jv.view());
    p.map.vjp(queue, z, c, v, out.JTv.view());
    p.map.parameter_gradients(queue, z, c, v, out.dW.view(), out.dc.view());
    return out;
  };
  const Products one = products(1, 0, p.rows);
  for (const int threads : {2, 3}) {
    const Products more = products(threads, 0, p.rows);
    EXPECT_TRUE(one.f == more.f && one.Jv == more.Jv && one.JTv == more.JTv);
    EXPECT_TRUE(one.dW == more.dW && one.dc == more.dc);
  }
  for (const std::int64_t row : {0, 77, 149}) {
    const Products alone = products(1, row, 1);
    EXPECT_TRUE(same_bits(&alone.f(0, 0), &one.f(row, 0), p.width));
    EXPECT_TRUE(same_bits(&alone.Jv(0, 0), &one.Jv(row, 0), p.width));
    EXPECT_TRUE(same_bits(&alone.JTv(0, 0), &one.JTv(row, 0), p.width));
    EXPECT_TRUE(same_bits(&alone.dc(0, 0), &one.dc(row, 0), p.width));
  }
}

TYPED_TEST(DenseMap, UpdateReplacesTheWeightsOfProductsAndSolves) {
  using T = TypeParam;
  Problem<T> p(4, 12);
  Block<T> unused(4, 12);
  p.map.vjp(CpuQueue(), p.z0.view(), p.c.view(), p.g.view(), unused.view());  // packs the old transpose
  const Block<T> other = p.weights(0.3);
  p.map.update(other.view());
  p.W = other;
  const Dense<T> fresh(other.view(), Activation::tanh);
  Block<T> updated(4, 12), expected(4, 12);
  p.map.vjp(CpuQueue(), p.z0.view(), p.c.view(), p.g.view(), updated.view());
  fresh.vjp(CpuQueue(), p.z0.view(), p.c.view(), p.g.view(), expected.view());
  EXPECT_TRUE(updated == expected);
  Solution<T> by_fresh(p);
  fresh.solve(1, Anderson{}, {}, p.z0.view(), p.c.view(), by_fresh.value.view(), by_fresh.report.view(), nullptr,
              nullptr);
  EXPECT_TRUE(same(solved(p, 1), by_fresh));
}

// --- whole solves

// The same solve as a dialogue, the map answering from outside.
template <class T>
Solution<T> by_dialogue(const Problem<T>& p, const Method& method, const Stop& stop) {
  CpuQueue queue;
  const HostBuffer memory(FixedPoint<CpuQueue, T>::scratch_bytes(p.rows, p.width, method, stop));
  Arena scratch = memory.arena();
  FixedPoint<CpuQueue, T> solver(queue, p.rows, p.width, method, stop, scratch);
  Solution<T> s(p);
  Block<T> own(p.rows, p.width), answer(p.rows, p.width);
  const auto map = [&](CpuQueue& on, const Question<T>& question, Rows<T> f) {
    for (std::int64_t i = 0; i < question.count; ++i) std::copy_n(p.c.view()[question.rows[i]], p.width, &own(i, 0));
    p.map.value(on, question.at, std::as_const(own).view().slice(0, question.count), f);
  };
  solve(queue, solver, MapRef<CpuQueue, T>(map), p.z0.view(), s.value.view(), s.report.view(), answer.view().data);
  s.counts = solver.counts();
  return s;
}

template <class T>
Solution<T> back_by_dialogue(const Problem<T>& p, const AdjointMethod& method, const Stop& stop) {
  CpuQueue queue;
  const HostBuffer memory(Adjoint<CpuQueue, T>::scratch_bytes(p.rows, p.width, method, stop, true));
  Arena scratch = memory.arena();
  Adjoint<CpuQueue, T> solver(queue, p.rows, p.width, method, stop, true, scratch);
  Solution<T> s(p);
  const Block<T> zero(p.rows, p.width);
  Block<T> own(p.rows, p.width), answer(p.rows, p.width);
  const auto map = [&](CpuQueue& on, const Question<T>& question, Rows<T> product) {
    for (std::int64_t i = 0; i < question.count; ++i) std::copy_n(p.c.view()[question.rows[i]], p.width, &own(i, 0));
    p.map.vjp(on, question.at, std::as_const(own).view().slice(0, question.count), question.along, product);
  };
  converse(queue, solver, solver.start(p.z0.view(), p.g.view(), zero.view(), s.value.view(), s.report.view()),
           MapRef<CpuQueue, T>(map), answer.view().data);
  s.counts = solver.counts();
  return s;
}

TYPED_TEST(DenseMap, ASolveHasTheBitsOfTheDialogueOnAnyNumberOfThreads) {
  using T = TypeParam;
  for (const auto& [rows, width] : shapes)
    for (const Method& method : {Method(Anderson{}), Method(Picard{.beta = 0.9})})
      for (const Stop& stop : {Stop{}, Stop{.norm = Norm::inf, .look_every = 3, .retire = Retire::halve}}) {
        SCOPED_TRACE(::testing::Message() << rows << " x " << width);
        const Problem<T> p(rows, width);
        const auto dialogue = by_dialogue(p, method, stop);
        for (const Status status : dialogue.report.status) EXPECT_EQ(status, Status::converged);
        for (const int threads : {1, 2, 5}) EXPECT_TRUE(same(solved(p, threads, method, stop), dialogue)) << threads;
      }
}

TYPED_TEST(DenseMap, ABackwardSolveHasTheBitsOfTheDialogueOnAnyNumberOfThreads) {
  using T = TypeParam;
  for (const auto& [rows, width] : shapes)
    for (const AdjointMethod& method : {AdjointMethod(GMRES{}), AdjointMethod(BiCGSTAB{}), AdjointMethod(Direct{}),
                                        AdjointMethod(Anderson{}), AdjointMethod(Picard{.beta = 0.9})})
      for (const Stop& stop : {Stop{}, Stop{.norm = Norm::inf, .look_every = 3, .retire = Retire::halve}}) {
        SCOPED_TRACE(::testing::Message() << rows << " x " << width << ", method " << method.index());
        const Problem<T> p(rows, width);
        const auto back = back_by_dialogue(p, method, stop);
        for (const Status status : back.report.status) EXPECT_EQ(status, Status::converged);
        for (const int threads : {1, 2, 5}) EXPECT_TRUE(same(solved_back(p, threads, method, stop), back)) << threads;
      }
}

TYPED_TEST(DenseMap, ARowAloneHasTheBitsOfTheRowInABatch) {
  using T = TypeParam;
  const Problem<T> p(130, 40);
  const auto batch = solved(p, 2);
  for (const std::int64_t row : {0, 64, 129}) {
    Block<T> alone(1, 40);
    ReportBuffer report(1);
    p.map.solve(1, Anderson{}, {}, p.z0.view().slice(row, 1), p.c.view().slice(row, 1), alone.view(), report.view(),
                nullptr, nullptr);
    EXPECT_TRUE(same_bits(&alone(0, 0), &batch.value(row, 0), 40));
    EXPECT_EQ(report.residual[0], batch.report.residual[row]);
    EXPECT_EQ(report.steps[0], batch.report.steps[row]);
  }
}

TYPED_TEST(DenseMap, EveryActivationIsSolvedForwardAndBackward) {
  using T = TypeParam;
  for (const Activation activation : activations) {
    SCOPED_TRACE(name(activation));
    const Problem<T> p(6, 14, activation);
    const auto forward = solved(p, 1);
    const auto backward = solved_back(p, 1);
    Block<T> f(6, 14), JTu(6, 14);
    p.map.value(CpuQueue(), forward.value.view(), p.c.view(), f.view());
    p.map.vjp(CpuQueue(), p.z0.view(), p.c.view(), backward.value.view(), JTu.view());
    for (std::int64_t i = 0; i < 6; ++i) {
      EXPECT_EQ(forward.report.status[i], Status::converged);
      EXPECT_EQ(backward.report.status[i], Status::converged);
      double residual = 0, back_residual = 0;
      for (std::int64_t j = 0; j < 14; ++j) {
        residual += std::pow(static_cast<double>(f(i, j)) - forward.value(i, j), 2);
        back_residual += std::pow(static_cast<double>(JTu(i, j) + p.g(i, j)) - backward.value(i, j), 2);
      }
      EXPECT_NEAR(std::sqrt(residual), forward.report.residual[i], 1e-12 * forward.report.residual[i]);
      EXPECT_NEAR(std::sqrt(back_residual), backward.report.residual[i], 1e-12 * backward.report.residual[i]);
    }
  }
}

TYPED_TEST(DenseMap, OneInjectionServesEveryRow) {
  using T = TypeParam;
  const Problem<T> p(90, 20);
  Block<T> copies(90, 20);
  for (std::int64_t i = 0; i < 90; ++i) std::copy_n(&p.c(3, 0), 20, &copies(i, 0));
  Solution<T> one(p), each(p);
  p.map.solve(2, Anderson{}, {}, p.z0.view(), p.c.view().slice(3, 1), one.value.view(), one.report.view(), nullptr,
              nullptr);
  p.map.solve(2, Anderson{}, {}, p.z0.view(), std::as_const(copies).view(), each.value.view(), each.report.view(),
              nullptr, nullptr);
  EXPECT_TRUE(same(one, each));
}

TYPED_TEST(DenseMap, CountsAreThoseOfTheRows) {
  const Problem<TypeParam> p(200, 48);
  for (const int threads : {1, 2}) {
    const auto s = solved(p, threads);
    std::int64_t needed = 0;
    for (const std::int32_t steps : s.report.steps) needed += steps;
    EXPECT_GE(s.counts.rows_asked, needed);
    EXPECT_LE(static_cast<double>(s.counts.rows_asked), 1.15 * static_cast<double>(needed));
    EXPECT_EQ(s.counts.questions, *std::max_element(s.report.steps.begin(), s.report.steps.end()));
  }
}

TYPED_TEST(DenseMap, TraceScaleAndReportLieAtTheRowsOfTheBatch) {
  using T = TypeParam;
  const Problem<T> p(150, 32);
  ReportBuffer report(150, 100);
  std::vector<double> scale(150);
  for (int row = 0; row < 150; ++row) scale[row] = 1 + row;
  Block<T> result(150, 32);
  p.map.solve(2, Anderson{}, {.max_steps = 100, .relative = Relative::to_scale}, p.z0.view(), p.c.view(), result.view(),
              report.view(), scale.data(), nullptr);
  EXPECT_EQ(report.scale, scale);
  for (int row = 0; row < 150; ++row) {
    EXPECT_EQ(report.trace[(report.steps[row] - 1) * 150 + row], report.residual[row]) << "the last step is the best";
    EXPECT_EQ(report.trace[report.steps[row] * 150 + row], 0) << "nothing after the last";
  }
}

TYPED_TEST(DenseMap, StridedBlocksGiveTheSameBits) {
  using T = TypeParam;
  const Problem<T> p(80, 21);
  const auto dense = solved(p, 2);
  Block<T> z0(80, 21, 3), c(80, 21, 5), result(80, 21, 2);
  for (std::int64_t i = 0; i < 80; ++i) {
    std::copy_n(&p.z0(i, 0), 21, &z0(i, 0));
    std::copy_n(&p.c(i, 0), 21, &c(i, 0));
  }
  ReportBuffer report(80);
  p.map.solve(2, Anderson{}, {}, std::as_const(z0).view(), std::as_const(c).view(), result.view(), report.view(),
              nullptr, nullptr);
  EXPECT_TRUE(result.gaps_intact());
  for (std::int64_t i = 0; i < 80; ++i) EXPECT_TRUE(same_bits(&result(i, 0), &dense.value(i, 0), 21));
}

TYPED_TEST(DenseMap, ANonFiniteRowTouchesNoOther) {
  using T = TypeParam;
  const Problem<T> p(60, 24);
  const auto healthy = solved(p, 2);
  Block<T> c = p.c;
  c(17, 5) = std::numeric_limits<T>::quiet_NaN();
  Solution<T> s(p);
  p.map.solve(2, Anderson{}, {}, p.z0.view(), std::as_const(c).view(), s.value.view(), s.report.view(), nullptr,
              nullptr);
  for (std::int64_t i = 0; i < 60; ++i) {
    EXPECT_EQ(s.report.status[i], i == 17 ? Status::not_finite : Status::converged);
    if (i == 17) continue;
    EXPECT_TRUE(same_bits(&s.value(i, 0), &healthy.value(i, 0), 24));
  }
}

// --- misuse

TYPED_TEST(DenseMap, WrongShapesAreRefusedByName) {
  using T = TypeParam;
  const Problem<T> p(3, 4);
  const CpuQueue queue;
  const Block<T> narrow(3, 3), short_one(2, 4), none(0, 4), good(3, 4), tall(4, 4);
  Block<T> f(3, 4), f_narrow(3, 3), f_short(2, 4), dW(4, 4), dc(3, 4);
  ReportBuffer report(4);
  const auto z = p.z0.view(), c = p.c.view();
  EXPECT_TRUE(refuses("W", [&] { Dense<T>(short_one.view(), Activation::tanh); }));
  EXPECT_TRUE(refuses("W", [&] { Dense<T>(Rows<const T>{}, Activation::tanh); }));
  EXPECT_TRUE(refuses("W", [&] { Problem<T>(3, 4).map.update(narrow.view()); }));
  EXPECT_TRUE(refuses("z", [&] { p.map.value(queue, narrow.view(), c, f.view()); }));
  EXPECT_TRUE(refuses("z", [&] { p.map.value(queue, none.view(), c, f.view()); }));
  EXPECT_TRUE(refuses("injection", [&] { p.map.value(queue, z, short_one.view(), f.view()); }));
  EXPECT_TRUE(refuses("injection", [&] { p.map.value(queue, z, narrow.view(), f.view()); }));
  EXPECT_TRUE(refuses("f", [&] { p.map.value(queue, z, c, f_short.view()); }));
  EXPECT_TRUE(refuses("f", [&] { p.map.value(queue, z, c, f_narrow.view()); }));
  EXPECT_TRUE(refuses("v", [&] { p.map.jvp(queue, z, c, short_one.view(), f.view()); }));
  EXPECT_TRUE(refuses("Jv", [&] { p.map.jvp(queue, z, c, good.view(), f_short.view()); }));
  EXPECT_TRUE(refuses("u", [&] { p.map.vjp(queue, z, c, tall.view(), f.view()); }));
  EXPECT_TRUE(refuses("JTu", [&] { p.map.vjp(queue, z, c, good.view(), f_narrow.view()); }));
  EXPECT_TRUE(refuses("u", [&] { p.map.parameter_gradients(queue, z, c, short_one.view(), dW.view(), dc.view()); }));
  EXPECT_TRUE(refuses("dW", [&] { p.map.parameter_gradients(queue, z, c, good.view(), f.view(), dc.view()); }));
  EXPECT_TRUE(refuses("dc", [&] { p.map.parameter_gradients(queue, z, c, good.view(), dW.view(), f_short.view()); }));
  const auto solve = [&](int threads, Rows<const T> z0, Rows<T> result) {
    return [&p, &report, c, threads, z0, result] {
      p.map.solve(threads, Anderson{}, {}, z0, c, result, report.view(), nullptr, nullptr);
    };
  };
  EXPECT_TRUE(refuses("z0", solve(1, none.view(), f.view())));
  EXPECT_TRUE(refuses("z0", solve(1, narrow.view(), f.view())));
  EXPECT_TRUE(refuses("injection", solve(1, tall.view(), f.view())));
  EXPECT_TRUE(refuses("result", solve(1, z, f_short.view())));
  EXPECT_TRUE(refuses("threads", solve(0, z, f.view())));
  const auto back = [&](Rows<const T> g, Rows<const T> u0, Rows<T> result) {
    return [&p, &report, z, c, g, u0, result] {
      p.map.solve_adjoint(1, Anderson{}, {}, z, c, g, u0, result, report.view(), nullptr);
    };
  };
  EXPECT_TRUE(refuses("g", back(short_one.view(), good.view(), f.view())));
  EXPECT_TRUE(refuses("u0", back(good.view(), tall.view(), f.view())));
  EXPECT_TRUE(refuses("result", back(good.view(), good.view(), f_narrow.view())));
  EXPECT_NO_THROW(solve(1, z, f.view())());
  EXPECT_NO_THROW(back(good.view(), good.view(), f.view())());
}

TYPED_TEST(DenseMap, OutputsThatOverlapInputsAreRefusedByName) {
  using T = TypeParam;
  const Problem<T> p(3, 4);
  const CpuQueue queue;
  std::vector<T> memory(24);
  const auto z = dense_rows(memory.data(), 3, 4), shifted = dense_rows(memory.data() + 11, 3, 4);
  const auto c = p.c.view(), g = p.g.view();
  Block<T> dW(4, 4);
  ReportBuffer report(3);
  EXPECT_TRUE(refuses("f", [&] { p.map.value(queue, z, c, shifted); }));
  EXPECT_TRUE(refuses("f", [&] { p.map.value(queue, g, z, shifted); }));
  EXPECT_TRUE(refuses("Jv", [&] { p.map.jvp(queue, z, c, g, shifted); }));
  EXPECT_TRUE(refuses("JTu", [&] { p.map.vjp(queue, g, c, z, shifted); }));
  EXPECT_TRUE(refuses("dc", [&] { p.map.parameter_gradients(queue, z, c, g, dW.view(), shifted); }));
  const auto solve = [&](Rows<const T> z0, Rows<const T> injection) {
    p.map.solve(1, Anderson{}, {}, z0, injection, shifted, report.view(), nullptr, nullptr);
  };
  EXPECT_TRUE(refuses("result", [&] { solve(z, c); }));
  EXPECT_TRUE(refuses("result", [&] { solve(g, z); }));
  const auto back = [&](Rows<const T> at, Rows<const T> gradient, Rows<const T> u0) {
    p.map.solve_adjoint(1, Anderson{}, {}, at, c, gradient, u0, shifted, report.view(), nullptr);
  };
  EXPECT_TRUE(refuses("result", [&] { back(z, g, g); }));
  EXPECT_TRUE(refuses("result", [&] { back(g, z, g); }));
  EXPECT_TRUE(refuses("result", [&] { back(g, g, z); }));
}

TYPED_TEST(DenseMap, OptionsOutOfRangeComeOutOfTheWorkersOnce) {
  const Problem<TypeParam> p(200, 48);
  for (const int threads : {1, 2}) {
    EXPECT_TRUE(refuses("history", [&] { solved(p, threads, Anderson{.history = 0}); }));
    EXPECT_TRUE(refuses("max_steps", [&] { solved(p, threads, Anderson{}, {.max_steps = 0}); }));
    EXPECT_TRUE(same(solved(p, threads), solved(p, 1))) << "and the pool is usable";
  }
}

// --- many threads, interrupts, forks

TEST(DenseInterrupt, RequestedBeforehandCancelsEveryRow) {
  const Problem<double> p(40, 16);
  const auto never = [] { return false; };
  Interrupt interrupt(never);
  interrupt.request();
  for (const int threads : {1, 2}) {
    const auto s = solved(p, threads, Anderson{}, {}, &interrupt);
    for (const Status status : s.report.status) EXPECT_EQ(status, Status::cancelled);
    EXPECT_TRUE(same_bits(&s.value(0, 0), &p.z0(0, 0), 40 * 16)) << "the starting points";
    const auto back = solved_back(p, threads, Anderson{}, {}, &interrupt);
    for (const Status status : back.report.status) EXPECT_EQ(status, Status::cancelled);
  }
}

TEST(DenseInterrupt, EndsALongSolveSoon) {
  const Problem<double> p(64, 128, Activation::identity, 1.5);  // runs away slowly enough
  for (const int threads : {1, 2}) {
    int asked = 0;
    const auto check = [&] { return ++asked == 2; };
    Interrupt interrupt(check);
    const auto start = std::chrono::steady_clock::now();
    const auto s = solved(p, threads, Picard{.beta = 1e-12}, {.rtol = 1e-15, .max_steps = 2'000'000'000}, &interrupt);
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20));
    EXPECT_EQ(asked, 2);
    for (const Status status : s.report.status) EXPECT_EQ(status, Status::cancelled);
  }
}

TEST(DenseThreads, ConcurrentSolvesOnOneMapGiveTheSameBits) {
  const Problem<float> p(120, 48);
  const auto expected = solved(p, 1), expected_back = solved_back(p, 1);
  std::vector<std::thread> solvers;
  for (int t = 0; t < 4; ++t)
    solvers.emplace_back([&, t] {
      for (int round = 0; round < 10; ++round) {
        EXPECT_TRUE(same(solved(p, 1 + t % 3), expected));
        EXPECT_TRUE(same(solved_back(p, 1 + t % 3), expected_back));
      }
    });
  for (std::thread& solver : solvers) solver.join();
}

// A solve keeps the weights it started with.
TEST(DenseThreads, AnUpdateDuringASolveDoesNotMixWeights) {
  Problem<float> p(120, 48);
  const Block<float> first = p.W, second = p.weights(0.3);
  const auto by_first = solved(p, 1), back_first = solved_back(p, 1);
  p.map.update(second.view());
  const auto by_second = solved(p, 1), back_second = solved_back(p, 1);
  std::atomic<bool> done{false};
  std::thread updater([&] {
    for (int round = 0; !done; ++round) p.map.update((round % 2 ? first : second).view());
  });
  for (int round = 0; round < 40; ++round) {
    const auto s = solved(p, 2);
    EXPECT_TRUE(same(s, by_first) || same(s, by_second));
    const auto back = solved_back(p, 2);
    EXPECT_TRUE(same(back, back_first) || same(back, back_second));
  }
  done = true;
  updater.join();
}

TEST(DenseFork, SolvesInTheChild) {
  const Problem<double> p(200, 64);
  const auto expected = solved(p, 2);
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    alarm(60);  // a child that waits for threads it does not have would wait for ever
    _exit(same(solved(p, 2), expected) ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  EXPECT_TRUE(same(solved(p, 2), expected)) << "and in the parent";
}

// --- tiles

TEST(Tiles, CoverEveryRowOnceAndNoneIsTallerThanPromised) {
  for (const std::int64_t rows : {1, 2, 23, 24, 25, 100, 257, 1000})
    for (const std::int64_t bytes : {100, 4000, 1'000'000})
      for (const std::int64_t flops : {10, 1'000'000})
        for (const int threads : {1, 2, 3, 7}) {
          const Tiling tiling = tile_rows(rows, bytes, flops, threads);
          EXPECT_GE(tiling.threads, 1);
          EXPECT_LE(tiling.threads, threads);
          EXPECT_LE(tiling.threads, tiling.tiles);
          EXPECT_EQ(tiling.first(0), 0);
          EXPECT_EQ(tiling.first(tiling.tiles), rows);
          for (std::int64_t tile = 0; tile < tiling.tiles; ++tile) {
            const std::int64_t height = tiling.first(tile + 1) - tiling.first(tile);
            EXPECT_GE(height, 1);
            EXPECT_LE(height, tiling.tallest());
          }
        }
}

TEST(Tiles, EachGetsItsRowsAndItsOwnAlignedScratch) {
  const Tiling tiling{.rows = 50, .tiles = 9, .threads = 3};
  std::vector<std::atomic<int>> seen(50);
  for_tiles(
      tiling, 100,
      [&](Arena scratch, std::int64_t first, std::int64_t count) {
        auto* const mine = scratch.take<std::int64_t>(12);
        std::fill_n(mine, 12, first);
        for (std::int64_t row = first; row < first + count; ++row) seen[row].fetch_add(1);
        std::this_thread::yield();
        for (int i = 0; i < 12; ++i) EXPECT_EQ(mine[i], first) << "nobody else writes here";
      },
      nullptr);
  for (const auto& count : seen) EXPECT_EQ(count.load(), 1);
}

TEST(Tiles, ASolveTakesNoMoreScratchThanItSays) {
  const Problem<float> p(300, 48);
  for (const Method& method : {Method(Anderson{}), Method(Picard{})})
    for (const int threads : {1, 2, 4}) {
      const std::size_t whole = FixedPoint<CpuQueue, float>::scratch_bytes(300, 48, method, {});
      const std::size_t tiled = p.map.solve_bytes(threads, method, {}, 300);
      EXPECT_GT(tiled, 0u);
      EXPECT_LE(tiled, 2 * whole) << "tiles need no more than the batch at once, answers included";
      EXPECT_NO_THROW(solved(p, threads, method));
    }
  for (const AdjointMethod& method : {AdjointMethod(GMRES{}), AdjointMethod(BiCGSTAB{}), AdjointMethod(Direct{}),
                                      AdjointMethod(Anderson{}), AdjointMethod(Neumann{})})
    for (const int threads : {1, 2, 4}) {
      const std::size_t whole = Adjoint<CpuQueue, float>::scratch_bytes(300, 48, method, {}, false);
      const std::size_t tiled = p.map.solve_adjoint_bytes(threads, method, {}, 300);
      EXPECT_GT(tiled, 0u);
      EXPECT_LE(tiled, 2 * whole + 3 * 300 * 48 * sizeof(float)) << "answers, slopes and their products included";
      EXPECT_NO_THROW(solved_back(p, threads, method));
    }
}

}  // namespace
}  // namespace deqcore::test

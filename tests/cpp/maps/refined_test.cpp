// SPDX-License-Identifier: Apache-2.0
#include "deqcore/maps/refined.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "block.hpp"
#include "deqcore/maps/dense.hpp"
#include "errors.hpp"

namespace deqcore::test {
namespace {

#define NEEDS_BFLOAT16 \
  if (!PackedBfloat16::supported()) GTEST_SKIP() << "this CPU, or this level, has no bfloat16 products"

double bfloat16_of(float x) {
  int exponent;
  const double fraction = std::frexp(static_cast<double>(x), &exponent);
  return std::ldexp(std::nearbyint(std::ldexp(fraction, 8)), exponent - 8);  // 8 bits; ties to even
}

TEST(PackedBfloat16, TheProductIsThatOfTheRoundedNumbers) {
  NEEDS_BFLOAT16;
  Random random(85);
  for (const std::int64_t outputs : {1, 5, 16, 17, 40, 129})
    for (const std::int64_t inputs : {1, 2, 7, 64, 333}) {
      const auto W = Block<float>::random(random, outputs, inputs);
      const PackedMatrix<float> full(outputs, inputs, W.view().data, inputs, 1);
      const PackedBfloat16 packed(full);
      for (const std::int64_t rows : {1, 2, 7, 8, 9, 20}) {
        const auto a = Block<float>::random(random, rows, inputs), b = Block<float>::random(random, rows, inputs);
        std::vector<std::uint16_t> x(static_cast<std::size_t>(rows * packed.pitch()), 0xffff);
        for (std::int64_t i = 0; i < rows; ++i) packed.round_difference(&a(i, 0), &b(i, 0), &x[i * packed.pitch()]);
        std::vector<std::int32_t> backwards;
        for (std::int64_t i = rows; i-- > 0;) backwards.push_back(static_cast<std::int32_t>(i));
        Block<float> y(rows, outputs, 3);
        packed.multiply(x.data(), y.view(), {backwards.data(), rows}, 1);
        EXPECT_TRUE(y.gaps_intact());
        for (std::int64_t i = 0; i < rows; ++i) {
          for (std::int64_t o = 0; o < outputs; ++o) {
            double sum = 0, size = 0;
            for (std::int64_t k = 0; k < inputs; ++k) {
              const double term = bfloat16_of(W(o, k)) * bfloat16_of(a(i, k) - b(i, k));
              sum += term;
              size += std::abs(term);
            }
            ASSERT_NEAR(y(backwards[i], o), sum, static_cast<double>(inputs + 2) * 6e-8 * size) << i << " " << o;
          }
          Block<float> alone(1, outputs);
          packed.multiply(&x[i * packed.pitch()], alone.view(), {.count = 1}, 2);
          ASSERT_TRUE(same_bits(alone.view().data, &y(backwards[i], 0), outputs));
        }
      }
    }
}

TEST(PackedBfloat16, SharedOutputsHaveTheSameBits) {
  NEEDS_BFLOAT16;
  Random random(86);
  const std::int64_t n = 777;
  const auto W = Block<float>::random(random, n, n), x = Block<float>::random(random, 1, n);
  const Block<float> zero(1, n, 0, 0.0F);
  const PackedBfloat16 packed(PackedMatrix<float>(n, n, W.view().data, n, 1));
  std::vector<std::uint16_t> rounded(static_cast<std::size_t>(packed.pitch()));
  packed.round_difference(&x(0, 0), &zero(0, 0), rounded.data());
  Block<float> alone(1, n);
  packed.multiply(rounded.data(), alone.view(), {.count = 1}, 1);
  for (const int threads : {2, 3, 9}) {
    Block<float> shared(1, n);
    packed.multiply(rounded.data(), shared.view(), {.count = 1}, threads);
    EXPECT_TRUE(shared == alone) << threads;
  }
}

struct Problem {
  // `slow` directions in which W is nearly the identity
  Problem(std::int64_t rows_, std::int64_t width_, double size, double slow = 0)
      : rows(rows_),
        width(width_),
        W(Block<float>::random(random, width_, width_)),
        c(Block<float>::random(random, rows_, width_)),
        z0(rows_, width_, 0, 0.0F) {
    for (std::int64_t i = 0; i < width; ++i)
      for (std::int64_t j = 0; j < width; ++j)
        W(i, j) =
            static_cast<float>(W(i, j) * size / std::sqrt(static_cast<double>(width)) + (i == j && i < 4 ? slow : 0));
  }

  struct Solved {
    explicit Solved(const Problem& p) : value(p.rows, p.width), report(p.rows) {}
    Block<float> value;
    ReportBuffer report;
    Counts counts;
  };
  Solved solve(Products products, const Method& method, const Stop& stop, int threads = 1, std::int64_t first = 0,
               std::int64_t count = -1) const {
    const Dense<float> map(std::as_const(W).view(), Activation::tanh, products);
    Solved s(*this);
    count = count < 0 ? rows : count;
    s.counts = map.solve(threads, method, stop, std::as_const(z0).view().slice(first, count),
                         std::as_const(c).view().slice(first, count), s.value.view().slice(first, count),
                         s.report.view().slice(first), nullptr, nullptr);
    return s;
  }

  // |f(z) - z| in double
  double residual(const Solved& s, std::int64_t row) const {
    double squares = 0;
    for (std::int64_t i = 0; i < width; ++i) {
      double y = c(row, i);
      for (std::int64_t j = 0; j < width; ++j) y += static_cast<double>(W(i, j)) * s.value(row, j);
      squares += (std::tanh(y) - s.value(row, i)) * (std::tanh(y) - s.value(row, i));
    }
    return std::sqrt(squares);
  }

  Random random{91};
  std::int64_t rows, width;
  Block<float> W, c, z0;
};

// Rows that did not converge are asked about once more, in full, where any product was rounded.
std::int64_t once_more() {
  return PackedBfloat16::supported() ? 1 : 0;
}

const Method methods[] = {Anderson{}, Picard{}, Broyden{}, AndersonTypeI{}};

// Whatever the products, a status rests on the residual of what is returned, and steps hardly change.
TEST(RefinedProducts, SolveAsFullProductsDo) {
  for (const double slow : {0.0, 0.9})
    for (const Method& method : methods)
      for (const std::int64_t width : {5, 64, 131}) {
        const Problem p(19, width, 0.4, slow);
        const Stop stop{.rtol = 1e-5, .max_steps = 2000};
        const auto full = p.solve(Products::full, method, stop), rounded = p.solve(Products::bfloat16, method, stop);
        for (std::int64_t row = 0; row < p.rows; ++row) {
          SCOPED_TRACE(::testing::Message() << "slow " << slow << ", method " << method.index() << ", width " << width);
          ASSERT_EQ(full.report.status[row], Status::converged);
          ASSERT_EQ(rounded.report.status[row], Status::converged);
          double size = 0;
          for (std::int64_t j = 0; j < width; ++j) size += std::pow(rounded.value(row, j), 2);
          EXPECT_LE(p.residual(rounded, row), 1.05e-5 * std::sqrt(size));
          EXPECT_NEAR(rounded.report.residual[row], p.residual(rounded, row), 3e-7 * std::sqrt(size));
          EXPECT_LE(rounded.report.steps[row], 1.5 * full.report.steps[row] + 8);
        }
      }
}

TEST(RefinedProducts, ReportTheResidualInFullWhereStepsRanOut) {
  const Problem p(9, 70, 0.5, 0.9);
  for (const Method& method : methods)
    for (const std::int64_t most : {1, 2, 3, 5, 8}) {
      const auto s = p.solve(Products::bfloat16, method, {.rtol = 1e-6, .max_steps = most});
      EXPECT_EQ(s.counts.rows_asked, (most + once_more()) * p.rows);
      for (std::int64_t row = 0; row < p.rows; ++row) {
        EXPECT_EQ(s.report.status[row], Status::out_of_steps);
        EXPECT_NEAR(s.report.residual[row] / p.residual(s, row), 1, 1e-4)
            << most << " steps, method " << method.index();
      }
    }
}

// (I - J)^T u = g and (I - J) t = g at z, with J = D W
struct Linearised {
  Linearised(const Problem& p_, bool transposed_) : p(p_), transposed(transposed_), g(p_.rows, p_.width) {
    Random random(7);
    g = Block<float>::random(random, p.rows, p.width);
  }

  Problem::Solved solve(Products products, const AdjointMethod& method, const Stop& stop, int threads = 1,
                        std::int64_t first = 0, std::int64_t count = -1) const {
    const Dense<float> map(std::as_const(p.W).view(), Activation::tanh, products);
    Problem::Solved s(p);
    count = count < 0 ? p.rows : count;
    const auto rows = [&](const Block<float>& block) { return block.view().slice(first, count); };
    const auto run = transposed ? &Dense<float>::solve_adjoint : &Dense<float>::solve_tangent;
    s.counts = (map.*run)(threads, method, stop, rows(p.z0), rows(p.c), rows(g), {}, s.value.view().slice(first, count),
                          s.report.view().slice(first), nullptr);
    return s;
  }

  // |g + J u - u| in double, J or its transpose
  double residual(const Problem::Solved& s, std::int64_t row) const {
    std::vector<double> d(p.width);
    for (std::int64_t i = 0; i < p.width; ++i) {
      double y = p.c(row, i);
      for (std::int64_t j = 0; j < p.width; ++j) y += static_cast<double>(p.W(i, j)) * p.z0(row, j);
      d[i] = 1 - std::tanh(y) * std::tanh(y);
    }
    double squares = 0;
    for (std::int64_t i = 0; i < p.width; ++i) {
      double r = static_cast<double>(g(row, i)) - s.value(row, i);
      for (std::int64_t j = 0; j < p.width; ++j)
        r += (transposed ? d[j] * p.W(j, i) : d[i] * p.W(i, j)) * s.value(row, j);
      squares += r * r;
    }
    return std::sqrt(squares);
  }

  double size(std::int64_t row) const {
    double squares = 0;
    for (std::int64_t i = 0; i < p.width; ++i) squares += std::pow(g(row, i), 2);
    return std::sqrt(squares);
  }

  const Problem& p;
  bool transposed;
  Block<float> g;
};

const AdjointMethod adjoint_methods[] = {Anderson{}, Picard{}, Broyden{}, AndersonTypeI{}};

TEST(RefinedProducts, SolveBackwardAndForwardModeAsFullProductsDo) {
  for (const bool transposed : {true, false})
    for (const AdjointMethod& method : adjoint_methods)
      for (const std::int64_t width : {5, 64, 131}) {
        const Problem p(19, width, 0.4, 0.3);
        const Linearised linearised(p, transposed);
        const Stop stop{.rtol = 1e-5, .max_steps = 2000};
        const auto full = linearised.solve(Products::full, method, stop),
                   rounded = linearised.solve(Products::bfloat16, method, stop);
        for (std::int64_t row = 0; row < p.rows; ++row) {
          SCOPED_TRACE(::testing::Message() << transposed << ", method " << method.index() << ", width " << width);
          ASSERT_EQ(full.report.status[row], Status::converged);
          ASSERT_EQ(rounded.report.status[row], Status::converged);
          EXPECT_LE(linearised.residual(rounded, row), 1.05e-5 * linearised.size(row));
          EXPECT_NEAR(rounded.report.residual[row], linearised.residual(rounded, row), 1e-6 * linearised.size(row));
          EXPECT_LE(rounded.report.steps[row], 1.5 * full.report.steps[row] + 8);
        }
      }
}

TEST(RefinedProducts, BackwardSolvesReportTheResidualInFullAndHaveTheSameBits) {
  const Problem p(83, 96, 0.45, 0.3);
  const Linearised linearised(p, true);
  for (const AdjointMethod& method : adjoint_methods) {
    const auto early = linearised.solve(Products::bfloat16, method, {.rtol = 1e-6, .max_steps = 3});
    EXPECT_EQ(early.counts.rows_asked, (3 + once_more()) * p.rows);
    for (std::int64_t row = 0; row < p.rows; ++row) {
      EXPECT_EQ(early.report.status[row], Status::out_of_steps);
      EXPECT_NEAR(early.report.residual[row] / linearised.residual(early, row), 1, 1e-4);
    }
    const Stop stop{.rtol = 1e-6, .max_steps = 1000};
    const auto batch = linearised.solve(Products::bfloat16, method, stop),
               shared = linearised.solve(Products::bfloat16, method, stop, 3);
    EXPECT_TRUE(shared.value == batch.value);
    for (const std::int64_t row : {0, 40, 82}) {
      const auto alone = linearised.solve(Products::bfloat16, method, stop, 2, row, 1);
      for (std::int64_t j = 0; j < p.width; ++j) EXPECT_EQ(alone.value(row, j), batch.value(row, j));
      EXPECT_EQ(alone.report.residual[row], batch.report.residual[row]);
    }
  }
}

TEST(RefinedProducts, ARowHasTheSameBitsAloneAndOnAnyNumberOfThreads) {
  const Problem p(83, 96, 0.45, 0.8);
  for (const Method& method : methods)
    for (const Stop& stop : {Stop{.rtol = 1e-6, .max_steps = 1000},
                             Stop{.rtol = 1e-4, .max_steps = 1000, .norm = Norm::inf, .look_every = 3}}) {
      const auto batch = p.solve(Products::bfloat16, method, stop);
      for (const int threads : {2, 5}) {
        const auto shared = p.solve(Products::bfloat16, method, stop, threads);
        EXPECT_TRUE(shared.value == batch.value);
        EXPECT_TRUE(same_bits(shared.report.residual, batch.report.residual));
        EXPECT_TRUE(same_bits(shared.report.steps, batch.report.steps));
      }
      for (const std::int64_t row : {0, 41, 82}) {
        const auto alone = p.solve(Products::bfloat16, method, stop, 1, row, 1);
        EXPECT_TRUE(same_bits(&alone.value(row, 0), &batch.value(row, 0), p.width));
        EXPECT_EQ(alone.report.steps[row], batch.report.steps[row]);
      }
    }
}

TEST(RefinedProducts, ARowThatIsNotFiniteStaysAlone) {
  Problem p(9, 40, 0.4);
  const auto clean = p.solve(Products::bfloat16, Anderson{}, {.rtol = 1e-6});
  p.c(4, 7) = std::numeric_limits<float>::quiet_NaN();
  const auto spoiled = p.solve(Products::bfloat16, Anderson{}, {.rtol = 1e-6});
  for (std::int64_t row = 0; row < p.rows; ++row) {
    if (row == 4)
      EXPECT_EQ(spoiled.report.status[row], Status::not_finite);
    else
      EXPECT_TRUE(same_bits(&spoiled.value(row, 0), &clean.value(row, 0), p.width));
  }
}

TEST(RefinedProducts, AreForFloatOnly) {
  const Block<double> W(3, 3, 0, 0.1);
  EXPECT_TRUE(refuses("products", [&] { Dense<double>(W.view(), Activation::tanh, Products::bfloat16); }));
}

}  // namespace
}  // namespace deqcore::test

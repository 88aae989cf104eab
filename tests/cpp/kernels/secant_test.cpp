// SPDX-License-Identifier: Apache-2.0
#include "deqcore/kernels/secant.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "block.hpp"
#include "deqcore/kernels/row_math.hpp"
#include "queues.hpp"
#include "row_states.hpp"

namespace deqcore::test {
namespace {

template <class T>
struct SecantBuffer {
  SecantBuffer(std::int64_t rows, std::int64_t m_, std::int64_t width, std::int64_t gap)
      : m(m_),
        U(rows * m, width, gap),
        V(rows * m, width, gap),
        s(rows, width, gap),
        r_last(rows, width, gap),
        depth(rows, 77),
        a(rows * m, -1),
        b(rows * m, -1),
        change(rows * m, -1),
        gram(rows * 4 * m * m, -1) {}

  Secant<T> view() {
    return {.U = U.view().data,
            .V = V.view().data,
            .m = m,
            .width = U.width(),
            .pitch = U.view().pitch,
            .s = s.view(),
            .r_last = r_last.view(),
            .depth = depth.data(),
            .a = a.data(),
            .b = b.data(),
            .change = change.data(),
            .gram = gram.data()};
  }

  bool gaps_intact() const { return U.gaps_intact() && V.gaps_intact() && s.gaps_intact() && r_last.gaps_intact(); }

  std::int64_t m;
  Block<T> U, V, s, r_last;
  std::vector<std::int32_t> depth;
  std::vector<double> a, b, change, gram;
};

using Dense = std::vector<long double>;  // n x n, row by row

// U V^T of one row
template <class T>
Dense sum_of_pairs(const SecantBuffer<T>& secant, std::int64_t row) {
  const std::int64_t n = secant.U.width();
  Dense sum(n * n);
  for (std::int64_t c = 0; c < secant.depth[row]; ++c)
    for (std::int64_t i = 0; i < n; ++i)
      for (std::int64_t j = 0; j < n; ++j)
        sum[i * n + j] += static_cast<long double>(secant.U(row * secant.m + c, i)) * secant.V(row * secant.m + c, j);
  return sum;
}

// Eigenvalues of M^T M by Jacobi rotations, largest first.
std::vector<double> squared_singular_values(const Dense& M, std::int64_t n) {
  std::vector<double> A(n * n);
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t j = 0; j < n; ++j)
      for (std::int64_t k = 0; k < n; ++k) A[i * n + j] += static_cast<double>(M[k * n + i] * M[k * n + j]);
  for (int sweep = 0; sweep < 60; ++sweep)
    for (std::int64_t p = 0; p < n; ++p)
      for (std::int64_t q = p + 1; q < n; ++q) {
        if (A[p * n + q] == 0) continue;
        const double angle = 0.5 * std::atan2(2 * A[p * n + q], A[q * n + q] - A[p * n + p]);
        const double c = std::cos(angle), s = std::sin(angle);
        for (std::int64_t k = 0; k < n; ++k) {
          const double left = A[k * n + p], right = A[k * n + q];
          A[k * n + p] = c * left - s * right;
          A[k * n + q] = s * left + c * right;
        }
        for (std::int64_t k = 0; k < n; ++k) {
          const double top = A[p * n + k], bottom = A[q * n + k];
          A[p * n + k] = c * top - s * bottom;
          A[q * n + k] = s * top + c * bottom;
        }
      }
  std::vector<double> values(n);
  for (std::int64_t i = 0; i < n; ++i) values[i] = A[i * n + i];
  std::sort(values.rbegin(), values.rend());
  return values;
}

template <class Entry>
class SecantKernels : public ::testing::Test {};
TYPED_TEST_SUITE(SecantKernels, Types<Queues>, Names);

TYPED_TEST(SecantKernels, ClearSecantForgetsEveryRow) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  SecantBuffer<T> secant(4, 3, 5, 0);
  run(queue, ClearSecant<T>{.rows = 4, .secant = secant.view()});
  EXPECT_EQ(secant.depth, (std::vector<std::int32_t>(4, -1)));
}

TYPED_TEST(SecantKernels, GuardSecantForgetsWhatGrewAndRestartsWhatIsFull) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  for (const bool restart : {true, false}) {
    SecantBuffer<T> secant(7, 3, 5, 0);
    StateBuffer states(7);
    //                grew  at the limit  full  ended  nothing yet  repeated its point  not asked
    states.g_norm = {2.01, 2.0, 1, 9, 9, 1, 9};
    states.report.residual.assign(7, 1);
    states.report.status[3] = Status::converged;
    states.frozen[5] = 1;
    secant.depth = {2, 2, 3, 3, -1, 2, 2};
    ActiveBuffer active;
    active.ids = {0, 1, 2, 3, 4, 5};
    run(queue,
        GuardSecant<T>{
            .rows = active.view(), .growth = 2, .restart = restart, .states = states.view(), .secant = secant.view()});
    EXPECT_EQ(secant.depth, (std::vector<std::int32_t>{-1, 2, restart ? 0 : 3, 3, -1, -1, 2}));
    EXPECT_EQ(states.report.rejected, (std::vector<std::int32_t>{1, 0, 0, 0, 0, 1, 0}));
  }
}

// Steps of a random affine map r(z) = A z + c, against the dense inverse updated by the textbook's formula.
TYPED_TEST(SecantKernels, PushPairIsBroydensUpdate) {
  using T = typename TypeParam::T;
  const double eps = std::numeric_limits<T>::epsilon();
  for (const std::int64_t n : {1, 3, 9, 40}) {
    SCOPED_TRACE(n);
    auto queue = TypeParam::make();
    Random random(700 + static_cast<std::uint64_t>(n));
    const std::int64_t rows = 4, m = 5, gap = 3;
    SecantBuffer<T> secant(rows, m, n, gap);
    StateBuffer states(rows);
    states.report.status[2] = Status::converged;  // stays untouched
    run(queue, ClearSecant<T>{.rows = rows, .secant = secant.view()});
    auto z = Block<T>::random(random, rows, n, gap);
    Block<T> f(rows, n, gap), next(rows, n, gap, T(7));
    const auto slope = Block<T>::random(random, n, n);
    std::vector<Dense> B(rows, Dense(n * n));
    std::vector<std::vector<long double>> s(rows), r_last(rows);
    for (Dense& inverse : B)
      for (std::int64_t j = 0; j < n; ++j) inverse[j * n + j] = -1;
    for (int push = 0; push < 4; ++push) {
      for (std::int64_t i = 0; i < rows; ++i)
        for (std::int64_t j = 0; j < n; ++j) {
          double sum = static_cast<double>(i) + 1;
          for (std::int64_t k = 0; k < n; ++k) sum += 0.4 / std::sqrt(n) * slope(j, k) * z(i, k);
          f(i, j) = static_cast<T>(sum);
        }
      const auto all = ActiveBuffer::all(rows);
      const Block<T>&points = z, &images = f;
      run(queue, PushPair<T>{.rows = all.view(),
                             .z = points.view(),
                             .f = images.view(),
                             .states = states.view(),
                             .into = secant.view(),
                             .next = next.view()});
      for (std::int64_t i = 0; i < rows; ++i) {
        if (i == 2) {
          for (std::int64_t j = 0; j < n; ++j) EXPECT_EQ(next(i, j), T(7));
          continue;
        }
        std::vector<long double> r(n), v(n), w(n), y(n);
        for (std::int64_t j = 0; j < n; ++j) r[j] = static_cast<long double>(f(i, j)) - z(i, j);
        if (push > 0) {  // B += (s - B y) (s^T B) / (s^T B y)
          long double along = 0;
          for (std::int64_t j = 0; j < n; ++j) y[j] = r[j] - r_last[i][j];
          for (std::int64_t j = 0; j < n; ++j) {
            w[j] = s[i][j];
            for (std::int64_t k = 0; k < n; ++k) {
              w[j] -= B[i][j * n + k] * y[k];
              v[j] += s[i][k] * B[i][k * n + j];
            }
            along += v[j] * y[j];
          }
          for (std::int64_t j = 0; j < n; ++j)
            for (std::int64_t k = 0; k < n; ++k) B[i][j * n + k] += w[j] * v[k] / along;
          if (n == 1 && push > 1) continue;  // exact after one update: the rest is rounding
        }
        double size = 0, error = 0;
        std::vector<long double> step(n);
        for (std::int64_t j = 0; j < n; ++j) {
          for (std::int64_t k = 0; k < n; ++k) step[j] -= B[i][j * n + k] * r[k];
          size += static_cast<double>(step[j] * step[j]);
          error += std::pow(static_cast<double>(next(i, j) - (z(i, j) + step[j])), 2);
        }
        EXPECT_LE(std::sqrt(error), 3000 * eps * (std::sqrt(size) + 1)) << "push " << push << ", row " << i;
        for (std::int64_t j = 0; j < n; ++j) step[j] = secant.s(i, j);  // goes on from what was stored
        s[i] = step;
        r_last[i] = r;
        EXPECT_EQ(secant.depth[i], push);
      }
      for (std::int64_t i = 0; i < rows; ++i)
        for (std::int64_t j = 0; j < n && i != 2; ++j) z(i, j) = next(i, j);
    }
    EXPECT_TRUE(secant.gaps_intact() && next.gaps_intact());
    EXPECT_EQ(secant.depth[2], -1);
  }
}

TYPED_TEST(SecantKernels, APairWithoutADenominatorIsLeftOut) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  SecantBuffer<T> secant(1, 3, 2, 0);
  StateBuffer states(1);
  run(queue, ClearSecant<T>{.rows = 1, .secant = secant.view()});
  const auto all = ActiveBuffer::all(1);
  Block<T> z(1, 2), f(1, 2), next(1, 2);
  const auto push = [&](T zx, T zy, T fx, T fy) {
    z(0, 0) = zx, z(0, 1) = zy, f(0, 0) = fx, f(0, 1) = fy;
    const Block<T>&points = z, &images = f;
    run(queue, PushPair<T>{.rows = all.view(),
                           .z = points.view(),
                           .f = images.view(),
                           .states = states.view(),
                           .into = secant.view(),
                           .next = next.view()});
  };
  push(0, 0, 1, 0);  // r = (1, 0) = s
  push(1, 0, 2, 5);  // r = (1, 5): y = (0, 5) is orthogonal to v = -s
  EXPECT_EQ(secant.depth[0], 0);
  EXPECT_EQ(states.report.singular[0], 1);
  EXPECT_EQ(next(0, 0), T(2));  // the plain step
  EXPECT_EQ(next(0, 1), T(5));
}

TYPED_TEST(SecantKernels, CompressPairsKeepsTheLargestSingularValues) {
  using T = typename TypeParam::T;
  const double eps = std::numeric_limits<T>::epsilon();
  for (const auto& [m, n] : {std::pair<std::int64_t, std::int64_t>{3, 3}, {4, 9}, {8, 33}, {10, 10}}) {
    SCOPED_TRACE(m);
    auto queue = TypeParam::make();
    Random random(800 + static_cast<std::uint64_t>(n));
    SecantBuffer<T> secant(3, m, n, 2);
    StateBuffer states(3);
    secant.U = Block<T>::random(random, 3 * m, n, 2);
    secant.V = Block<T>::random(random, 3 * m, n, 2);
    for (std::int64_t j = 0; j < n; ++j)
      for (std::int64_t c = 0; c < m; ++c) secant.V(c, j) *= static_cast<T>(std::pow(10.0, -c % 3));
    const auto r = Block<T>::random(random, 3, n);
    for (std::int64_t row = 0; row < 3; ++row)
      for (std::int64_t c = 0; c < m; ++c) {
        double sum = 0;
        for (std::int64_t j = 0; j < n; ++j) sum += static_cast<double>(secant.V(row * m + c, j)) * r(row, j);
        secant.a[row * m + c] = sum;
      }
    secant.depth.assign(3, static_cast<std::int32_t>(m));
    secant.depth[1] -= 1;  // not full: stays
    states.report.status[2] = Status::converged;
    const Dense before = sum_of_pairs(secant, 0);
    const auto keep = static_cast<std::int32_t>(m - 2);
    const auto all = ActiveBuffer::all(3);
    run(queue, CompressPairs<T>{.rows = all.view(), .keep = keep, .states = states.view(), .secant = secant.view()});
    EXPECT_EQ(secant.depth,
              (std::vector<std::int32_t>{keep, static_cast<std::int32_t>(m - 1), static_cast<std::int32_t>(m)}));
    const Dense after = sum_of_pairs(secant, 0);
    double difference = 0;
    for (std::size_t at = 0; at < before.size(); ++at)
      difference += std::pow(static_cast<double>(before[at] - after[at]), 2);
    const auto values = squared_singular_values(before, n);
    const double dropped = std::accumulate(values.begin() + keep, values.begin() + m, 0.0);
    EXPECT_NEAR(std::sqrt(difference), std::sqrt(dropped), 200 * eps * std::sqrt(values[0]));
    for (std::int64_t c = 0; c < keep; ++c) {
      double sum = 0, size = 0;
      for (std::int64_t j = 0; j < n; ++j) {
        sum += static_cast<double>(secant.V(c, j)) * r(0, j);
        size += std::abs(static_cast<double>(secant.V(c, j)) * r(0, j));
      }
      EXPECT_NEAR(secant.a[c], sum, 300 * eps * (size + 1)) << "V^T r follows V";
    }
    EXPECT_TRUE(secant.gaps_intact());
  }
}

TYPED_TEST(SecantKernels, DependentPairsAreForgotten) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  SecantBuffer<T> secant(1, 3, 6, 0);
  StateBuffer states(1);
  for (std::int64_t c = 0; c < 3; ++c)
    for (std::int64_t j = 0; j < 6; ++j) secant.U(c, j) = secant.V(c, j) = static_cast<T>(j + 1);
  secant.depth[0] = 3;
  const auto all = ActiveBuffer::all(1);
  run(queue, CompressPairs<T>{.rows = all.view(), .keep = 1, .states = states.view(), .secant = secant.view()});
  EXPECT_EQ(secant.depth[0], 0);
}

}  // namespace
}  // namespace deqcore::test

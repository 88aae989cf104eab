// SPDX-License-Identifier: Apache-2.0
#include "deqcore/kernels/lu.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "block.hpp"
#include "linear_states.hpp"
#include "queues.hpp"
#include "row_states.hpp"
#include "shapes.hpp"

namespace deqcore::test {
namespace {

using Wide = long double;
using Matrix = std::vector<double>;  // n x n, column after column

// A^-1 r by elimination with full pivoting in long double.
std::vector<Wide> solve(const Matrix& matrix, std::vector<Wide> r) {
  const std::size_t n = r.size();
  std::vector<Wide> A(matrix.begin(), matrix.end());
  std::vector<std::size_t> order(n);
  for (std::size_t j = 0; j < n; ++j) order[j] = j;
  for (std::size_t j = 0; j < n; ++j) {
    std::size_t row = j, column = j;
    for (std::size_t c = j; c < n; ++c)
      for (std::size_t i = j; i < n; ++i)
        if (std::abs(A[c * n + i]) > std::abs(A[column * n + row])) row = i, column = c;
    for (std::size_t c = 0; c < n; ++c) std::swap(A[c * n + j], A[c * n + row]);
    for (std::size_t i = 0; i < n; ++i) std::swap(A[j * n + i], A[column * n + i]);
    std::swap(r[j], r[row]);
    std::swap(order[j], order[column]);
    for (std::size_t i = j + 1; i < n; ++i) {
      const Wide factor = A[j * n + i] / A[j * n + j];
      for (std::size_t c = j; c < n; ++c) A[c * n + i] -= factor * A[c * n + j];
      r[i] -= factor * r[j];
    }
  }
  std::vector<Wide> x(n);
  for (std::size_t j = n; j-- > 0;) {
    for (std::size_t c = j + 1; c < n; ++c) r[j] -= A[c * n + j] * x[order[c]];
    x[order[j]] = r[j] / A[j * n + j];
  }
  return x;
}

// One batch, asked for its columns until every row is factored or has ended.
template <class Entry>
class Columns {
 public:
  using T = typename Entry::T;

  Columns(Random& random, std::int64_t rows, std::int64_t n_, std::int64_t gap, Operator form_)
      : n(n_),
        form(form_),
        queue(Entry::make()),
        A(rows, Matrix(n * n)),
        states(rows),
        x(Block<T>::random(random, rows, n, gap)),
        r(Block<T>::random(random, rows, n, gap + 1)),
        along(rows, n, 1),
        answer(rows, n, 2),
        matrix(rows * n * n, -1),
        work(rows * n, -1),
        pivot(rows * n, -1),
        column(rows, 9) {
    // what an answer in T can say
    for (Matrix& of : A)
      for (double& entry : of) entry = static_cast<T>(random.normal());
    states.phase.assign(rows, Phase::start);
    for (std::int32_t row = static_cast<std::int32_t>(rows); row-- > 0;) active.ids.push_back(row);
    run(queue, ClearColumns<T>{.rows = rows, .factored = view()});
  }

  Factored<T> view() {
    return {
        .matrix = matrix.data(), .pivot = pivot.data(), .column = column.data(), .work = work.data(), .r = r.view()};
  }

  void pose() {
    run(queue,
        PoseColumn<T>{
            .rows = active.view(), .x = x.view(), .along = along.view(), .states = states.view(), .factored = view()});
  }

  // The answers of the map, from what stands in `along`.
  void reply() {
    for (std::size_t i = 0; i < active.ids.size(); ++i)
      for (std::int64_t j = 0; j < n; ++j) {
        double sum = 0;
        for (std::int64_t c = 0; c < n; ++c) sum += A[active.ids[i]][c * n + j] * along(i, c);
        answer(i, j) = static_cast<T>(form == Operator::matrix ? sum : along(i, j) - sum);
      }
  }

  void keep() {
    run(queue, KeepColumn<T>{.rows = active.view(),
                             .form = form,
                             .answer = std::as_const(answer).view(),
                             .x = x.view(),
                             .states = states.view(),
                             .factored = view()});
  }

  void factor() {
    for (std::int64_t step = 0; step < n; ++step) {
      pose();
      reply();
      keep();
    }
  }

  // What column c of row `row` was said to be.
  double entry(std::int64_t row, std::int64_t c, std::int64_t j) const {
    const double a = A[row][c * n + j], one = c == j;
    return form == Operator::matrix ? a : one - static_cast<double>(static_cast<T>(one - a));
  }

  Matrix known(std::int64_t row) const {
    Matrix all(n * n);
    for (std::int64_t c = 0; c < n; ++c)
      for (std::int64_t j = 0; j < n; ++j) all[c * n + j] = entry(row, c, j);
    return all;
  }

  std::int64_t n;
  Operator form;
  typename Entry::Queue queue;
  std::vector<Matrix> A;
  LinearBuffer states;
  Block<T> x, r, along, answer;
  std::vector<double> matrix, work;
  std::vector<std::int32_t> pivot, column;
  ActiveBuffer active;
};

template <class Entry>
class LuKernels : public ::testing::Test {};
TYPED_TEST_SUITE(LuKernels, Types<Queues>, Names);

TYPED_TEST(LuKernels, ColumnsAreKeptFactoredAndSolvedWith) {
  using T = typename TypeParam::T;
  Random random(70);
  const double eps = std::numeric_limits<T>::epsilon();
  for (const std::int64_t n : {1, 2, 3, 7, 17, 33, 70})
    for (const Operator form : {Operator::matrix, Operator::identity_minus}) {
      const std::int64_t rows = n == 70 ? 1 : 4, gap = n % 3;
      SCOPED_TRACE(::testing::Message() << "width " << n << ", form " << static_cast<int>(form));
      Columns<TypeParam> lu(random, rows, n, gap, form);
      EXPECT_EQ(lu.column, (std::vector<std::int32_t>(rows, 0)));
      if (rows > 1)  // nothing but signs, which always tie, and a diagonal of zeros
        for (std::int64_t c = 0; c < n; ++c)
          for (std::int64_t j = 0; j < n; ++j) {
            lu.A[1][c * n + j] = (c + j) % 3 ? 1 : -1;
            if (n > 1 && c == j) lu.A[2][c * n + j] = 0;
          }
      for (std::int64_t j = 0; rows > 1 && j < n; ++j) lu.A[1][j * n + j] = static_cast<double>(n + 2);
      const Block<T> x0 = lu.x;
      lu.states.growth.assign(rows, 0);
      for (std::int64_t step = 0; step < n; ++step) {
        lu.pose();
        for (std::int64_t i = 0; i < rows; ++i)
          for (std::int64_t j = 0; j < n; ++j) ASSERT_EQ(lu.along(i, j), T(j == step));
        EXPECT_EQ(lu.states.phase, (std::vector<Phase>(rows, Phase::first)));
        lu.reply();
        lu.states.answered.assign(rows, Answered::measured);
        lu.keep();
        EXPECT_EQ(lu.column, (std::vector<std::int32_t>(rows, static_cast<std::int32_t>(step + 1))));
        EXPECT_EQ(lu.states.answered, (std::vector<Answered>(rows, Answered::product)));
        if (step + 1 == n) break;
        for (std::int64_t row = 0; row < rows; ++row)
          for (std::int64_t j = 0; j < n; ++j)
            ASSERT_EQ(lu.matrix[(row * n + step) * n + j], lu.entry(row, step, j)) << row << " " << j;
        EXPECT_TRUE(lu.x == x0);
      }
      EXPECT_EQ(lu.states.phase, (std::vector<Phase>(rows, Phase::residual)));
      for (std::int64_t row = 0; row < rows; ++row) {
        SCOPED_TRACE(row);
        Matrix A = lu.known(row);
        double growth = 0;
        for (std::int64_t c = 0; c < n; ++c)
          growth = std::max(growth, textbook_norm(Norm::two, n, [&](std::int64_t j) { return A[c * n + j]; }));
        EXPECT_NEAR(lu.states.growth[row], growth, 1e-13 * growth);
        // P A = L U, with the first of the largest entries as pivot
        const double* F = &lu.matrix[row * n * n];
        for (std::int64_t j = 0; j < n; ++j) {
          const std::int64_t p = lu.pivot[row * n + j];
          ASSERT_TRUE(p >= j && p < n);
          for (std::int64_t c = 0; c < n; ++c) std::swap(A[c * n + j], A[c * n + p]);
        }
        for (std::int64_t c = 0; c < n; ++c)
          for (std::int64_t i = 0; i < n; ++i) {
            double sum = 0;
            ASSERT_TRUE(i <= c || std::abs(F[c * n + i]) <= 1);
            for (std::int64_t k = 0; k <= std::min(i, c); ++k) sum += (k == i ? 1 : F[k * n + i]) * F[c * n + k];
            ASSERT_NEAR(sum, A[c * n + i], 1e-13 * static_cast<double>(n + 4)) << i << " " << c;
          }
      }
      const auto expect_corrected = [&](const Block<T>& from) {
        for (std::int64_t row = 0; row < rows; ++row) {
          const auto step = solve(lu.known(row), std::vector<Wide>(&lu.r(row, 0), &lu.r(row, 0) + n));
          Wide largest = 0;
          for (const Wide entry : step) largest = std::max(largest, std::abs(entry));
          for (std::int64_t j = 0; j < n; ++j) {
            const Wide exact = from(row, j) + step[j];
            const Wide slack = eps * std::abs(exact) + 1e-10 * largest;
            ASSERT_NEAR(lu.x(row, j), static_cast<double>(exact), static_cast<double>(slack)) << row << " " << j;
          }
        }
      };
      expect_corrected(x0);
      // measured, and corrected again
      const Block<T> x1 = lu.x;
      lu.r = Block<T>::random(random, rows, n, gap + 1);
      lu.states.phase.assign(rows, Phase::start);
      lu.pose();
      expect_corrected(x1);
      EXPECT_EQ(lu.states.phase, (std::vector<Phase>(rows, Phase::residual)));
      for (std::int64_t i = 0; i < rows; ++i)
        EXPECT_TRUE(same_bits(&lu.along(i, 0), &lu.x(lu.active.ids[i], 0), n)) << "x is asked about";
      EXPECT_TRUE(lu.x.gaps_intact() && lu.along.gaps_intact());
    }
}

TYPED_TEST(LuKernels, PivotsAreTheFirstOfTheLargest) {
  Random random(71);
  const std::int64_t n = 67;
  Columns<TypeParam> lu(random, 1, n, 0, Operator::matrix);
  // two cycles of ones, one of them negative: column c has its entries at c + 40 and c + 20
  for (std::int64_t c = 0; c < n; ++c)
    for (std::int64_t j = 0; j < n; ++j)
      lu.A[0][c * n + j] = j == (c + 40) % n ? 1 : j == (c + 20) % n && c < 10 ? -1 : 0;
  lu.factor();
  for (std::int64_t c = 0; c < 10; ++c) EXPECT_EQ(lu.pivot[c], c + 20);
  EXPECT_EQ(lu.states.phase[0], Phase::residual);
}

TYPED_TEST(LuKernels, SingularRowsBreakDownAndOthersGoOn) {
  using T = typename TypeParam::T;
  Random random(72);
  const std::int64_t n = 9;
  Columns<TypeParam> lu(random, 7, n, 1, Operator::matrix);
  for (std::int64_t j = 0; j < n; ++j) {
    lu.A[0][5 * n + j] = 2 * lu.A[0][3 * n + j];  // two columns depend
    lu.A[1][(n - 1) * n + j] = 0;                 // the last pivot is 0
    for (std::int64_t c = 0; c < n; ++c) lu.A[2][c * n + j] = 0;
  }
  lu.A[3][2 * n + 4] = static_cast<double>(std::numeric_limits<T>::infinity());
  lu.states.report.status[5] = Status::converged;
  const Block<T> x0 = lu.x;
  const LinearBuffer before = lu.states;
  for (std::int64_t step = 0; step < n; ++step) {
    lu.pose();
    EXPECT_TRUE(same_bits(&lu.along(1, 0), &x0(5, 0), n)) << "an ended row stays at x";
    lu.reply();
    for (std::int64_t j = 0; j < n; ++j)  // without 0 times infinity
      lu.answer(3, j) = static_cast<T>(lu.A[3][step * n + j]);
    lu.keep();
    EXPECT_EQ(std::isfinite(lu.states.residual[3]), step < 2);
  }
  for (const int row : {0, 1, 2}) {
    EXPECT_EQ(lu.states.answered[row], Answered::broke_down);
    EXPECT_EQ(lu.states.phase[row], Phase::first);
  }
  EXPECT_EQ(lu.states.phase[3], Phase::first) << "nothing is factored that is not finite";
  EXPECT_EQ(lu.states.answered[3], Answered::product);
  for (const int row : {0, 1, 2, 3, 5}) EXPECT_TRUE(same_bits(&lu.x(row, 0), &x0(row, 0), n));
  EXPECT_TRUE(same_bits(lu.states.row(5), before.row(5)));
  EXPECT_EQ(lu.column[5], 0);
  for (const int row : {4, 6}) EXPECT_EQ(lu.states.phase[row], Phase::residual);

  // rows asked about x keep no column
  const LinearBuffer now = lu.states;
  const std::vector<double> matrix = lu.matrix;
  lu.active.ids = {4, 6};
  lu.keep();
  EXPECT_TRUE(same_bits(lu.states.row(4), now.row(4)));
  lu.active.ids = {};
  lu.pose();
  lu.keep();
  EXPECT_EQ(lu.matrix, matrix);
}

}  // namespace
}  // namespace deqcore::test

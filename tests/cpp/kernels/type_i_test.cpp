// SPDX-License-Identifier: Apache-2.0
#include "deqcore/kernels/type_i.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "block.hpp"
#include "queues.hpp"
#include "row_states.hpp"

namespace deqcore::test {
namespace {

template <class T>
struct TypeIBuffer {
  TypeIBuffer(std::int64_t rows, std::int64_t m_, std::int64_t width, std::int64_t gap)
      : m(m_),
        U(rows * m, width, gap),
        Q(rows * m, width, gap),
        s(rows, width, gap),
        r_last(rows, width, gap),
        depth(rows, -1),
        a(rows * m, -1),
        b(rows * m, -1),
        change(rows * m, -1),
        R(rows * m * m, -1),
        p(rows * m, -1),
        first(rows, -1),
        averaged(rows, 0) {}

  TypeI<T> view() {
    return {.pairs = {.U = U.view().data,
                      .V = Q.view().data,
                      .m = m,
                      .width = U.width(),
                      .pitch = U.view().pitch,
                      .s = s.view(),
                      .r_last = r_last.view(),
                      .depth = depth.data(),
                      .a = a.data(),
                      .b = b.data(),
                      .change = change.data()},
            .R = R.data(),
            .p = p.data(),
            .first = first.data(),
            .averaged = averaged.data()};
  }

  bool gaps_intact() const { return U.gaps_intact() && Q.gaps_intact() && s.gaps_intact() && r_last.gaps_intact(); }

  std::int64_t m;
  Block<T> U, Q, s, r_last;
  std::vector<std::int32_t> depth;
  std::vector<double> a, b, change, R, p, first;
  std::vector<std::int8_t> averaged;
};

using Wide = std::vector<long double>;

long double dot(const Wide& a, const Wide& b) {
  long double sum = 0;
  for (std::size_t j = 0; j < a.size(); ++j) sum += a[j] * b[j];
  return sum;
}

// The textbook, with H = -B dense, g = -r, and Powell's y formed.
struct Textbook {
  explicit Textbook(std::size_t n_) : n(n_), H(n * n) { begin(); }

  void begin() {
    orthogonal.clear();
    for (std::size_t j = 0; j < n; ++j)
      for (std::size_t k = 0; k < n; ++k) H[j * n + k] = j == k ? 1 : 0;
  }

  void update(const Wide& s, Wide y, const Wide& g_last, std::size_t m, double powell, double independence) {
    Wide s_hat = s;
    for (const Wide& q : orthogonal) {
      const long double along = dot(q, s) / dot(q, q);
      for (std::size_t j = 0; j < n; ++j) s_hat[j] -= along * q[j];
    }
    if (orthogonal.size() == m || std::sqrt(dot(s_hat, s_hat)) < independence * std::sqrt(dot(s, s))) {
      begin();
      s_hat = s;
    }
    orthogonal.push_back(s_hat);
    Wide v(n), w = s;  // H^T s_hat, s - H y
    for (std::size_t j = 0; j < n; ++j)
      for (std::size_t k = 0; k < n; ++k) v[k] += s_hat[j] * H[j * n + k];
    const long double gamma = dot(v, y) / dot(s_hat, s_hat), sign = gamma < 0 ? -1 : 1;
    if (std::abs(gamma) < powell) {
      damped += 1;
      // theta y + (1 - theta) H^-1 s, where s = -H g_last
      const long double theta = (1 - sign * powell) / (1 - gamma);
      for (std::size_t j = 0; j < n; ++j) y[j] = theta * y[j] - (1 - theta) * g_last[j];
    }
    for (std::size_t j = 0; j < n; ++j)
      for (std::size_t k = 0; k < n; ++k) w[j] -= H[j * n + k] * y[k];
    const long double along = dot(v, y);
    for (std::size_t j = 0; j < n; ++j)
      for (std::size_t k = 0; k < n; ++k) H[j * n + k] += w[j] * v[k] / along;
  }

  std::size_t n;
  std::vector<Wide> orthogonal;
  Wide H;
  int damped = 0;
};

template <class Entry>
class TypeIKernels : public ::testing::Test {};
TYPED_TEST_SUITE(TypeIKernels, Types<Queues>, Names);

TYPED_TEST(TypeIKernels, GuardTypeIComparesWithTheFirstResidual) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  TypeIBuffer<T> memory(6, 3, 5, 0);
  StateBuffer states(6);
  //               first step  within  above  rejected some, within  ended  repeated its point
  states.g_norm = {9, 2.49, 2.51, 3.3, 99, 1};
  states.report.steps = {1, 4, 4, 4, 4, 2};
  states.report.rejected = {0, 0, 0, 1, 0, 0};
  states.report.status[4] = Status::converged;
  states.frozen[5] = 1;
  memory.depth = {-1, 2, 2, 2, 2, 1};
  memory.first.assign(6, 1);
  memory.averaged.assign(6, 5);
  const auto all = ActiveBuffer::all(6);
  run(queue,
      GuardTypeI<T>{.rows = all.view(), .safeguard = 20, .decay = 0.5, .states = states.view(), .into = memory.view()});
  // 20 / 4^1.5 = 2.5, 20 / 3^1.5 = 3.85
  EXPECT_EQ(memory.first, (std::vector<double>{9, 1, 1, 1, 1, 1}));
  EXPECT_EQ(memory.averaged, (std::vector<std::int8_t>{0, 0, 1, 0, 5, 0}));
  EXPECT_EQ(memory.depth, (std::vector<std::int32_t>{-1, 2, 2, 2, 2, -1}));
  EXPECT_EQ(states.report.rejected, (std::vector<std::int32_t>{0, 0, 1, 1, 0, 1}));
}

// Steps of random affine maps r(z) = A z + c of every kind: memories that fill, dependent steps, damped updates.
TYPED_TEST(TypeIKernels, PushTypeIIsTheTextbooksUpdate) {
  using T = typename TypeParam::T;
  const double eps = std::numeric_limits<T>::epsilon();
  struct Setting {
    std::int64_t n, m;
    int pushes;
    double gain, powell, independence;
    bool damps, begins_anew;
  };
  for (const Setting& set : {Setting{1, 3, 3, 0.4, 0.01, 1e-3, false, false},
                             {2, 5, 3, 0.4, 0.01, 1e-3, false, false},
                             {3, 5, 4, 0.4, 0.01, 1e-3, false, false},
                             {9, 5, 6, 0.4, 0.01, 1e-3, false, false},
                             {9, 1, 6, 0.4, 0.01, 1e-3, false, true},
                             {530, 3, 6, 0.4, 0.01, 1e-3, false, true},
                             {40, 5, 6, 0.4, 0.9, 1e-3, true, false},
                             {41, 5, 6, 1.5, 0.7, 1e-3, true, false},
                             {33, 5, 6, 0.4, 0.01, 0.97, false, true}}) {
    SCOPED_TRACE(set.n);
    const std::int64_t n = set.n, rows = 4, gap = 3;
    auto queue = TypeParam::make();
    Random random(700 + static_cast<std::uint64_t>(n));
    TypeIBuffer<T> memory(rows, set.m, n, gap);
    StateBuffer states(rows);
    states.report.status[2] = Status::converged;  // stays untouched
    auto z = Block<T>::random(random, rows, n, gap);
    Block<T> f(rows, n, gap), next(rows, n, gap, T(7));
    const auto slope = Block<T>::random(random, n, n);
    std::vector<Textbook> books(rows, Textbook(n));
    std::vector<Wide> s(rows), g_last(rows);
    bool began_anew = false;
    for (int push = 0; push < set.pushes; ++push) {
      for (std::int64_t i = 0; i < rows; ++i)
        for (std::int64_t j = 0; j < n; ++j) {
          double sum = static_cast<double>(i) + 1;
          for (std::int64_t k = 0; k < n; ++k) sum += set.gain / std::sqrt(n) * slope(j, k) * z(i, k);
          f(i, j) = static_cast<T>(sum);
        }
      const auto all = ActiveBuffer::all(rows);
      const Block<T>&points = z, &images = f;
      run(queue, PushTypeI<T>{.rows = all.view(),
                              .beta = 0.1,
                              .powell = set.powell,
                              .independence = set.independence,
                              .z = points.view(),
                              .f = images.view(),
                              .states = states.view(),
                              .into = memory.view(),
                              .next = next.view()});
      for (std::int64_t i = 0; i < rows; ++i) {
        if (i == 2) {
          for (std::int64_t j = 0; j < n; ++j) EXPECT_EQ(next(i, j), T(7));
          continue;
        }
        Wide g(n), y(n), step(n);
        for (std::int64_t j = 0; j < n; ++j) g[j] = static_cast<long double>(z(i, j)) - f(i, j);
        if (push > 0) {
          for (std::int64_t j = 0; j < n; ++j) y[j] = g[j] - g_last[i][j];
          const std::size_t before = books[i].orthogonal.size();
          books[i].update(s[i], y, g_last[i], set.m, set.powell, set.independence);
          began_anew = began_anew || books[i].orthogonal.size() <= before;
        }
        if (n > 1 || push < 2) {  // exact after one update: the rest is rounding
          double size = 0, error = 0;
          for (std::int64_t j = 0; j < n; ++j) {
            for (std::int64_t k = 0; k < n; ++k) step[j] -= books[i].H[j * n + k] * g[k];
            size += static_cast<double>(step[j] * step[j]);
            error += std::pow(static_cast<double>(next(i, j) - (z(i, j) + step[j])), 2);
          }
          EXPECT_LE(std::sqrt(error), 3000 * eps * (std::sqrt(size) + 1)) << "push " << push << ", row " << i;
        }
        EXPECT_EQ(memory.depth[i], books[i].orthogonal.size()) << "push " << push << ", row " << i;
        for (std::int64_t j = 0; j < n; ++j) step[j] = memory.s(i, j);  // goes on from what was stored
        s[i] = step;
        g_last[i] = g;
      }
      for (std::int64_t i = 0; i < rows; ++i)
        for (std::int64_t j = 0; j < n && i != 2; ++j) z(i, j) = next(i, j);
    }
    EXPECT_EQ(books[0].damped + books[1].damped + books[3].damped > 0, set.damps);
    EXPECT_EQ(n > 1 && began_anew, set.begins_anew);
    EXPECT_TRUE(memory.gaps_intact() && next.gaps_intact());
    EXPECT_EQ(memory.depth[2], -1);
  }
}

template <class Entry>
struct OneRow {
  using T = typename Entry::T;

  explicit OneRow(std::int64_t m) : queue(Entry::make()), memory(1, m, 2, 0), states(1), next(1, 2) {}

  void push(T zx, T zy, T fx, T fy) {
    Block<T> z(1, 2), f(1, 2);
    z(0, 0) = zx, z(0, 1) = zy, f(0, 0) = fx, f(0, 1) = fy;
    const auto all = ActiveBuffer::all(1);
    const Block<T>&points = z, &images = f;
    run(queue, PushTypeI<T>{.rows = all.view(),
                            .beta = 0.25,
                            .powell = 0.125,
                            .independence = 1e-3,
                            .z = points.view(),
                            .f = images.view(),
                            .states = states.view(),
                            .into = memory.view(),
                            .next = next.view()});
  }

  typename Entry::Queue queue;
  TypeIBuffer<T> memory;
  StateBuffer states;
  Block<T> next;
};

// y is orthogonal to s: gamma = 0, theta = 7/8, and B = -I + 7/8 (1, 5)^T (-1, 0) / (1/8).
TYPED_TEST(TypeIKernels, AnUpdateWithoutADenominatorIsDamped) {
  using T = typename TypeParam::T;
  OneRow<TypeParam> row(3);
  row.push(0, 0, 1, 0);  // r = (1, 0) = s
  row.push(1, 0, 2, 5);  // r = (1, 5), y = (0, 5)
  EXPECT_EQ(row.memory.depth[0], 1);
  EXPECT_EQ(row.states.report.singular[0], 0);
  EXPECT_NEAR(row.next(0, 0), 1 + 8.0, 1e-5);  // z - B r
  EXPECT_NEAR(row.next(0, 1), 8 * 5.0, 1e-5);
  EXPECT_EQ(row.memory.s(0, 0), row.next(0, 0) - T(1));
}

// gamma = -1/20: it becomes -1/8, and theta = (9/8) / (21/20).
TYPED_TEST(TypeIKernels, ADampedUpdateKeepsItsSign) {
  using T = typename TypeParam::T;
  OneRow<TypeParam> row(3);
  row.push(0, 0, 1, 0);
  row.push(1, 0, T(2.05), 5);  // y = (0.05, 5)
  EXPECT_EQ(row.memory.depth[0], 1);
  EXPECT_NEAR(row.next(0, 0), 2.05 - 9.45, 1e-5);
  EXPECT_NEAR(row.next(0, 1), 5 - 45.0, 1e-5);
}

TYPED_TEST(TypeIKernels, AnAveragedStepIsShortAndRememberedAsTaken) {
  using T = typename TypeParam::T;
  OneRow<TypeParam> row(3);
  row.memory.averaged[0] = 1;
  row.push(0, 0, 1, 2);
  EXPECT_EQ(row.next(0, 0), T(0.25));
  EXPECT_EQ(row.next(0, 1), T(0.5));
  EXPECT_EQ(row.memory.depth[0], 0);
  row.push(0.25, 0.5, 4.25, 1.5);  // r = (4, 1)
  EXPECT_EQ(row.next(0, 0), T(1.25));
  EXPECT_EQ(row.next(0, 1), T(0.75));
  EXPECT_EQ(row.memory.s(0, 0), T(1));
  EXPECT_EQ(row.memory.depth[0], 1) << "the pair is learned all the same";
}

TYPED_TEST(TypeIKernels, APairOutOfRangeIsLeftOut) {
  using T = typename TypeParam::T;
  OneRow<TypeParam> row(3);
  row.push(0, 0, std::numeric_limits<T>::denorm_min(), 0);
  row.push(std::numeric_limits<T>::denorm_min(), 0, 1, 5);
  EXPECT_EQ(row.memory.depth[0], 0);
  EXPECT_EQ(row.states.report.singular[0], 1);
  EXPECT_EQ(row.next(0, 0), T(1));  // the plain step
  EXPECT_EQ(row.next(0, 1), T(5));
}

}  // namespace
}  // namespace deqcore::test

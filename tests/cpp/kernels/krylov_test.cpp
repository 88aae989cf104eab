// SPDX-License-Identifier: Apache-2.0
#include "deqcore/kernels/krylov.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "block.hpp"
#include "linear_states.hpp"
#include "queues.hpp"
#include "row_states.hpp"

namespace deqcore::test {
namespace {

using Wide = long double;
using Vector = std::vector<Wide>;

Wide dot(const Vector& a, const Vector& b) {
  Wide sum = 0;
  for (std::size_t j = 0; j < a.size(); ++j) sum += a[j] * b[j];
  return sum;
}

void add(Vector& to, Wide factor, const Vector& from) {
  for (std::size_t j = 0; j < to.size(); ++j) to[j] += factor * from[j];
}

template <class T>
Vector wide(const T* from, std::int64_t width) {
  return Vector(from, from + width);
}

// A x = d x + u (v . x): cheap, unsymmetric, and no basis spans an invariant space before it is full.
struct Matrix {
  Matrix(Random& random, std::int64_t width, double shift) : d(width), u(width), v(width) {
    for (std::int64_t j = 0; j < width; ++j) {
      d[j] = shift + random.uniform(1, 2);
      u[j] = random.normal() / std::sqrt(static_cast<double>(width));
      v[j] = random.normal() / 4;
    }
  }

  Vector times(const Vector& x) const {
    Vector image(x.size());
    for (std::size_t j = 0; j < x.size(); ++j) image[j] = d[j] * x[j];
    add(image, dot(v, x), u);
    return image;
  }

  // What a map would answer: A x, or M x with A = I - M.
  template <class T>
  void answer(Operator form, const T* x, std::int64_t width, T* to) const {
    const Vector image = times(wide(x, width));
    for (std::int64_t j = 0; j < width; ++j)
      to[j] = static_cast<T>(form == Operator::matrix ? image[j] : x[j] - image[j]);
  }

  Vector d, u, v;
};

template <class T>
struct BasisBuffer {
  BasisBuffer(std::int64_t rows, std::int64_t m_, std::int64_t width, std::int64_t gap, bool preconditioned)
      : m(m_),
        with_Z(preconditioned),
        V(rows * (m + 1), width, gap),
        Z(rows * m, width, gap),
        column(rows, 77),
        norm(rows, -1),
        R(rows * m * (m + 1) / 2, -1),
        cosine(rows * m, -1),
        sine(rows * m, -1),
        rhs(rows * (m + 1), -1),
        h(rows * (m + 1), -1),
        c(rows * (m + 1), -1) {}

  Arnoldi<T> view() {
    return {.V = V.view().data,
            .Z = with_Z ? Z.view().data : nullptr,
            .m = m,
            .width = V.width(),
            .pitch = V.view().pitch,
            .column = column.data(),
            .norm = norm.data(),
            .R = R.data(),
            .cosine = cosine.data(),
            .sine = sine.data(),
            .rhs = rhs.data(),
            .h = h.data(),
            .c = c.data()};
  }

  Vector vector(std::int64_t row, std::int64_t at) const { return wide(&V(row * (m + 1) + at, 0), V.width()); }
  Vector direction(std::int64_t row, std::int64_t at) const {
    return with_Z ? wide(&Z(row * m + at, 0), V.width()) : vector(row, at);
  }

  std::int64_t m;
  bool with_Z;
  Block<T> V, Z;
  std::vector<std::int32_t> column;
  std::vector<double> norm, R, cosine, sine, rhs, h, c;
};

// GMRES of one batch, kernel by kernel, held against what defines it.
template <class Entry>
class Gmres {
 public:
  using T = typename Entry::T;
  static constexpr double eps = std::numeric_limits<T>::epsilon();

  Gmres(std::int64_t rows, std::int64_t m, std::int64_t width, std::int64_t gap, Operator form_, bool preconditioned)
      : form(form_),
        queue(Entry::make()),
        basis(rows, m, width, gap, preconditioned),
        states(rows),
        x(rows, width, gap, T(0)),
        along(rows, width, 1),
        answer(rows, width, 2),
        active(ActiveBuffer::all(rows)) {}

  void start(std::int64_t row, const T* r) {
    const std::int64_t width = x.width();
    std::copy_n(r, width, &basis.V(row * (basis.m + 1), 0));
    states.length[row] = static_cast<double>(std::sqrt(dot(wide(r, width), wide(r, width))));
    states.phase[row] = Phase::start;
    states.growth[row] = form == Operator::matrix ? 0 : 1;
  }

  void pose() {
    run(queue, PoseBasis<T>{.rows = active.view(),
                            .x = std::as_const(x).view(),
                            .along = along.view(),
                            .states = states.view(),
                            .basis = basis.view()});
  }

  void extend() {
    run(queue, ExtendBasis<T>{.rows = active.view(),
                              .form = form,
                              .max_steps = 50,
                              .along = std::as_const(along).view(),
                              .answer = std::as_const(answer).view(),
                              .x = x.view(),
                              .states = states.view(),
                              .basis = basis.view()});
  }

  Operator form;
  typename Entry::Queue queue;
  BasisBuffer<T> basis;
  LinearBuffer states;
  Block<T> x, along, answer;
  ActiveBuffer active;
};

template <class Entry>
class KrylovKernels : public ::testing::Test {};
TYPED_TEST_SUITE(KrylovKernels, Types<Queues>, Names);

TYPED_TEST(KrylovKernels, ExtendBasisMinimisesTheResidualOverAnOrthonormalBasis) {
  using T = typename TypeParam::T;
  constexpr double eps = Gmres<TypeParam>::eps;
  Random random(60);
  for (const std::int64_t width : {1, 2, 3, 7, 17, 33, 100, 513})
    for (const int kind : {0, 1, 2, 3}) {
      const std::int64_t rows = 4, m = std::min<std::int64_t>(width, 11);
      const double shift = kind == 3 ? 40 : 0;  // 40: the first pass takes nearly everything away
      Gmres<TypeParam> gmres(rows, m, width, kind, kind % 2 ? Operator::identity_minus : Operator::matrix, kind >= 2);
      auto& [form, queue, basis, states, x, along, answer, active] = gmres;
      SCOPED_TRACE(::testing::Message() << "width " << width << ", kind " << kind);
      std::vector<Matrix> A;
      auto b = Block<T>::random(random, rows, width);
      std::vector<std::vector<Vector>> image(rows);  // A z_0, A z_1, ... made orthonormal
      std::vector<Vector> least(rows);               // b less its part in them
      for (std::int64_t row = 0; row < rows; ++row) {
        A.emplace_back(random, width, shift);
        gmres.start(row, &b(row, 0));
        least[row] = wide(&b(row, 0), width);
        states.goal[row] = row == 1 ? 0.2 * states.length[row] : 0;
        states.report.steps[row] = row == 2 ? 44 : 0;  // of 50: with the 5th product one is left
      }
      for (int step = 0; std::ranges::count(states.phase, Phase::residual) < rows; ++step) {
        ASSERT_LE(step, m);
        const std::vector<Phase> asked = states.phase;
        gmres.pose();
        for (std::int64_t row = 0; row < rows; ++row) {
          if (kind >= 2 && asked[row] != Phase::residual)
            for (std::int64_t j = 0; j < width; ++j) along(row, j) *= static_cast<T>(2 + 0.5 * std::sin(j));
          A[row].answer(form, &along(row, 0), width, &answer(row, 0));
        }
        const Block<T> x_before = x;
        states.answered.assign(rows, Answered::measured);
        gmres.extend();
        for (std::int64_t row = 0; row < rows; ++row) {
          SCOPED_TRACE(::testing::Message() << "row " << row << ", step " << step);
          if (asked[row] == Phase::residual) {
            ASSERT_TRUE(same_bits(&x(row, 0), &x_before(row, 0), width));
            ASSERT_TRUE(same_bits(&x(row, 0), &along(row, 0), width));
            continue;
          }
          EXPECT_EQ(states.answered[row], Answered::product);
          const Vector z = wide(&along(row, 0), width);
          Vector w = wide(&answer(row, 0), width);
          if (form == Operator::identity_minus)
            for (std::int64_t j = 0; j < width; ++j) w[j] = z[j] - w[j];
          const Wide size = std::sqrt(dot(w, w));
          EXPECT_GE(states.growth[row] * (1 + 1e-6), static_cast<double>(size / std::sqrt(dot(z, z))));
          EXPECT_GE(states.growth[row], form == Operator::matrix ? 0 : 1);
          ASSERT_EQ(basis.column[row], step + 1);
          ASSERT_EQ(basis.direction(row, step), z);

          // the newest vector is what is left of w, and orthogonal to the others
          const double slack = 200 * eps * static_cast<double>(size) + 4 * eps;
          const Vector newest = basis.vector(row, step + 1);
          for (int i = 0; i <= step; ++i) {
            EXPECT_NEAR(static_cast<double>(dot(basis.vector(row, i), newest)), 0, slack);
            add(w, -dot(basis.vector(row, i), w), basis.vector(row, i));
          }
          Vector differs = w;
          add(differs, -1, newest);
          EXPECT_LE(static_cast<double>(std::sqrt(dot(differs, differs))), slack);
          EXPECT_NEAR(basis.norm[row], static_cast<double>(std::sqrt(dot(w, w))), slack);

          // the estimate is the least residual, and x attains it
          Vector column = A[row].times(z);
          for (int twice = 0; twice < 2; ++twice)
            for (const Vector& other : image[row]) add(column, -dot(other, column), other);
          const Wide length = std::sqrt(dot(column, column));
          for (Wide& entry : column) entry /= length;
          image[row].push_back(column);
          add(least[row], -dot(column, least[row]), column);
          const double residual = static_cast<double>(std::sqrt(dot(least[row], least[row])));
          const double accuracy = 2000 * eps * states.length[row];
          EXPECT_NEAR(states.residual[row], residual, accuracy);
          const bool ends = step + 1 == m || states.report.steps[row] + 2 >= 50 ||
                            states.residual[row] <= states.goal[row] || basis.norm[row] == 0;
          ASSERT_EQ(states.phase[row], ends ? Phase::residual : Phase::first);
          states.report.steps[row] += 1;
          if (!ends) {
            ASSERT_TRUE(same_bits(&x(row, 0), &x_before(row, 0), width));
            continue;
          }
          Vector r = wide(&b(row, 0), width);
          add(r, -1, A[row].times(wide(&x(row, 0), width)));
          EXPECT_NEAR(static_cast<double>(std::sqrt(dot(r, r))), residual, accuracy);
        }
        if (::testing::Test::HasFailure()) return;
      }
      EXPECT_EQ(basis.column[2], std::min<std::int64_t>(m, 5)) << "the last product is left for measuring";
      EXPECT_TRUE(basis.V.gaps_intact() && basis.Z.gaps_intact() && x.gaps_intact() && along.gaps_intact());
    }
}

TYPED_TEST(KrylovKernels, ExtendBasisEndsInAnInvariantSpaceAndTellsWhatIsNotFinite) {
  using T = typename TypeParam::T;
  Random random(61);
  const std::int64_t rows = 6, width = 37, m = 4;
  for (const Operator form : {Operator::matrix, Operator::identity_minus}) {
    Gmres<TypeParam> gmres(rows, m, width, 1, form, false);
    auto& [ignored, queue, basis, states, x, along, answer, active] = gmres;
    auto b = Block<T>::random(random, rows, width);
    for (std::int64_t row = 0; row < rows; ++row) gmres.start(row, &b(row, 0));
    gmres.pose();
    for (std::int64_t row = 0; row < rows; ++row)
      for (std::int64_t j = 0; j < width; ++j) {
        const T image = row == 0 ? 3 * along(row, j) : T(0);  // A = 3 I, and A = 0
        answer(row, j) = form == Operator::matrix ? image : along(row, j) - image;
      }
    answer(2, 36) = std::numeric_limits<T>::quiet_NaN();
    answer(3, 0) = std::numeric_limits<T>::infinity();
    states.report.status[4] = Status::stalled;
    states.phase[5] = Phase::start;
    const LinearBuffer before = states;
    const BasisBuffer<T> basis_before = basis;
    gmres.extend();
    EXPECT_EQ(states.phase[0], Phase::residual);
    EXPECT_EQ(basis.norm[0], 0);
    EXPECT_LT(states.residual[0], 1e-6 * states.length[0]);
    for (std::int64_t j = 0; j < width; ++j) EXPECT_NEAR(x(0, j), b(0, j) / 3, 2e-6);
    EXPECT_EQ(states.phase[1], Phase::residual) << "nothing to be had: x is measured again, and breaks down";
    EXPECT_EQ(states.residual[1], states.length[1]);
    for (std::int64_t j = 0; j < width; ++j) EXPECT_EQ(x(1, j), T(0));
    for (const int row : {2, 3}) EXPECT_FALSE(std::isfinite(states.residual[row]));
    for (const int row : {4, 5}) {
      EXPECT_TRUE(same_bits(states.row(row), before.row(row)));
      EXPECT_EQ(basis.column[row], basis_before.column[row]);
      EXPECT_EQ(basis.vector(row, 1), basis_before.vector(row, 1));
    }

    x = Block<T>::random(random, rows, width, 1);
    gmres.pose();
    for (const int row : {0, 1, 4}) EXPECT_TRUE(same_bits(&along(row, 0), &x(row, 0), width));
    EXPECT_EQ(states.phase[4], Phase::first) << "an ended row is left alone";
    EXPECT_EQ(states.phase[5], Phase::first);
    EXPECT_EQ(wide(&along(5, 0), width), basis.vector(5, 0));

    const LinearBuffer now = states;
    const Block<T> vectors = basis.V, directions = along;
    active.ids = {};
    gmres.pose();
    gmres.extend();
    EXPECT_TRUE(basis.V == vectors && along == directions);
    for (std::int64_t row = 0; row < rows; ++row) EXPECT_TRUE(same_bits(states.row(row), now.row(row)));
  }
}

TYPED_TEST(KrylovKernels, ABasisAloneHasTheBitsOfTheBasisInABlock) {
  using T = typename TypeParam::T;
  Random random(62);
  const std::int64_t rows = 40, width = 1025, m = 3;
  const auto b = Block<T>::random(random, rows, width), w = Block<T>::random(random, rows, width);
  const auto extended = [&](std::int64_t first, std::int64_t count) {
    Gmres<TypeParam> gmres(count, m, width, 0, Operator::identity_minus, false);
    for (std::int64_t row = 0; row < count; ++row) {
      gmres.start(row, &b(first + row, 0));
      std::copy_n(&w(first + row, 0), width, &gmres.answer(row, 0));
    }
    for (int step = 0; step < m; ++step) {
      gmres.pose();
      gmres.extend();
    }
    return gmres.x;
  };
  const Block<T> batch = extended(0, rows);
  for (const std::int64_t row : {0, 19, 39}) {
    const Block<T> alone = extended(row, 1);
    EXPECT_TRUE(same_bits(&alone(0, 0), &batch(row, 0), width));
  }
}

}  // namespace
}  // namespace deqcore::test

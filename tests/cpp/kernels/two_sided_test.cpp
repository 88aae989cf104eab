// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "block.hpp"
#include "deqcore/kernels/krylov.hpp"
#include "linear_states.hpp"
#include "queues.hpp"
#include "row_states.hpp"
#include "shapes.hpp"

namespace deqcore::test {
namespace {

using Wide = long double;

template <class T>
struct TwoSidedBuffer {
  TwoSidedBuffer(Random& random, std::int64_t rows, std::int64_t width, std::int64_t gap, bool preconditioned_)
      : preconditioned(preconditioned_),
        x(Block<T>::random(random, rows, width, gap)),
        r(Block<T>::random(random, rows, width, 1)),
        r0(Block<T>::random(random, rows, width, gap)),
        p(Block<T>::random(random, rows, width, gap + 1)),
        v(Block<T>::random(random, rows, width, gap)),
        p_hat(Block<T>::random(random, rows, width, 2)),
        rho(rows, 3),
        alpha(rows, 0.6),
        r0_norm(rows, 1) {}

  TwoSided<T> view() {
    return {.r = r.view(),
            .r0 = r0.view(),
            .p = p.view(),
            .v = v.view(),
            .p_hat = preconditioned ? p_hat.view() : Rows<T>{},
            .rho = rho.data(),
            .alpha = alpha.data(),
            .r0_norm = r0_norm.data()};
  }

  bool gaps_intact() const {
    return x.gaps_intact() && r.gaps_intact() && r0.gaps_intact() && p.gaps_intact() && v.gaps_intact() &&
           p_hat.gaps_intact();
  }

  ::testing::AssertionResult same_row(const TwoSidedBuffer& other, std::int64_t row, std::int64_t other_row) const {
    for (auto block : {&TwoSidedBuffer::x, &TwoSidedBuffer::r, &TwoSidedBuffer::r0, &TwoSidedBuffer::p,
                       &TwoSidedBuffer::v, &TwoSidedBuffer::p_hat})
      if (auto same = same_bits(&(this->*block)(row, 0), &(other.*block)(other_row, 0), x.width()); !same) return same;
    return same_bits(std::vector{rho[row], alpha[row], r0_norm[row]},
                     std::vector{other.rho[other_row], other.alpha[other_row], other.r0_norm[other_row]});
  }

  bool preconditioned;
  Block<T> x, r, r0, p, v, p_hat;
  std::vector<double> rho, alpha, r0_norm;
};

// What each row of a batch meets.
enum Meets { nothing, goal, last_step, vanishing, zero_product, not_a_number, infinite, ended, other_phase, cases };

template <class Entry>
class TwoSidedKernels : public ::testing::Test {};
TYPED_TEST_SUITE(TwoSidedKernels, Types<Queues>, Names);

TYPED_TEST(TwoSidedKernels, StepTwoSidedIsTheFormula) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  Random random(65);
  const double eps = std::numeric_limits<T>::epsilon();
  for (const std::int64_t width : {1, 2, 3, 7, 17, 33, 513, 1025})
    for (const Operator form : {Operator::matrix, Operator::identity_minus})
      for (const bool preconditioned : {false, true})
        for (const Phase phase : {Phase::first, Phase::second}) {
          SCOPED_TRACE(::testing::Message() << "width " << width << ", form " << static_cast<int>(form) << ", phase "
                                            << static_cast<int>(phase) << (preconditioned ? ", with p_hat" : ""));
          TwoSidedBuffer<T> q(random, cases, width, 3, preconditioned);
          LinearBuffer states(cases);
          Block<T> along(cases, width, 1), answer(cases, width, 2);
          ActiveBuffer active;  // the other way round
          for (std::int32_t row = cases; row-- > 0;) active.ids.push_back(row);
          const auto at = [](std::int64_t row) { return cases - 1 - row; };
          for (std::int64_t row = 0; row < cases; ++row) {
            double squares = 0;
            for (std::int64_t j = 0; j < width; ++j) {
              if (row == vanishing) q.r0(row, j) = T(0);
              squares += static_cast<double>(q.r(row, j)) * q.r(row, j);
              const T asked = preconditioned ? static_cast<T>(random.normal())
                                             : (phase == Phase::first ? q.p(row, j) : q.r(row, j));
              // such that neither (r0, A p) nor (A s, s) is an accident of signs
              const T other = phase == Phase::first ? q.r0(row, j) : q.r(row, j);
              const T image = row == zero_product ? T(0) : static_cast<T>(other + 0.3 * random.normal());
              along(at(row), j) = asked;
              answer(at(row), j) = form == Operator::matrix ? image : asked - image;
            }
            if (row == zero_product && form == Operator::identity_minus)
              std::copy_n(&along(at(row), 0), width, &answer(at(row), 0));
            states.phase[row] = row == other_phase ? Phase::residual : phase;
            states.residual[row] = std::sqrt(squares);
            states.goal[row] = row == goal ? 1e6 : 0;
            states.report.steps[row] = row == last_step ? 48 : 7;
          }
          answer(at(not_a_number), width - 1) = std::numeric_limits<T>::quiet_NaN();
          answer(at(infinite), 0) = std::numeric_limits<T>::infinity();
          states.report.status[ended] = Status::converged;
          states.growth.assign(cases, 1e-3);
          states.answered.assign(cases, Answered::measured);
          const TwoSidedBuffer<T> old = q;
          const LinearBuffer before = states;
          run(queue, StepTwoSided<T>{.rows = active.view(),
                                     .form = form,
                                     .max_steps = 50,
                                     .along = std::as_const(along).view(),
                                     .answer = std::as_const(answer).view(),
                                     .x = q.x.view(),
                                     .states = states.view(),
                                     .vectors = q.view()});
          EXPECT_TRUE(q.gaps_intact());
          for (std::int64_t row = 0; row < cases; ++row) {
            SCOPED_TRACE(::testing::Message() << "row " << row);
            if (row == ended || row == other_phase) {
              EXPECT_TRUE(same_bits(states.row(row), before.row(row)));
              EXPECT_TRUE(q.same_row(old, row, row));
              continue;
            }
            EXPECT_EQ(states.answered[row], Answered::product);
            if (row == not_a_number || row == infinite) {
              EXPECT_FALSE(std::isfinite(states.residual[row]));
              EXPECT_TRUE(same_bits(&q.x(row, 0), &old.x(row, 0), width));
              continue;
            }
            // the textbook, in long double
            const auto A = [&](std::int64_t j) -> Wide {  // v, or t
              const Wide image = answer(at(row), j);
              if (form == Operator::matrix) return image;
              return phase == Phase::first ? Wide(static_cast<T>(along(at(row), j) - answer(at(row), j)))
                                           : along(at(row), j) - image;
            };
            const auto dot = [&](const auto& a, const auto& b) {
              Wide sum = 0;
              for (std::int64_t j = 0; j < width; ++j) sum += Wide(a(j)) * b(j);
              return sum;
            };
            const auto of = [row](const Block<T>& block) {
              return [&block, row](std::int64_t j) -> Wide { return block(row, j); };
            };
            const auto asked = [&](std::int64_t j) -> Wide { return along(at(row), j); };
            const double growth = static_cast<double>(std::sqrt(dot(A, A) / dot(asked, asked)));
            EXPECT_NEAR(states.growth[row], std::max(growth, 1e-3), 1e-6 * growth);
            const bool first = phase == Phase::first;
            const bool breaks = row == zero_product || row == vanishing;
            const Wide alpha = first ? old.rho[row] / dot(of(old.r0), A) : Wide(old.alpha[row]);
            const Wide omega = first || dot(A, A) == 0 ? 0 : dot(A, of(old.r)) / dot(A, A);
            const bool steps = !first || !breaks;  // r moves
            const bool ends = row == goal || row == last_step;
            const bool moves = first ? ends && steps : true;  // x does
            const auto p_hat = [&](std::int64_t j) -> Wide {
              return !preconditioned ? old.p(row, j) : first ? asked(j) : Wide(old.p_hat(row, j));
            };
            const auto close = [&](T found, Wide exact, Wide size) {
              return std::abs(found - exact) <= 400 * eps * (std::abs(exact) + size);
            };
            for (std::int64_t j = 0; j < width; ++j) {
              const Wide x = old.x(row, j) + (moves ? alpha * p_hat(j) + omega * asked(j) : 0);
              const Wide step = first ? alpha * A(j) : omega * A(j);
              ASSERT_TRUE(close(q.x(row, j), x, moves ? std::abs(alpha * p_hat(j)) + std::abs(omega * asked(j)) : 0));
              ASSERT_TRUE(close(q.r(row, j), old.r(row, j) - (steps ? step : 0), steps ? std::abs(step) : 0));
              ASSERT_EQ(q.v(row, j), first ? static_cast<T>(A(j)) : old.v(row, j));
              ASSERT_EQ(q.p_hat(row, j), first && preconditioned ? along(at(row), j) : old.p_hat(row, j));
            }
            const Wide left = dot(of(q.r), of(q.r)), rho = dot(of(old.r0), of(q.r));
            const double length = steps ? static_cast<double>(std::sqrt(left)) : before.residual[row];
            EXPECT_NEAR(states.residual[row], length, 1e-12 * (1 + length));
            if (!first && width == 1) continue;  // two products leave nothing, or rounding
            EXPECT_EQ(states.report.singular[row], breaks);
            const bool on = !breaks && !ends;
            ASSERT_EQ(states.phase[row], !on ? Phase::residual : first ? Phase::second : Phase::first);
            if (first) {
              const double expected = breaks ? old.alpha[row] : static_cast<double>(alpha);
              EXPECT_NEAR(q.alpha[row], expected, 1e-9 * std::abs(expected));
              EXPECT_EQ(q.rho[row], old.rho[row]);
              EXPECT_TRUE(same_bits(&q.p(row, 0), &old.p(row, 0), width));
              continue;
            }
            const Wide beta = rho / old.rho[row] * (alpha / omega);
            for (std::int64_t j = 0; j < width; ++j) {
              const Wide along_v = beta * omega * old.v(row, j), along_p = beta * old.p(row, j);
              const Wide exact = on ? q.r(row, j) + along_p - along_v : Wide(old.p(row, j));
              ASSERT_TRUE(close(q.p(row, j), exact, on ? std::abs(along_p) + std::abs(along_v) : 0));
            }
            EXPECT_NEAR(q.rho[row], on ? static_cast<double>(rho) : old.rho[row],
                        1e-11 * static_cast<double>(1 + left));
          }
          if (::testing::Test::HasFailure()) return;
        }
}

TYPED_TEST(TwoSidedKernels, PoseTwoSidedGivesEachPhaseItsVector) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  Random random(66);
  for (const Shape& shape : shapes()) {
    DEQCORE_TRACE_SHAPE(shape);
    const std::int64_t batch = 2 * shape.rows;
    TwoSidedBuffer<T> q(random, batch, shape.width, shape.gap, true);
    LinearBuffer states(batch);
    states.length.assign(batch, 5);
    Block<T> along(shape.rows, shape.width, shape.gap, T(-1));
    for (std::int64_t row = 0; row < batch; ++row) {
      states.phase[row] = std::vector{Phase::start, Phase::first, Phase::second, Phase::residual}[row / 2 % 4];
      if (row == 9) states.report.status[row] = Status::stalled;
    }
    const TwoSidedBuffer<T> old = q;
    const LinearBuffer before = states;
    run(queue, PoseTwoSided<T>{.rows = ActiveBuffer::odd_rows_left(batch).view(),
                               .x = std::as_const(q.x).view(),
                               .along = along.view(),
                               .states = states.view(),
                               .vectors = q.view()});
    for (std::int64_t row = 0; row < batch; ++row) {
      const bool asked = row % 2 == 1, starts = asked && before.phase[row] == Phase::start && row != 9;
      const Block<T>& from = row == 9 || before.phase[row] == Phase::residual ? old.x
                             : before.phase[row] == Phase::first              ? old.p
                                                                              : old.r;
      EXPECT_TRUE(!asked || same_bits(&along(row / 2, 0), &from(row, 0), shape.width));
      if (!starts) {
        EXPECT_TRUE(q.same_row(old, row, row));
        EXPECT_TRUE(same_bits(states.row(row), before.row(row)));
        continue;
      }
      EXPECT_TRUE(same_bits(&q.r0(row, 0), &old.r(row, 0), shape.width));
      EXPECT_TRUE(same_bits(&q.p(row, 0), &old.r(row, 0), shape.width));
      EXPECT_EQ(q.r0_norm[row], 5);
      EXPECT_EQ(q.rho[row], 25);
      EXPECT_EQ(states.phase[row], Phase::first);
    }
    EXPECT_TRUE(q.gaps_intact() && along.gaps_intact());
  }
}

TYPED_TEST(TwoSidedKernels, ARowAloneHasTheBitsOfTheRowInABlockAndNoRowsTouchNothing) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  const std::int64_t rows = 40, width = 1025;
  Random random(67);
  const auto along = Block<T>::random(random, rows, width), answer = Block<T>::random(random, rows, width);
  const TwoSidedBuffer<T> given(random, rows, width, 0, false);
  const auto stepped = [&](const ActiveBuffer& active, std::int64_t first) {
    TwoSidedBuffer<T> q = given;
    LinearBuffer states(rows);
    for (std::int64_t row = 0; row < rows; ++row) states.phase[row] = row % 2 ? Phase::first : Phase::second;
    const auto count = static_cast<std::int64_t>(active.ids.size());
    run(queue, StepTwoSided<T>{.rows = active.view(),
                               .form = Operator::matrix,
                               .max_steps = 50,
                               .along = along.view().slice(first, count),
                               .answer = answer.view().slice(first, count),
                               .x = q.x.view(),
                               .states = states.view(),
                               .vectors = q.view()});
    return q;
  };
  const TwoSidedBuffer<T> batch = stepped(ActiveBuffer::all(rows), 0), none = stepped({}, 0);
  for (const std::int32_t row : {0, 19, 38, 39}) {
    ActiveBuffer one;
    one.ids = {row};
    EXPECT_TRUE(stepped(one, row).same_row(batch, row, row));
    EXPECT_TRUE(none.same_row(given, row, row));
  }
}

}  // namespace
}  // namespace deqcore::test

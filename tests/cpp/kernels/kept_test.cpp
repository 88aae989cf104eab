// SPDX-License-Identifier: Apache-2.0
#include "deqcore/kernels/kept.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "block.hpp"
#include "deqcore/kernels/history.hpp"
#include "deqcore/kernels/secant.hpp"
#include "queues.hpp"
#include "row_states.hpp"

namespace deqcore::test {
namespace {

// What a method of `m` columns remembers, everything random.
template <class T>
struct MemoryBuffer {
  MemoryBuffer(Random& random, std::int64_t rows, std::int64_t m_, std::int64_t width, bool with_matrix_,
               bool in_16_bits_ = false)
      : m(m_),
        with_matrix(with_matrix_),
        in_16_bits(in_16_bits_),
        first(Block<T>::random(random, rows * m_, width, 3)),
        second(Block<T>::random(random, rows * m_, width, 3)),
        matrix(rows * m_ * m_),
        slot(rows),
        depth(rows) {
    for (double& entry : matrix) entry = random.normal();
    for (auto& columns : halves)
      for (std::int64_t i = 0; i < rows * m * pitch16(); ++i) columns.push_back(narrow(random.normal()));
    for (std::int64_t row = 0; row < rows; ++row) {
      slot[row] = static_cast<std::int32_t>(random.below(m));
      depth[row] = static_cast<std::int32_t>(random.below(m + 1));
    }
  }

  RowMemory<T> view() {
    return {.columns = {first.view().data, second.view().data},
            .columns16 = {halves[0].data(), halves[1].data()},
            .in_16_bits = in_16_bits,
            .m = m,
            .width = first.width(),
            .pitch = first.view().pitch,
            .small = with_matrix ? m * m : 0,
            .matrix = with_matrix ? matrix.data() : nullptr,
            .slot = with_matrix ? slot.data() : nullptr,
            .depth = depth.data()};
  }

  std::int64_t pitch16() const { return first.view().pitch; }

  std::int64_t m;
  bool with_matrix, in_16_bits;
  Block<T> first, second;
  std::vector<BFloat16> halves[2];
  std::vector<double> matrix;
  std::vector<std::int32_t> slot, depth;
};

template <class Entry>
class KeptKernels : public ::testing::Test {};
TYPED_TEST_SUITE(KeptKernels, Types<Queues>, Names);

TYPED_TEST(KeptKernels, RowsComeBackAsTheyWereSaved) {
  using T = typename TypeParam::T;
  for (const std::int64_t m : {1, 3, 7})
    for (const std::int64_t width : {1, 7, 65})
      for (const auto& [with_matrix, in_16_bits] : {std::pair{false, false}, {true, false}, {true, true}}) {
        SCOPED_TRACE(testing::Message() << m << " x " << width << (with_matrix ? ", with a matrix" : "")
                                        << (in_16_bits ? ", in 16 bits" : ""));
        auto queue = TypeParam::make();
        Random random(900 + static_cast<std::uint64_t>(m * width));
        const std::int64_t rows = 6;
        MemoryBuffer<T> saved(random, rows, m, width, with_matrix, in_16_bits);
        MemoryBuffer<T> loaded(random, 4, m, width, with_matrix, in_16_bits);
        const auto before = loaded;
        saved.depth[0] = static_cast<std::int32_t>(m);
        saved.depth[1] = ~static_cast<std::int32_t>(m);  // ended before its second evaluation
        saved.depth[2] = -1;
        std::vector<Status> status(rows, Status::converged);
        status[3] = Status::out_of_steps;
        std::vector<std::int64_t> handle(rows * KeptRows<T>(saved.view(), nullptr).words());
        const KeptRows<T> kept(saved.view(), handle.data());
        run(queue, SaveRows<T>{.rows = rows, .status = status.data(), .memory = saved.view(), .to = kept});
        for (std::int64_t row = 0; row < rows; ++row) {
          const std::int32_t depth = saved.depth[row];
          EXPECT_EQ(kept.counts(row)[0], row == 3 ? 0 : depth < 0 ? ~depth : depth);
        }
        const std::vector<std::int32_t> at = {1, -1, 0, 3};
        run(queue, LoadRows<T>{.rows = 4,
                               .from = KeptRows<const T>(saved.view(), handle.data()),
                               .at = at.data(),
                               .memory = loaded.view()});
        for (std::int64_t row = 0; row < 4; ++row) {
          const std::int64_t from = at[row], n = from == 0 || from == 1 ? m : 0;
          ASSERT_EQ(loaded.depth[row], ~n);
          for (std::int64_t j = 0; j < n; ++j)
            for (std::int64_t i = 0; i < width; ++i) {
              for (const int which : {0, 1})
                if (in_16_bits) {
                  ASSERT_EQ(loaded.halves[which][(row * m + j) * loaded.pitch16() + i].bits,
                            saved.halves[which][(from * m + j) * saved.pitch16() + i].bits);
                }
              if (in_16_bits) continue;
              ASSERT_EQ(loaded.first(row * m + j, i), saved.first(from * m + j, i));
              ASSERT_EQ(loaded.second(row * m + j, i), saved.second(from * m + j, i));
            }
          if (!with_matrix || n == 0) continue;
          EXPECT_EQ(loaded.slot[row], saved.slot[from]);
          for (std::int64_t i = 0; i < m * m; ++i)
            ASSERT_EQ(loaded.matrix[row * m * m + i], saved.matrix[from * m * m + i]);
        }
        EXPECT_TRUE(loaded.first.gaps_intact() && loaded.second.gaps_intact());
        EXPECT_TRUE(!in_16_bits || (loaded.first == before.first && loaded.second == before.second));
      }
}

// Against B = -I + sum u_i v_i^T written out.
TYPED_TEST(KeptKernels, ApplyInverseTransposedIsTheDenseProduct) {
  using T = typename TypeParam::T;
  const double eps = std::numeric_limits<T>::epsilon();
  for (const std::int64_t n : {1, 5, 33, 600}) {
    SCOPED_TRACE(n);
    auto queue = TypeParam::make();
    Random random(950 + static_cast<std::uint64_t>(n));
    const std::int64_t rows = 5, m = 4;
    MemoryBuffer<T> pairs(random, rows, m, n, false);
    for (std::int64_t i = 0; i < rows * m; ++i)
      for (std::int64_t j = 0; j < n; ++j) pairs.first(i, j) *= static_cast<T>(0.5 / std::sqrt(n));
    pairs.depth = {4, 1, 0, 3, 4};
    const std::vector<Status> status(rows, Status::converged);
    std::vector<std::int64_t> handle(rows * KeptRows<T>(pairs.view(), nullptr).words());
    run(queue, SaveRows<T>{.rows = rows,
                           .status = status.data(),
                           .memory = pairs.view(),
                           .to = KeptRows<T>(pairs.view(), handle.data())});
    const std::vector<std::int32_t> at = {3, 0, -1, 2, 1, 4};
    const auto g = Block<T>::random(random, 6, n, 2);
    for (const double fallback : {std::numeric_limits<double>::infinity(), 1.05}) {
      Block<T> w(6, n, 1, T(7));
      std::vector<std::int32_t> fell(6, 9);
      run(queue, ApplyInverseTransposed<T>{.pairs = KeptRows<const T>(pairs.view(), handle.data()),
                                           .at = at.data(),
                                           .fallback = fallback,
                                           .g = g.view(),
                                           .w = w.view(),
                                           .fell = fell.data()});
      for (std::int64_t i = 0; i < 6; ++i) {
        const std::int64_t depth = at[i] < 0 ? 0 : pairs.depth[at[i]];
        std::vector<long double> exact(n), transposed(n * n);
        for (std::int64_t j = 0; j < n; ++j) transposed[j * n + j] = 1;  // -B^T
        for (std::int64_t c = 0; c < depth; ++c)
          for (std::int64_t j = 0; j < n; ++j)
            for (std::int64_t k = 0; k < n; ++k)
              transposed[j * n + k] -=
                  static_cast<long double>(pairs.second(at[i] * m + c, j)) * pairs.first(at[i] * m + c, k);
        double size = 0, of_g = 0, error = 0;
        for (std::int64_t j = 0; j < n; ++j) {
          for (std::int64_t k = 0; k < n; ++k) exact[j] += transposed[j * n + k] * g(i, k);
          size += static_cast<double>(exact[j] * exact[j]);
          of_g += static_cast<double>(g(i, j)) * g(i, j);
        }
        const bool falls = depth == 0 || std::sqrt(size) > fallback * std::sqrt(of_g);
        EXPECT_EQ(fell[i], falls ? 1 : 0) << "row " << i;
        for (std::int64_t j = 0; j < n; ++j) {
          EXPECT_TRUE(!falls || w(i, j) == g(i, j));
          error += falls ? 0 : std::pow(static_cast<double>(w(i, j) - exact[j]), 2);
        }
        EXPECT_LE(std::sqrt(error), 20 * eps * (std::sqrt(size) + std::sqrt(of_g))) << "row " << i;
      }
      EXPECT_TRUE(w.gaps_intact());
    }
  }
}

TYPED_TEST(KeptKernels, ASolveThatGoesOnStepsByItsPairsAndTakesNoDifference) {
  using T = typename TypeParam::T;
  const double eps = std::numeric_limits<T>::epsilon();
  for (const std::int64_t n : {1, 6, 40}) {
    SCOPED_TRACE(n);
    auto queue = TypeParam::make();
    Random random(970 + static_cast<std::uint64_t>(n));
    const std::int64_t rows = 3, m = 3;
    MemoryBuffer<T> memory(random, rows, m, n, false);
    StateBuffer states(rows);
    Block<T> s(rows, n), r_last(rows, n), next(rows, n);
    std::vector<double> a(rows * m), b(rows * m), change(rows * m);
    memory.depth = {~3, ~1, -1};
    const Secant<T> secant = {.U = memory.first.view().data,
                              .V = memory.second.view().data,
                              .m = m,
                              .width = n,
                              .pitch = memory.first.view().pitch,
                              .s = s.view(),
                              .r_last = r_last.view(),
                              .depth = memory.depth.data(),
                              .a = a.data(),
                              .b = b.data(),
                              .change = change.data()};
    const auto z = Block<T>::random(random, rows, n, 1), f = Block<T>::random(random, rows, n, 1);
    const auto all = ActiveBuffer::all(rows);
    const auto before = memory.first;
    run(queue, PushPair<T>{.rows = all.view(),
                           .z = z.view(),
                           .f = f.view(),
                           .states = states.view(),
                           .into = secant,
                           .next = next.view()});
    EXPECT_EQ(memory.depth, (std::vector<std::int32_t>{3, 1, 0}));
    EXPECT_TRUE(memory.first == before);
    for (std::int64_t i = 0; i < rows; ++i)
      for (std::int64_t j = 0; j < n; ++j) {
        long double step = static_cast<long double>(f(i, j)) - z(i, j), size = std::abs(step);
        for (std::int64_t c = 0; c < memory.depth[i]; ++c) {
          long double along = 0;
          for (std::int64_t k = 0; k < n; ++k)
            along += static_cast<long double>(memory.second(i * m + c, k)) * (f(i, k) - z(i, k));
          step -= along * memory.first(i * m + c, j);
          size += std::abs(along * memory.first(i * m + c, j));
        }
        EXPECT_NEAR(s(i, j), static_cast<double>(step), 40 * eps * (static_cast<double>(size) + 1));
        EXPECT_NEAR(next(i, j), static_cast<double>(z(i, j) + step), 40 * eps * (static_cast<double>(size) + 3));
      }
  }
}

TYPED_TEST(KeptKernels, AWindowThatGoesOnMeetsTheNewResidual) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  Random random(990);
  const std::int64_t rows = 2, m = 4, n = 37;
  MemoryBuffer<T> memory(random, rows, m, n, true);
  StateBuffer states(rows);
  Block<T> f_last(rows, n), g_last(rows, n);
  std::vector<double> rhs(rows * m, -1), gamma(rows * m);
  memory.depth = {~3, -1};
  memory.slot = {2, 2};
  const auto z = Block<T>::random(random, rows, n), f = Block<T>::random(random, rows, n);
  const auto before = memory.second;
  const auto all = ActiveBuffer::all(rows);
  run(queue, PushHistory<T>{.rows = all.view(),
                            .z = z.view(),
                            .f = f.view(),
                            .states = states.view(),
                            .into = {.dF = memory.first.view().data,
                                     .dG = memory.second.view().data,
                                     .m = m,
                                     .width = n,
                                     .pitch = memory.first.view().pitch,
                                     .f_last = f_last.view(),
                                     .g_last = g_last.view(),
                                     .depth = memory.depth.data(),
                                     .slot = memory.slot.data(),
                                     .gram = memory.matrix.data(),
                                     .rhs = rhs.data(),
                                     .gamma = gamma.data()}});
  EXPECT_EQ(memory.depth, (std::vector<std::int32_t>{3, 0}));
  EXPECT_EQ(memory.slot, (std::vector<std::int32_t>{2, 0}));
  EXPECT_TRUE(memory.second == before);
  for (std::int64_t j = 0; j < 3; ++j) {
    double sum = 0, size = 0;
    for (std::int64_t i = 0; i < n; ++i) {
      const double term = static_cast<double>(memory.second(j, i)) * static_cast<T>(f(0, i) - z(0, i));
      sum += term;
      size += std::abs(term);
    }
    EXPECT_NEAR(rhs[j], sum, 1e-13 * size);
  }
  EXPECT_EQ(rhs[3], -1);
}

TYPED_TEST(KeptKernels, RowsInAnotherSceneForget) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  Random random(995);
  const std::int64_t rows = 4;
  MemoryBuffer<T> memory(random, rows, 3, 5, true);
  StateBuffer states(rows);
  //               far    near   far, but of this solve   nothing to forget
  states.g_norm = {0.31, 0.29, 0.31, 0.31};
  states.report.residual = states.g_norm;
  states.report.scale.assign(rows, 1);
  const auto all = ActiveBuffer::all(rows);
  const std::vector<std::int32_t> depth = {~2, ~2, 2, -1}, after = {-1, ~2, 2, -1};
  memory.depth = depth;
  run(queue, GuardSecant<T>{.rows = all.view(),
                            .growth = 2,
                            .restart = true,
                            .states = states.view(),
                            .secant = {.m = 3, .depth = memory.depth.data()}});
  EXPECT_EQ(memory.depth, after);
  memory.depth = depth;
  run(queue, GuardHistory<T>{
                 .rows = all.view(), .growth = 2, .states = states.view(), .history = {.depth = memory.depth.data()}});
  EXPECT_EQ(memory.depth, after);
  EXPECT_EQ(states.report.rejected, (std::vector<std::int32_t>{2, 0, 0, 0}));
}

}  // namespace
}  // namespace deqcore::test

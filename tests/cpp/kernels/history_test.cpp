// SPDX-License-Identifier: Apache-2.0
#include "deqcore/kernels/history.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "block.hpp"
#include "deqcore/kernels/row_math.hpp"
#include "queues.hpp"
#include "row_states.hpp"
#include "shapes.hpp"

namespace deqcore::test {
namespace {

// The nearest bfloat16, ties to even, from what it is: a multiple of 2^(e - 8) below 2^e, and of 2^-133 at least.
double rounded_to_bfloat16(double x) {
  if (!std::isfinite(x) || x == 0) return x;
  int exponent = 0;
  std::frexp(x, &exponent);
  const int unit = std::max(exponent - 8, -133);
  const double nearest = std::ldexp(std::nearbyint(std::ldexp(x, -unit)), unit);
  return std::abs(nearest) > 0x1.fep127 ? std::copysign(std::numeric_limits<double>::infinity(), x) : nearest;
}

// A block of bfloat16 with guarded gaps.
struct Block16 {
  static constexpr std::uint16_t guard = 0x1234;

  Block16(std::int64_t rows, std::int64_t width_, std::int64_t gap)
      : width(width_), pitch(width_ + gap), data(rows * pitch + gap, BFloat16{guard}) {}

  BFloat16& operator()(std::int64_t row, std::int64_t j) { return data[row * pitch + j]; }
  BFloat16 operator()(std::int64_t row, std::int64_t j) const { return data[row * pitch + j]; }

  bool gaps_intact() const {
    for (std::size_t at = 0; at < data.size(); ++at)
      if (static_cast<std::int64_t>(at) % pitch >= width && data[at].bits != guard) return false;
    return true;
  }

  std::int64_t width, pitch;
  std::vector<BFloat16> data;
};

template <class T>
struct HistoryBuffer {
  HistoryBuffer(std::int64_t rows, std::int64_t m_, std::int64_t width, std::int64_t gap, bool in_16_bits_ = false)
      : m(m_),
        in_16_bits(in_16_bits_),
        dF(rows * m, width, gap),
        dG(rows * m, width, gap),
        dF16(rows * m, width, gap),
        dG16(rows * m, width, gap),
        f_last(rows, width, gap),
        g_last(rows, width, gap),
        depth(rows, 77),
        slot(rows, 77),
        gram(rows * m * m, -1),
        rhs(rows * m, -1),
        gamma(rows * m, -1) {}

  History<T> view() {
    return {.dF = in_16_bits ? nullptr : dF.view().data,
            .dG = in_16_bits ? nullptr : dG.view().data,
            .dF16 = in_16_bits ? dF16.data.data() : nullptr,
            .dG16 = in_16_bits ? dG16.data.data() : nullptr,
            .m = m,
            .width = dF.width(),
            .pitch = dF.view().pitch,
            .f_last = f_last.view(),
            .g_last = g_last.view(),
            .depth = depth.data(),
            .slot = slot.data(),
            .gram = gram.data(),
            .rhs = rhs.data(),
            .gamma = gamma.data()};
  }

  T of_dF(std::int64_t column, std::int64_t j) const {
    return in_16_bits ? static_cast<T>(widen(dF16(column, j))) : dF(column, j);
  }
  T of_dG(std::int64_t column, std::int64_t j) const {
    return in_16_bits ? static_cast<T>(widen(dG16(column, j))) : dG(column, j);
  }

  bool gaps_intact() const {
    return dF16.gaps_intact() && dG16.gaps_intact() && dF.gaps_intact() && dG.gaps_intact() && f_last.gaps_intact() &&
           g_last.gaps_intact();
  }

  std::int64_t m;
  bool in_16_bits;
  Block<T> dF, dG;
  Block16 dF16, dG16;
  Block<T> f_last, g_last;
  std::vector<std::int32_t> depth, slot;
  std::vector<double> gram, rhs, gamma;
};

template <class Entry>
class HistoryKernels : public ::testing::Test {};
TYPED_TEST_SUITE(HistoryKernels, Types<Queues>, Names);

TYPED_TEST(HistoryKernels, ClearHistoryForgetsEveryRow) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  HistoryBuffer<T> history(4, 3, 5, 0);
  run(queue, ClearHistory<T>{.rows = 4, .history = history.view()});
  EXPECT_EQ(history.depth, (std::vector<std::int32_t>(4, -1)));
  EXPECT_EQ(history.slot, (std::vector<std::int32_t>(4, 0)));
}

TYPED_TEST(HistoryKernels, GuardHistoryClearsRowsThatGrewOrRepeatedTheirPoint) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  HistoryBuffer<T> history(8, 3, 5, 0);
  StateBuffer states(8);
  //                grew  at the limit  better  ended  no window  nothing yet  not asked  repeated its point
  states.g_norm = {2.01, 2.0, 0.5, 9, 9, 9, 9, 1};
  states.report.residual.assign(8, 1);
  states.report.status[3] = Status::converged;
  states.frozen[3] = states.frozen[4] = states.frozen[7] = 1;
  history.depth = {2, 2, 2, 2, 0, -1, 2, 2};
  ActiveBuffer active;
  active.ids = {0, 1, 2, 3, 4, 5, 7};
  run(queue, GuardHistory<T>{.rows = active.view(), .growth = 2, .states = states.view(), .history = history.view()});
  EXPECT_EQ(history.depth, (std::vector<std::int32_t>{-1, 2, 2, 2, 0, -1, 2, -1}));
  EXPECT_EQ(states.report.rejected, (std::vector<std::int32_t>{1, 0, 0, 0, 0, 0, 0, 1}));

  history.depth[0] = 2;
  run(queue, GuardHistory<T>{.rows = active.view(),
                             .growth = std::numeric_limits<double>::infinity(),
                             .states = states.view(),
                             .history = history.view()});
  EXPECT_EQ(history.depth[0], 2) << "an infinite growth never rejects";
}

// The window of a row, as the textbook writes it.
template <class T>
struct Window {
  bool in_16_bits = false;
  std::vector<std::vector<T>> dF, dG;  // by slot
  std::vector<T> f_last, g_last;
  bool started = false;
  std::int64_t next = 0;

  // Arithmetic in T, as stored: each entry is one or two roundings of exact inputs.
  void push(const T* z, const T* f, std::int64_t width, std::int64_t m) {
    std::vector<T> g(width), df(width), dg(width);
    for (std::int64_t j = 0; j < width; ++j) {
      g[j] = f[j] - z[j];
      if (started) {
        df[j] = f[j] - f_last[j];
        dg[j] = g[j] - g_last[j];
        if (in_16_bits) {
          df[j] = static_cast<T>(rounded_to_bfloat16(df[j]));
          dg[j] = static_cast<T>(rounded_to_bfloat16(dg[j]));
        }
      }
    }
    if (started) {
      if (static_cast<std::int64_t>(dF.size()) < m) {
        dF.push_back(df);
        dG.push_back(dg);
      } else {
        dF[next] = df;
        dG[next] = dg;
      }
      next = (next + 1) % m;
    }
    f_last.assign(f, f + width);
    g_last = g;
    started = true;
  }
};

template <class T>
void expect_dot(double measured, const std::vector<T>& a, const std::vector<T>& b, const char* what) {
  long double sum = 0, size = 0;
  for (std::size_t j = 0; j < a.size(); ++j) {
    const long double term = static_cast<long double>(a[j]) * b[j];
    sum += term;
    size += std::abs(term);
  }
  const double slack = 1.2e-16 * static_cast<double>(4 + a.size());  // n additions in double
  EXPECT_NEAR(measured, static_cast<double>(sum), slack * static_cast<double>(size)) << what;
}

template <class T>
void expect_window(const HistoryBuffer<T>& history, std::int64_t row, const Window<T>& window) {
  const std::int64_t m = history.m;
  const auto depth = static_cast<std::int64_t>(window.dF.size());
  ASSERT_EQ(history.depth[row], depth);
  ASSERT_EQ(history.slot[row], window.next);
  const auto width = static_cast<std::int64_t>(window.f_last.size());
  EXPECT_TRUE(same_bits(&history.f_last(row, 0), window.f_last.data(), width));
  EXPECT_TRUE(same_bits(&history.g_last(row, 0), window.g_last.data(), width));
  for (std::int64_t j = 0; j < depth; ++j) {
    for (std::int64_t i = 0; i < width; ++i) {
      ASSERT_EQ(history.of_dF(row * m + j, i), window.dF[j][i]) << "column " << j;
      ASSERT_EQ(history.of_dG(row * m + j, i), window.dG[j][i]) << "column " << j;
    }
    expect_dot(history.rhs[row * m + j], window.dG[j], window.g_last, "rhs");
    for (std::int64_t k = 0; k < depth; ++k) {
      expect_dot(history.gram[(row * m + j) * m + k], window.dG[j], window.dG[k], "gram");
      EXPECT_EQ(history.gram[(row * m + j) * m + k], history.gram[(row * m + k) * m + j]) << "symmetric to the bit";
    }
  }
}

TYPED_TEST(HistoryKernels, PushHistoryKeepsTheLastDifferencesAndTheirProducts) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  Random random(40);
  for (const Shape& shape : shapes())
    for (const auto& [m, in_16_bits] : {std::pair<std::int64_t, bool>{1, false}, {3, false}, {6, false}, {3, true}}) {
      if (shape.rows > 10 && m > 3) continue;
      DEQCORE_TRACE_SHAPE(shape);
      SCOPED_TRACE(testing::Message() << m << (in_16_bits ? ", in 16 bits" : ""));
      HistoryBuffer<T> history(shape.rows, m, shape.width, shape.gap, in_16_bits);
      StateBuffer states(shape.rows);
      const ActiveBuffer active = ActiveBuffer::all(shape.rows);
      std::vector<Window<T>> windows(shape.rows, Window<T>{.in_16_bits = in_16_bits});
      run(queue, ClearHistory<T>{.rows = shape.rows, .history = history.view()});
      for (int push = 0; push < m + 3; ++push) {
        const auto z = Block<T>::random(random, shape.rows, shape.width, 1);
        const auto f = Block<T>::random(random, shape.rows, shape.width, 2);
        run(queue,
            PushHistory<T>{
                .rows = active.view(), .z = z.view(), .f = f.view(), .states = states.view(), .into = history.view()});
        for (std::int64_t row = 0; row < shape.rows; ++row) {
          windows[row].push(&z(row, 0), &f(row, 0), shape.width, m);
          expect_window(history, row, windows[row]);
          if (::testing::Test::HasFailure()) return;
        }
      }
      EXPECT_TRUE(history.gaps_intact());
    }
}

TYPED_TEST(HistoryKernels, PushHistoryFillsTheLongestWindow) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  Random random(41);
  const std::int64_t m = row_math::max_history, width = 40;
  for (const bool in_16_bits : {false, true}) {
    HistoryBuffer<T> history(2, m, width, 0, in_16_bits);
    StateBuffer states(2);
    std::vector<Window<T>> windows(2, Window<T>{.in_16_bits = in_16_bits});
    run(queue, ClearHistory<T>{.rows = 2, .history = history.view()});
    for (int push = 0; push < 2 * m + 1; ++push) {
      const auto z = Block<T>::random(random, 2, width), f = Block<T>::random(random, 2, width);
      run(queue, PushHistory<T>{.rows = ActiveBuffer::all(2).view(),
                                .z = z.view(),
                                .f = f.view(),
                                .states = states.view(),
                                .into = history.view()});
      for (std::int64_t row = 0; row < 2; ++row) windows[row].push(&z(row, 0), &f(row, 0), width, m);
    }
    for (std::int64_t row = 0; row < 2; ++row) expect_window(history, row, windows[row]);
  }
}

TYPED_TEST(HistoryKernels, PushHistoryFollowsSourceAndLeavesOtherRowsAlone) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  Random random(42);
  const std::int64_t width = 19;
  HistoryBuffer<T> history(8, 3, width, 1);
  StateBuffer states(8);
  states.report.status[5] = Status::converged;
  std::vector<Window<T>> windows(8);
  run(queue, ClearHistory<T>{.rows = 8, .history = history.view()});
  const HistoryBuffer<T> before = history;
  const ActiveBuffer active = ActiveBuffer::odd_rows_left(8);
  for (int push = 0; push < 3; ++push) {
    const auto z = Block<T>::random(random, 8, width), f = Block<T>::random(random, 8, width);
    run(queue,
        PushHistory<T>{
            .rows = active.view(), .z = z.view(), .f = f.view(), .states = states.view(), .into = history.view()});
    for (const std::int64_t row : {1, 3, 7}) {
      windows[row].push(&z(row, 0), &f(row, 0), width, 3);
      expect_window(history, row, windows[row]);
    }
  }
  for (const std::int64_t row : {0, 2, 4, 5, 6}) {
    EXPECT_EQ(history.depth[row], -1);
    EXPECT_TRUE(same_bits(&history.f_last(row, 0), &before.f_last(row, 0), width));
    for (std::int64_t j = 0; j < 3; ++j)
      EXPECT_TRUE(same_bits(&history.dF(row * 3 + j, 0), &before.dF(row * 3 + j, 0), width));
  }
}

TYPED_TEST(HistoryKernels, PushHistoryStartsAgainAfterAClearedWindow) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  Random random(43);
  const std::int64_t width = 11;
  HistoryBuffer<T> history(1, 3, width, 0);
  StateBuffer states(1);
  run(queue, ClearHistory<T>{.rows = 1, .history = history.view()});
  for (const int forgotten : {-1, 0}) {  // with the last f and g, and without
    Window<T> window;
    for (int push = 0; push < 6; ++push) {
      const auto z = Block<T>::random(random, 1, width), f = Block<T>::random(random, 1, width);
      if (push == 2) {
        history.depth[0] = forgotten;
        history.slot[0] = 0;
        window.dF.clear();
        window.dG.clear();
        window.next = 0;
        window.started = forgotten == 0;
      }
      run(queue, PushHistory<T>{.rows = ActiveBuffer::all(1).view(),
                                .z = z.view(),
                                .f = f.view(),
                                .states = states.view(),
                                .into = history.view()});
      window.push(&z(0, 0), &f(0, 0), width, 3);
      expect_window(history, 0, window);
    }
    history.depth[0] = -1;
  }
}

TYPED_TEST(HistoryKernels, SolveSmallSolvesTheRidgedNormalEquations) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  Random random(44);
  const std::int64_t m = 5;
  HistoryBuffer<T> history(8, m, 4, 0);
  StateBuffer states(8);
  //                0 row: no window, -1: nothing, 6: not asked, 7: ended
  history.depth = {0, 1, 2, 3, 5, -1, 5, 5};
  history.slot.assign(8, 1);
  states.report.status[7] = Status::converged;
  for (std::int64_t row = 0; row < 8; ++row)
    for (std::int64_t i = 0; i < m; ++i) {
      history.rhs[row * m + i] = random.normal();
      for (std::int64_t j = 0; j <= i; ++j)
        history.gram[(row * m + i) * m + j] = history.gram[(row * m + j) * m + i] =
            (i == j ? 6.0 : 0.0) + random.uniform(-1, 1);
    }
  ActiveBuffer active;
  active.ids = {0, 1, 2, 3, 4, 5, 7};
  const double ridge = 1e-3;
  run(queue, SolveSmall<T>{.rows = active.view(), .ridge = ridge, .states = states.view(), .history = history.view()});
  for (std::int64_t row = 0; row < 8; ++row) {
    const std::int64_t n = row == 6 || row == 7 ? 0 : std::max(0, history.depth[row]);
    for (std::int64_t i = 0; i < n; ++i) {
      double left = ridge * history.gram[(row * m + i) * m + i] * history.gamma[row * m + i];
      for (std::int64_t j = 0; j < n; ++j) left += history.gram[(row * m + i) * m + j] * history.gamma[row * m + j];
      EXPECT_NEAR(left, history.rhs[row * m + i], 1e-13);
    }
    for (std::int64_t i = n; i < m; ++i) EXPECT_EQ(history.gamma[row * m + i], -1) << row;
  }
  EXPECT_EQ(states.report.singular, (std::vector<std::int32_t>(8, 0)));
  EXPECT_EQ(history.depth, (std::vector<std::int32_t>{0, 1, 2, 3, 5, -1, 5, 5}));
}

TYPED_TEST(HistoryKernels, SolveSmallForgetsAWindowItCannotSolve) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  HistoryBuffer<T> history(2, 2, 4, 0);
  StateBuffer states(2);
  history.depth = {2, 2};
  history.slot = {1, 1};
  history.gram = {1, 2, 2, 1, 1, 0, 0, 1};  // the first is indefinite
  history.rhs = {1, 1, 1, 1};
  run(queue,
      SolveSmall<T>{
          .rows = ActiveBuffer::all(2).view(), .ridge = 1e-10, .states = states.view(), .history = history.view()});
  EXPECT_EQ(history.depth, (std::vector<std::int32_t>{0, 2}));
  EXPECT_EQ(history.slot, (std::vector<std::int32_t>{0, 1}));
  EXPECT_EQ(states.report.singular, (std::vector<std::int32_t>{1, 0}));
}

TYPED_TEST(HistoryKernels, MixHistoryIsTheFormula) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  Random random(45);
  for (const Shape& shape : shapes())
    for (const auto& [beta, in_16_bits] :
         {std::pair{1.0, false}, {0.7, false}, {1.3, false}, {1.0, true}, {0.7, true}}) {
      DEQCORE_TRACE_SHAPE(shape);
      SCOPED_TRACE(testing::Message() << beta << (in_16_bits ? ", in 16 bits" : ""));
      const std::int64_t m = 3, batch = 2 * shape.rows;
      const auto z = Block<T>::random(random, batch, shape.width, shape.gap);
      const auto f = Block<T>::random(random, batch, shape.width, shape.gap + 1);
      HistoryBuffer<T> history(batch, m, shape.width, shape.gap, in_16_bits);
      history.dF = Block<T>::random(random, batch * m, shape.width, shape.gap);
      history.dG = Block<T>::random(random, batch * m, shape.width, shape.gap);
      for (std::int64_t i = 0; i < batch * m; ++i)
        for (std::int64_t j = 0; j < shape.width; ++j) {
          history.dF16(i, j) = narrow(history.dF(i, j));
          history.dG16(i, j) = narrow(history.dG(i, j));
        }
      for (double& gamma : history.gamma) gamma = random.normal();
      for (std::int64_t row = 0; row < batch; ++row) history.depth[row] = static_cast<std::int32_t>(row / 2 % (m + 1));
      StateBuffer states(batch);
      if (shape.rows > 2) states.report.status[5] = Status::stalled;
      Block<T> next(shape.rows, shape.width, 1, T(-1));
      run(queue, MixHistory<T>{.rows = ActiveBuffer::odd_rows_left(batch).view(),
                               .beta = beta,
                               .z = z.view(),
                               .f = f.view(),
                               .states = states.view(),
                               .history = history.view(),
                               .next = next.view()});
      for (std::int64_t i = 0; i < shape.rows; ++i) {
        const std::int64_t row = 2 * i + 1;
        for (std::int64_t j = 0; j < shape.width; ++j) {
          if (row == 5) {
            ASSERT_EQ(next(i, j), T(-1)) << "an ended row is not written";
            continue;
          }
          const long double image = f(row, j), g = image - z(row, j);
          long double exact = image - (1 - beta) * g;
          long double size = std::abs(image) + std::abs(g);
          for (std::int32_t k = 0; k < history.depth[row]; ++k) {
            const long double gamma = history.gamma[row * m + k];
            const long double along_f = gamma * history.of_dF(row * m + k, j),
                              along_g = gamma * history.of_dG(row * m + k, j);
            exact -= along_f - (1 - beta) * along_g;
            size += std::abs(along_f) + std::abs(along_g);
          }
          // gamma rounded to T, and one rounding per operation
          const auto slack = static_cast<double>(8 * std::numeric_limits<T>::epsilon() * size);
          ASSERT_NEAR(static_cast<double>(next(i, j)), static_cast<double>(exact), slack) << row << " " << j;
        }
      }
      EXPECT_TRUE(next.gaps_intact());
    }
}

TYPED_TEST(HistoryKernels, DampedStepIsTheFormula) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  Random random(46);
  for (const Shape& shape : shapes())
    for (const double beta : {1.0, 0.3, 1.9}) {
      DEQCORE_TRACE_SHAPE(shape);
      SCOPED_TRACE(beta);
      const std::int64_t batch = 2 * shape.rows;
      const auto z = Block<T>::random(random, batch, shape.width, shape.gap);
      const auto f = Block<T>::random(random, batch, shape.width, shape.gap + 1);
      StateBuffer states(batch);
      if (shape.rows > 2) states.report.status[5] = Status::stalled;
      Block<T> next(shape.rows, shape.width, 1, T(-1));
      run(queue, DampedStep<T>{.rows = ActiveBuffer::odd_rows_left(batch).view(),
                               .beta = beta,
                               .z = z.view(),
                               .f = f.view(),
                               .states = states.view(),
                               .next = next.view()});
      for (std::int64_t i = 0; i < shape.rows; ++i) {
        const std::int64_t row = 2 * i + 1;
        for (std::int64_t j = 0; j < shape.width; ++j) {
          if (row == 5) {
            ASSERT_EQ(next(i, j), T(-1)) << "an ended row is not written";
            continue;
          }
          if (beta == 1) {
            ASSERT_EQ(next(i, j), f(row, j)) << "undamped, the next point is the image itself";
            continue;
          }
          const long double point = z(row, j), g = f(row, j) - point;
          const auto slack =
              static_cast<double>(3 * std::numeric_limits<T>::epsilon() * (std::abs(point) + 2 * std::abs(g)));
          ASSERT_NEAR(static_cast<double>(next(i, j)), static_cast<double>(point + beta * g), slack) << row << " " << j;
        }
      }
      EXPECT_TRUE(next.gaps_intact());
    }
}

TYPED_TEST(HistoryKernels, NoRowsTouchNothing) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  HistoryBuffer<T> history(1, 2, 5, 0);
  StateBuffer states(1);
  Block<T> block(1, 5, 0, T(7));
  const Block<T> untouched = block;
  const RowStates view = states.view();
  run(queue, ClearHistory<T>{.rows = 0, .history = history.view()});
  run(queue, GuardHistory<T>{.rows = {}, .growth = 2, .states = view, .history = history.view()});
  run(queue, PushHistory<T>{.rows = {}, .z = block.view(), .f = block.view(), .states = view, .into = history.view()});
  run(queue, SolveSmall<T>{.rows = {}, .ridge = 0, .states = view, .history = history.view()});
  run(queue, MixHistory<T>{.rows = {},
                           .beta = 1,
                           .z = block.view(),
                           .f = block.view(),
                           .states = view,
                           .history = history.view(),
                           .next = block.view()});
  run(queue,
      DampedStep<T>{.rows = {}, .beta = 1, .z = block.view(), .f = block.view(), .states = view, .next = block.view()});
  EXPECT_TRUE(block == untouched);
  EXPECT_EQ(history.depth[0], 77);
}

// A row gives the same bits wherever it stands and whatever else is in the block.
TYPED_TEST(HistoryKernels, ARowAloneHasTheBitsOfTheRowInABlock) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  Random random(47);
  const std::int64_t rows = 64, width = 2051, m = 2;
  const auto z1 = Block<T>::random(random, rows, width), f1 = Block<T>::random(random, rows, width);
  const auto z2 = Block<T>::random(random, rows, width), f2 = Block<T>::random(random, rows, width);
  const auto whole_window = [&](std::int64_t first, std::int64_t count, bool in_16_bits) {
    HistoryBuffer<T> history(count, m, width, 0, in_16_bits);
    StateBuffer states(count);
    run(queue, ClearHistory<T>{.rows = count, .history = history.view()});
    for (const auto& [z, f] : {std::pair{&z1, &f1}, std::pair{&z2, &f2}})
      run(queue, PushHistory<T>{.rows = ActiveBuffer::all(count).view(),
                                .z = z->view().slice(first, count),
                                .f = f->view().slice(first, count),
                                .states = states.view(),
                                .into = history.view()});
    return history;
  };
  for (const bool in_16_bits : {false, true}) {
    const auto batch = whole_window(0, rows, in_16_bits);
    for (const std::int64_t row : {0, 31, 63}) {
      const auto alone = whole_window(row, 1, in_16_bits);
      EXPECT_EQ(alone.gram[0], batch.gram[row * m * m]);
      EXPECT_EQ(alone.rhs[0], batch.rhs[row * m]);
    }
  }
}

TEST(BFloat16, IsTheNearestWithTiesToEven) {
  const auto expect = [](double x) {
    EXPECT_EQ(static_cast<double>(widen(narrow(x))), rounded_to_bfloat16(x)) << x;
    const auto of_float = static_cast<float>(x);
    EXPECT_EQ(static_cast<double>(widen(narrow(of_float))), rounded_to_bfloat16(of_float)) << x;
  };
  Random random(48);
  for (int i = 0; i < 20000; ++i) expect(random.normal() * std::exp2(random.uniform(-150, 130)));
  for (const double odd : {1.0, 3.0, 129.0, 255.0})
    for (const int exponent : {-140, -133, -126, -3, 0, 119}) {  // on a tie, and the least above and below it
      const double tie = std::ldexp(odd + 0.5, exponent);
      for (const double x : {tie, std::nextafter(tie, 1e300), std::nextafter(tie, 0.0), tie * (1 + 1e-9)})
        for (const double sign : {1.0, -1.0}) expect(sign * x);
    }
  for (const double x : {0.0, -0.0, 0x1.fep127, 0x1.fefffffp127, 0x1.ffp127, 1e39, -1e300, 1e-300, 4.5e-41, 4.6e-41})
    expect(x);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const float least_nan = std::bit_cast<float>(0x7f800001u), most_nan = std::bit_cast<float>(0xffffffffu);
  EXPECT_TRUE(std::isnan(widen(narrow(nan))) && std::isnan(widen(narrow(static_cast<float>(nan)))));
  EXPECT_TRUE(std::isnan(widen(narrow(least_nan))) && std::isnan(widen(narrow(most_nan))));
  EXPECT_FALSE(finite(narrow(nan)) || finite(narrow(1e39)) || !finite(narrow(3e38)));
}

// Every element that the kernel rounds, against the rounding of a single one: f - 0 is the element itself.
TYPED_TEST(HistoryKernels, PushHistoryRoundsEveryElementAsOneAlone) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  Random random(49);
  const std::int64_t width = 1021;
  HistoryBuffer<T> history(1, 1, width, 0, true);
  StateBuffer states(1);
  Block<T> z(1, width), f(1, width);
  run(queue, ClearHistory<T>{.rows = 1, .history = history.view()});
  const auto push = [&] {
    run(queue, PushHistory<T>{.rows = ActiveBuffer::all(1).view(),
                              .z = z.view(),
                              .f = f.view(),
                              .states = states.view(),
                              .into = history.view()});
  };
  push();
  for (std::int64_t j = 0; j < width; ++j)
    f(0, j) = static_cast<T>(random.normal() * std::exp2(random.uniform(-150, 120)));
  for (std::int64_t j = 0; j < 300; ++j)  // ties
    f(0, j) = static_cast<T>(std::ldexp(static_cast<double>(2 * random.below(256) + 1), static_cast<int>(j % 80) - 40));
  push();
  for (std::int64_t j = 0; j < width; ++j) {
    ASSERT_EQ(history.dF16(0, j).bits, narrow(f(0, j)).bits) << f(0, j);
    ASSERT_EQ(history.dG16(0, j).bits, narrow(f(0, j)).bits) << f(0, j);
  }
}

// Beyond the range of bfloat16 in either column: the window is forgotten, nothing is mixed from it, and the step is
// plain.
TYPED_TEST(HistoryKernels, AColumnBeyondTheRangeOf16BitsForgetsTheWindow) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  const std::int64_t width = 70, rows = 4;
  HistoryBuffer<T> history(rows, 3, width, 1, true);
  StateBuffer states(rows);
  Random random(51);
  run(queue, ClearHistory<T>{.rows = rows, .history = history.view()});
  const auto all = ActiveBuffer::all(rows);
  Block<T> z(rows, width), f(rows, width), next(rows, width);
  for (int push = 0; push < 4; ++push) {
    z = Block<T>::random(random, rows, width);
    f = Block<T>::random(random, rows, width);
    const T huge = std::is_same_v<T, float> ? T(3.4e38) : T(1e40);
    if (push == 3) {
      f(1, 5) = z(1, 5) = huge;     // of dF alone, in a whole vector
      f(2, 69) = z(2, 69) = -huge;  // and in what is left of the row
      z(3, 40) = huge;              // of dG alone
    }
    run(queue, PushHistory<T>{
                   .rows = all.view(), .z = z.view(), .f = f.view(), .states = states.view(), .into = history.view()});
    run(queue, SolveSmall<T>{.rows = all.view(), .ridge = 0, .states = states.view(), .history = history.view()});
  }
  EXPECT_EQ(history.depth, (std::vector<std::int32_t>{3, 0, 0, 0}));
  EXPECT_EQ(states.report.singular, (std::vector<std::int32_t>{0, 1, 1, 1}));
  run(queue, MixHistory<T>{.rows = all.view(),
                           .beta = 1,
                           .z = z.view(),
                           .f = f.view(),
                           .states = states.view(),
                           .history = history.view(),
                           .next = next.view()});
  for (std::int64_t row = 1; row < rows; ++row) EXPECT_TRUE(same_bits(&next(row, 0), &f(row, 0), width));
}

}  // namespace
}  // namespace deqcore::test

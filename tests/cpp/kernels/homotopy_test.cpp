// SPDX-License-Identifier: Apache-2.0
#include "deqcore/kernels/homotopy.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "block.hpp"
#include "queues.hpp"
#include "row_states.hpp"
#include "shapes.hpp"

namespace deqcore::test {
namespace {

using Wide = long double;
constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double nan = std::numeric_limits<double>::quiet_NaN();

// Room for `entries` recorded evaluations of the components 0 and 2.
struct PathStateBuffer {
  explicit PathStateBuffer(std::int64_t rows, std::int64_t entries = 0)
      : report(rows, 50),
        turn(rows, Status::running),
        stage(rows, PathStage::track),
        need(rows, PathNeed::value),
        move(rows, PathMove::stay),
        fresh(rows, Fresh::no),
        sign(rows, 1),
        end(rows, PathEnd::following),
        counts(4, std::vector<std::int32_t>(rows)),
        corrections(rows),
        numbers(15, std::vector<double>(rows)),
        entry_numbers(4 * entries * rows),
        entry_points(2 * entries * rows),
        entry_kinds(entries * rows),
        capacity(entries) {
    report.status.assign(rows, Status::running);
  }

  PathStates view() {
    const auto number = [&](int which) { return numbers[which].data(); };
    PathStates states{.report = report.view(),
                      .path = {.end = end.data(),
                               .folds = counts[0].data(),
                               .solves = counts[1].data(),
                               .accepted = counts[2].data(),
                               .lambda = number(0),
                               .record = {}},
                      .turn = turn.data(),
                      .stage = stage.data(),
                      .need = need.data(),
                      .move = move.data(),
                      .sign = sign.data(),
                      .fresh = fresh.data(),
                      .corrections = corrections.data(),
                      .lambda = number(1),
                      .last_lambda = number(2),
                      .slope = number(3),
                      .h = number(4),
                      .fraction = number(5),
                      .g_norm = number(6),
                      .f_norm = number(7),
                      .z_norm = number(8),
                      .miss = number(9),
                      .before = number(10),
                      .length = number(11),
                      .size = number(12),
                      .extent = number(13),
                      .best = number(14),
                      .forcing = forcing()};
    if (capacity > 0)
      states.path.record = {.capacity = capacity,
                            .count = counts[3].data(),
                            .numbers = entry_numbers.data(),
                            .kinds = entry_kinds.data(),
                            .points = entry_points.data(),
                            .picked = 2,
                            .components = picked,
                            .rows = static_cast<std::int64_t>(turn.size())};
    return states;
  }

  double* forcing() {
    force.resize(turn.size());
    return force.data();
  }

  ReportBuffer report;
  std::vector<Status> turn;
  std::vector<PathStage> stage;
  std::vector<PathNeed> need;
  std::vector<PathMove> move;
  std::vector<Fresh> fresh;
  std::vector<std::int8_t> sign;
  std::vector<PathEnd> end;
  std::vector<std::vector<std::int32_t>> counts;
  std::vector<std::int32_t> corrections;
  std::vector<std::vector<double>> numbers;
  std::vector<double> force, entry_numbers, entry_points;
  std::vector<std::int32_t> entry_kinds;
  std::int64_t capacity;
  const std::int32_t picked[2] = {0, 2};
};

PathRules rules_for(HomotopyKind kind = HomotopyKind::fixed_point, Tracker tracker = Tracker::arclength) {
  return {.kind = kind,
          .tracker = tracker,
          .max_steps = 1000,
          .max_solves = 1000,
          .reserve = 4,
          .corrections = 6,
          .tolerance = 1e-6,
          .first_step = 0.1,
          .most_step = 2,
          .least_step = 1e-3,
          .angle = 0.9,
          .blow_up = 1e4,
          .by_products = false};
}

const Limits limits{.rtol = 1e-6, .atol = 0, .floor = 1e-15, .overflow = 1e8, .noise = 1e-13};

template <class Entry>
class PathKernels : public ::testing::Test {};
TYPED_TEST_SUITE(PathKernels, Types<Queues>, Names);

// How exact an element of the type is, against numbers of order 1.
template <class T>
constexpr double exact = 32 * static_cast<double>(std::numeric_limits<T>::epsilon());

TYPED_TEST(PathKernels, MeasurePathFormsTheHomotopyAndItsRate) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  Random random(80);
  for (const Shape& shape : shapes())
    for (const HomotopyKind kind : {HomotopyKind::fixed_point, HomotopyKind::newton, HomotopyKind::own})
      for (const Norm norm : {Norm::two, Norm::inf}) {
        DEQCORE_TRACE_SHAPE(shape);
        const ActiveBuffer active = ActiveBuffer::odd_rows_left(2 * shape.rows);
        const auto z = Block<T>::random(random, shape.rows, shape.width, shape.gap);
        const auto answer = Block<T>::random(random, shape.rows, shape.width, shape.gap + 1);
        auto base = Block<T>::random(random, 2 * shape.rows, shape.width, shape.gap);
        const auto base_before = base;
        Block<T> r(2 * shape.rows, shape.width), rate(2 * shape.rows, shape.width, 1, T(7));
        Block<T> right(2 * shape.rows, shape.width + 1, 0, T(7));
        PathStateBuffer states(2 * shape.rows);
        if (shape.rows > 2) states.report.status[active.ids[2]] = Status::converged;
        for (std::int64_t row = 0; row < 2 * shape.rows; ++row) {
          states.numbers[1][row] = 0.25;
          states.report.steps[row] = row % 4 == 1 ? 0 : 3;  // some at their first evaluation
        }
        run(queue, MeasurePath<T>{.rows = active.view(),
                                  .norm = norm,
                                  .rules = rules_for(kind),
                                  .at = z.view(),
                                  .answer = answer.view(),
                                  .base = base.view(),
                                  .r = r.view(),
                                  .rate = rate.view(),
                                  .right = right.view(),
                                  .states = states.view()});
        for (std::int64_t i = 0; i < shape.rows; ++i) {
          const std::int64_t row = active.ids[i];
          if (states.report.status[row] != Status::running) {
            EXPECT_EQ(right(row, 0), T(7));
            continue;
          }
          const bool own = kind == HomotopyKind::own, first = kind == HomotopyKind::newton && row % 4 == 1;
          const auto residual = [&](std::int64_t j) {
            return own ? Wide(answer(i, j)) : Wide(answer(i, j)) - Wide(z(i, j));
          };
          const auto image = [&](std::int64_t j) { return own ? Wide(z(i, j)) - Wide(answer(i, j)) : answer(i, j); };
          EXPECT_NEAR(states.numbers[6][row], textbook_norm(norm, shape.width, residual), 1e-13 * shape.width);
          EXPECT_NEAR(states.numbers[7][row], textbook_norm(norm, shape.width, image), 1e-13 * shape.width);
          EXPECT_NEAR(states.numbers[11][row], textbook_norm(Norm::two, shape.width, residual), 1e-13 * shape.width);
          for (std::int64_t j = 0; j < shape.width; ++j) {
            const double x = z(i, j), f = answer(i, j), z0 = first ? f - x : double(base_before(row, j));
            const double H = own ? f : kind == HomotopyKind::fixed_point ? x - 0.25 * f - 0.75 * z0 : x - f + 0.75 * z0;
            EXPECT_NEAR(right(row, j), -H, exact<T> * 4);
            EXPECT_NEAR(r(row, j), own ? -f : f - x, exact<T>);
            if (!own)
              EXPECT_NEAR(rate(row, j), kind == HomotopyKind::fixed_point ? z0 - f : -z0, exact<T>);
            else
              EXPECT_EQ(rate(row, j), T(7));
          }
          EXPECT_EQ(right(row, shape.width), 0);
          EXPECT_NEAR(states.numbers[9][row],
                      textbook_norm(Norm::two, shape.width, [&](std::int64_t j) { return Wide(right(row, j)); }),
                      1e-13 * shape.width);
        }
      }
}

TYPED_TEST(PathKernels, MovePathMovesKeepsAndRecords) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  Random random(81);
  const std::int64_t rows = 5, width = 37;
  const ActiveBuffer active = ActiveBuffer::all(rows);
  auto z = Block<T>::random(random, rows, width, 2);
  const auto before = z, last = Block<T>::random(random, rows, width), tangent = Block<T>::random(random, rows, width);
  Block<T> result(rows, width, 1, T(-7)), right(rows, width + 1, 0, T(9));
  PathStateBuffer states(rows, 2);
  states.move = {PathMove::stay, PathMove::predict, PathMove::cross, PathMove::stay, PathMove::stay};
  states.fresh = {Fresh::best, Fresh::yes, Fresh::best, Fresh::no, Fresh::yes};
  states.need.assign(rows, PathNeed::correction);
  states.need[4] = PathNeed::tangent;
  states.counts[3] = {1, 2, 1, 1, 3};  // the last one has no room
  for (std::int64_t row = 0; row < rows; ++row) {
    states.numbers[4][row] = 0.5;    // h
    states.numbers[5][row] = 0.125;  // fraction
  }
  run(queue, MovePath<T>{.rows = active.view(),
                         .rules = rules_for(),
                         .z = z.view(),
                         .last = last.view(),
                         .tangent = tangent.view(),
                         .result = result.view(),
                         .right = right.view(),
                         .states = states.view()});
  for (std::int64_t row = 0; row < rows; ++row) {
    for (std::int64_t j = 0; j < width; ++j) {
      const double expected = row == 1   ? last(row, j) + 0.5 * tangent(row, j)
                              : row == 2 ? last(row, j) + 0.125 * (before(row, j) - last(row, j))
                                         : before(row, j);
      EXPECT_NEAR(z(row, j), expected, exact<T>);
      EXPECT_EQ(result(row, j), row == 0 || row == 2 ? before(row, j) : T(-7));
      EXPECT_EQ(right(row, j), row == 4 ? T(0) : T(9));
    }
    EXPECT_EQ(right(row, width), row == 4 ? T(1) : T(9));
    EXPECT_EQ(states.fresh[row], Fresh::no);
    EXPECT_EQ(states.move[row], PathMove::stay);
  }
  const auto recorded = [&](std::int64_t entry, std::int64_t row, std::int64_t c) {
    return states.entry_points[(entry * rows + row) * 2 + c];
  };
  EXPECT_EQ(recorded(0, 0, 1), static_cast<double>(before(0, 2)));
  EXPECT_EQ(recorded(1, 1, 0), static_cast<double>(before(1, 0)));
  EXPECT_EQ(recorded(0, 1, 0), 0) << "of an earlier entry";
  EXPECT_EQ(recorded(0, 3, 0), 0) << "not evaluated";
  EXPECT_EQ(recorded(1, 4, 0), 0) << "no room";
  EXPECT_TRUE(z.gaps_intact() && result.gaps_intact());
}

// M = [[own I - mapped J, rate], [border, corner]], column by column, against M solution = right.
TYPED_TEST(PathKernels, BorderedSystemsAreFormedAndSolved) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  Random random(82);
  for (const std::int64_t width : {1, 2, 7, 33})
    for (const HomotopyKind kind : {HomotopyKind::fixed_point, HomotopyKind::newton, HomotopyKind::own})
      for (const PathStage stage : {PathStage::track, PathStage::end}) {
        const std::int64_t rows = 3, m = width + 1;
        const ActiveBuffer active = ActiveBuffer::all(rows);
        std::vector<Block<T>> J;
        for (std::int64_t row = 0; row < rows; ++row) J.push_back(Block<T>::random(random, width, width));
        const auto rate = Block<T>::random(random, rows, width), tangent = Block<T>::random(random, rows, width);
        const auto right = Block<T>::random(random, rows, m);
        Block<T> solution(rows, m, 0, T(5));
        PathStateBuffer states(rows);
        states.stage.assign(rows, stage);
        states.turn[1] = Status::converged;
        for (std::int64_t row = 0; row < rows; ++row) {
          states.numbers[1][row] = 0.25;
          states.numbers[3][row] = 0.75;
        }
        std::vector<double> matrix(rows * m * m), work(rows * m);
        std::vector<std::int32_t> pivot(rows * m);
        std::vector<Status> solved(rows, Status::running);
        const Bordered bordered{.matrix = matrix.data(), .pivot = pivot.data(), .work = work.data()};
        const PathRules rules = rules_for(kind);
        for (std::int64_t column = 0; column < width; ++column) {
          Block<T> answer(rows, width);
          for (std::int64_t row = 0; row < rows; ++row)
            for (std::int64_t j = 0; j < width; ++j) answer(row, j) = J[row](j, column);
          const Block<T>& given = answer;
          run(queue, KeepBordered<T>{.rows = active.view(),
                                     .column = column,
                                     .rules = rules,
                                     .answer = given.view(),
                                     .tangent = tangent.view(),
                                     .states = states.view(),
                                     .bordered = bordered});
        }
        run(queue, FactorBordered<T>{.rows = active.view(),
                                     .rules = rules,
                                     .rate = rate.view(),
                                     .right = right.view(),
                                     .solution = solution.view(),
                                     .solved = solved.data(),
                                     .states = states.view(),
                                     .bordered = bordered});
        EXPECT_EQ(solution(1, 0), T(5));
        EXPECT_EQ(states.report.steps, (std::vector<std::int32_t>{int(width), 0, int(width)}));
        for (const std::int64_t row : {0, 2}) {
          EXPECT_EQ(solved[row], Status::converged);
          const bool own = kind == HomotopyKind::own;
          const double diagonal = own ? 0 : 1, mapped = own ? -1 : kind == HomotopyKind::newton ? 1 : 0.25;
          const bool path = stage == PathStage::track;
          double largest = 1;
          for (std::int64_t j = 0; j < m; ++j) largest = std::max(largest, std::abs(double(solution(row, j))));
          for (std::int64_t i = 0; i < m; ++i) {
            Wide sum = 0;
            for (std::int64_t j = 0; j < m; ++j) {
              const Wide entry = i < width && j < width ? (i == j ? diagonal : 0) - mapped * J[row](i, j)
                                 : i < width            ? Wide(rate(row, i))
                                 : j < width            ? (path ? Wide(tangent(row, j)) : 0)
                                                        : Wide(path ? 0.75 : 1.0);
              sum += entry * Wide(solution(row, j));
            }
            EXPECT_NEAR(double(sum), right(row, i), 20 * exact<T> * largest * width);
          }
        }
        // the same matrix by products
        auto direction = Block<T>::random(random, rows, m);
        Block<T> along(rows, width), answer(rows, width), product(rows, m);
        const Block<T>& given = direction;
        run(queue, PoseBordered<T>{.direction = given.view(), .along = along.view()});
        for (std::int64_t row = 0; row < rows; ++row)
          for (std::int64_t i = 0; i < width; ++i) {
            EXPECT_EQ(along(row, i), direction(row, i));
            double sum = 0;
            for (std::int64_t j = 0; j < width; ++j) sum += double(J[row](i, j)) * double(along(row, j));
            answer(row, i) = static_cast<T>(sum);
          }
        const Block<T>& answered = answer;
        run(queue, TakeBordered<T>{.rows = active.view(),
                                   .rules = rules,
                                   .solving = solved.data(),
                                   .direction = given.view(),
                                   .answer = answered.view(),
                                   .tangent = tangent.view(),
                                   .rate = rate.view(),
                                   .product = product.view(),
                                   .states = states.view()});
        const bool own = kind == HomotopyKind::own, path = stage == PathStage::track;
        const double diagonal = own ? 0 : 1, mapped = own ? -1 : kind == HomotopyKind::newton ? 1 : 0.25;
        for (std::int64_t row = 0; row < rows; ++row) {
          Wide border = Wide(direction(row, width)) * (path ? 0.75 : 1.0);
          for (std::int64_t i = 0; i < width; ++i) {
            const double expected = diagonal * direction(row, i) - mapped * answer(row, i) +
                                    double(direction(row, width)) * double(rate(row, i));
            EXPECT_NEAR(product(row, i), expected, 4 * exact<T> * (1 + std::abs(expected)));
            if (path) border += Wide(tangent(row, i)) * Wide(direction(row, i));
          }
          EXPECT_NEAR(product(row, width), double(border), 20 * exact<T> * (1 + width));
        }
      }
}

TYPED_TEST(PathKernels, MatricesThatAreSingularOrNotFiniteAreNamed) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  const std::int64_t rows = 2, width = 2, m = 3;
  const ActiveBuffer active = ActiveBuffer::all(rows);
  std::vector<double> matrix(rows * m * m, 1.0), work(rows * m);
  matrix[m * m] = nan;
  std::vector<std::int32_t> pivot(rows * m);
  std::vector<Status> solved(rows);
  PathStateBuffer states(rows);
  const Block<T> rate(rows, width, 0, T(1)), right(rows, m);
  Block<T> solution(rows, m);
  run(queue, FactorBordered<T>{.rows = active.view(),
                               .rules = rules_for(),
                               .rate = rate.view(),
                               .right = right.view(),
                               .solution = solution.view(),
                               .solved = solved.data(),
                               .states = states.view(),
                               .bordered = {.matrix = matrix.data(), .pivot = pivot.data(), .work = work.data()}});
  EXPECT_EQ(solved, (std::vector<Status>{Status::breakdown, Status::not_finite}));
}

// A matrix whose columns differ by many orders is regular, in whatever units z and lambda are.
TYPED_TEST(PathKernels, UnitsDoNotMakeAMatrixSingular) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  const std::int64_t rows = 2, width = 2, m = 3;
  const ActiveBuffer active = ActiveBuffer::all(rows);
  const double size[3] = {1e-20, 1, 1e18}, M[3][3] = {{2, 1, 1}, {1, 3, -1}, {1, 1, 4}};
  std::vector<double> matrix(rows * m * m), work(rows * m);
  std::vector<std::int32_t> pivot(rows * m);
  std::vector<Status> solved(rows);
  PathStateBuffer states(rows);
  states.stage[1] = PathStage::end;  // its border is (0, 1)
  states.numbers[3].assign(rows, M[2][2] * size[2]);
  Block<T> rate(rows, width), right(rows, m), solution(rows, m);
  for (std::int64_t row = 0; row < rows; ++row) {
    for (std::int64_t j = 0; j < m; ++j) {
      for (std::int64_t i = 0; i < m; ++i)
        matrix[(row * m + j) * m + i] = row == 1 && i == width ? 0 : M[i][j] * size[j];
      right(row, j) = T(1);
    }
    for (std::int64_t i = 0; i < width; ++i) rate(row, i) = static_cast<T>(M[i][width] * size[width]);
  }
  const Block<T>&rates = rate, &rights = right;
  run(queue, FactorBordered<T>{.rows = active.view(),
                               .rules = rules_for(),
                               .rate = rates.view(),
                               .right = rights.view(),
                               .solution = solution.view(),
                               .solved = solved.data(),
                               .states = states.view(),
                               .bordered = {.matrix = matrix.data(), .pivot = pivot.data(), .work = work.data()}});
  EXPECT_EQ(solved, std::vector<Status>(rows, Status::converged));
  double sums[3] = {};
  for (int i = 0; i < 3; ++i)
    for (int j = 0; j < 3; ++j) sums[i] += M[i][j] * size[j] * static_cast<double>(solution(0, j));
  for (const double sum : sums) EXPECT_NEAR(sum, 1, 1e-5);
  EXPECT_EQ(solution(1, 2), T(1));
  for (int i = 0; i < 2; ++i) {
    double sum = static_cast<double>(rate(1, i));
    for (int j = 0; j < 2; ++j) sum += M[i][j] * size[j] * static_cast<double>(solution(1, j));
    EXPECT_NEAR(sum / size[2], 0, 1e-5);
  }
}

TYPED_TEST(PathKernels, RatesAreTakenAsAnsweredOrAsDifferences) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  const std::int64_t rows = 3, width = 5;
  const ActiveBuffer active = ActiveBuffer::all(rows);
  PathStateBuffer states(rows);
  states.turn[1] = Status::converged;
  states.numbers[1] = {0.25, 0.5, -3.0};
  std::vector<double> time(rows);
  run(queue, PoseRate<T>{.rows = active.view(), .time = time.data(), .states = states.view()});
  Block<T> answer(rows, width), r(rows, width), rate(rows, width, 0, T(-5));
  for (std::int64_t row = 0; row < rows; ++row)
    for (std::int64_t j = 0; j < width; ++j) {  // H = j lambda
      answer(row, j) = static_cast<T>(static_cast<double>(j) * time[row]);
      r(row, j) = static_cast<T>(-static_cast<double>(j) * states.numbers[1][row]);
    }
  const Block<T>&answered = answer, &known = r;
  for (const bool differences : {true, false}) {
    run(queue, TakeRate<T>{.rows = active.view(),
                           .differences = differences,
                           .answer = answered.view(),
                           .r = known.view(),
                           .rate = rate.view(),
                           .states = states.view()});
    for (const std::int64_t row : {0, 2})
      for (std::int64_t j = 0; j < width; ++j)
        EXPECT_NEAR(rate(row, j), differences ? double(j) : double(answer(row, j)),
                    10 * std::sqrt(double(std::numeric_limits<T>::epsilon())) * (j + 1));
    EXPECT_EQ(rate(1, 0), T(-5));
  }
  EXPECT_EQ(states.report.steps, (std::vector<std::int32_t>{2, 0, 2}));
}

// One row of width 2 through StepPath: d = (3, 4, 12) / 13 times `size`.
template <class Entry>
struct OneStep {
  using T = typename Entry::T;

  explicit OneStep(double size) : states(1, 4), z(1, 2, 0, T(1)), last(1, 2, 0, T(2)), tangent(1, 2, 0, T(0.5)) {
    for (int j = 0; j < 3; ++j) solution(0, j) = static_cast<T>(size * (j == 0 ? 3 : j == 1 ? 4 : 12) / 13);
    states.numbers[4][0] = 0.25;
    states.numbers[1][0] = 0.5;
    states.numbers[2][0] = 0.375;
    states.numbers[3][0] = 1;
    states.numbers[12][0] = 1;
    states.numbers[13][0] = 1;
    states.counts[3][0] = 1;
    states.entry_numbers[3] = nan;
  }

  void run_it(const PathRules& rules = rules_for()) {
    auto queue = Entry::make();
    const ActiveBuffer active = ActiveBuffer::all(1);
    Report linear{.status = &solved, .residual = &linear_residual, .scale = &linear_scale};
    const Block<T>& d = solution;
    run(queue, StepPath<T>{.rows = active.view(),
                           .rules = rules,
                           .linear = linear,
                           .solution = d.view(),
                           .z = z.view(),
                           .last = last.view(),
                           .tangent = tangent.view(),
                           .result = result.view(),
                           .states = states.view()});
  }

  PathStateBuffer states;
  Status solved = Status::converged;
  double linear_residual = 0, linear_scale = 1;
  Block<T> solution{1, 3}, z, last, tangent, result{1, 2, 0, T(-9)};
};

TYPED_TEST(PathKernels, StepPathCorrects) {
  OneStep<TypeParam> step(13);
  step.states.need[0] = PathNeed::correction;
  step.run_it();
  EXPECT_EQ(step.z(0, 0), 4);
  EXPECT_EQ(step.z(0, 1), 5);
  EXPECT_EQ(step.states.numbers[1][0], 12.5) << "lambda";
  EXPECT_EQ(step.states.corrections[0], 1);
  EXPECT_EQ(step.states.counts[1][0], 1) << "solves";

  OneStep<TypeParam> at_end(13);
  at_end.states.need[0] = PathNeed::correction;
  at_end.states.stage[0] = PathStage::end;
  at_end.run_it();
  EXPECT_EQ(at_end.states.numbers[1][0], 0.5) << "lambda stays";
}

TYPED_TEST(PathKernels, StepPathAcceptsAPointAndPredictsTheNext) {
  using T = typename TypeParam::T;
  OneStep<TypeParam> step(1.05);
  step.states.need[0] = PathNeed::tangent;
  step.states.corrections[0] = 2;
  step.states.sign[0] = -1;  // so this is a fold
  step.run_it();
  EXPECT_EQ(step.last(0, 0), 1);
  EXPECT_NEAR(step.tangent(0, 0), 3.0 / 13, exact<T>);
  EXPECT_NEAR(step.states.numbers[3][0], 12.0 / 13, exact<T>);
  EXPECT_EQ(step.states.numbers[4][0], 0.375) << "h grows";
  EXPECT_NEAR(step.z(0, 1), 1 + 0.375 * 4.0 / 13, exact<T>);
  EXPECT_NEAR(step.states.numbers[1][0], 0.5 + 0.375 * 12.0 / 13, exact<T>);
  EXPECT_EQ(step.states.numbers[2][0], 0.5);
  EXPECT_EQ(step.states.counts[0][0], 1) << "folds";
  EXPECT_EQ(step.states.counts[2][0], 1) << "accepted";
  EXPECT_EQ(step.states.sign[0], 1);
  EXPECT_EQ(step.states.corrections[0], 0);
  EXPECT_NEAR(step.states.entry_numbers[3], 12.0 / 13, exact<T>) << "the record knows the slope";
  EXPECT_EQ(step.result(0, 0), T(-9));

  OneStep<TypeParam> own(1);
  own.states.need[0] = PathNeed::tangent;
  own.states.numbers[14][0] = infinity;  // never measured
  own.states.corrections[0] = 3;
  own.run_it(rules_for(HomotopyKind::own));
  EXPECT_EQ(own.result(0, 0), 1);
  EXPECT_EQ(own.states.numbers[4][0], 0.25) << "h stays";
}

TYPED_TEST(PathKernels, StepPathGivesUpWhatTurnsTooFarOrIsNotSolved) {
  for (const int why : {0, 1, 2}) {
    OneStep<TypeParam> step(why == 0 ? 1.2 : 1);
    step.states.need[0] = PathNeed::tangent;
    if (why > 0) step.solved = why == 1 ? Status::breakdown : Status::not_finite;
    step.run_it();
    EXPECT_EQ(step.states.report.status[0], Status::running);
    EXPECT_EQ(step.states.report.rejected[0], 1);
    EXPECT_EQ(step.states.report.singular[0], why == 0 ? 0 : 1);
    EXPECT_EQ(step.states.numbers[4][0], 0.125);
    EXPECT_EQ(step.z(0, 0), 2 + 0.125 * 0.5) << "from the last point along its tangent";
    EXPECT_EQ(step.states.numbers[1][0], 0.375 + 0.125);
    step.states.turn[0] = Status::running;
    step.states.need[0] = PathNeed::tangent;
    step.states.numbers[4][0] = 1e-3;
    step.run_it();
    EXPECT_EQ(step.states.report.status[0], why == 2 ? Status::not_finite : Status::breakdown);
    EXPECT_EQ(step.states.end[0], why == 2 ? PathEnd::not_finite : PathEnd::step_underflow);
    EXPECT_EQ(step.states.numbers[0][0], 0.375) << "lambda of the last point";
  }
}

TYPED_TEST(PathKernels, TheNaturalTrackerEndsItsLastStepAtOne) {
  OneStep<TypeParam> step(13);
  step.states.need[0] = PathNeed::tangent;
  step.states.numbers[1][0] = 0.875;
  step.solution(0, 2) = 1;
  step.run_it(rules_for(HomotopyKind::fixed_point, Tracker::natural));
  EXPECT_EQ(step.states.numbers[1][0], 1);
  EXPECT_EQ(step.states.stage[0], PathStage::end);
  EXPECT_EQ(step.states.numbers[4][0], 0.125);
  EXPECT_EQ(step.tangent(0, 0), 3) << "not brought to length 1";
  EXPECT_EQ(step.z(0, 0), 1 + 0.125 * 3);
}

// What JudgePath makes of one evaluation.
template <class Entry>
struct OneVerdict {
  OneVerdict() : states(1, 4) {
    auto& n = states.numbers;
    n[1][0] = 0.5;   // lambda
    n[2][0] = 0.25;  // of the last point
    n[3][0] = 1;     // slope
    n[4][0] = 0.25;  // h
    n[6][0] = 0.1;   // residual
    n[7][0] = 1;     // image
    n[8][0] = 1;     // point
    n[9][0] = 1e-8;  // |H|
    n[10][0] = 1;    // residual before
    n[12][0] = 1;    // |z|
    n[13][0] = 1;    // extent
    n[14][0] = 1e9;  // best
    states.report.steps[0] = 5;
    states.report.scale[0] = 1;
  }

  void judge(const PathRules& rules = rules_for()) {
    using T = typename Entry::T;
    auto queue = Entry::make();
    const ActiveBuffer active = ActiveBuffer::all(1);
    run(queue, JudgePath<T>{.rows = active.view(), .limits = limits, .rules = rules, .states = states.view()});
  }

  Status status() const { return states.report.status[0]; }
  double& number(int which) { return states.numbers[which][0]; }

  PathStateBuffer states;
};

TYPED_TEST(PathKernels, JudgePathAsksForTangentsAndCorrections) {
  OneVerdict<TypeParam> on_path;
  on_path.judge();
  EXPECT_EQ(on_path.status(), Status::running);
  EXPECT_EQ(on_path.states.need[0], PathNeed::tangent);
  EXPECT_EQ(on_path.states.turn[0], Status::running);
  EXPECT_EQ(on_path.states.fresh[0], Fresh::best);
  EXPECT_EQ(on_path.states.report.residual[0], 0.1);
  EXPECT_EQ(on_path.states.report.steps[0], 6);
  EXPECT_EQ(on_path.states.counts[3][0], 1) << "recorded";
  EXPECT_EQ(on_path.states.entry_numbers[0], 0.5);
  EXPECT_EQ(on_path.states.entry_kinds[0], 1 + 4 * 1);

  OneVerdict<TypeParam> off_path;
  off_path.number(9) = 1e-3;
  off_path.number(14) = 1;  // better was known
  off_path.judge();
  EXPECT_EQ(off_path.states.need[0], PathNeed::correction);
  EXPECT_EQ(off_path.states.fresh[0], Fresh::yes);

  OneVerdict<TypeParam> late;
  late.number(9) = 1e-3;
  late.states.corrections[0] = 6;
  late.judge();
  EXPECT_EQ(late.states.need[0], PathNeed::value);
  EXPECT_EQ(late.states.move[0], PathMove::predict);
  EXPECT_EQ(late.number(4), 0.125);
  EXPECT_EQ(late.number(1), 0.25 + 0.125);
  EXPECT_EQ(late.states.report.rejected[0], 1);

  OneVerdict<TypeParam> back_at_zero;
  back_at_zero.number(1) = -0.01;
  back_at_zero.judge();
  EXPECT_EQ(back_at_zero.states.move[0], PathMove::predict) << "another curve";
}

TYPED_TEST(PathKernels, JudgePathCrossesAndEnds) {
  OneVerdict<TypeParam> crossing;
  crossing.number(1) = 1.25;
  crossing.judge();
  EXPECT_EQ(crossing.states.move[0], PathMove::cross);
  EXPECT_EQ(crossing.number(5), 0.75);
  EXPECT_EQ(crossing.number(1), 1);
  EXPECT_EQ(crossing.states.stage[0], PathStage::end);
  EXPECT_EQ(crossing.states.need[0], PathNeed::value);

  OneVerdict<TypeParam> ended;
  ended.states.stage[0] = PathStage::end;
  ended.number(6) = 1e-8;
  ended.judge();
  EXPECT_EQ(ended.status(), Status::converged);
  EXPECT_EQ(ended.states.end[0], PathEnd::converged);
  EXPECT_EQ(ended.number(0), 1);

  OneVerdict<TypeParam> on_the_way;  // a small residual is no end where H is followed
  on_the_way.number(6) = 1e-8;
  on_the_way.judge();
  EXPECT_EQ(on_the_way.status(), Status::running);

  OneVerdict<TypeParam> far;
  far.number(12) = 2e4;
  far.judge();
  EXPECT_EQ(far.status(), Status::diverged);
  EXPECT_EQ(far.states.end[0], PathEnd::blow_up);
  EXPECT_EQ(far.number(0), 0.25);

  OneVerdict<TypeParam> poor;
  PathRules rules = rules_for();
  rules.max_steps = 9;
  poor.judge(rules);
  EXPECT_EQ(poor.status(), Status::out_of_steps);
  EXPECT_EQ(poor.states.end[0], PathEnd::out_of_budget);

  OneVerdict<TypeParam> nowhere;
  nowhere.states.report.steps[0] = 0;
  nowhere.states.stage[0] = PathStage::start;
  nowhere.number(6) = nan;
  nowhere.judge();
  EXPECT_EQ(nowhere.status(), Status::not_finite);
  EXPECT_EQ(nowhere.states.end[0], PathEnd::not_finite);
}

TYPED_TEST(PathKernels, RowsAreBegunCountedVerifiedAndEnded) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  const std::int64_t rows = 4, width = 3;
  PathStateBuffer states(rows, 1);
  std::vector<std::int32_t> ids(rows), order(rows);
  const std::vector<double> scales{1, 2, 3, 4};
  run(queue, BeginPath<T>{.rows = rows,
                          .given_scale = scales.data(),
                          .rules = rules_for(),
                          .states = states.view(),
                          .ids = ids.data(),
                          .order = order.data()});
  EXPECT_EQ(ids, (std::vector<std::int32_t>{0, 1, 2, 3}));
  EXPECT_EQ(order, ids);
  EXPECT_EQ(states.report.scale, scales);
  EXPECT_EQ(states.stage[1], PathStage::start);
  EXPECT_EQ(states.numbers[4][2], 0.1);

  const ActiveBuffer active = ActiveBuffer::all(rows);
  Random random(83);
  const auto z = Block<T>::random(random, rows, width);
  Block<T> at(rows, width);
  std::vector<double> time(rows, -1);
  states.numbers[1] = {0.1, 0.2, 0.3, 0.4};
  run(queue,
      PosePath<T>{.rows = active.view(), .z = z.view(), .at = at.view(), .time = time.data(), .states = states.view()});
  EXPECT_TRUE(at == z);
  EXPECT_EQ(time, states.numbers[1]);

  states.turn[0] = Status::running;
  states.report.status = {Status::running, Status::running, Status::diverged, Status::converged};
  states.numbers[14] = {5, 7, 100, 0};
  run(queue, CountPath<T>{.rows = active.view(), .states = states.view(), .batch = rows, .progress = queue.mailbox()});
  const Progress progress = queue.read();
  EXPECT_EQ(progress.running, 2);
  EXPECT_EQ(progress.again, 1);
  EXPECT_EQ(progress.failed, 1);
  EXPECT_EQ(progress.worst, 7);

  Block<T> image = z;
  image(1, 0) += T(1);
  const Block<T>& answered = image;
  states.report.status = {Status::converged, Status::converged, Status::diverged, Status::converged};
  states.report.steps = {0, 3, 49, 0};
  states.report.trace.assign(50 * rows, -7);
  states.report.scale[1] = 0;
  run(queue, VerifyPath<T>{.rows = active.view(),
                           .norm = Norm::two,
                           .limits = limits,
                           .at = z.view(),
                           .answer = answered.view(),
                           .states = states.view()});
  EXPECT_EQ(states.report.status,
            (std::vector<Status>{Status::converged, Status::breakdown, Status::diverged, Status::converged}));
  EXPECT_EQ(states.end[1], PathEnd::not_verified);
  EXPECT_NEAR(states.report.residual[1], 1, 1e-6);
  EXPECT_GT(states.report.scale[1], 0) << "known from here on";
  EXPECT_EQ(states.report.scale[3], 4);
  EXPECT_EQ(states.report.steps, (std::vector<std::int32_t>{1, 4, 50, 1}));
  EXPECT_EQ(states.report.trace[3 * rows + 1], states.report.residual[1]);
  EXPECT_EQ(states.report.trace[49 * rows + 2], states.report.residual[2]);

  states.report.status[2] = Status::running;
  run(queue,
      EndPath<T>{.rows = active.view(), .status = Status::cancelled, .unverified = false, .states = states.view()});
  EXPECT_EQ(states.report.status,
            (std::vector<Status>{Status::converged, Status::breakdown, Status::cancelled, Status::converged}));
  EXPECT_EQ(states.end[2], PathEnd::stopped);
  run(queue,
      EndPath<T>{.rows = active.view(), .status = Status::map_failed, .unverified = true, .states = states.view()});
  EXPECT_EQ(states.report.status[0], Status::map_failed);
}

}  // namespace
}  // namespace deqcore::test

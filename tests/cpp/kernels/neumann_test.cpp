// SPDX-License-Identifier: Apache-2.0
#include "deqcore/kernels/neumann.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "block.hpp"
#include "queues.hpp"
#include "shapes.hpp"

namespace deqcore::test {
namespace {

template <class Entry>
class NeumannKernels : public ::testing::Test {};
TYPED_TEST_SUITE(NeumannKernels, Types<Queues>, Names);

TYPED_TEST(NeumannKernels, BeginNeumannScalesAndMeasures) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  Random random(80);
  for (const Shape& shape : shapes())
    for (const Norm norm : {Norm::two, Norm::inf}) {
      DEQCORE_TRACE_SHAPE(shape);
      const auto g = Block<T>::random(random, shape.rows, shape.width, shape.gap);
      Block<T> w(shape.rows, shape.width, shape.gap + 1, T(-1));
      ReportBuffer report(shape.rows);
      report.status.assign(shape.rows, Status::diverged);
      report.steps = report.rejected = report.singular = std::vector<std::int32_t>(shape.rows, 9);
      report.residual.assign(shape.rows, 9);
      std::vector<std::int32_t> ids(shape.rows, -1);
      run(queue,
          BeginNeumann<T>{
              .norm = norm, .tau = 0.7, .g = g.view(), .w = w.view(), .report = report.view(), .ids = ids.data()});
      for (std::int64_t i = 0; i < shape.rows; ++i) {
        EXPECT_EQ(report.status[i], Status::running);
        EXPECT_EQ(report.steps[i] + report.rejected[i] + report.singular[i], 0);
        EXPECT_TRUE(std::isnan(report.residual[i]));
        const double scale = textbook_norm(norm, shape.width, [&](std::int64_t j) { return g(i, j); });
        EXPECT_NEAR(report.scale[i], scale, 1e-15 * static_cast<double>(8 + shape.width) * scale);
        EXPECT_EQ(ids[i], i);
        for (std::int64_t j = 0; j < shape.width; ++j) ASSERT_EQ(w(i, j), static_cast<T>(0.7) * g(i, j));
      }
      EXPECT_TRUE(w.gaps_intact());
    }
}

TYPED_TEST(NeumannKernels, AddTermIsTheFormula) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  Random random(81);
  std::vector<Shape> all = shapes();
  all.push_back({2, 9001, 0});  // several pieces per row
  for (const Shape& shape : all)
    for (const double tau : {1.0, 0.3, 1.9}) {
      DEQCORE_TRACE_SHAPE(shape);
      const auto g = Block<T>::random(random, shape.rows, shape.width, shape.gap);
      const auto product = Block<T>::random(random, shape.rows, shape.width, shape.gap + 1);
      auto w = Block<T>::random(random, shape.rows, shape.width, 2);
      const Block<T> before = w;
      ReportBuffer report(shape.rows);
      report.steps.assign(shape.rows, 4);
      run(queue,
          AddTerm<T>{.tau = tau, .g = g.view(), .product = product.view(), .w = w.view(), .report = report.view()});
      EXPECT_EQ(report.steps, (std::vector<std::int32_t>(shape.rows, 5))) << "once per row";
      for (std::int64_t i = 0; i < shape.rows; ++i)
        for (std::int64_t j = 0; j < shape.width; ++j) {
          const long double old = before(i, j), image = product(i, j), right = g(i, j);
          const long double size = std::abs(old) + 2 * (std::abs(image) + std::abs(right) + std::abs(old));
          ASSERT_NEAR(w(i, j), static_cast<double>(old + tau * (image + right - old)),
                      static_cast<double>(4 * std::numeric_limits<T>::epsilon() * size));
        }
      EXPECT_TRUE(w.gaps_intact());
    }
}

TYPED_TEST(NeumannKernels, EndNeumannCopiesAndFindsWhatIsNotFinite) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  Random random(82);
  for (const Shape& shape : shapes()) {
    DEQCORE_TRACE_SHAPE(shape);
    auto w = Block<T>::random(random, shape.rows, shape.width, shape.gap);
    if (shape.rows > 2) {
      w(1, shape.width - 1) = std::numeric_limits<T>::quiet_NaN();
      w(2, shape.width / 2) = -std::numeric_limits<T>::infinity();
      w(0, 0) = std::numeric_limits<T>::max();
    }
    Block<T> result(shape.rows, shape.width, shape.gap + 1, T(-1));
    ReportBuffer report(shape.rows);
    run(queue, EndNeumann<T>{.status = Status::approximate,
                             .w = std::as_const(w).view(),
                             .result = result.view(),
                             .report = report.view()});
    for (std::int64_t i = 0; i < shape.rows; ++i) {
      const bool broken = shape.rows > 2 && (i == 1 || i == 2);
      EXPECT_EQ(report.status[i], broken ? Status::not_finite : Status::approximate);
      EXPECT_TRUE(same_bits(&result(i, 0), &w(i, 0), shape.width));
    }
    EXPECT_TRUE(result.gaps_intact());
  }
}

TYPED_TEST(NeumannKernels, CountFailedCountsFailuresOnly) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  for (const std::int64_t rows : {0, 1, 40, 1301}) {
    ReportBuffer report(rows);
    const Status all[] = {Status::approximate, Status::not_finite, Status::converged, Status::cancelled};
    std::int64_t failed = 0;
    for (std::int64_t row = 0; row < rows; ++row) {
      report.status[row] = all[(row + 1) % 4];
      failed += row % 2 == 0;
    }
    Progress progress{.running = 7, .failed = 7, .worst = 7};
    run(queue, CountFailed<T>{.rows = rows, .report = report.view(), .progress = &progress});
    EXPECT_EQ(progress.failed, failed);
    EXPECT_EQ(progress.running, 0);
    EXPECT_EQ(progress.worst, 0);
  }
}

}  // namespace
}  // namespace deqcore::test

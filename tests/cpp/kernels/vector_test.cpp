// SPDX-License-Identifier: Apache-2.0
#include "deqcore/kernels/vector.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "block.hpp"
#include "queues.hpp"
#include "row_states.hpp"
#include "shapes.hpp"

namespace deqcore::test {
namespace {

template <class Entry>
class VectorKernels : public ::testing::Test {};
TYPED_TEST_SUITE(VectorKernels, Types<Queues>, Names);

TYPED_TEST(VectorKernels, CopyRowsCopiesElementsAndNoGaps) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  Random random(1);
  for (const Shape& shape : shapes()) {
    DEQCORE_TRACE_SHAPE(shape);
    const auto from = Block<T>::random(random, shape.rows, shape.width, shape.gap);
    Block<T> to(shape.rows, shape.width, shape.gap + 2);
    run(queue, CopyRows<T>{.from = from.view(), .to = to.view()});
    for (std::int64_t i = 0; i < shape.rows; ++i) EXPECT_TRUE(same_bits(&from(i, 0), &to(i, 0), shape.width));
    EXPECT_TRUE(to.gaps_intact());
  }
}

TYPED_TEST(VectorKernels, CopyRowsRepeatsARowOfPitchZero) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  Random random(2);
  const auto from = Block<T>::random(random, 1, 17);
  Block<T> to(4, 17, 1);
  run(queue, CopyRows<T>{.from = {&from(0, 0), 4, 17, 0}, .to = to.view()});
  for (std::int64_t i = 0; i < 4; ++i) EXPECT_TRUE(same_bits(&from(0, 0), &to(i, 0), 17));
}

TYPED_TEST(VectorKernels, GatherRowsTakesTheNamedRowsInOrder) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  Random random(3);
  for (const Shape& shape : shapes()) {
    DEQCORE_TRACE_SHAPE(shape);
    const auto from = Block<T>::random(random, shape.rows, shape.width, shape.gap);
    std::vector<std::int32_t> ids;  // backwards, with repeats
    for (std::int64_t i = shape.rows; i-- > 0;) ids.insert(ids.end(), i % 3 == 0 ? 2 : 1, static_cast<std::int32_t>(i));
    const auto count = static_cast<std::int64_t>(ids.size());
    Block<T> to(count, shape.width, 1);
    run(queue, GatherRows<T>{.source = {.ids = ids.data(), .count = count}, .from = from.view(), .to = to.view()});
    for (std::int64_t i = 0; i < count; ++i) EXPECT_TRUE(same_bits(&from(ids[i], 0), &to(i, 0), shape.width));
    EXPECT_TRUE(to.gaps_intact());
  }
}

TYPED_TEST(VectorKernels, AddRowsAddsTheRowOfTheBatch) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  Random random(4);
  for (const Shape& shape : shapes()) {
    DEQCORE_TRACE_SHAPE(shape);
    const auto a = Block<T>::random(random, shape.rows, shape.width, shape.gap);
    const auto b = Block<T>::random(random, 2 * shape.rows, shape.width, shape.gap + 1);
    const ActiveBuffer active = ActiveBuffer::odd_rows_left(2 * shape.rows);
    const ActiveRows rows{.ids = active.ids.data(), .count = shape.rows};
    Block<T> sum(shape.rows, shape.width, 2), in_place = a;
    run(queue, AddRows<T>{.rows = rows, .a = a.view(), .b = b.view(), .sum = sum.view()});
    run(queue, AddRows<T>{.rows = rows, .a = in_place.view(), .b = b.view(), .sum = in_place.view()});
    for (std::int64_t i = 0; i < shape.rows; ++i)
      for (std::int64_t j = 0; j < shape.width; ++j) {
        ASSERT_EQ(sum(i, j), a(i, j) + b(2 * i + 1, j)) << i << " " << j;
        ASSERT_EQ(in_place(i, j), sum(i, j)) << i << " " << j;
      }
    EXPECT_TRUE(sum.gaps_intact());
    EXPECT_TRUE(in_place.gaps_intact());
  }
}

TYPED_TEST(VectorKernels, MeasureRowsIsTheNorm) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  Random random(5);
  for (const Shape& shape : shapes()) {
    DEQCORE_TRACE_SHAPE(shape);
    const auto x = Block<T>::random(random, shape.rows, shape.width, shape.gap);
    for (Norm norm : {Norm::two, Norm::inf}) {
      std::vector<double> norms(shape.rows, -1);
      run(queue, MeasureRows<T>{.norm = norm, .x = x.view(), .norms = norms.data()});
      for (std::int64_t i = 0; i < shape.rows; ++i) {
        const double exact = textbook_norm(norm, shape.width, [&](std::int64_t j) { return x(i, j); });
        // the 2-norm sums n squares in double
        EXPECT_NEAR(norms[i], exact, norm == Norm::inf ? 0 : 1e-15 * exact * static_cast<double>(4 + shape.width));
      }
    }
  }
}

TYPED_TEST(VectorKernels, MeasureRowsIsNotFiniteForNanAndInfinityAnywhere) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  for (std::int64_t width : {1, 2, 3, 7, 8, 17, 100})
    for (std::int64_t at = 0; at < width; ++at)
      for (T wrong : {std::numeric_limits<T>::quiet_NaN(), std::numeric_limits<T>::infinity(),
                      -std::numeric_limits<T>::infinity()})
        for (Norm norm : {Norm::two, Norm::inf}) {
          Block<T> x(1, width, 0, T(0.5));
          x(0, at) = wrong;
          double measured = 0;
          run(queue, MeasureRows<T>{.norm = norm, .x = x.view(), .norms = &measured});
          EXPECT_FALSE(std::isfinite(measured)) << width << " " << at << " " << wrong;
        }
}

// Beyond the square roots of the range of double, too.
TYPED_TEST(VectorKernels, MeasureRowsSpansTheRangeOfTheType) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  for (const double size : {5e-324, 1e-308, 1e-200, 1e-150, 1e-44, 1e-38, 1e-20, 1e20, 1e38, 1e150, 1e200, 1e307}) {
    if (!std::isfinite(static_cast<T>(size)) || static_cast<T>(size) == 0) continue;
    for (Norm norm : {Norm::two, Norm::inf}) {
      Block<T> x(1, 9, 0, static_cast<T>(size));
      double measured = 0;
      run(queue, MeasureRows<T>{.norm = norm, .x = x.view(), .norms = &measured});
      const double exact = (norm == Norm::two ? 3.0 : 1.0) * static_cast<double>(static_cast<T>(size));
      EXPECT_NEAR(measured, exact, 1e-14 * exact);
    }
  }
}

TYPED_TEST(VectorKernels, NoRowsTouchNothing) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  Block<T> block(1, 5, 0, T(7));
  const Block<T> before = block;
  run(queue, CopyRows<T>{.from = Rows<const T>{nullptr, 0, 5, 5}, .to = block.view()});
  run(queue, GatherRows<T>{.source = {}, .from = Rows<const T>{nullptr, 0, 5, 5}, .to = block.view()});
  run(queue, AddRows<T>{.rows = {}, .a = block.view(), .b = block.view(), .sum = block.view()});
  run(queue, MeasureRows<T>{.norm = Norm::two, .x = Rows<const T>{nullptr, 0, 5, 5}, .norms = nullptr});
  EXPECT_TRUE(block == before);
}

TYPED_TEST(VectorKernels, EveryKernelAnnouncesItself) {
  using T = typename TypeParam::T;
  auto queue = TypeParam::make();
  Block<T> a(3, 10), b(3, 10);
  run(queue, CopyRows<T>{.from = a.view(), .to = b.view()});
  EXPECT_EQ(queue.counts().kernels, 1);
  EXPECT_EQ(queue.counts().bytes, static_cast<std::int64_t>(2 * 3 * 10 * sizeof(T)));
  EXPECT_EQ(queue.counts().waits, 0);
}

}  // namespace
}  // namespace deqcore::test

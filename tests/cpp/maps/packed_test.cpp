// SPDX-License-Identifier: Apache-2.0
#include "deqcore/maps/packed.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "block.hpp"
#include "queues.hpp"

namespace deqcore::test {
namespace {

template <class T>
class Packed : public ::testing::Test {};
TYPED_TEST_SUITE(Packed, FloatAndDouble, TypeNames);

template <class T, class Entry>
void expect_product(const Block<T>& x, const Block<T>& y, const Entry& entry) {
  const std::int64_t inputs = x.width();
  for (std::int64_t i = 0; i < x.rows(); ++i)
    for (std::int64_t o = 0; o < y.width(); ++o) {
      long double sum = 0, size = 0;
      for (std::int64_t k = 0; k < inputs; ++k) {
        const long double term = static_cast<long double>(entry(o, k)) * x(i, k);
        sum += term;
        size += std::abs(term);
      }
      const auto slack = static_cast<double>((inputs + 1) * std::numeric_limits<T>::epsilon() / 2 * size);
      ASSERT_NEAR(static_cast<double>(y(i, o)), static_cast<double>(sum), slack) << i << " " << o;
    }
}

TYPED_TEST(Packed, TheProductIsTheProductAtEverySize) {
  using T = TypeParam;
  Random random(80);
  for (const std::int64_t outputs : {1, 2, 3, 7, 8, 15, 16, 17, 33, 64, 65, 100, 129})
    for (const std::int64_t inputs : {1, 2, 3, 16, 37}) {
      const auto W = Block<T>::random(random, outputs, inputs, 2);
      const PackedMatrix<T> packed(outputs, inputs, W.view().data, W.view().pitch, 1);
      EXPECT_EQ(packed.outputs(), outputs);
      EXPECT_EQ(packed.inputs(), inputs);
      for (const std::int64_t rows : {1, 2, 3, 5, 6, 7, 8, 9, 13, 20}) {
        const auto x = Block<T>::random(random, rows, inputs, 1);
        Block<T> y(rows, outputs, 3);
        packed.multiply(x.view(), y.view());
        EXPECT_TRUE(y.gaps_intact());
        expect_product(x, y, [&](std::int64_t o, std::int64_t k) { return W(o, k); });
        for (std::int64_t i = 0; i < rows; ++i) {
          Block<T> alone(1, outputs);
          packed.multiply(x.view().slice(i, 1), alone.view());
          ASSERT_TRUE(same_bits(alone.view().data, &y(i, 0), outputs))
              << "row " << i << " of " << rows << ", " << outputs << " x " << inputs;
        }
      }
    }
}

// Outputs that threads share are the same, whoever takes them.
TYPED_TEST(Packed, SharedOutputsHaveTheSameBits) {
  using T = TypeParam;
  Random random(82);
  const std::int64_t outputs = 523, inputs = 601;  // above what is worth sharing
  const auto W = Block<T>::random(random, outputs, inputs);
  const PackedMatrix<T> packed(outputs, inputs, W.view().data, W.view().pitch, 1);
  for (const std::int64_t rows : {1, 2, 7}) {
    const auto x = Block<T>::random(random, rows, inputs, 1);
    Block<T> alone(rows, outputs, 3);
    packed.multiply(x.view(), alone.view());
    for (const int threads : {1, 2, 3, 64}) {
      Block<T> shared(rows, outputs, 3);
      packed.multiply(x.view(), shared.view(), threads);
      EXPECT_TRUE(shared == alone) << rows << " rows, " << threads << " threads";
      EXPECT_TRUE(shared.gaps_intact());
    }
  }
}

// More panels than stay in a cache: they pass in groups.
TYPED_TEST(Packed, GroupsOfPanelsJoinWithoutASeam) {
  using T = TypeParam;
  Random random(81);
  const std::int64_t outputs = 200, inputs = 1500, rows = 9;
  const auto W = Block<T>::random(random, outputs, inputs);
  const auto x = Block<T>::random(random, rows, inputs);
  const PackedMatrix<T> packed(outputs, inputs, W.view().data, inputs, 1);
  Block<T> y(rows, outputs), alone(1, outputs);
  packed.multiply(x.view(), y.view());
  expect_product(x, y, [&](std::int64_t o, std::int64_t k) { return W(o, k); });
  packed.multiply(x.view().slice(4, 1), alone.view());
  EXPECT_TRUE(same_bits(alone.view().data, &y(4, 0), outputs));
}

TYPED_TEST(Packed, StridesReadTheTranspose) {
  using T = TypeParam;
  Random random(82);
  const auto W = Block<T>::random(random, 35, 19, 3);
  const PackedMatrix<T> transposed(19, 35, W.view().data, 1, W.view().pitch);
  const auto x = Block<T>::random(random, 5, 35);
  Block<T> y(5, 19);
  transposed.multiply(x.view(), y.view());
  expect_product(x, y, [&](std::int64_t o, std::int64_t k) { return W(k, o); });
}

TYPED_TEST(Packed, NoRowsTouchNothing) {
  using T = TypeParam;
  const Block<T> W(3, 4, 0, T(1));
  Block<T> y(1, 3, 0, T(7));
  PackedMatrix<T>(3, 4, W.view().data, 4, 1).multiply(Rows<const T>{nullptr, 0, 4, 4}, y.view().slice(0, 0));
  EXPECT_EQ(y(0, 2), T(7));
}

// The unused outputs of the last panel are zeros, and 0 x must not leak into the used ones.
TYPED_TEST(Packed, NanAndInfinityStayInTheirRow) {
  using T = TypeParam;
  Random random(83);
  const auto W = Block<T>::random(random, 17, 6);
  auto x = Block<T>::random(random, 7, 6);
  const PackedMatrix<T> packed(17, 6, W.view().data, 6, 1);
  Block<T> clean(7, 17), spoiled(7, 17);
  packed.multiply(std::as_const(x).view(), clean.view());
  x(3, 2) = std::numeric_limits<T>::quiet_NaN();
  x(5, 0) = std::numeric_limits<T>::infinity();
  packed.multiply(std::as_const(x).view(), spoiled.view());
  for (std::int64_t i = 0; i < 7; ++i)
    for (std::int64_t o = 0; o < 17; ++o) {
      if (i == 3 || i == 5)
        EXPECT_FALSE(std::isfinite(spoiled(i, o)));
      else
        EXPECT_EQ(spoiled(i, o), clean(i, o));
    }
}

}  // namespace
}  // namespace deqcore::test

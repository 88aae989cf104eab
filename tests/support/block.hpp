// SPDX-License-Identifier: Apache-2.0
// Memory for tests: rows with a pitch whose gaps are guarded, random inputs, and comparison by bits.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "deqcore/base/rows.hpp"

namespace deqcore::test {

// Seeded by the test and by DEQCORE_TEST_SEED, so that a run can be repeated and varied.
class Random {
 public:
  explicit Random(std::uint64_t stream) : engine_(stream * 1000003 + base()) {}

  double uniform(double low, double high) { return std::uniform_real_distribution<double>(low, high)(engine_); }
  double normal() { return normal_(engine_); }
  std::int64_t below(std::int64_t n) { return std::uniform_int_distribution<std::int64_t>(0, n - 1)(engine_); }

  static std::uint64_t base() {
    const char* text = std::getenv("DEQCORE_TEST_SEED");
    return text ? std::strtoull(text, nullptr, 10) : 1;
  }

 private:
  std::mt19937_64 engine_;
  std::normal_distribution<double> normal_;
};

// rows x width elements, `gap` more between two rows. Whatever lies in the gaps must stay there.
template <class T>
class Block {
 public:
  static constexpr T guard = T(-12345.5);

  Block(std::int64_t rows, std::int64_t width, std::int64_t gap = 0, T fill = T(0))
      : rows_(rows), width_(width), pitch_(width + gap), data_(static_cast<std::size_t>(rows * pitch_ + gap), guard) {
    for (std::int64_t i = 0; i < rows; ++i)
      for (std::int64_t j = 0; j < width; ++j) (*this)(i, j) = fill;
  }

  static Block random(Random& random, std::int64_t rows, std::int64_t width, std::int64_t gap = 0) {
    Block block(rows, width, gap);
    for (std::int64_t i = 0; i < rows; ++i)
      for (std::int64_t j = 0; j < width; ++j) block(i, j) = static_cast<T>(random.normal());
    return block;
  }

  T& operator()(std::int64_t row, std::int64_t j) { return data_[row * pitch_ + j]; }
  const T& operator()(std::int64_t row, std::int64_t j) const { return data_[row * pitch_ + j]; }

  Rows<T> view() { return {data_.data(), rows_, width_, pitch_}; }
  Rows<const T> view() const { return {data_.data(), rows_, width_, pitch_}; }

  std::int64_t rows() const { return rows_; }
  std::int64_t width() const { return width_; }

  bool gaps_intact() const {
    for (std::int64_t at = 0; at < static_cast<std::int64_t>(data_.size()); ++at)
      if ((at % pitch_ >= width_ || at / pitch_ >= rows_) && data_[at] != guard) return false;
    return true;
  }

  bool operator==(const Block& other) const {
    return data_.size() == other.data_.size() &&
           std::memcmp(data_.data(), other.data_.data(), data_.size() * sizeof(T)) == 0;
  }

 private:
  std::int64_t rows_, width_, pitch_;
  std::vector<T> data_;
};

// Equal to the bit; NaN equals the same NaN.
template <class T>
::testing::AssertionResult same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  if (a.size() != b.size()) return ::testing::AssertionFailure() << a.size() << " and " << b.size() << " entries";
  for (std::size_t i = 0; i < a.size(); ++i)
    if (std::memcmp(&a[i], &b[i], sizeof(T)) != 0)
      return ::testing::AssertionFailure()
             << "entry " << i << ": " << ::testing::PrintToString(a[i]) << " and " << ::testing::PrintToString(b[i]);
  return ::testing::AssertionSuccess();
}

template <class T>
::testing::AssertionResult same_bits(const T* a, const T* b, std::int64_t n) {
  return same_bits(std::vector<T>(a, a + n), std::vector<T>(b, b + n));
}

}  // namespace deqcore::test

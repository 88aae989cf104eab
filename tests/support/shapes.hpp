// SPDX-License-Identifier: Apache-2.0
// Blocks on which kernels are tried: every width around the vector lengths, and one block that is worth two threads.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "deqcore/base/stop.hpp"

namespace deqcore::test {

struct Shape {
  std::int64_t rows, width, gap;
};

inline std::vector<Shape> shapes() {
  std::vector<Shape> all;
  for (std::int64_t width : {1, 2, 3, 7, 8, 15, 16, 17, 33, 100, 513, 1025}) {
    all.push_back({6, width, 0});
    all.push_back({1, width, 3});
    all.push_back({5, width, 5});
  }
  all.push_back({64, 2051, 1});
  return all;
}

#define DEQCORE_TRACE_SHAPE(shape) \
  SCOPED_TRACE(::testing::Message() << (shape).rows << " x " << (shape).width << ", gap " << (shape).gap)

// The textbook norm of a row whose elements are value(j).
template <class Value>
double textbook_norm(Norm kind, std::int64_t n, const Value& value) {
  long double sum = 0, most = 0;
  for (std::int64_t j = 0; j < n; ++j) {
    const long double v = value(j);
    sum += v * v;
    most = std::max(most, std::abs(v));
  }
  return static_cast<double>(kind == Norm::two ? std::sqrt(sum) : most);
}

}  // namespace deqcore::test

// SPDX-License-Identifier: Apache-2.0
// Counts what a solve must not do. Linking counting.cpp replaces the global operator new.
#pragma once

#include <cstdint>

namespace deqcore::test {

// Calls of operator new so far, on all threads.
std::int64_t allocations();

// What was counted of a map.
struct MapCounts {
  std::int64_t calls = 0;
  std::int64_t rows = 0;
};

}  // namespace deqcore::test

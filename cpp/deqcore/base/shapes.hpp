// SPDX-License-Identifier: Apache-2.0
// Sizes refused by name.
#pragma once

#include <cstdint>
#include <limits>
#include <type_traits>

#include "deqcore/base/error.hpp"
#include "deqcore/base/rows.hpp"

namespace deqcore {

template <class T>
void require_shape(const char* argument, std::type_identity_t<Rows<const T>> given, std::int64_t rows,
                   std::int64_t width) {
  require(given.rows == rows && given.width == width, argument, ": ", given.rows, " x ", given.width,
          " given; expected ", rows, " x ", width);
}

// Of a solver's batch.
inline void require_batch(std::int64_t rows, std::int64_t width) {
  constexpr std::int64_t most_rows = std::numeric_limits<std::int32_t>::max(), most_width = std::int64_t{1} << 48;
  require(rows >= 1 && rows <= most_rows, "rows: ", rows, " given; expected 1 to ", most_rows);
  require(width >= 1 && width <= most_width, "width: ", width, " given; expected 1 to ", most_width);
}

}  // namespace deqcore

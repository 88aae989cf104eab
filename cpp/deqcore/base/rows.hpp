// SPDX-License-Identifier: Apache-2.0
// Views of row-major blocks: one sample per row. A view is passed by value and owns nothing.
#pragma once

#include <cstdint>
#include <type_traits>

namespace deqcore {

template <class T>
struct Rows {
  T* data = nullptr;
  std::int64_t rows = 0;
  std::int64_t width = 0;
  std::int64_t pitch = 0;  // elements from the start of one row to the next; 0: every row is the same one

  constexpr T* operator[](std::int64_t row) const { return data + row * pitch; }

  constexpr Rows slice(std::int64_t first, std::int64_t count) const {
    return {data + first * pitch, count, width, pitch};
  }

  constexpr operator Rows<const T>() const
    requires(!std::is_const_v<T>)
  {
    return {data, rows, width, pitch};
  }
};

// A dense view: the pitch is the width.
template <class T>
Rows<T> dense_rows(T* data, std::int64_t rows, std::int64_t width) {
  return {data, rows, width, width};
}

// Whether two views share memory, counted from the first to the last element of each.
template <class T>
bool overlap(Rows<const T> a, Rows<const T> b) {
  if (a.rows == 0 || b.rows == 0) return false;
  return a.data < b[b.rows - 1] + b.width && b.data < a[a.rows - 1] + a.width;
}

// The rows still asked about: position in a dense block -> row of the batch. When rows have left since the block
// before, `source` says where each row stood there; null: nothing has moved. So retiring copies nothing: the next block
// is written at the new positions from the old ones.
struct ActiveRows {
  const std::int32_t* ids = nullptr;
  std::int64_t count = 0;
  const std::int32_t* source = nullptr;

  constexpr std::int64_t from(std::int64_t position) const { return source ? source[position] : position; }
};

}  // namespace deqcore

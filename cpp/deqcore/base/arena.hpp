// SPDX-License-Identifier: Apache-2.0
// Memory handed out once, in order, from a block that somebody else owns. An arena without memory hands out null
// pointers and counts, so the constructor that takes scratch is also the one that measures it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "deqcore/base/error.hpp"
#include "deqcore/base/rows.hpp"

namespace deqcore {

class Arena {
 public:
  static constexpr std::size_t alignment = 64;  // a cache line, and the widest vector

  Arena() = default;  // counts only

  Arena(void* memory, std::size_t bytes) : memory_(static_cast<std::byte*>(memory)), capacity_(bytes) {
    require(memory != nullptr || bytes == 0, "memory: null pointer for ", bytes, " bytes");
    require(reinterpret_cast<std::uintptr_t>(memory) % alignment == 0, "memory: address is not aligned to ", alignment,
            " bytes");
  }

  bool counting() const { return memory_ == nullptr; }

  std::size_t used() const { return used_; }

  // Room for the product of the counts.
  template <class T, class... Counts>
  T* take(Counts... counts) {
    const std::size_t start = used_;
    std::size_t bytes = sizeof(T);
    bool fits = (!__builtin_mul_overflow(bytes, static_cast<std::size_t>(counts), &bytes) && ...);
    fits = fits && !__builtin_add_overflow(bytes, alignment - 1, &bytes) &&
           !__builtin_add_overflow(used_, bytes / alignment * alignment, &used_);
    require(fits, "memory: more bytes needed than can be counted");
    if (counting()) return nullptr;
    require(used_ <= capacity_, "memory: ", capacity_, " bytes given, more than ", used_ - 1, " needed");
    return reinterpret_cast<T*>(memory_ + start);
  }

  template <class T>
  Rows<T> take_rows(std::int64_t rows, std::int64_t width) {
    return dense_rows(take<T>(rows, width), rows, width);
  }

 private:
  std::byte* memory_ = nullptr;
  std::size_t capacity_ = 0;
  std::size_t used_ = 0;
};

}  // namespace deqcore

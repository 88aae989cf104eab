// SPDX-License-Identifier: Apache-2.0
// Owned host memory for callers who have no allocator of their own.
#pragma once

#include <cstddef>
#include <new>
#include <utility>

#include "deqcore/base/arena.hpp"

namespace deqcore {

class HostBuffer {
 public:
  explicit HostBuffer(std::size_t bytes)
      : data_(bytes ? ::operator new(bytes, std::align_val_t{Arena::alignment}) : nullptr), bytes_(bytes) {}
  HostBuffer(HostBuffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  HostBuffer& operator=(HostBuffer other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~HostBuffer() { ::operator delete(data_, std::align_val_t{Arena::alignment}); }

  void* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }
  Arena arena() const { return Arena(data_, bytes_); }

 private:
  void* data_;
  std::size_t bytes_;
};

}  // namespace deqcore

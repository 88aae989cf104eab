// SPDX-License-Identifier: Apache-2.0
// Owned memory for callers who have no allocator of their own.
#pragma once

#include <cstddef>
#include <new>
#include <utility>

#include "deqcore/base/arena.hpp"

struct CUstream_st;

namespace deqcore {

class CudaQueue;

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

// Device memory, given and taken back in the order of the queue's stream. There in builds with CUDA.
class DeviceBuffer {
 public:
  DeviceBuffer(CudaQueue& queue, std::size_t bytes);
  DeviceBuffer(DeviceBuffer&& other) noexcept
      : device_(other.device_),
        stream_(other.stream_),
        data_(std::exchange(other.data_, nullptr)),
        bytes_(std::exchange(other.bytes_, 0)) {}
  DeviceBuffer(const DeviceBuffer&) = delete;
  DeviceBuffer& operator=(const DeviceBuffer&) = delete;
  ~DeviceBuffer();

  void* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }
  Arena arena() const { return Arena(data_, bytes_); }

 private:
  int device_;
  CUstream_st* stream_;
  void* data_ = nullptr;
  std::size_t bytes_;
};

}  // namespace deqcore

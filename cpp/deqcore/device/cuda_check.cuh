// SPDX-License-Identifier: Apache-2.0
// The CUDA run time, or in the tests its emulation on the host, and errors from it.
#pragma once

#ifdef DEQCORE_EMULATE_CUDA
#include "cuda_emulator.hpp"
#else
#include <cuda_runtime.h>
#endif

#include <string>

#include "deqcore/base/error.hpp"

namespace deqcore::cuda {

inline std::string describe(cudaError_t error) {
  return std::string(cudaGetErrorName(error)) + ": " + cudaGetErrorString(error);
}

inline void check(cudaError_t error, const char* doing) {
  if (error == cudaSuccess) return;
  (void)cudaGetLastError();  // told here, and not once more by the next launch
  const auto code = error == cudaErrorMemoryAllocation ? ErrorCode::out_of_memory : ErrorCode::device;
  fail(code, std::string("CUDA, ") + doing + ": " + describe(error));
}

// The caller's current device is restored.
class OnDevice {
 public:
  explicit OnDevice(int device) {
    check(cudaGetDevice(&before_), "asking for the current device");
    if (before_ == device) return;
    check(cudaSetDevice(device), "selecting the device");
    changed_ = true;
  }
  ~OnDevice() {
    if (changed_) cudaSetDevice(before_);
  }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

 private:
  int before_ = 0;
  bool changed_ = false;
};

}  // namespace deqcore::cuda

// SPDX-License-Identifier: Apache-2.0
// A CUDA stream as a queue. The stream belongs to the caller; work put on the queue is ordered with everything else on
// that stream, and the host waits in read() alone. No CUDA header is needed to use it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "deqcore/base/report.hpp"
#include "deqcore/device/kernel_counts.hpp"

struct CUstream_st;

namespace deqcore {

class CudaQueue {
 public:
  // There is no default: which stream is always the caller's choice; it must outlive the queue. Throws a device error
  // where there is no driver, a driver older than this build, or no such device.
  CudaQueue(int device, CUstream_st* stream);
  ~CudaQueue();
  CudaQueue(const CudaQueue&) = delete;
  CudaQueue& operator=(const CudaQueue&) = delete;

  int device() const { return device_; }
  CUstream_st* stream() const { return stream_; }

  // Announces a kernel; throws what an earlier device error said.
  void note(const char* kernel, std::int64_t bytes);

  // After a launch: throws if it failed. With DEQCORE_SYNC=1 in the environment it waits, so that a fault is reported
  // with the name of the kernel that made it.
  void launched(const char* kernel);

  void observe(void (*observer)(const char* kernel, std::int64_t bytes)) { observer_ = observer; }

  const KernelCounts& counts() const { return counts_; }

  // Pinned memory that both sides see. What is put there must be read.
  Progress* mailbox() {
    unread_ = true;
    return mailbox_;
  }

  // Waits for everything on the stream. The only wait.
  Progress read();

 private:
  void check(int error, const char* doing);

  int device_;
  CUstream_st* stream_;
  Progress* mailbox_ = nullptr;
  bool unread_ = false;  // work that writes to the mailbox may be under way
  KernelCounts counts_;
  void (*observer_)(const char*, std::int64_t) = nullptr;
  bool wait_after_each_ = false;
  std::string failed_;  // the first device error: the context is lost from then on
};

// What the run time finds, for messages: "cuda: 1 device, driver 13.0" or why there is none. Never throws.
std::string cuda_summary();

// Devices that can be used; 0 where there is no driver. Never throws.
int cuda_devices();

}  // namespace deqcore

// SPDX-License-Identifier: Apache-2.0
#include "deqcore/device/cuda_queue.hpp"

#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>
#include <vector>

#include "deqcore/device/cuda_check.cuh"

namespace deqcore {
namespace {

std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

// Why no device can be used, or nothing.
std::string find_devices(int* devices) {
  int driver = 0, runtime = 0;
  cudaRuntimeGetVersion(&runtime);
  if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0) return "no CUDA driver on this machine";
  const cudaError_t error = cudaGetDeviceCount(devices);
  if (error == cudaErrorInsufficientDriver)
    return "the CUDA driver supports " + version_text(driver) + ", this build of deqcore needs " +
           version_text(runtime / 1000 * 1000) + " or newer";
  if (error != cudaSuccess) return cuda::describe(error);
  if (*devices == 0) return "no CUDA device on this machine";
  return {};
}

std::string unusable(int* devices) {
  const std::string why = find_devices(devices);
  if (!why.empty()) (void)cudaGetLastError();  // told here, and not once more by the next launch
  return why;
}

// Mailboxes are kept for later queues: to pin memory is slow, and to free it waits for the whole device. Never freed:
// the driver may be gone by then.
class Mailboxes {
 public:
  static Mailboxes& shared() {
    static auto* const all = new Mailboxes;
    return *all;
  }

  Progress* take() {
    const std::lock_guard alone(mutex_);
    if (free_.empty()) {
      constexpr int more = 64;
      void* memory = nullptr;
      cuda::check(cudaHostAlloc(&memory, more * sizeof(Progress), cudaHostAllocPortable), "allocating mailboxes");
      free_.reserve(free_.capacity() + more);  // so that give() cannot fail
      for (int i = 0; i < more; ++i) free_.push_back(static_cast<Progress*>(memory) + i);
    }
    Progress* const mailbox = free_.back();
    free_.pop_back();
    return new (mailbox) Progress;
  }

  void give(Progress* mailbox) {
    const std::lock_guard alone(mutex_);
    free_.push_back(mailbox);
  }

 private:
  std::mutex mutex_;
  std::vector<Progress*> free_;
};

}  // namespace

CudaQueue::CudaQueue(int device, CUstream_st* stream) : device_(device), stream_(stream) {
  int devices = 0;
  if (const std::string why = unusable(&devices); !why.empty()) fail(ErrorCode::device, "device: " + why);
  require(device >= 0 && device < devices, "device: ", device, " given; expected 0 to ", devices - 1);
  const cuda::OnDevice selected(device);
  mailbox_ = Mailboxes::shared().take();
  const char* sync = std::getenv("DEQCORE_SYNC");
  wait_after_each_ = sync && std::strcmp(sync, "1") == 0;
}

CudaQueue::~CudaQueue() {
  if (unread_) {  // a solve was given up: what it started may still write
    int before = device_;
    cudaGetDevice(&before);
    cudaSetDevice(device_);
    cudaStreamSynchronize(stream_);
    cudaSetDevice(before);
  }
  Mailboxes::shared().give(mailbox_);
}

void CudaQueue::note(const char* kernel, std::int64_t bytes) {
  if (!failed_.empty()) fail(ErrorCode::device, failed_);
  counts_.kernels += 1;
  counts_.bytes += bytes;
  if (observer_) observer_(kernel, bytes);
}

void CudaQueue::launched(const char* kernel) {
  check(cudaGetLastError(), kernel);
  if (wait_after_each_) check(cudaStreamSynchronize(stream_), kernel);
}

Progress CudaQueue::read() {
  if (!failed_.empty()) fail(ErrorCode::device, failed_);
  const cuda::OnDevice selected(device_);
  check(cudaStreamSynchronize(stream_), "waiting for the stream");
  counts_.waits += 1;
  unread_ = false;
  return *mailbox_;
}

void CudaQueue::check(int error, const char* doing) {
  const auto code = static_cast<cudaError_t>(error);
  if (code == cudaSuccess) return;
  failed_ = std::string("CUDA, ") + doing + ": " + cuda::describe(code);
  fail(code == cudaErrorMemoryAllocation ? ErrorCode::out_of_memory : ErrorCode::device, failed_);
}

int cuda_devices() {
  int devices = 0;
  return unusable(&devices).empty() ? devices : 0;
}

std::string cuda_summary() {
  int devices = 0;
  if (const std::string why = unusable(&devices); !why.empty()) return why;
  int driver = 0;
  cudaDriverGetVersion(&driver);
  return std::to_string(devices) + (devices == 1 ? " device" : " devices") + ", driver " + version_text(driver);
}

}  // namespace deqcore

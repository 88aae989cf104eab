// SPDX-License-Identifier: Apache-2.0
#include "deqcore/device/buffer.hpp"

#include "deqcore/device/cuda_check.cuh"
#include "deqcore/device/cuda_queue.hpp"

namespace deqcore {

DeviceBuffer::DeviceBuffer(CudaQueue& queue, std::size_t bytes)
    : device_(queue.device()), stream_(queue.stream()), bytes_(bytes) {
  if (bytes == 0) return;
  const cuda::OnDevice selected(device_);
  cuda::check(cudaMallocAsync(&data_, bytes, stream_), "allocating a buffer");
}

DeviceBuffer::~DeviceBuffer() {
  if (!data_) return;
  int before = device_;
  cudaGetDevice(&before);
  cudaSetDevice(device_);
  cudaFreeAsync(data_, stream_);  // in stream order: nobody waits, and work under way keeps its memory
  cudaSetDevice(before);
}

}  // namespace deqcore

// SPDX-License-Identifier: Apache-2.0
#include "deqcore/device/cpu_queue.hpp"

#include <algorithm>

namespace deqcore {
namespace {

constexpr std::int64_t worth_waking = 512 * 1024;  // bytes: about 20 microseconds of work for one thread
constexpr std::int64_t blocks_per_thread = 4;      // so that an unlucky thread does not hold up the rest

}  // namespace

void CpuQueue::for_blocks(std::int64_t rows, std::int64_t bytes_per_row,
                          FunctionRef<void(std::int64_t, std::int64_t)> body) const {
  if (threads_ == 1 || rows < 2 || rows * bytes_per_row < worth_waking) return body(0, rows);
  const std::int64_t blocks = std::min(rows, threads_ * blocks_per_thread);
  parallel_for(threads_, blocks, [&](std::int64_t block) {
    const std::int64_t first = rows * block / blocks;
    body(first, rows * (block + 1) / blocks - first);
  });
}

}  // namespace deqcore

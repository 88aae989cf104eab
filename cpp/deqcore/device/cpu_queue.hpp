// SPDX-License-Identifier: Apache-2.0
// A queue is where work is put. The CPU's does it at once.
#pragma once

#include <cstddef>
#include <cstdint>

#include "deqcore/base/error.hpp"
#include "deqcore/base/function_ref.hpp"
#include "deqcore/base/report.hpp"
#include "deqcore/device/kernel_counts.hpp"
#include "deqcore/device/pool.hpp"

namespace deqcore {

class CpuQueue {
 public:
  // threads 1: everything on the calling thread
  explicit CpuQueue(int threads = 1) : threads_(threads) {
    require(threads >= 1, "threads: ", threads, " given; expected at least 1");
  }

  int threads() const { return threads_; }

  // Every kernel announces itself here: counters, profilers and tests hang on this one hook.
  void note(const char* kernel, std::int64_t bytes) {
    counts_.kernels += 1;
    counts_.bytes += bytes;
    if (observer_) observer_(kernel, bytes);
  }

  void observe(void (*observer)(const char* kernel, std::int64_t bytes)) { observer_ = observer; }

  const KernelCounts& counts() const { return counts_; }

  Progress* mailbox() { return &mailbox_; }

  // The only wait. On the CPU there is nothing to wait for.
  Progress read() {
    counts_.waits += 1;
    return mailbox_;
  }

  // body(first, count) over [0, rows) in blocks, on this queue's threads if the work pays for waking them.
  void for_blocks(std::int64_t rows, std::int64_t bytes_per_row,
                  FunctionRef<void(std::int64_t first, std::int64_t count)> body) const;

 private:
  int threads_;
  KernelCounts counts_;
  Progress mailbox_;
  void (*observer_)(const char*, std::int64_t) = nullptr;
};

}  // namespace deqcore

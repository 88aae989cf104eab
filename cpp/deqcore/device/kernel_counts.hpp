// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace deqcore {

// What a queue has been asked to do.
struct KernelCounts {
  std::int64_t kernels = 0;
  std::int64_t bytes = 0;  // read and written, by the count in each kernel's comment
  std::int64_t waits = 0;
};

}  // namespace deqcore

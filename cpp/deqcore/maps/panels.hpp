// SPDX-License-Identifier: Apache-2.0
// The outputs of a packed matrix, shared by threads.
#pragma once

#include <algorithm>
#include <cstdint>

#include "deqcore/device/pool.hpp"

namespace deqcore {

// work(first, last) over all panels; on several threads where reading them takes one longer than a moment.
template <class Work>
void share_panels(int threads, std::int64_t panels, std::int64_t bytes_per_panel, const Work& work) {
  constexpr std::int64_t worth_sharing = 512 * 1024;  // bytes: some 8 microseconds for one thread
  if (threads == 1 || panels * bytes_per_panel < worth_sharing) return work(0, panels);
  const std::int64_t pieces = std::min<std::int64_t>(panels, 2 * std::int64_t{threads});  // for threads that come late
  parallel_for(threads, pieces, [&](std::int64_t i) { work(panels * i / pieces, panels * (i + 1) / pieces); });
}

}  // namespace deqcore

// SPDX-License-Identifier: Apache-2.0
// Which rows a loop still asks about. Ended rows leave the block when the host has looked and if it pays; no data
// moves: see ActiveRows.
#pragma once

#include <algorithm>
#include <bit>

#include "deqcore/base/arena.hpp"
#include "deqcore/kernels/step.hpp"

namespace deqcore {

template <class Queue, class T>
class Retiring {
 public:
  Retiring() = default;

  Retiring(std::int64_t rows, Arena& scratch)
      : rows_(rows),
        ids_{scratch.take<std::int32_t>(rows), scratch.take<std::int32_t>(rows)},
        source_(scratch.take<std::int32_t>(rows)) {}

  // Every row, in order; first_ids() still has to be filled.
  ActiveRows all() {
    which_ = 0;
    return {.ids = ids_[0], .count = rows_};
  }
  std::int32_t* first_ids() const { return ids_[0]; }

  ActiveRows next(Queue& queue, ActiveRows active, std::int64_t running, Retire retire, const Status* status) {
    active.source = nullptr;
    std::int64_t keep = active.count;
    if (retire == Retire::on && static_cast<double>(running) <= shrunk_enough * static_cast<double>(active.count))
      keep = running;
    if (retire == Retire::halve)
      keep = std::min(keep, static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(running))));
    if (keep == active.count) return active;
    which_ ^= 1;
    run(queue, SelectRows<T>{.rows = active,
                             .keep = keep,
                             .running = running,
                             .status = status,
                             .ids = ids_[which_],
                             .source = source_});
    return {.ids = ids_[which_], .count = keep, .source = source_};
  }

 private:
  static constexpr double shrunk_enough = 0.9;  // of the block: below this share of running rows a new shape pays

  std::int64_t rows_ = 0;
  std::int32_t* ids_[2] = {};
  std::int32_t* source_ = nullptr;
  int which_ = 0;
};

}  // namespace deqcore

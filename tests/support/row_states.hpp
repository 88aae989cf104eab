// SPDX-License-Identifier: Apache-2.0
// Memory for what kernels keep by row.
#pragma once

#include <vector>

#include "deqcore/kernels/step.hpp"

namespace deqcore::test {

struct StateBuffer {
  explicit StateBuffer(std::int64_t rows, std::int64_t trace_steps = 0)
      : report(rows, trace_steps),
        g_norm(rows),
        f_norm(rows),
        z_norm(rows),
        best(rows),
        best_step(rows),
        best_at(rows),
        event(rows),
        frozen(rows) {}

  RowStates view() {
    return {.report = report.view(),
            .g_norm = g_norm.data(),
            .f_norm = f_norm.data(),
            .z_norm = z_norm.data(),
            .best = best.data(),
            .best_step = best_step.data(),
            .best_at = best_at.data(),
            .event = event.data(),
            .frozen = frozen.data(),
            .failed = &failed};
  }

  ReportBuffer report;
  std::vector<double> g_norm, f_norm, z_norm, best;
  std::vector<std::int32_t> best_step;
  std::vector<BestAt> best_at;
  std::vector<Event> event;
  std::vector<std::int8_t> frozen;
  std::int64_t failed = 0;
};

// Which rows of a batch stand in a block, and where they stood in the block before.
struct ActiveBuffer {
  std::vector<std::int32_t> ids, source;

  ActiveRows view() const {
    return {.ids = ids.data(),
            .count = static_cast<std::int64_t>(ids.size()),
            .source = source.empty() ? nullptr : source.data()};
  }

  static ActiveBuffer all(std::int64_t rows) {
    ActiveBuffer active;
    for (std::int64_t row = 0; row < rows; ++row) active.ids.push_back(static_cast<std::int32_t>(row));
    return active;
  }

  // Every second row of the batch. The block before held all rows.
  static ActiveBuffer odd_rows_left(std::int64_t rows) {
    ActiveBuffer active;
    for (std::int32_t row = 1; row < rows; row += 2) {
      active.ids.push_back(row);
      active.source.push_back(row);
    }
    return active;
  }
};

}  // namespace deqcore::test

// SPDX-License-Identifier: Apache-2.0
// Memory for what the linear kernels keep by row.
#pragma once

#include <limits>
#include <vector>

#include "deqcore/kernels/linear.hpp"

namespace deqcore::test {

struct LinearBuffer {
  explicit LinearBuffer(std::int64_t rows, std::int64_t trace_steps = 0)
      : report(rows, trace_steps),
        goal(rows),
        residual(rows),
        length(rows),
        before(rows),
        size(rows),
        growth(rows),
        best(rows, std::numeric_limits<double>::infinity()),
        phase(rows, Phase::first),
        answered(rows),
        new_best(rows) {
    report.status.assign(rows, Status::running);
  }

  LinearStates view() {
    return {.report = report.view(),
            .goal = goal.data(),
            .residual = residual.data(),
            .length = length.data(),
            .before = before.data(),
            .size = size.data(),
            .growth = growth.data(),
            .best = best.data(),
            .phase = phase.data(),
            .answered = answered.data(),
            .new_best = new_best.data(),
            .failed = &failed};
  }

  // Everything kept for a row, to see whether it was touched.
  std::vector<double> row(std::int64_t i) const {
    return {static_cast<double>(report.status[i]),
            static_cast<double>(report.steps[i]),
            report.residual[i],
            report.scale[i],
            static_cast<double>(report.rejected[i]),
            static_cast<double>(report.singular[i]),
            goal[i],
            residual[i],
            length[i],
            before[i],
            size[i],
            growth[i],
            best[i],
            static_cast<double>(phase[i]),
            static_cast<double>(answered[i]),
            static_cast<double>(new_best[i])};
  }

  ReportBuffer report;
  std::vector<double> goal, residual, length, before, size, growth, best;
  std::vector<Phase> phase;
  std::vector<Answered> answered;
  std::vector<std::int8_t> new_best;
  std::int64_t failed = 0;
};

}  // namespace deqcore::test

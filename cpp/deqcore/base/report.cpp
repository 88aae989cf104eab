// SPDX-License-Identifier: Apache-2.0
#include "deqcore/base/report.hpp"

namespace deqcore {

std::string_view name(Status status) {
  switch (status) {
    case Status::converged: return "converged";
    case Status::approximate: return "approximate";
    case Status::finished: return "finished";
    case Status::out_of_steps: return "out_of_steps";
    case Status::stalled: return "stalled";
    case Status::diverged: return "diverged";
    case Status::not_finite: return "not_finite";
    case Status::breakdown: return "breakdown";
    case Status::map_failed: return "map_failed";
    case Status::cancelled: return "cancelled";
    case Status::ill_conditioned: return "ill_conditioned";
    case Status::step_underflow: return "step_underflow";
    case Status::running: return "running";
  }
  return "unknown";
}

Report Report::slice(std::int64_t first) const {
  return {.status = status + first,
          .steps = steps + first,
          .residual = residual + first,
          .scale = scale + first,
          .rejected = rejected + first,
          .singular = singular + first,
          .trace = trace ? trace + first : nullptr,
          .trace_pitch = trace_pitch};
}

ReportBuffer::ReportBuffer(std::int64_t rows, std::int64_t trace_steps)
    : status(rows, Status::running),
      steps(rows),
      residual(rows),
      scale(rows),
      rejected(rows),
      singular(rows),
      trace(rows * trace_steps) {}

Report ReportBuffer::view() {
  return {.status = status.data(),
          .steps = steps.data(),
          .residual = residual.data(),
          .scale = scale.data(),
          .rejected = rejected.data(),
          .singular = singular.data(),
          .trace = trace.empty() ? nullptr : trace.data(),
          .trace_pitch = static_cast<std::int64_t>(status.size())};
}

}  // namespace deqcore

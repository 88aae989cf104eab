// SPDX-License-Identifier: Apache-2.0
// How each row ended. The arrays belong to the caller and live where the solve runs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace deqcore {

// 0 is success, positive is not an error, negative is a failure.
enum class Status : std::int8_t {
  converged = 0,
  approximate = 1,       // approximate by name: nothing was solved, nothing is promised
  finished = 2,          // an integration has reached the last time
  out_of_steps = -1,     // max_steps evaluations were not enough
  stalled = -2,          // no more progress, at the rounding noise of the map
  diverged = -3,         // the iterates ran away
  not_finite = -4,       // the map answered NaN or infinity
  breakdown = -5,        // a linear method cannot go on
  map_failed = -6,       // the map reported a failure
  cancelled = -7,        // the caller stopped the solve
  ill_conditioned = -8,  // the residual is small and the estimated error is not
  step_underflow = -9,   // no step is small enough for the tolerance
  running = 127,         // not ended yet; never in a finished report
};

std::string_view name(Status status);

// One entry per row. The answer of a row is the point with the smallest residual / threshold among those measured,
// and `residual` belongs to exactly that point.
struct Report {
  Status* status = nullptr;
  std::int32_t* steps = nullptr;     // map evaluations that the row used
  double* residual = nullptr;        // |f(z) - z| of the answer; NaN if it was never measured
  double* scale = nullptr;           // S0, what residuals are compared with
  std::int32_t* rejected = nullptr;  // accelerated steps given up: the residual grew, or the point did not change
  std::int32_t* singular = nullptr;  // accelerated steps given up because the small system could not be solved
  double* trace = nullptr;           // optional: |f(z) - z| at [step * trace_pitch + row], steps[row] entries per row
  std::int64_t trace_pitch = 0;

  Report slice(std::int64_t first) const;
};

// Host memory for a report.
class ReportBuffer {
 public:
  explicit ReportBuffer(std::int64_t rows, std::int64_t trace_steps = 0);

  Report view();

  std::vector<Status> status;
  std::vector<std::int32_t> steps;
  std::vector<double> residual, scale;
  std::vector<std::int32_t> rejected, singular;
  std::vector<double> trace;
};

// What the host looks at between steps.
struct Progress {
  std::int64_t running = 0;  // rows that have not ended
  std::int64_t failed = 0;   // rows that have ended and did not converge
  std::int64_t again = 0;    // of the running: those that Newton's method asks about another trial of the same step
  double worst = 0.0;        // the largest residual / threshold among them
};

// Everything counted while a solve ran.
struct Counts {
  std::int64_t questions = 0;   // times the map was asked
  std::int64_t rows_asked = 0;  // rows over all questions: the work of the map
  std::int64_t looks = 0;       // times the host looked at the progress
  std::int64_t products = 0;    // in Newton's methods: questions, of those above, about a product with J
};

}  // namespace deqcore

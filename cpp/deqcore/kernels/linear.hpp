// SPDX-License-Identifier: Apache-2.0
// What happens to every row of A x = b around a linear method: begin, measure, judge, keep the best solution.
//
// b  right side      x  iterate      r = b - A x  residual      all "by row"
// along  the vectors asked about, answer  the products with them: both by position in the dense block of active rows
//
// A method may estimate its residual from recurrences, but a row ends as converged only after A x itself was asked for.
#pragma once

#include <limits>

#include "deqcore/base/report.hpp"
#include "deqcore/base/stop.hpp"
#include "deqcore/kernels/kernel.hpp"
#include "deqcore/kernels/row_math.hpp"

namespace deqcore {

// What the answer to a question about v is.
enum class Operator : std::int8_t {
  matrix,          // A v
  identity_minus,  // M v, where A = I - M
};

// What a row is asked about next.
enum class Phase : std::int8_t {
  residual,  // x itself: its residual will be measured
  start,     // it was: a method begins anew from r
  first,     // a direction of the method
  second,    // its second direction, for methods with two products per step
};

// What the last product did to a row.
enum class Answered : std::int8_t { product, measured, broke_down };

// By row. `report` is the caller's; the rest is scratch.
struct LinearStates {
  Report report;
  double* goal = nullptr;      // the residual at which a row is done
  double* residual = nullptr;  // after the last product: measured, or the method's estimate
  double* length = nullptr;    // |r|_2 at the last measurement
  double* before = nullptr;    // and at the one before
  double* size = nullptr;      // |x|_2 at the last measurement
  double* growth = nullptr;    // the largest |A v| / |v| seen, at least 1 for I - M
  double* best = nullptr;      // the smallest measured residual / goal
  Phase* phase = nullptr;
  Answered* answered = nullptr;
  std::int8_t* new_best = nullptr;
  std::int64_t* failed = nullptr;  // one number: rows that have ended and did not converge

  constexpr bool running(std::int64_t row) const { return report.status[row] == Status::running; }
};

template <class T>
inline constexpr double eps4 = 4.0 * std::numeric_limits<T>::epsilon();

// The rounding error of a row's last measurement: eps / 4 |A| |x|, of which most cancels. `eps4` is 4 eps.
constexpr double noise(const LinearStates& s, std::int64_t row, double eps4) {
  return eps4 / 16 * s.growth[row] * s.size[row];
}

// The estimate at which a method has its x measured: below the goal by what the last measurement could not tell, or a
// row that was measured there once would be measured again after every product.
constexpr double aim(const LinearStates& s, std::int64_t row, double eps4) {
  const double unknown = noise(s, row, eps4);
  return s.goal[row] > 4 * unknown ? s.goal[row] - 2 * unknown : s.goal[row] / 2;
}

// The verdict on a running row after a product, written to its report. `trusting`: a solution that the method has
// formed ends the row without a product that measures it.
constexpr Status judge_row(const LinearStates& s, std::int64_t row, const Limits& limits, std::int32_t max_steps,
                           bool trusting) {
  const std::int32_t steps = ++s.report.steps[row];
  const double residual = s.residual[row];
  if (s.report.trace) s.report.trace[(steps - 1) * s.report.trace_pitch + row] = residual;
  Status status = Status::running;
  if (s.answered[row] == Answered::measured) {
    status = row_math::judge_linear({.residual = residual,
                                     .goal = s.goal[row],
                                     .length = s.length[row],
                                     .before = s.before[row],
                                     .noise = noise(s, row, limits.floor),
                                     .steps = steps},
                                    trusting ? max_steps - 1 : max_steps);
    const double ratio = residual == 0 ? 0.0 : residual / s.goal[row];
    if (status != Status::not_finite && ratio < s.best[row]) {
      s.best[row] = ratio;
      s.new_best[row] = 1;
      s.report.residual[row] = residual;
    }
  } else if (!row_math::finite(residual)) {
    status = Status::not_finite;
  } else if (s.answered[row] == Answered::broke_down) {
    status = Status::breakdown;
  } else if (trusting && s.phase[row] == Phase::residual && (residual <= s.goal[row] || steps + 1 >= max_steps)) {
    status = residual <= s.goal[row] ? Status::converged : Status::out_of_steps;
    s.new_best[row] = 1;
    s.report.residual[row] = residual;
  } else if (steps >= max_steps) {
    status = Status::out_of_steps;
  }
  s.report.status[row] = status;
  return status;
}

// Every row asked about: running, scale = |b|, x = x0, or 0 where there is none; result = x. From 0 the residual is
// known: r = b, and the method can start. b = 0 starts from 0 whatever x0 is. Rows that do not take part have ended at
// x = result = 0.   up to 2 reads, 3 writes
template <class T>
struct BeginLinear {
  ActiveRows rows;
  const Status* taking_part;  // by row: those that are running; null: all
  const double* rtol;         // by row, in place of that of the limits; may be null
  bool go_on_counting;        // steps that the report holds already
  std::int32_t* number;       // the ids of all rows, where `rows` has none yet; may be null
  Norm norm;
  Limits limits;
  Operator form;
  Rows<const T> b;
  Rows<const T> x0;  // may be null
  Rows<T> x, r, result;
  LinearStates states;
};
DEQCORE_KERNEL(BeginLinear);

// along = numbers that follow no pattern, the same for every row: a direction with a part in all others.   1 write
template <class T>
struct PoseProbe {
  ActiveRows rows;
  Rows<T> along;  // by position
};
DEQCORE_KERNEL(PoseProbe);

// In +-[1/2, 3/2).
constexpr double probe_entry(std::int64_t at) {
  std::uint64_t mixed = (static_cast<std::uint64_t>(at) + 1) * 0x9E3779B97F4A7C15u;
  mixed = (mixed ^ (mixed >> 29)) * 0xBF58476D1CE4E5B9u;
  const double size = 0.5 + static_cast<double>(mixed >> 12 & 0xFFFFFFFFu) / 4294967296.0;
  return mixed >> 63 != 0 ? size : -size;
}

// The product with it: how long A makes a vector.   2 reads
template <class T>
struct TakeProbe {
  ActiveRows rows;
  Operator form;
  Rows<const T> along, answer;  // by position
  LinearStates states;
};
DEQCORE_KERNEL(TakeProbe);

// Rows whose answer is about x: r = b - A x, its norms, and that of x.   3 reads, 1 write
template <class T>
struct MeasureLinear {
  ActiveRows rows;
  Norm norm;
  Operator form;
  Rows<const T> b, x;    // by row
  Rows<const T> answer;  // by position
  Rows<T> r;             // by row
  LinearStates states;
};
DEQCORE_KERNEL(MeasureLinear);

// Status and report of the running rows (row_math.hpp); progress to the mailbox.
template <class T>
struct JudgeLinear {
  ActiveRows rows;
  Limits limits;
  std::int32_t max_steps;
  bool trusting;
  LinearStates states;
  Progress* progress;
};
DEQCORE_KERNEL(JudgeLinear);

// result = x where that is the best solution measured so far.   up to 1 read, 1 write
template <class T>
struct KeepSolution {
  ActiveRows rows;
  Rows<const T> x;  // by row
  Rows<T> result;   // by row
  LinearStates states;
};
DEQCORE_KERNEL(KeepSolution);

// Ends every running row with `status`.
template <class T>
struct EndLinear {
  ActiveRows rows;
  Status status;
  LinearStates states;
};
DEQCORE_KERNEL(EndLinear);

// A preconditioner's answer becomes the direction asked about; rows asked about x stay with x.   1 read, 1 or 2 writes
template <class T>
struct TakeDirection {
  ActiveRows rows;
  Rows<const T> answer;  // by position
  Rows<T> along;         // by position
  LinearStates states;
};
DEQCORE_KERNEL(TakeDirection);

}  // namespace deqcore

// SPDX-License-Identifier: Apache-2.0
// What happens to every row on a path H(z, lambda) = 0 from lambda = 0 to the solution at lambda = 1.
//
// z  the trial point      r = f(z) - z      J = df/dz      (t, s)  tangent of the path: dz and dlambda per unit of h
//
//     H = (1 - lambda) (z - z0) - lambda r      dH/dz = I - lambda J      dH/dlambda = z0 - f(z)        fixed point
//     H = (1 - lambda) r(z0) - r                dH/dz = I - J             dH/dlambda = -r(z0)           Newton
//     H, dH/dz and dH/dlambda are asked for, and r = -H                                                 own
//
//     | dH/dz  dH/dlambda | | d  |   | -H |  or  | 0 |        the border (b, c) is the last tangent, or (0, 1) where
//     |   b         c     | | d' | = |  0 |      | 1 |        lambda stays: at the start, at the end, and if natural
//
// "by position": one entry per row of the dense block asked about; "by row": one entry per row of the batch.
#pragma once

#include <limits>

#include "deqcore/base/path.hpp"
#include "deqcore/base/report.hpp"
#include "deqcore/base/stop.hpp"
#include "deqcore/kernels/kernel.hpp"
#include "deqcore/kernels/row_math.hpp"

namespace deqcore {

// Where a row is: it looks for H = 0 at lambda = 0, along the path, or at lambda = 1.
enum class PathStage : std::int8_t { start, track, end };

// What a row needs after an evaluation.
enum class PathNeed : std::int8_t { value, correction, tangent };

// How the trial point changes.
enum class PathMove : std::int8_t {
  stay,
  predict,  // z = last + h t
  cross,    // z = last + fraction (z - last), at lambda = 1
  correct,  // z += d
  advance,  // last = z, t = d or d / |d|, and predict
};

// Whether the trial point was evaluated since z moved last.
enum class Fresh : std::int8_t { no, yes, best };

enum class PathVerdict : std::int8_t { corrected, accepted, rejected, ended };

// By row. `report` and `path` are the caller's; the rest is scratch.
struct PathStates {
  Report report;
  PathReport path;
  Status* turn = nullptr;  // running: a linear system of this row is being solved
  PathStage* stage = nullptr;
  PathNeed* need = nullptr;
  PathMove* move = nullptr;
  std::int8_t* sign = nullptr;  // of s, at the last accepted point
  Fresh* fresh = nullptr;
  std::int32_t* corrections = nullptr;  // since the prediction
  double* lambda = nullptr;
  double* last_lambda = nullptr;
  double* slope = nullptr;  // s
  double* h = nullptr;
  double* fraction = nullptr;
  double* g_norm = nullptr;  // in the stop rule's norm: residual, image, and point
  double* f_norm = nullptr;
  double* z_norm = nullptr;
  double* miss = nullptr;    // |H|_2
  double* before = nullptr;  // |r| at the evaluation before
  double* length = nullptr;  // |r|_2
  double* size = nullptr;    // |z|_2
  double* extent = nullptr;  // what |z| and |H| are compared with on the way: S0, or what the first tangent shows
  double* best = nullptr;    // smallest residual / threshold
  double* forcing = nullptr;

  constexpr bool running(std::int64_t row) const { return report.status[row] == Status::running; }
  constexpr bool solving(std::int64_t row) const { return turn[row] == Status::running; }
};

struct PathRules {
  HomotopyKind kind;
  Tracker tracker;
  std::int32_t max_steps;    // evaluations and products
  std::int32_t max_solves;   // linear systems
  std::int32_t reserve;      // what a linear system and the evaluation after it need at least
  std::int32_t corrections;  // most per step
  double tolerance;          // of H, times |z| or the scale
  double first_step, most_step, least_step;
  double angle;      // least cosine between two tangents
  double blow_up;    // |z| above this many times the scale is a path to infinity
  bool by_products;  // the linear systems are solved by GMRES

  constexpr bool own() const { return kind == HomotopyKind::own; }
};

namespace path {
inline constexpr double growth = 1.5;              // of h after an easy step
inline constexpr std::int32_t easy_arclength = 2;  // corrections of one
inline constexpr std::int32_t easy_natural = 3;
inline constexpr std::int32_t end_corrections = 12;  // at lambda = 1
inline constexpr double correction_forcing = 1e-5;
template <class T>
inline constexpr double tangent_forcing = sizeof(T) == 4 ? 1e-4 : 1e-8;
inline constexpr double solved_enough = 0.5;  // residual of a linear system, in its right side, that is still of use
inline constexpr double tangent_solved_enough = 1e-2;
}  // namespace path

// The border of a row's linear system is its last tangent, and not (0, 1).
constexpr bool along_path(const PathStates& s, const PathRules& rules, std::int64_t row) {
  return rules.tracker == Tracker::arclength && s.stage[row] == PathStage::track;
}

// dH/dz v = own v - mapped (product with v)
struct PathOperator {
  double own, mapped;
};
constexpr PathOperator path_operator(const PathStates& s, const PathRules& rules, std::int64_t row) {
  if (rules.own()) return {0, -1};
  return {1, rules.kind == HomotopyKind::newton ? 1.0 : s.lambda[row]};
}

constexpr Status end_path(const PathStates& s, std::int64_t row, Status status, PathEnd end) {
  s.path.end[row] = end;
  s.path.lambda[row] = status == Status::converged ? 1.0 : s.last_lambda[row];
  s.turn[row] = Status::converged;
  return s.report.status[row] = status;
}

// The next trial is h along the tangent of the last accepted point.
constexpr void predict(const PathStates& s, const PathRules& rules, std::int64_t row) {
  const double left = 1 - s.last_lambda[row];
  const bool to_end = rules.tracker == Tracker::natural && s.h[row] >= left;
  if (to_end) s.h[row] = left;
  s.lambda[row] = to_end ? 1.0 : s.last_lambda[row] + s.h[row] * s.slope[row];
  s.stage[row] = to_end ? PathStage::end : PathStage::track;
  s.corrections[row] = 0;
  s.need[row] = PathNeed::value;
}

// A trial that led nowhere: half the step from the last accepted point. -> its status
constexpr Status retreat(const PathStates& s, const PathRules& rules, std::int64_t row, bool finite) {
  s.report.rejected[row] += 1;
  const bool nothing_known = s.slope[row] == 0 && s.path.accepted[row] == 0;  // the first tangent is never flat
  s.h[row] /= 2;
  if (nothing_known || !(s.h[row] >= rules.least_step))
    return finite ? end_path(s, row, Status::breakdown, PathEnd::step_underflow)
                  : end_path(s, row, Status::not_finite, PathEnd::not_finite);
  predict(s, rules, row);
  s.move[row] = PathMove::predict;
  return Status::running;
}

constexpr void note_verdict(const PathStates& s, std::int64_t row, PathVerdict verdict) {
  const PathRecord& record = s.path.record;
  const std::int32_t entry = record.capacity > 0 ? record.count[row] - 1 : 0;
  if (entry < 0 || entry >= record.capacity) return;
  std::int32_t& kind = record.kinds[record.at(entry, row)];
  kind = (kind & ~12) + 4 * static_cast<std::int32_t>(verdict);
}

constexpr void note_point(const PathStates& s, std::int64_t row) {
  const PathRecord& record = s.path.record;
  if (record.capacity == 0) return;
  const std::int32_t entry = record.count[row]++;
  if (entry >= record.capacity) return;
  double* const numbers = record.numbers + 4 * record.at(entry, row);
  numbers[0] = s.lambda[row];
  numbers[1] = s.h[row];
  numbers[2] = s.miss[row];
  numbers[3] = std::numeric_limits<double>::quiet_NaN();
  record.kinds[record.at(entry, row)] = static_cast<std::int32_t>(s.stage[row]) + 16 * s.corrections[row];
}

// The verdict on the trial of a running row, written to its states and reports.
constexpr Status judge_path(const PathStates& s, std::int64_t row, const Limits& limits, const PathRules& rules,
                            double tangent_forcing) {
  const std::int32_t steps = ++s.report.steps[row];
  const double g = s.g_norm[row], miss = s.miss[row];
  const bool first = steps == 1, at_end = s.stage[row] == PathStage::end;
  const bool measured = !rules.own() || at_end;  // r is that of the map
  if (s.report.trace) s.report.trace[(steps - 1) * s.report.trace_pitch + row] = g;
  s.move[row] = PathMove::stay;
  s.fresh[row] = Fresh::yes;
  s.turn[row] = Status::converged;
  note_point(s, row);
  Limits anywhere = limits;  // a path that runs away is told by its own rule
  anywhere.overflow = std::numeric_limits<double>::infinity();
  const row_math::Verdict v = row_math::judge({.g = g,
                                               .f = s.f_norm[row],
                                               .z = s.z_norm[row],
                                               .scale = s.report.scale[row],
                                               .best = s.best[row],
                                               .steps = steps,
                                               .best_step = steps,
                                               .frozen = 0},
                                              anywhere, std::numeric_limits<std::int32_t>::max(), 0);
  const bool finite = row_math::finite(g) && row_math::finite(miss) && row_math::finite(s.size[row]);
  if (first && !finite) {
    note_verdict(s, row, PathVerdict::rejected);
    return end_path(s, row, Status::not_finite, PathEnd::not_finite);
  }
  if (measured) s.report.scale[row] = v.scale;
  if (finite && measured && v.ratio < s.best[row]) {
    s.best[row] = v.ratio;
    s.report.residual[row] = g;
    s.fresh[row] = Fresh::best;
  }
  if (measured && first) s.extent[row] = v.scale;
  const double reference = s.extent[row], extent = s.size[row] > reference ? s.size[row] : reference;
  PathNeed need = PathNeed::correction;
  bool failed = !finite || s.corrections[row] >= (at_end ? path::end_corrections : rules.corrections);
  if (measured && (at_end || first)) {
    const bool noise = s.corrections[row] >= 2 && g > 0.5 * s.before[row] && g < limits.noise * extent;
    const bool stalled = at_end && finite && (v.status == Status::stalled || noise);
    if (v.status == Status::converged || stalled) {
      note_verdict(s, row, PathVerdict::ended);
      return stalled ? end_path(s, row, Status::stalled, PathEnd::not_verified)
                     : end_path(s, row, Status::converged, PathEnd::converged);
    }
  }
  s.before[row] = g;
  // at lambda = 0 the fixed-point homotopy has one zero, so its path never comes back there: this is another curve
  const bool jumped = along_path(s, rules, row) && rules.kind == HomotopyKind::fixed_point && !(s.lambda[row] > 0);
  failed = failed || jumped;
  if (!at_end && finite && !jumped && miss <= rules.tolerance * (extent > 0 ? extent : 1.0)) {
    if (s.stage[row] == PathStage::track && s.size[row] > rules.blow_up * (reference > 0 ? reference : 1.0)) {
      note_verdict(s, row, PathVerdict::rejected);
      return end_path(s, row, Status::diverged, PathEnd::blow_up);
    }
    failed = false;
    need = PathNeed::tangent;
    if (along_path(s, rules, row) && s.lambda[row] >= 1) {
      s.fraction[row] = (1 - s.last_lambda[row]) / (s.lambda[row] - s.last_lambda[row]);
      s.move[row] = PathMove::cross;
      s.lambda[row] = 1;
      s.stage[row] = PathStage::end;
      s.corrections[row] = 0;
      need = PathNeed::value;
    }
  }
  note_verdict(
      s, row,
      failed ? PathVerdict::rejected : (need == PathNeed::correction ? PathVerdict::corrected : PathVerdict::accepted));
  s.need[row] = need;
  if (failed && retreat(s, rules, row, finite) != Status::running) return s.report.status[row];
  const bool solves = s.need[row] != PathNeed::value;
  if (steps + (solves ? rules.reserve : 1) > rules.max_steps || (solves && s.path.solves[row] >= rules.max_solves))
    return end_path(s, row, Status::out_of_steps, PathEnd::out_of_budget);
  if (solves) s.turn[row] = Status::running;
  s.forcing[row] = need == PathNeed::tangent ? tangent_forcing : path::correction_forcing;
  return Status::running;
}

// Whether the solution of a row's linear system is of use; LU says so by its status alone.
constexpr bool solved_path(const PathStates& s, const PathRules& rules, const Report& linear, std::int64_t row) {
  if (!rules.by_products) return linear.status[row] == Status::converged;
  if (linear.status[row] == Status::not_finite) return false;
  const double enough = s.need[row] == PathNeed::tangent ? path::tangent_solved_enough : path::solved_enough;
  return linear.residual[row] <= enough * linear.scale[row];
}

// After a linear system: what its solution (d, d_lambda), of size `length`, makes of a row.
constexpr void take_solution(const PathStates& s, const PathRules& rules, std::int64_t row, const Report& linear,
                             double length, double d_lambda) {
  const bool solved = solved_path(s, rules, linear, row);
  s.turn[row] = Status::converged;
  s.move[row] = PathMove::stay;
  s.path.solves[row] += 1;
  if (s.report.steps[row] + 1 > rules.max_steps) {  // GMRES has used up what was left
    end_path(s, row, Status::out_of_steps, PathEnd::out_of_budget);
    return;
  }
  if (!solved || !row_math::finite(length)) {
    s.report.singular[row] += 1;
    note_verdict(s, row, PathVerdict::rejected);
    retreat(s, rules, row, linear.status[row] != Status::not_finite);
    return;
  }
  if (s.need[row] == PathNeed::correction) {
    if (along_path(s, rules, row)) s.lambda[row] += d_lambda;
    s.corrections[row] += 1;
    s.move[row] = PathMove::correct;
    return;
  }
  const bool arclength = rules.tracker == Tracker::arclength, started = s.stage[row] == PathStage::track;
  if (along_path(s, rules, row) && length * rules.angle > 1) {  // the border is of length 1, and b d + c d' = 1
    note_verdict(s, row, PathVerdict::rejected);
    retreat(s, rules, row, true);
    return;
  }
  const double slope = arclength ? d_lambda / length : 1.0;
  const auto sign = static_cast<std::int8_t>(slope < 0 ? -1 : slope > 0 ? 1 : s.sign[row]);
  if (started && sign != s.sign[row]) s.path.folds[row] += 1;
  s.sign[row] = sign;
  s.slope[row] = slope;
  if (!started && s.extent[row] == 0) s.extent[row] = s.size[row] > length ? s.size[row] : length;
  if (started) {
    s.path.accepted[row] += 1;
    const double extent = s.extent[row] > 0 ? s.extent[row] : 1.0;
    const double most = rules.most_step * (s.size[row] > extent ? s.size[row] / extent : 1.0);
    const double next = path::growth * s.h[row];
    if (s.corrections[row] <= (arclength ? path::easy_arclength : path::easy_natural))
      s.h[row] = next < most ? next : most;
  }
  s.last_lambda[row] = s.path.lambda[row] = s.lambda[row];
  const PathRecord& record = s.path.record;
  if (record.capacity > 0 && record.count[row] > 0 && record.count[row] <= record.capacity)
    record.numbers[4 * record.at(record.count[row] - 1, row) + 3] = slope;
  predict(s, rules, row);
  s.move[row] = PathMove::advance;
}

constexpr void begin_path(const PathStates& s, const PathRules& rules, std::int64_t row, const double* given_scale) {
  s.report.status[row] = Status::running;
  s.report.steps[row] = s.report.rejected[row] = s.report.singular[row] = 0;
  s.report.residual[row] = std::numeric_limits<double>::quiet_NaN();
  s.report.scale[row] = given_scale ? given_scale[row] : 0.0;
  s.path.end[row] = PathEnd::following;
  s.path.folds[row] = s.path.solves[row] = s.path.accepted[row] = 0;
  s.path.lambda[row] = s.lambda[row] = s.last_lambda[row] = s.slope[row] = 0;
  if (s.path.record.capacity > 0) s.path.record.count[row] = 0;
  s.turn[row] = Status::converged;
  s.stage[row] = PathStage::start;
  s.need[row] = PathNeed::value;
  s.move[row] = PathMove::stay;
  s.sign[row] = 1;
  s.fresh[row] = Fresh::no;
  s.corrections[row] = 0;
  s.h[row] = rules.first_step;
  s.extent[row] = given_scale ? given_scale[row] : 0.0;
  s.best[row] = s.before[row] = std::numeric_limits<double>::infinity();
}

// The components of the point that the last entry is about, value(j) being that of component j: every `stride`th.
template <class Value>
constexpr void record_point(const PathStates& s, std::int64_t row, const Value& value, std::int64_t start,
                            std::int64_t stride) {
  const PathRecord& record = s.path.record;
  if (record.capacity == 0 || s.fresh[row] == Fresh::no) return;
  const std::int32_t entry = record.count[row] - 1;
  if (entry >= record.capacity) return;
  double* const to = record.points + record.at(entry, row) * record.picked;
  for (std::int64_t c = start; c < record.picked; c += stride)
    to[c] = value(record.components ? record.components[c] : c);
}

template <class T>
constexpr T step_along(T last, T tangent, double h) {
  return static_cast<T>(static_cast<double>(last) + h * static_cast<double>(tangent));
}

template <class T>
constexpr T step_between(T last, T z, double fraction) {
  return static_cast<T>(static_cast<double>(last) + fraction * (static_cast<double>(z) - static_cast<double>(last)));
}

// A step in lambda for a difference of H.
template <class T>
constexpr double rate_step(double lambda) {
  const double size = lambda < 0 ? -lambda : lambda;
  return row_math::square_root(static_cast<double>(std::numeric_limits<T>::epsilon())) * (size > 1 ? size : 1.0);
}

// (H(lambda + step) - H(lambda)) / step, with H(lambda) = -r.
template <class T>
constexpr T difference_in_rate(T answer, T r, double step) {
  return static_cast<T>((static_cast<double>(answer) + static_cast<double>(r)) / step);
}

// An evaluation or a product that is about a linear system.
constexpr void count_path_product(const PathStates& s, std::int64_t row) {
  const std::int32_t steps = ++s.report.steps[row];
  if (s.report.trace) s.report.trace[(steps - 1) * s.report.trace_pitch + row] = s.g_norm[row];
}

// The same of a product that GMRES will count.
constexpr void trace_path_product(const PathStates& s, const PathRules& rules, std::int64_t row) {
  const std::int32_t steps = s.report.steps[row];
  if (s.report.trace && steps < rules.max_steps) s.report.trace[steps * s.report.trace_pitch + row] = s.g_norm[row];
}

// By row: the bordered matrices, column after column and then factored.
struct Bordered {
  double* matrix = nullptr;       // [row][width + 1][width + 1]
  std::int32_t* pivot = nullptr;  // [row][width + 1]
  double* work = nullptr;         // [row][width + 1]
};

// Every row: running at the start of its path; scale[row] = given[row], or 0; ids[row] = row.
template <class T>
struct BeginPath {
  std::int64_t rows;
  const double* given_scale;  // by row, may be null
  PathRules rules;
  PathStates states;
  std::int32_t* ids;
  std::int32_t* order;  // the same once more; may be null
};
DEQCORE_KERNEL(BeginPath);

// at = z, time = lambda.   1 read, 1 write
template <class T>
struct PosePath {
  ActiveRows rows;
  Rows<const T> z;  // by row
  Rows<T> at;       // by position; null: only the times
  double* time;     // by position; null: only the points
  PathStates states;
};
DEQCORE_KERNEL(PosePath);

// Of the running rows: r, dH/dlambda (unless H is the caller's own), right = (-H, 0), and the norms. At the first
// evaluation of Newton's homotopy base = r.   3 reads, 3 writes
template <class T>
struct MeasurePath {
  ActiveRows rows;
  Norm norm;
  PathRules rules;
  Rows<const T> at, answer;  // by position
  Rows<T> base;              // by row: z0, or r(z0)
  Rows<T> r, rate, right;    // by row
  PathStates states;
};
DEQCORE_KERNEL(MeasurePath);

// Status and reports of the running rows; which of them need a linear system is their turn.
template <class T>
struct JudgePath {
  ActiveRows rows;
  Limits limits;
  PathRules rules;
  PathStates states;
};
DEQCORE_KERNEL(JudgePath);

// After the verdict: the point is recorded, and kept as result where it is the best; z moves; right = (0, 1) where a
// tangent is needed.   up to 4 reads, 2 writes
template <class T>
struct MovePath {
  ActiveRows rows;
  PathRules rules;
  Rows<T> z;                    // by row
  Rows<const T> last, tangent;  // by row
  Rows<T> result, right;        // by row
  PathStates states;
};
DEQCORE_KERNEL(MovePath);

// How many rows run, need a linear system (`again`) and have failed, to the mailbox.
template <class T>
struct CountPath {
  ActiveRows rows;
  PathStates states;
  std::int64_t batch;  // rows in all
  Progress* progress;
};
DEQCORE_KERNEL(CountPath);

// time = lambda + a step for a difference in lambda.
template <class T>
struct PoseRate {
  ActiveRows rows;
  double* time;  // by position
  PathStates states;
};
DEQCORE_KERNEL(PoseRate);

// dH/dlambda as answered, or the difference of the answer and H = -r over that step.   2 reads, 1 write
template <class T>
struct TakeRate {
  ActiveRows rows;
  bool differences;
  Rows<const T> answer;  // by position
  Rows<const T> r;       // by row
  Rows<T> rate;          // by row
  PathStates states;
};
DEQCORE_KERNEL(TakeRate);

// A product with unit vector `column`: that column of the bordered matrix.   width + 1 doubles written
template <class T>
struct KeepBordered {
  ActiveRows rows;
  std::int64_t column;
  PathRules rules;
  Rows<const T> answer;   // by position
  Rows<const T> tangent;  // by row
  PathStates states;
  Bordered bordered;
};
DEQCORE_KERNEL(KeepBordered);

// The last column; the matrices are factored by partial pivoting, and solution = matrix^-1 right. `solved` is
// converged, or says why there is none: a pivot below (width + 1) eps times the largest entry of its own column, as if
// the columns had been scaled, so that the units of z and of lambda do not matter. The last pivot of a border (0, 1) is
// its own 1, without rounding.   2/3 (width + 1)^3 flops
template <class T>
struct FactorBordered {
  ActiveRows rows;
  PathRules rules;
  Rows<const T> rate, right;  // by row
  Rows<T> solution;           // by row
  Status* solved;             // by row
  PathStates states;
  Bordered bordered;
};
DEQCORE_KERNEL(FactorBordered);

// The direction of a product with the bordered matrix, without its last element.   1 read, 1 write
template <class T>
struct PoseBordered {
  Rows<const T> direction;  // by position, width + 1
  Rows<T> along;            // by position, width
};
DEQCORE_KERNEL(PoseBordered);

// The product of the bordered matrix and a direction, from that of the map.   4 reads, 1 write
template <class T>
struct TakeBordered {
  ActiveRows rows;
  PathRules rules;
  const Status* solving;            // by row: how its linear solve stands
  Rows<const T> direction, answer;  // by position
  Rows<const T> tangent, rate;      // by row
  Rows<T> product;                  // by position, width + 1
  PathStates states;
};
DEQCORE_KERNEL(TakeBordered);

// After the linear systems: z moves, points are accepted, and the rows whose steps have become too short end. `linear`:
// how GMRES ended, whose solutions are of use where its residual has fallen; for LU only its statuses are set.
//   up to 4 reads, 3 writes
template <class T>
struct StepPath {
  ActiveRows rows;
  PathRules rules;
  Report linear;
  Rows<const T> solution;    // by row, width + 1
  Rows<T> z, last, tangent;  // by row
  Rows<T> result;            // by row: of an own homotopy the last point, until one was measured at lambda = 1
  PathStates states;
};
DEQCORE_KERNEL(StepPath);

// The map itself at what is returned: rows of an own homotopy that have converged stay so only if f(z) - z says it too.
//   2 reads
template <class T>
struct VerifyPath {
  ActiveRows rows;
  Norm norm;
  Limits limits;
  Rows<const T> at, answer;  // by position
  PathStates states;
};
DEQCORE_KERNEL(VerifyPath);

constexpr void verify_path(const PathStates& s, std::int64_t row, const Limits& limits) {
  const std::int32_t steps = ++s.report.steps[row];
  s.report.residual[row] = s.g_norm[row];
  if (s.report.trace) s.report.trace[(steps - 1) * s.report.trace_pitch + row] = s.g_norm[row];
  Limits anywhere = limits;
  anywhere.overflow = std::numeric_limits<double>::infinity();
  const row_math::Verdict v = row_math::judge({.g = s.g_norm[row],
                                               .f = s.f_norm[row],
                                               .z = s.z_norm[row],
                                               .scale = s.report.scale[row],
                                               .best = std::numeric_limits<double>::infinity(),
                                               .steps = 1,
                                               .best_step = 1,
                                               .frozen = 0},
                                              anywhere, std::numeric_limits<std::int32_t>::max(), 0);
  s.report.scale[row] = v.scale;  // new to rows that never came to lambda = 1
  if (s.report.status[row] != Status::converged || v.status == Status::converged) return;
  const bool finite = v.status != Status::not_finite;
  s.path.end[row] = PathEnd::not_verified;
  s.report.status[row] = !finite                       ? Status::not_finite
                         : v.status == Status::stalled ? Status::stalled
                                                       : Status::breakdown;
}

// Ends every running row with `status`; `unverified`: and those that have converged, but not by the map itself.
template <class T>
struct EndPath {
  ActiveRows rows;
  Status status;
  bool unverified;
  PathStates states;
};
DEQCORE_KERNEL(EndPath);

}  // namespace deqcore

// SPDX-License-Identifier: Apache-2.0
// The steps of an explicit Runge-Kutta method, each row with its own time and step.
//
//     K_s     = F(t + c_s h, Y_s)              Y_s = z + h sum_(j<s) a_sj K_j                the stages
//     z_next  = z + h sum_j b_j K_j                                                          the step
//     error   = h sum_j e_j K_j, against  atol + rtol max(|z|, |z_next|),  root mean square over the row or the batch
//     z(t + theta h) = z + h sum_j b_j(theta) K_j,  b_j(theta) = sum_p P_jp theta^(p + 1)    between two steps
//
// "by position", "by row" and "before" are those of kernels/step.hpp. F is the answer, or with `relax` the answer minus
// the point asked about. Everything but that point and the answer is kept by row: rows that leave move nothing. Where
// the last stage is the next step's first (FSAL), the two change places.
#pragma once

#include "deqcore/base/ode_report.hpp"
#include "deqcore/kernels/kernel.hpp"
#include "deqcore/kernels/row_math.hpp"
#include "deqcore/kernels/step.hpp"

namespace deqcore {

inline constexpr int most_stages = 7, most_powers = 4;

// What the last judgement did to a row.
enum class StepEvent : std::int8_t { none, rejected, accepted, failed };

// By row. `report` is the caller's; the rest is scratch.
struct OdeStates {
  OdeReport report;
  double* h = nullptr;           // of the step being tried, with the sign of the direction
  double* taken = nullptr;       // h of the last accepted step
  double* before = nullptr;      // the time it began at
  double* measure = nullptr;     // mean square of what was measured last
  double* slope = nullptr;       // at the start: mean square of F; later free for a judgement
  std::int32_t* from = nullptr;  // requested times [from, next) lie in the last accepted step
  std::int32_t* next = nullptr;  // the first one not reached
  std::int8_t* after_rejection = nullptr;
  std::int8_t* swapped = nullptr;  // whether first and last stage have changed places
  StepEvent* event = nullptr;
  std::int64_t* failed = nullptr;  // one number: rows that have ended before the last time

  constexpr bool running(std::int64_t row) const { return report.status[row] == Status::running; }
};

// The stages, by row: `stages` blocks.
template <class T>
struct StageBlocks {
  Rows<T> block[most_stages];
  int stages = 0;
  bool swaps = false;  // the last stage is the next step's first

  constexpr T* at(int stage, bool swapped, std::int64_t row) const {
    if (swaps && swapped) stage = stage == 0 ? stages - 1 : stage == stages - 1 ? 0 : stage;
    return block[stage][row];
  }
};

// What is decided about steps.
struct StepRules {
  const double* times = nullptr;  // requested, strictly monotone; the first is where the integration starts
  std::int32_t count = 0;         // of them
  std::int32_t substeps = 0;      // fixed steps from one requested time to the next; 0: by the error
  double rtol = 0, atol = 0;
  double first_step = 0;   // > 0: given
  std::int32_t order = 0;  // the error of a step falls as h^order
  std::int32_t max_steps = 0;
  // Steps of the batch as one system are judged by the mean over all its rows; null: each row by its own.
  const double* batch_measure = nullptr;
  const double* batch_slope = nullptr;
  std::int64_t batch = 0;

  constexpr double direction() const { return times[count - 1] > times[0] ? 1.0 : -1.0; }

  // The first step, where none is to be found; 0 otherwise.
  constexpr double begin() const {
    if (substeps > 0) return (times[1] - times[0]) / substeps;
    return bounded(first_step);
  }

  // |step| up to the last time, with the sign of the direction.
  constexpr double bounded(double step) const {
    const double whole = times[count - 1] - times[0];
    return direction() * whole < step ? whole : direction() * step;
  }
};

// At the start: the probe, or with `probed` the first step, from mean squares.
constexpr void begin_step(const StepRules& rules, const OdeStates& s, std::int64_t row, bool probed, double measure,
                          double slope) {
  const double f_size = row_math::square_root(slope), size = row_math::square_root(measure);
  if (!row_math::finite(slope)) {
    s.report.status[row] = Status::not_finite;
    s.event[row] = StepEvent::failed;
    return;
  }
  if (rules.first_step > 0) return;
  const double probe = rules.direction() * s.h[row];
  s.h[row] = rules.bounded(probed ? row_math::first_step(probe, f_size, size, rules.order)
                                  : row_math::probe_step(size, f_size, rules.order, rules.rtol));
}

// After a step, by its error relative to the tolerance and what that makes of the step.
[[gnu::always_inline]] constexpr void end_step(const StepRules& rules, const OdeStates& s, std::int64_t row, bool swaps,
                                               double error, double factor) {
  const std::int32_t accepted = s.report.accepted[row], rejected = s.report.rejected[row];
  const row_math::StepVerdict verdict = row_math::judge_step({.t = s.report.reached[row],
                                                              .h = s.h[row],
                                                              .error = error,
                                                              .factor = factor,
                                                              .accepted = accepted,
                                                              .tried = accepted + rejected,
                                                              .next = s.next[row],
                                                              .after_rejection = s.after_rejection[row] != 0},
                                                             rules);
  s.report.status[row] = verdict.status;
  s.after_rejection[row] = verdict.accepted ? 0 : 1;
  if (verdict.accepted) {
    s.event[row] = StepEvent::accepted;
    s.report.accepted[row] += 1;
    s.before[row] = s.report.reached[row];
    s.taken[row] = s.h[row];
    s.from[row] = s.next[row];
    s.next[row] = verdict.next;
    if (swaps) s.swapped[row] ^= 1;
  } else {
    s.event[row] = verdict.status == Status::running ? StepEvent::rejected : StepEvent::failed;
    if (rules.substeps == 0) s.report.rejected[row] += 1;
  }
  s.report.reached[row] = verdict.t;
  s.h[row] = verdict.h;
}

// The same of a step in pseudo-time, which ends nothing itself.
constexpr bool takes_pseudo_step(double measure) {
  return row_math::square_root(measure) <= 1;
}
constexpr void end_pseudo_step(const OdeStates& s, std::int64_t row, std::int32_t order, double measure) {
  const double error = row_math::square_root(measure), factor = row_math::step_factor(error, order);
  const bool accepted = takes_pseudo_step(measure);
  s.event[row] = accepted ? StepEvent::accepted : StepEvent::rejected;
  s.h[row] *= accepted && s.after_rejection[row] && factor > 1 ? 1.0 : accepted || factor < 0.9 ? factor : 0.9;
  s.after_rejection[row] = accepted ? 0 : 1;
  if (accepted)
    s.swapped[row] ^= 1;
  else
    s.report.rejected[row] += 1;
}

// What a step in pseudo-time that is not taken says of its row: with a few roundings of z, no step is shorter.
template <class T>
constexpr Trial after_pseudo_step(double h, double z_size, double slope) {
  constexpr double eps = std::numeric_limits<T>::epsilon(), least = 1e-30;
  return h * slope > 16 * eps * z_size && h > least ? Trial::yes : Trial::last;
}

// b_j(theta) by the powers of stage j.
constexpr double stage_weight(const double (&powers)[most_powers], double theta) {
  double weight = 0;
  for (int p = most_powers; p-- > 0;) weight = (weight + powers[p]) * theta;
  return weight;
}

// Row i: at its first time, nothing counted; ids[i] = i. With a fixed or a given step, h too.
template <class T>
struct BeginOde {
  std::int64_t rows;
  StepRules rules;
  OdeStates states;
  std::int32_t* ids;
};
DEQCORE_KERNEL(BeginOde);

// K_0 <- F and the mean squares of z and F against the tolerance of z.   2 reads, 1 write
template <class T>
struct MeasureStart {
  ActiveRows rows;
  double rtol, atol;
  bool relax;
  Rows<const T> at, answer;  // by position
  StageBlocks<T> stages;
  OdeStates states;
};
DEQCORE_KERNEL(MeasureStart);

// The mean square of F - K_0 against the tolerance of z, at the probe that JudgeStart asked for.   4 reads
template <class T>
struct MeasureProbe {
  ActiveRows rows;
  double rtol, atol;
  bool relax;
  Rows<const T> at, answer;  // by position
  Rows<const T> z;           // by row
  StageBlocks<T> stages;
  OdeStates states;
};
DEQCORE_KERNEL(MeasureProbe);

// The length of the probe (row_math.hpp), or with `probed` the first step.
template <class T>
struct JudgeStart {
  ActiveRows rows;
  bool probed;
  StepRules rules;
  OdeStates states;
  Progress* progress;
};
DEQCORE_KERNEL(JudgeStart);

// One pass of a stage: K_stage <- F, then at <- z + h sum_j weights_j K_j and time <- t + c h. A row that does not run
// stays at z. Without an answer nothing is kept.   stage + 2 reads, 2 writes
template <class T>
struct PoseStage {
  ActiveRows rows;
  int stage;  // of the answer
  bool relax;
  double weights[most_stages];
  double c;
  Rows<const T> asked;   // before: the point that the answer belongs to
  Rows<const T> answer;  // before; null: none
  Rows<const T> z;       // by row
  Rows<T> at;            // by position: the next point; may be `asked` where no row has left
  double* time;          // by position
  StageBlocks<T> stages;
  OdeStates states;
};
DEQCORE_KERNEL(PoseStage);

// K_last <- F and the mean square of the error against the tolerance; of fixed steps, whose `at` is z_next, only
// whether that is finite.   stages + 2 reads, 1 write
template <class T>
struct MeasureStep {
  ActiveRows rows;
  bool fixed;
  bool relax;
  double rtol, atol;
  double errors[most_stages];
  Rows<const T> answer, at;  // by position; at: z_next
  Rows<const T> z;           // by row
  StageBlocks<T> stages;
  OdeStates states;
};
DEQCORE_KERNEL(MeasureStep);

// Accepts or rejects the step of every running row and chooses its next one (row_math.hpp); progress to the mailbox.
template <class T>
struct JudgeStep {
  ActiveRows rows;
  StepRules rules;
  OdeStates states;
  StageBlocks<T> stages;
  Progress* progress;
};
DEQCORE_KERNEL(JudgeStep);

// Of rows that took a step: the values at the requested times inside it, and z <- z_next. Of rows that failed: NaN at
// the times that were not reached.   2 reads, 1 write, and stages + 1 reads and 1 write per requested time
template <class T>
struct TakeStep {
  ActiveRows rows;
  const double* times;
  std::int32_t count;
  double powers[most_stages][most_powers];  // P
  Rows<const T> at;                         // before: z_next
  Rows<T> z;                                // by row
  Rows<T> values;                           // by row, at the first time
  std::int64_t stride;                      // elements from one requested time to the next
  StageBlocks<T> stages;
  OdeStates states;
};
DEQCORE_KERNEL(TakeStep);

// Pseudo-time towards a fixed point, where steps need not be accurate but stable: each row at its first step, which is
// h; its point will be taken.
template <class T>
struct BeginPseudo {
  std::int64_t rows;
  double h;
  OdeStates states;
};
DEQCORE_KERNEL(BeginPseudo);

// K_last <- F with relax, and the mean square of the error over that of K_0, both times h, times accuracy^-2. So the
// tolerance falls with the residual. trial: whether the step is taken, and else whether there is a shorter one.
//   stages + 2 reads, 1 write; 1 read more where it is not taken
template <class T>
struct MeasurePseudo {
  ActiveRows rows;
  double accuracy;
  double errors[most_stages];
  Rows<const T> answer, at;  // by position; at: z_next
  Rows<const T> z;           // by row
  Trial* trial;              // by row
  StageBlocks<T> stages;
  OdeStates states;
};
DEQCORE_KERNEL(MeasurePseudo);

// Accepts or rejects the step of every running row and chooses its next one. No row ends by it.
template <class T>
struct JudgePseudo {
  ActiveRows rows;
  std::int32_t order;
  OdeStates states;
};
DEQCORE_KERNEL(JudgePseudo);

// Ends every running row with `status`; NaN at the times that were not reached.
template <class T>
struct EndOde {
  ActiveRows rows;
  Status status;
  std::int32_t count;
  Rows<T> values;
  std::int64_t stride;
  OdeStates states;
};
DEQCORE_KERNEL(EndOde);

}  // namespace deqcore

// SPDX-License-Identifier: Apache-2.0
// What happens to every row after an evaluation, whatever the method: measure, judge, keep the best point, retire.
//
// z  the point asked about,  f  the answer,  g = f - z  the residual
// "by position": one entry per row of the dense block; "by row": one entry per row of the batch; "before": by position
// in the block before, which rows.from(position) gives.
#pragma once

#include "deqcore/base/report.hpp"
#include "deqcore/base/stop.hpp"
#include "deqcore/kernels/kernel.hpp"

namespace deqcore {

// Where a row's best point so far can be found.
enum class BestAt : std::int8_t { nowhere, block, result };

// What the last evaluation did to a row.
enum class Event : std::int8_t { none, measured, new_best };

// Whether a method may give up the point asked about: only a point that is kept can run away or leave the domain of the
// map. `last`: it gives up, and nothing shorter is left to try.
enum class Trial : std::int8_t { no, yes, last };

struct Trials {
  Trial all = Trial::no;
  const Trial* by_row = nullptr;  // null: all rows alike

  constexpr Trial of(std::int64_t row) const { return by_row ? by_row[row] : all; }
};

// The status of a row after the verdict on a trial. `at_noise`: its best residual is near the rounding of the map;
// `spent`: it may not be evaluated again.
constexpr Status status_after(Trial trial, Status verdict, bool at_noise, bool spent) {
  const bool beyond = verdict == Status::diverged || verdict == Status::not_finite;
  if (trial == Trial::no || (!beyond && verdict != Status::running)) return verdict;
  if (trial == Trial::yes) return !beyond ? verdict : spent ? Status::out_of_steps : Status::running;
  if (verdict == Status::not_finite) return verdict;
  return at_noise ? Status::stalled : Status::step_underflow;
}

// By row. `report` is the caller's; the rest is scratch.
struct RowStates {
  Report report;
  double* g_norm = nullptr;  // of the last evaluation
  double* f_norm = nullptr;
  double* z_norm = nullptr;  // of the starting point
  double* best = nullptr;    // the smallest residual / threshold so far
  std::int32_t* best_step = nullptr;
  BestAt* best_at = nullptr;
  Event* event = nullptr;
  std::int8_t* frozen = nullptr;   // the last steps that changed no bit of the point: 0, 1 or 2
  std::int64_t* failed = nullptr;  // one number: rows that have ended and did not converge

  constexpr Status status(std::int64_t row) const { return report.status[row]; }
  constexpr bool running(std::int64_t row) const { return report.status[row] == Status::running; }
};

// Every row: running, nothing measured; scale[row] = given[row], or 0 where none is given; ids[row] = row; none failed.
template <class T>
struct BeginRows {
  std::int64_t rows;
  const double* given_scale;  // by row, may be null
  RowStates states;
  std::int32_t* ids;
};
DEQCORE_KERNEL(BeginRows);

// |g| and |f| of the running rows; on the first evaluation |z| too. A row whose norms repeat to the bit is compared
// with its point of the step before.   2 reads (f, z)
template <class T>
struct MeasureResidual {
  ActiveRows rows;
  Norm norm;
  bool first;
  Rows<const T> z, f;      // by position
  Rows<const T> z_before;  // before
  RowStates states;
};
DEQCORE_KERNEL(MeasureResidual);

// Status, best and report of the running rows, from their norms (row_math.hpp); progress to the mailbox.
template <class T>
struct JudgeRows {
  ActiveRows rows;
  Limits limits;
  std::int32_t max_steps;
  std::int32_t patience;  // steps without a new best after which a row at the noise level has stalled
  Trials trials;
  RowStates states;
  Progress* progress;
};
DEQCORE_KERNEL(JudgeRows);

// The best point reaches `result` when it would otherwise be lost, and when its row has ended. A row that improves at
// every step is copied once, at its end.   up to 1 read, 1 write
template <class T>
struct KeepBest {
  ActiveRows rows;
  Rows<const T> z;         // by position
  Rows<const T> z_before;  // before
  Rows<T> result;          // by row
  RowStates states;
};
DEQCORE_KERNEL(KeepBest);

// Rows that have ended keep their point: next = z.
template <class T>
struct HoldRows {
  ActiveRows rows;
  Rows<const T> z;  // before
  Rows<T> next;     // by position
  RowStates states;
};
DEQCORE_KERNEL(HoldRows);

// Ends every running row with `status`; its best point goes to `result`.
template <class T>
struct EndRows {
  ActiveRows rows;
  Status status;
  Rows<const T> z;         // by position
  Rows<const T> z_before;  // before
  Rows<T> result;          // by row
  RowStates states;
};
DEQCORE_KERNEL(EndRows);

// The rows of the next, smaller block in their old order: all running ones, and the first ended ones up to `keep`.
template <class T>
struct SelectRows {
  ActiveRows rows;
  std::int64_t keep;
  std::int64_t running;
  const Status* status;
  std::int32_t* ids;     // of the new block
  std::int32_t* source;  // position in the old block
};
DEQCORE_KERNEL(SelectRows);

}  // namespace deqcore

// SPDX-License-Identifier: Apache-2.0
// Paths H(z, lambda) = 0 from lambda = 0 to 1: which, how they are followed, and what is told of them.
#pragma once

#include <cstdint>

namespace deqcore {

enum class HomotopyKind : std::int8_t { fixed_point, newton, own };

enum class Tracker : std::int8_t {
  arclength,  // steps along the path, which may turn back in lambda
  natural,    // steps in lambda
};

// Why a row's path ended.
enum class PathEnd : std::int32_t {
  converged = 0,
  step_underflow = 1,  // no step is short enough: a turning point for the natural tracker, a singular or rough H
  blow_up = 2,         // the path runs to infinity
  out_of_budget = 3,   // evaluations and products, or linear solves
  not_finite = 4,      // the map has no value at the start, or next to the path
  not_verified = 5,    // at lambda = 1, where the residual of the map stays above the threshold
  stopped = 6,         // by the caller
  following = 127,
};

// An entry per evaluation of H, of every row, if there is room. The arrays belong to the caller.
struct PathRecord {
  std::int64_t capacity = 0;      // entries per row; 0: nothing is recorded
  std::int32_t* count = nullptr;  // by row: entries, those that found no room too
  double* numbers = nullptr;      // [entry][row][4]   lambda, h, |H|, and s where a tangent was taken, NaN elsewhere
  std::int32_t* kinds = nullptr;  // [entry][row]      stage + 4 verdict + 16 corrections
  double* points = nullptr;       // [entry][row][picked]
  std::int64_t picked = 0;        // components of z
  const std::int32_t* components = nullptr;  // which; null: the first ones
  std::int64_t rows = 0;

  constexpr std::int64_t at(std::int32_t entry, std::int64_t row) const { return entry * rows + row; }
};

// By row, of the caller: beside the report, how the path went.
struct PathReport {
  PathEnd* end = nullptr;
  std::int32_t* folds = nullptr;     // changes of the sign of s
  std::int32_t* solves = nullptr;    // bordered linear systems
  std::int32_t* accepted = nullptr;  // points of the path after the first
  double* lambda = nullptr;          // of the last of them; 1 where the row has converged
  PathRecord record;
};

}  // namespace deqcore

// SPDX-License-Identifier: Apache-2.0
// The path H(z, lambda) = 0 from a known point at lambda = 0 to a fixed point at lambda = 1, one row at a time, as a
// dialogue like FixedPoint:
//
//     FollowPath<CpuQueue, double> solver(queue, rows, width, Homotopy{}, {.rtol = 1e-10}, {}, arena);
//     auto question = solver.start(z0, result, report, path);
//     while (question) {
//       ...               // Ask::value: f(at);  Ask::jvp: J(at) along;  each for the rows question.rows
//       question = solver.advance(answer);
//     }
//
// Of an own homotopy, questions carry `time`, the lambda of each row: Ask::value is about H(at, time), Ask::jvp about
// (dH/dz) along, Ask::rate about dH/dlambda. The last question of such a solve has no `time`: it is about f itself, and
// decides which rows have converged. It is a step too, and not asked where max_steps is 1.
//
// All rows are at the same kind of question, and those that need none are not asked about; so a row's result does not
// depend on the others. A row's steps are its evaluations and its products. The report's `residual` is |f(z) - z| of
// `result`; of an own homotopy without f it is |H(z, 1)|.
#pragma once

#include <cstdint>
#include <memory>

#include "deqcore/base/arena.hpp"
#include "deqcore/base/path.hpp"
#include "deqcore/base/question.hpp"
#include "deqcore/base/report.hpp"
#include "deqcore/base/stop.hpp"

namespace deqcore {

// Continuation, as options. Defaults live here and nowhere else.
struct Homotopy {
  HomotopyKind kind = HomotopyKind::fixed_point;
  Tracker tracker = Tracker::arclength;
  double first_step = 0;           // h; 0: 0.1 along the path, 0.05 in lambda
  double most_step = 2.0;          // along the path; longer where |z| is above the scale, in proportion
  double least_step = 1e-7;        // below it a row gives up
  double tolerance = 0;            // of H on the way, relative to |z|; 0: 1e-9 in double, 2e-5 in float
  std::int64_t corrections = 6;    // Newton steps back to the path, 1 to 100
  double angle = 0.9;              // least cosine between two tangents, in (0, 1)
  double blow_up = 1e4;            // |z| above this many times the scale is a path to infinity
  std::int64_t max_solves = 2000;  // linear systems per row
  std::int64_t dense_width = 64;   // rows up to this width by LU, 0 to 4096; wider ones by GMRES
  std::int64_t restart = 80;       // of GMRES, 1 to 500
};

struct HomotopyForm {
  bool differences = false;       // products are differences of values: no Ask::jvp
  bool rate_differences = false;  // and so is dH/dlambda: no Ask::rate
  bool verify = true;             // an own homotopy comes with a map to measure the end points by
  bool gather_points = true;      // whether jvp questions carry `at`; a map that keeps its derivative by row needs none
};

template <class Queue, class T>
class FollowPath {
 public:
  // Takes its scratch from the arena, scratch_bytes of it.
  FollowPath(Queue& queue, std::int64_t rows, std::int64_t width, const Homotopy& method, const Stop& stop,
             const HomotopyForm& form, Arena& scratch)
      : FollowPath(&queue, rows, width, method, stop, form, scratch) {}
  ~FollowPath();
  FollowPath(const FollowPath&) = delete;
  FollowPath& operator=(const FollowPath&) = delete;

  static std::size_t scratch_bytes(std::int64_t rows, std::int64_t width, const Homotopy& method, const Stop& stop,
                                   const HomotopyForm& form);

  // The same constructor, which with a counting arena and no queue only measures.
  FollowPath(Queue* queue, std::int64_t rows, std::int64_t width, const Homotopy& method, const Stop& stop,
             const HomotopyForm& form, Arena& scratch);

  // The first question. Neither z0 nor `scale` (one positive number per row, or null) is written; `result` must not
  // overlap z0. Forgets any earlier solve.
  Question<T> start(Rows<const T> z0, Rows<T> result, const Report& report, const PathReport& path,
                    const double* scale = nullptr);

  // Takes the answer to the last question (dense, one row per row asked) and poses the next.
  Question<T> advance(Rows<const T> answer);

  // Ends the rows still running; each has its best point so far.
  void cancel();
  void map_failed();

  const Counts& counts() const;
  const Progress& progress() const;  // at the last look

  // Where what the open question is about stands: points, or the directions of products.
  Rows<T> block(int) const;
  Rows<T> points() const;
  const double* times() const;

 private:
  void end(Status status);

  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace deqcore

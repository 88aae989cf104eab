// SPDX-License-Identifier: Apache-2.0
// Newton's method on r(z) = f(z) - z, or on a root F(z) = 0, one row at a time, as a dialogue like FixedPoint:
//
//     NewtonSolve<CpuQueue, float> solver(queue, rows, width, NewtonKrylov{}, {.rtol = 1e-6}, {}, arena);
//     auto question = solver.start(z0, result, report);
//     while (question) {
//       ...                          // Ask::value: f(at);  Ask::jvp: J(at) along;  each for the rows question.rows
//       question = solver.advance(answer);
//     }
//
// All rows are at the same kind of question, and those that need none are not asked about; so a row's result does not
// depend on the others. The host looks after each trial and each linear solve, and every look_every products. A row's
// steps are its evaluations and its products. The report's `residual` is that of
// `result`, measured by an evaluation there.
#pragma once

#include <cstdint>
#include <memory>

#include "deqcore/base/arena.hpp"
#include "deqcore/base/question.hpp"
#include "deqcore/base/report.hpp"
#include "deqcore/base/stop.hpp"
#include "deqcore/newton/methods.hpp"

namespace deqcore {

struct NewtonForm {
  bool root = false;          // answers are F(z) and products with F', held against the scale |F(z0)|
  bool differences = false;   // products are differences of values: no Ask::jvp
  bool gather_points = true;  // whether jvp questions carry `at`; a map that keeps its derivative by row needs none
};

template <class Queue, class T>
class NewtonSolve {
 public:
  // Takes its scratch from the arena, scratch_bytes of it. With `root`, stop.relative is set to Relative::to_scale.
  NewtonSolve(Queue& queue, std::int64_t rows, std::int64_t width, const NewtonMethod& method, const Stop& stop,
              const NewtonForm& form, Arena& scratch)
      : NewtonSolve(&queue, rows, width, method, stop, form, scratch) {}
  ~NewtonSolve();
  NewtonSolve(const NewtonSolve&) = delete;
  NewtonSolve& operator=(const NewtonSolve&) = delete;

  static std::size_t scratch_bytes(std::int64_t rows, std::int64_t width, const NewtonMethod& method, const Stop& stop,
                                   const NewtonForm& form);

  // The same constructor, which with a counting arena and no queue only measures.
  NewtonSolve(Queue* queue, std::int64_t rows, std::int64_t width, const NewtonMethod& method, const Stop& stop,
              const NewtonForm& form, Arena& scratch);

  // The first question. Neither z0 nor `scale` (one positive number per row, or null) is written; `result` must not
  // overlap z0. Forgets any earlier solve.
  Question<T> start(Rows<const T> z0, Rows<T> result, const Report& report, const double* scale = nullptr);

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

 private:
  void end(Status status);

  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace deqcore

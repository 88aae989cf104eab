// SPDX-License-Identifier: Apache-2.0
// A x = b from products with A, one system per row, as a dialogue like FixedPoint:
//
//     LinearSolve<CpuQueue, float> solver(queue, rows, width, GMRES{}, {.rtol = 1e-5}, {}, arena);
//     auto question = solver.start(b, {}, result, report);
//     while (question) {
//       ...                                   // answer row i = A question.along row i, for row question.rows[i]
//       question = solver.advance(answer);
//     }
//
// A row has converged when |b - A x| <= atol + rtol |b|, measured by a product of its own with the x that is returned.
#pragma once

#include <cstdint>
#include <memory>

#include "deqcore/base/arena.hpp"
#include "deqcore/base/question.hpp"
#include "deqcore/base/report.hpp"
#include "deqcore/base/rows.hpp"
#include "deqcore/base/stop.hpp"
#include "deqcore/linear/methods.hpp"

namespace deqcore {

struct LinearForm {
  bool identity_minus = false;  // questions are about M, where A = I - M
  bool preconditioned = false;  // each direction is first asked about with Ask::precondition
  bool trusting = false;        // no product measures a solution: its user will measure what it is for
};

// A solve for some rows of a batch, inside another solve.
struct LinearPart {
  ActiveRows rows;                      // those in the questions
  const Status* taking_part = nullptr;  // by row: those that are running
  const double* rtol = nullptr;         // by row: relative tolerances
};

template <class Queue, class T>
class LinearSolve {
 public:
  // Takes its scratch from the arena, scratch_bytes of it.
  LinearSolve(Queue& queue, std::int64_t rows, std::int64_t width, const LinearMethod& method, const Stop& stop,
              const LinearForm& form, Arena& scratch)
      : LinearSolve(&queue, rows, width, method, stop, form, scratch) {}
  ~LinearSolve();
  LinearSolve(const LinearSolve&) = delete;
  LinearSolve& operator=(const LinearSolve&) = delete;

  static std::size_t scratch_bytes(std::int64_t rows, std::int64_t width, const LinearMethod& method, const Stop& stop,
                                   const LinearForm& form);

  // The same constructor, which with a counting arena and no queue only measures.
  LinearSolve(Queue* queue, std::int64_t rows, std::int64_t width, const LinearMethod& method, const Stop& stop,
              const LinearForm& form, Arena& scratch);

  // The first question. `b` is read until the end of the solve; without x0 the solve starts from zero and knows its
  // residual. `result` must overlap neither. Forgets any earlier solve.
  Question<T> start(Rows<const T> b, Rows<const T> x0, Rows<T> result, const Report& report);

  // The same for some of the rows, from zero. The report's steps go on from what they are, up to max_steps.
  Question<T> start(Rows<const T> b, Rows<T> result, const Report& report, const LinearPart& part);

  // Takes the answer to the last question (dense, one row per row asked) and poses the next.
  Question<T> advance(Rows<const T> answer);

  // Ends the rows still running; each gets its best measured solution so far.
  void cancel();
  void map_failed();

  const Counts& counts() const;      // of products
  const Progress& progress() const;  // at the last look

  // What question.along always stands in.
  Rows<T> block(int) const;

 private:
  Question<T> begin(Rows<const T> b, Rows<const T> x0, Rows<T> result, const Report& report, const LinearPart* part);
  void end(Status status);

  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace deqcore

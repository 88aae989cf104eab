// SPDX-License-Identifier: Apache-2.0
// The loop that every fixed-point method passes through, as a dialogue:
//
//     FixedPoint<CpuQueue, float> solver(queue, rows, width, Anderson{.history = 6}, {.rtol = 1e-6}, arena);
//     auto question = solver.start(z0, result, report);
//     while (question) {
//       ...                                          // answer row i = f(question.at row i), for row question.rows[i]
//       question = solver.advance(answer);
//     }
//
// or, with a map as a callable, in one call: solve(queue, solver, map, z0, result, report, answer_memory).
#pragma once

#include <cstdint>
#include <memory>

#include "deqcore/base/arena.hpp"
#include "deqcore/base/interrupt.hpp"
#include "deqcore/base/question.hpp"
#include "deqcore/base/report.hpp"
#include "deqcore/base/stop.hpp"
#include "deqcore/device/map.hpp"
#include "deqcore/fixed_point/methods.hpp"

namespace deqcore {

// What a method remembered of its rows, in memory that outlives the solve: history_words words for each row. The solve
// goes on with the rows at[i] of `from`, below zero with nothing, and leaves its own in `to`.
struct KeptHistory {
  const std::int64_t* from = nullptr;
  const std::int32_t* at = nullptr;  // with `from`: for each row of the solve
  std::int64_t* to = nullptr;
};

template <class Queue, class T>
class FixedPoint {
 public:
  // Takes its scratch from the arena, scratch_bytes of it.
  FixedPoint(Queue& queue, std::int64_t rows, std::int64_t width, const Method& method, const Stop& stop,
             Arena& scratch)
      : FixedPoint(&queue, rows, width, method, stop, scratch) {}
  ~FixedPoint();
  FixedPoint(const FixedPoint&) = delete;
  FixedPoint& operator=(const FixedPoint&) = delete;

  static std::size_t scratch_bytes(std::int64_t rows, std::int64_t width, const Method& method, const Stop& stop);

  // The same constructor, which with a counting arena and no queue only measures.
  FixedPoint(Queue* queue, std::int64_t rows, std::int64_t width, const Method& method, const Stop& stop,
             Arena& scratch);

  // The first question. Neither z0 nor `scale` (one positive number per row, or null) is written; `result` must not
  // overlap z0. Forgets any earlier solve.
  Question<T> start(Rows<const T> z0, Rows<T> result, const Report& report, const double* scale = nullptr);

  // Takes the answer to the last question (dense, one row per row asked) and poses the next.
  Question<T> advance(Rows<const T> answer);

  // Ends the rows still running; each gets its best point so far. `cancel` takes the open question back: the map is not
  // asked. `map_failed` says that it was.
  void cancel();
  void map_failed();

  const Counts& counts() const;
  const Progress& progress() const;  // at the last look

  // Words of a row's history in a handle; 0: the method remembers nothing.
  std::int64_t history_words() const;
  static std::int64_t history_words(std::int64_t width, const Method& method);

  // Goes on with `from`, before the first answer, and leaves the history in `to`, after the last. Rows that have not
  // converged leave nothing.
  void load(const KeptHistory& history);
  void save(const KeptHistory& history);

  // The two blocks that question.at alternates between.
  Rows<T> block(int which) const;

 private:
  void end(Status status);

  struct State;
  std::unique_ptr<State> state_;
};

// Answers a solver's questions until there are none. `answer_memory` holds as many elements as the first question.
template <class Solver, class Queue, class T>
void converse(Queue& queue, Solver& solver, Question<T> question, MapRef<Queue, T> map, T* answer_memory,
              Interrupt* interrupt = nullptr) {
  const std::int64_t width = question.kind == Ask::value ? question.at.width : question.along.width;
  while (question) {
    if (interrupt) {
      interrupt->poll();
      if (interrupt->requested()) return solver.cancel();
    }
    const Rows<T> answer = dense_rows(answer_memory, question.count, width);
    if (map(queue, question, answer) != 0) return solver.map_failed();
    question = solver.advance(answer);
  }
}

template <class Queue, class T>
void solve(Queue& queue, FixedPoint<Queue, T>& solver, MapRef<Queue, T> map, Rows<const T> z0, Rows<T> result,
           const Report& report, T* answer_memory) {
  converse(queue, solver, solver.start(z0, result, report), map, answer_memory);
}

}  // namespace deqcore

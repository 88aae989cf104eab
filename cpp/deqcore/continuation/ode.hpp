// SPDX-License-Identifier: Apache-2.0
// dz/dt = F(t, z) from z0 at times[0] to the last time, one row at a time or the batch as one system, as a dialogue
// like FixedPoint:
//
//     OdeSolve<CpuQueue, float> solver(queue, rows, width, {.method = OdeMethod::dormand_prince}, arena);
//     auto question = solver.start(z0, times, count, values, report);
//     while (question) {
//       ...              // answer row i = F(question.time[i], question.at row i), for row question.rows[i]
//       question = solver.advance(answer);
//     }
//
// A row ends as finished when it has reached the last time, and leaves; else the report says how far it got, and values
// that were not reached are NaN.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "deqcore/base/arena.hpp"
#include "deqcore/base/ode_report.hpp"
#include "deqcore/base/question.hpp"
#include "deqcore/base/report.hpp"
#include "deqcore/base/stop.hpp"

namespace deqcore {

enum class OdeMethod : std::int8_t { euler, midpoint, rk4, bogacki_shampine, dormand_prince };

// The tableau of a method: a_(stage, j) for j < stage, and for `stage` equal to stages(method) the weights b_j of the
// step. c_stage is the sum of a row.
int stages(OdeMethod method);
std::vector<double> stage_weights(OdeMethod method, int stage);

// Whose error decides about a step.
enum class Control : std::int8_t { rows, batch };

struct OdeOptions {
  OdeMethod method = OdeMethod::dormand_prince;
  std::int64_t steps = 0;          // equal ones between two requested times, >= 1; 0: by the error, for pairs only
  double rtol = 1e-3;              // of the error of a step, at least 4 eps
  double atol = 1e-6;              // >= 0
  double first_step = 0;           // > 0; 0: chosen
  std::int64_t max_steps = 10000;  // tried per row, where the error chooses them
  Control control = Control::rows;
  bool relax = false;  // dz/dt = answer - z
  Retire retire = Retire::on;
  std::int64_t look_every = 1;  // steps between two looks of the host
};

// Of tiles that together are one system: the numbers of all rows, of which a tile's own begin at `first`.
struct OdeBatch {
  double* measure = nullptr;
  double* slope = nullptr;
  std::int64_t rows = 0;
  std::int64_t first = 0;
};

template <class Queue, class T>
class OdeSolve {
 public:
  // Takes its scratch from the arena, scratch_bytes of it.
  OdeSolve(Queue& queue, std::int64_t rows, std::int64_t width, const OdeOptions& options, Arena& scratch,
           const OdeBatch& batch = {})
      : OdeSolve(&queue, rows, width, options, scratch, batch) {}
  ~OdeSolve();
  OdeSolve(const OdeSolve&) = delete;
  OdeSolve& operator=(const OdeSolve&) = delete;

  static std::size_t scratch_bytes(std::int64_t rows, std::int64_t width, const OdeOptions& options);

  // The same constructor, which with a counting arena and no queue only measures.
  OdeSolve(Queue* queue, std::int64_t rows, std::int64_t width, const OdeOptions& options, Arena& scratch,
           const OdeBatch& batch = {});

  // The first question. `times`: at least two, finite and strictly monotone, where the solve runs. values: the rows at
  // the first time, and `stride` elements further on at each later one; they must not overlap z0. Forgets any earlier
  // solve.
  Question<T> start(Rows<const T> z0, const double* times, std::int64_t count, Rows<T> values, std::int64_t stride,
                    const OdeReport& report);

  // Takes the answer to the last question (dense, one row per row asked) and poses the next.
  Question<T> advance(Rows<const T> answer);

  // The same in two: absorb says whether something was measured; then, when every tile of the batch has absorbed,
  // settle judges it and poses the next question.
  bool absorb(Rows<const T> answer);
  Question<T> settle();
  const Question<T>& question() const;

  // Ends the rows still running; values that they have not reached are NaN.
  void cancel();
  void map_failed();

  const Counts& counts() const;
  const Progress& progress() const;  // at the last look

  // Where questions stand, and their times.
  Rows<T> block(int) const;
  const double* times() const;

 private:
  void end(Status status);

  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace deqcore

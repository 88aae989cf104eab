// SPDX-License-Identifier: Apache-2.0
// z  the state at t      h  step      K_s  stages      Y_s  where they are asked for      c  their places in the step
//
//     Y_s = z + h sum_(j<s) a_sj K_j,      K_s = F(t + c_s h, Y_s),      z_next = z + h sum_j b_j K_j
//
// A step by the error has one more stage, F at z_next, which is also the next step's first (FSAL); a step of a fixed
// length has none, and asks for K_0 itself.
#include "deqcore/continuation/ode.hpp"

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "deqcore/base/shapes.hpp"
#include "deqcore/device/queues.hpp"
#include "deqcore/kernels/retiring.hpp"
#include "deqcore/kernels/stages.hpp"
#include "deqcore/kernels/tableau.hpp"
#include "deqcore/kernels/vector.hpp"

namespace deqcore {
namespace {

const Tableau& tableau_of(OdeMethod method) {
  switch (method) {
    case OdeMethod::euler: return euler;
    case OdeMethod::midpoint: return midpoint;
    case OdeMethod::rk4: return rk4;
    case OdeMethod::bogacki_shampine: return bogacki_shampine;
    case OdeMethod::dormand_prince: break;
  }
  return dormand_prince;
}

template <class T>
void check(const OdeOptions& o) {
  constexpr double least = 4 * static_cast<double>(std::numeric_limits<T>::epsilon());
  constexpr std::int64_t most = std::numeric_limits<std::int32_t>::max();
  require(o.steps >= 0 && o.steps <= most, "steps: ", o.steps, " given; expected 1 to ", most, ", or none");
  require(o.steps > 0 || tableau_of(o.method).embedded,
          "steps: none given; expected the number of steps between two times: this method does not estimate its error");
  require(std::isfinite(o.rtol) && o.rtol >= least, "rtol: ", o.rtol, " given; expected a finite number of at least ",
          least, " (4 eps of the dtype)");
  require(std::isfinite(o.atol) && o.atol >= 0, "atol: ", o.atol, " given; expected a finite number >= 0");
  require(std::isfinite(o.first_step) && o.first_step >= 0, "first_step: ", o.first_step,
          " given; expected a finite number > 0, or none");
  require(o.max_steps >= 1 && o.max_steps <= most, "max_steps: ", o.max_steps, " given; expected 1 to ", most);
  require(o.look_every >= 1, "look_every: ", o.look_every, " given; expected at least 1");
}

}  // namespace

int stages(OdeMethod method) {
  return tableau_of(method).stages;
}

std::vector<double> stage_weights(OdeMethod method, int stage) {
  const Tableau& tableau = tableau_of(method);
  require(stage >= 0 && stage <= tableau.stages, "stage: ", stage, " given; expected 0 to ", tableau.stages);
  const bool step = stage == tableau.stages;
  const double* const weights = step ? tableau.b : tableau.a[stage];
  return {weights, weights + (step ? tableau.stages : stage)};
}

template <class Queue, class T>
struct OdeSolve<Queue, T>::State {
  enum class Phase : std::int8_t { first, probe, stage };

  State(Queue* queue_, std::int64_t rows_, std::int64_t width_, const OdeOptions& options_, Arena& scratch,
        const OdeBatch& batch)
      : queue(queue_), rows(rows_), width(width_), options(options_), tableau(tableau_of(options_.method)) {
    require_batch(rows, width);
    check<T>(options);
    adaptive = options.steps == 0;
    z = scratch.take_rows<T>(rows, width);
    at = scratch.take_rows<T>(rows, width);
    time = scratch.take<double>(rows);
    stages.stages = adaptive ? tableau.blocks() : tableau.stages;
    stages.swaps = adaptive;
    for (int s = 0; s < stages.stages; ++s) stages.block[s] = scratch.take_rows<T>(rows, width);
    retiring = Retiring<Queue, T>(rows, scratch);
    const bool together = options.control == Control::batch;
    double* const measure = batch.rows > 0 ? batch.measure : scratch.take<double>(rows);
    double* const slope = batch.rows > 0 ? batch.slope : scratch.take<double>(rows);
    states = {.report = {},
              .h = scratch.take<double>(rows),
              .taken = scratch.take<double>(rows),
              .before = scratch.take<double>(rows),
              .measure = measure + batch.first,
              .slope = slope + batch.first,
              .from = scratch.take<std::int32_t>(rows),
              .next = scratch.take<std::int32_t>(rows),
              .after_rejection = scratch.take<std::int8_t>(rows),
              .swapped = scratch.take<std::int8_t>(rows),
              .event = scratch.take<StepEvent>(rows),
              .failed = scratch.take<std::int64_t>(1)};
    rules = {.substeps = static_cast<std::int32_t>(options.steps),
             .rtol = options.rtol,
             .atol = options.atol,
             .first_step = options.first_step,
             .order = tableau.error_order,
             .max_steps = static_cast<std::int32_t>(options.max_steps),
             .batch_measure = together ? measure : nullptr,
             .batch_slope = together ? slope : nullptr,
             .batch = batch.rows > 0 ? batch.rows : rows};
    measures_only = scratch.counting();
  }

  Question<T> ask() {
    counts.questions += 1;
    counts.rows_asked += active.count;
    open = {.kind = Ask::value, .at = asked(), .time = time, .rows = active.ids, .count = active.count};
    return open;
  }

  Question<T> done() {
    open = {};
    return open;
  }

  Rows<T> asked() const { return at.slice(0, active.count); }

  // Y_(next), where the answer, if there is one, is K of the stage before.
  void pose(int next, Rows<const T> answer) {
    const bool last = next == tableau.stages;
    PoseStage<T> kernel = {.rows = active,
                           .stage = next - 1,
                           .relax = options.relax,
                           .weights = {},
                           .c = last ? 1.0 : tableau.c[next],
                           .asked = asked(),
                           .answer = answer,
                           .z = z,
                           .at = asked(),
                           .time = time,
                           .stages = stages,
                           .states = states};
    std::copy_n(last ? tableau.b : tableau.a[next], most_stages, kernel.weights);
    run(*queue, kernel);
    stage = next;
  }

  // An Euler step as the probe.
  void pose_probe() {
    run(*queue, PoseStage<T>{.rows = active,
                             .stage = -1,
                             .relax = options.relax,
                             .weights = {1},
                             .c = 1,
                             .asked = asked(),
                             .answer = {},
                             .z = z,
                             .at = asked(),
                             .time = time,
                             .stages = stages,
                             .states = states});
    phase = Phase::probe;
  }

  // The first question of the next step.
  Question<T> begin_step() {
    phase = Phase::stage;
    pose(adaptive ? 1 : 0, {});
    return ask();
  }

  void look() {
    progress = queue->read();
    counts.looks += 1;
  }

  Queue* queue;
  std::int64_t rows, width;
  OdeOptions options;
  const Tableau& tableau;
  bool adaptive = true;
  bool measures_only;

  Rows<T> z;               // by row
  Rows<T> at;              // by position
  double* time = nullptr;  // by position
  StageBlocks<T> stages;
  Retiring<Queue, T> retiring;
  OdeStates states;
  StepRules rules;

  Rows<T> values;
  std::int64_t stride = 0;
  ActiveRows active;
  Phase phase = Phase::first;
  int stage = 0;  // of the open question
  std::int64_t steps = 0;
  Question<T> open;
  Counts counts;
  Progress progress;
};

template <class Queue, class T>
OdeSolve<Queue, T>::OdeSolve(Queue* queue, std::int64_t rows, std::int64_t width, const OdeOptions& options,
                             Arena& scratch, const OdeBatch& batch)
    : state_(std::make_unique<State>(queue, rows, width, options, scratch, batch)) {}

template <class Queue, class T>
OdeSolve<Queue, T>::~OdeSolve() = default;

template <class Queue, class T>
std::size_t OdeSolve<Queue, T>::scratch_bytes(std::int64_t rows, std::int64_t width, const OdeOptions& options) {
  Arena counting;
  OdeSolve(nullptr, rows, width, options, counting);
  return counting.used();
}

template <class Queue, class T>
Question<T> OdeSolve<Queue, T>::start(Rows<const T> z0, const double* times, std::int64_t count, Rows<T> values,
                                      std::int64_t stride, const OdeReport& report) {
  State& s = *state_;
  require(!s.measures_only, "scratch: this solver was made with a counting arena and can only measure");
  require_shape<T>("z0", z0, s.rows, s.width);
  require_shape<T>("values", values, s.rows, s.width);
  require(!overlap<T>(values, z0), "values: overlap z0");
  require(count >= 2 && count <= std::numeric_limits<std::int32_t>::max(), "times: ", count,
          " given; expected at least 2");
  if constexpr (std::is_same_v<Queue, CpuQueue>)
    for (std::int64_t i = 1; i < count; ++i)
      require(std::isfinite(times[i - 1]) && std::isfinite(times[i]) && times[i] != times[i - 1] &&
                  (times[i] > times[i - 1]) == (times[1] > times[0]),
              "times: ", times[i - 1], " and ", times[i], " at ", i - 1, " and ", i,
              "; expected finite times that only rise or only fall");
  s.values = values;
  s.stride = stride;
  s.states.report = report;
  s.rules.times = times;
  s.rules.count = static_cast<std::int32_t>(count);
  s.active = s.retiring.all();
  s.counts = {};
  s.progress = {.running = s.rows};
  s.steps = 0;
  s.stage = 0;
  s.phase = State::Phase::first;
  run(*s.queue, BeginOde<T>{.rows = s.rows, .rules = s.rules, .states = s.states, .ids = s.retiring.first_ids()});
  for (const Rows<T>& to : {s.z, values}) run(*s.queue, CopyRows<T>{.from = z0, .to = to});
  if (!s.adaptive) return s.begin_step();
  s.pose(0, {});
  return s.ask();
}

template <class Queue, class T>
Question<T> OdeSolve<Queue, T>::advance(Rows<const T> answer) {
  return absorb(answer) ? settle() : state_->open;
}

template <class Queue, class T>
bool OdeSolve<Queue, T>::absorb(Rows<const T> answer) {
  State& s = *state_;
  require(static_cast<bool>(s.open), "advance: called without an open question");
  require_shape<T>("answer", answer, s.active.count, s.width);
  require(!overlap<T>(answer, s.asked()), "answer: overlaps the question");
  if (s.phase == State::Phase::first) {
    run(*s.queue, MeasureStart<T>{.rows = s.active,
                                  .rtol = s.options.rtol,
                                  .atol = s.options.atol,
                                  .relax = s.options.relax,
                                  .at = s.asked(),
                                  .answer = answer,
                                  .stages = s.stages,
                                  .states = s.states});
    return true;
  }
  if (s.phase == State::Phase::probe) {
    run(*s.queue, MeasureProbe<T>{.rows = s.active,
                                  .rtol = s.options.rtol,
                                  .atol = s.options.atol,
                                  .relax = s.options.relax,
                                  .at = s.asked(),
                                  .answer = answer,
                                  .z = s.z,
                                  .stages = s.stages,
                                  .states = s.states});
    return true;
  }
  const bool at_end = s.stage == s.tableau.stages;  // of a step by the error: the answer is F at z_next
  if (!at_end) {
    s.pose(s.stage + 1, answer);
    if (s.adaptive || s.stage < s.tableau.stages) {
      s.ask();
      return false;
    }
  }
  MeasureStep<T> kernel = {.rows = s.active,
                           .fixed = !s.adaptive,
                           .relax = s.options.relax,
                           .rtol = s.options.rtol,
                           .atol = s.options.atol,
                           .errors = {},
                           .answer = answer,
                           .at = s.asked(),
                           .z = s.z,
                           .stages = s.stages,
                           .states = s.states};
  std::copy_n(s.tableau.e, most_stages, kernel.errors);
  run(*s.queue, kernel);
  return true;
}

template <class Queue, class T>
Question<T> OdeSolve<Queue, T>::settle() {
  State& s = *state_;
  TakeStep<T> take = {.rows = s.active,
                      .times = s.rules.times,
                      .count = s.rules.count,
                      .powers = {},
                      .at = s.asked(),
                      .z = s.z,
                      .values = s.values,
                      .stride = s.stride,
                      .stages = s.stages,
                      .states = s.states};
  std::copy_n(&s.tableau.P[0][0], most_stages * most_powers, &take.powers[0][0]);
  if (s.phase != State::Phase::stage) {
    const bool probed = s.phase == State::Phase::probe;
    if (!probed || s.options.first_step == 0)
      run(*s.queue, JudgeStart<T>{.rows = s.active,
                                  .probed = probed,
                                  .rules = s.rules,
                                  .states = s.states,
                                  .progress = s.queue->mailbox()});
    if (probed) return s.begin_step();
    s.look();
    if (s.progress.failed > 0) run(*s.queue, take);
    if (s.progress.running == 0) return s.done();
    if (s.options.first_step > 0) return s.begin_step();
    s.pose_probe();
    return s.ask();
  }
  s.steps += 1;
  run(*s.queue,
      JudgeStep<T>{
          .rows = s.active, .rules = s.rules, .states = s.states, .stages = s.stages, .progress = s.queue->mailbox()});
  run(*s.queue, take);
  if (s.steps % s.options.look_every == 0) {
    s.look();
    if (s.progress.running == 0) return s.done();
    s.active = s.retiring.next(*s.queue, s.active, s.progress.running, s.options.retire, s.states.report.status);
    s.active.source = nullptr;
  }
  return s.begin_step();
}

template <class Queue, class T>
const Question<T>& OdeSolve<Queue, T>::question() const {
  return state_->open;
}

template <class Queue, class T>
void OdeSolve<Queue, T>::cancel() {
  State& s = *state_;
  if (!s.open) return;
  s.counts.questions -= 1;
  s.counts.rows_asked -= s.active.count;
  end(Status::cancelled);
}

template <class Queue, class T>
void OdeSolve<Queue, T>::map_failed() {
  end(Status::map_failed);
}

template <class Queue, class T>
void OdeSolve<Queue, T>::end(Status status) {
  State& s = *state_;
  if (!s.open) return;
  run(*s.queue, EndOde<T>{.rows = s.active,
                          .status = status,
                          .count = s.rules.count,
                          .values = s.values,
                          .stride = s.stride,
                          .states = s.states});
  s.progress = {.failed = s.progress.failed + s.progress.running};
  s.open = {};
}

template <class Queue, class T>
const Counts& OdeSolve<Queue, T>::counts() const {
  return state_->counts;
}

template <class Queue, class T>
const Progress& OdeSolve<Queue, T>::progress() const {
  return state_->progress;
}

template <class Queue, class T>
Rows<T> OdeSolve<Queue, T>::block(int) const {
  return state_->at;
}

template <class Queue, class T>
const double* OdeSolve<Queue, T>::times() const {
  return state_->time;
}

DEQCORE_INSTANTIATE(OdeSolve);

}  // namespace deqcore

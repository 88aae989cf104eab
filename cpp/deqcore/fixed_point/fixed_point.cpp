// SPDX-License-Identifier: Apache-2.0
#include "deqcore/fixed_point/fixed_point.hpp"

#include <utility>

#include "deqcore/base/overloaded.hpp"
#include "deqcore/base/shapes.hpp"
#include "deqcore/device/queues.hpp"
#include "deqcore/fixed_point/method.hpp"
#include "deqcore/kernels/retiring.hpp"
#include "deqcore/kernels/step.hpp"
#include "deqcore/kernels/vector.hpp"

namespace deqcore {
template <class Queue, class T>
struct FixedPoint<Queue, T>::State {
  State(Queue* queue_, std::int64_t rows_, std::int64_t width_, const Method& method, const Stop& stop_, Arena& scratch)
      : queue(queue_), rows(rows_), width(width_), stop(stop_), limits(resolve<T>(stop_)) {
    require_batch(rows, width);
    blocks[0] = scratch.take_rows<T>(rows, width);
    blocks[1] = scratch.take_rows<T>(rows, width);
    retiring = Retiring<Queue, T>(rows, scratch);
    states = {.report = {},
              .g_norm = scratch.take<double>(rows),
              .f_norm = scratch.take<double>(rows),
              .z_norm = scratch.take<double>(rows),
              .best = scratch.take<double>(rows),
              .best_step = scratch.take<std::int32_t>(rows),
              .best_at = scratch.take<BestAt>(rows),
              .event = scratch.take<Event>(rows),
              .frozen = scratch.take<std::int8_t>(rows),
              .failed = scratch.take<std::int64_t>(1)};
    rule = std::visit(
        Overloaded{
            [&](const Picard& options) { return PicardFactory<Queue, T>::make(options); },
            [&](const Anderson& options) { return AndersonFactory<Queue, T>::make(options, rows, width, scratch); },
            [&](const AndersonTypeI& options) {
              return AndersonTypeIFactory<Queue, T>::make(options, rows, width, scratch);
            },
            [&](const Broyden& options) { return BroydenFactory<Queue, T>::make(options, rows, width, scratch); },
            [&](const SteadyState& options) {
              return SteadyStateFactory<Queue, T>::make(options, rows, width, scratch);
            }},
        method);
    patience = static_cast<std::int32_t>(2 * rule->history() + 20);
  }

  Question<T> ask() {
    counts.questions += 1;
    counts.rows_asked += active.count;
    kind = Ask::value;
    return {.kind = kind, .at = at(), .rows = active.ids, .count = active.count};
  }

  Rows<T> at() const { return blocks[which].slice(0, active.count); }
  Rows<T> other() const { return blocks[which ^ 1]; }

  Queue* queue;
  std::int64_t rows, width;
  Stop stop;
  Limits limits;
  std::int32_t patience = 0;
  std::unique_ptr<MethodRule<Queue, T>> rule;

  Rows<T> blocks[2];  // the points asked about, and those of the step before
  Retiring<Queue, T> retiring;
  RowStates states;

  Ask kind = Ask::done;
  Rows<T> result;
  ActiveRows active;
  int which = 0;
  std::int64_t steps = 0;
  Counts counts;
  Progress progress;
};

template <class Queue, class T>
FixedPoint<Queue, T>::FixedPoint(Queue* queue, std::int64_t rows, std::int64_t width, const Method& method,
                                 const Stop& stop, Arena& scratch)
    : state_(std::make_unique<State>(queue, rows, width, method, stop, scratch)) {}

template <class Queue, class T>
FixedPoint<Queue, T>::~FixedPoint() = default;

template <class Queue, class T>
std::size_t FixedPoint<Queue, T>::scratch_bytes(std::int64_t rows, std::int64_t width, const Method& method,
                                                const Stop& stop) {
  Arena counting;
  FixedPoint(nullptr, rows, width, method, stop, counting);
  return counting.used();
}

template <class Queue, class T>
Question<T> FixedPoint<Queue, T>::start(Rows<const T> z0, Rows<T> result, const Report& report, const double* scale) {
  State& s = *state_;
  require(s.blocks[0].data != nullptr, "scratch: this solver was made with a counting arena and can only measure");
  require_shape<T>("z0", z0, s.rows, s.width);
  require_shape<T>("result", result, s.rows, s.width);
  require(!overlap<T>(result, z0), "result: overlaps z0");
  s.result = result;
  s.states.report = report;
  s.active = s.retiring.all();
  s.which = 0;
  s.steps = 0;
  s.counts = {};
  s.progress = {.running = s.rows};
  run(*s.queue, BeginRows<T>{.rows = s.rows, .given_scale = scale, .states = s.states, .ids = s.retiring.first_ids()});
  run(*s.queue, CopyRows<T>{.from = z0, .to = s.at()});
  s.rule->start(*s.queue);
  return s.ask();
}

template <class Queue, class T>
Question<T> FixedPoint<Queue, T>::advance(Rows<const T> answer) {
  State& s = *state_;
  require(s.kind != Ask::done, "advance: called without an open question");
  require_shape<T>("answer", answer, s.active.count, s.width);
  require(!overlap<T>(answer, s.at()), "answer: overlaps the question");
  s.steps += 1;
  run(*s.queue, MeasureResidual<T>{.rows = s.active,
                                   .norm = s.stop.norm,
                                   .first = s.steps == 1,
                                   .z = s.at(),
                                   .f = answer,
                                   .z_before = s.other(),
                                   .states = s.states});
  const ActiveRows in_place{.ids = s.active.ids, .count = s.active.count};
  const Trials trials = s.rule->weigh(*s.queue, {.rows = in_place, .z = s.at(), .f = answer, .states = s.states});
  run(*s.queue, JudgeRows<T>{.rows = s.active,
                             .limits = s.limits,
                             .max_steps = static_cast<std::int32_t>(s.stop.max_steps),
                             .patience = s.patience,
                             .trials = trials,
                             .states = s.states,
                             .progress = s.queue->mailbox()});
  run(*s.queue,
      KeepBest<T>{.rows = s.active, .z = s.at(), .z_before = s.other(), .result = s.result, .states = s.states});
  const Rows<const T> z = s.at();
  s.active.source = nullptr;
  if (s.steps % s.stop.look_every == 0 || s.steps >= s.stop.max_steps) {
    s.progress = s.queue->read();  // the only wait
    s.counts.looks += 1;
    if (s.progress.running == 0) {
      s.kind = Ask::done;
      return {};
    }
    s.active = s.retiring.next(*s.queue, s.active, s.progress.running, s.stop.retire, s.states.report.status);
  }
  const Rows<T> next = s.other().slice(0, s.active.count);
  s.rule->update(*s.queue, {.rows = s.active, .z = z, .f = answer, .states = s.states}, next);
  if (s.progress.running < s.active.count || s.stop.look_every > 1)
    run(*s.queue, HoldRows<T>{.rows = s.active, .z = z, .next = next, .states = s.states});
  s.which ^= 1;
  return s.ask();
}

template <class Queue, class T>
std::int64_t FixedPoint<Queue, T>::history_words() const {
  return KeptRows<T>(state_->rule->memory(), nullptr).words();
}

template <class Queue, class T>
std::int64_t FixedPoint<Queue, T>::history_words(std::int64_t width, const Method& method) {
  Arena counting;
  return FixedPoint(nullptr, 1, width, method, {}, counting).history_words();
}

template <class Queue, class T>
void FixedPoint<Queue, T>::load(const KeptHistory& history) {
  State& s = *state_;
  require(s.kind != Ask::done && s.steps == 0, "load: called without a first question");
  if (!history.from) return;
  const RowMemory<T> memory = s.rule->memory();
  require(memory.m > 0, "load: this method remembers nothing");
  run(*s.queue,
      LoadRows<T>{.rows = s.rows, .from = KeptRows<const T>(memory, history.from), .at = history.at, .memory = memory});
}

template <class Queue, class T>
void FixedPoint<Queue, T>::save(const KeptHistory& history) {
  State& s = *state_;
  require(s.kind == Ask::done, "save: called with an open question");
  if (!history.to) return;
  const RowMemory<T> memory = s.rule->memory();
  require(memory.m > 0, "save: this method remembers nothing");
  run(*s.queue,
      SaveRows<T>{
          .rows = s.rows, .status = s.states.report.status, .memory = memory, .to = KeptRows<T>(memory, history.to)});
}

template <class Queue, class T>
void FixedPoint<Queue, T>::cancel() {
  State& s = *state_;
  if (s.kind == Ask::done) return;
  s.counts.questions -= 1;
  s.counts.rows_asked -= s.active.count;
  end(Status::cancelled);
}

template <class Queue, class T>
void FixedPoint<Queue, T>::map_failed() {
  end(Status::map_failed);
}

template <class Queue, class T>
void FixedPoint<Queue, T>::end(Status status) {
  State& s = *state_;
  if (s.kind == Ask::done) return;
  run(*s.queue, EndRows<T>{.rows = s.active,
                           .status = status,
                           .z = s.at(),
                           .z_before = s.other(),
                           .result = s.result,
                           .states = s.states});
  s.progress = {.failed = s.progress.failed + s.progress.running};
  s.kind = Ask::done;
}

template <class Queue, class T>
const Counts& FixedPoint<Queue, T>::counts() const {
  return state_->counts;
}

template <class Queue, class T>
const Progress& FixedPoint<Queue, T>::progress() const {
  return state_->progress;
}

template <class Queue, class T>
Rows<T> FixedPoint<Queue, T>::block(int which) const {
  return state_->blocks[which];
}

DEQCORE_INSTANTIATE(FixedPoint);

}  // namespace deqcore

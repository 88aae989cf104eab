// SPDX-License-Identifier: Apache-2.0
#include "deqcore/linear/linear_solve.hpp"

#include "deqcore/base/overloaded.hpp"
#include "deqcore/base/shapes.hpp"
#include "deqcore/device/queues.hpp"
#include "deqcore/kernels/linear.hpp"
#include "deqcore/kernels/retiring.hpp"
#include "deqcore/linear/linear_method.hpp"

namespace deqcore {

template <class Queue, class T>
struct LinearSolve<Queue, T>::State {
  State(Queue* queue_, std::int64_t rows_, std::int64_t width_, const LinearMethod& method, const Stop& stop_,
        const LinearForm& form_, Arena& scratch)
      : queue(queue_), rows(rows_), width(width_), stop(stop_), limits(resolve<T>(stop_)), form(form_) {
    require_batch(rows, width);
    along = scratch.take_rows<T>(rows, width);
    x = scratch.take_rows<T>(rows, width);
    retiring = Retiring<Queue, T>(rows, scratch);
    states = {.report = {},
              .goal = scratch.take<double>(rows),
              .residual = scratch.take<double>(rows),
              .length = scratch.take<double>(rows),
              .before = scratch.take<double>(rows),
              .size = scratch.take<double>(rows),
              .growth = scratch.take<double>(rows),
              .best = scratch.take<double>(rows),
              .phase = scratch.take<Phase>(rows),
              .answered = scratch.take<Answered>(rows),
              .new_best = scratch.take<std::int8_t>(rows),
              .failed = scratch.take<std::int64_t>(1)};
    const LinearShape shape{.rows = rows,
                            .width = width,
                            .form = operator_form(),
                            .max_steps = static_cast<std::int32_t>(stop.max_steps),
                            .preconditioned = form.preconditioned};
    rule = std::visit(
        Overloaded{[&](const GMRES& options) { return GMRESFactory<Queue, T>::make(options, shape, scratch); },
                   [&](const BiCGSTAB& options) { return BiCGSTABFactory<Queue, T>::make(options, shape, scratch); },
                   [&](const Direct& options) { return DirectFactory<Queue, T>::make(options, shape, scratch); }},
        method);
  }

  Operator operator_form() const { return form.identity_minus ? Operator::identity_minus : Operator::matrix; }

  LinearStep<T> step(Rows<const T> answer) const {
    return {.rows = active, .along = asked(), .answer = answer, .x = x, .states = states};
  }

  Rows<T> asked() const { return along.slice(0, active.count); }

  Question<T> pose() {
    if (probing) {
      run(*queue, PoseProbe<T>{.rows = active, .along = asked()});
      return ask(Ask::product);
    }
    rule->pose(*queue, step({}), asked());
    return ask(form.preconditioned ? Ask::precondition : Ask::product);
  }

  Question<T> ask(Ask wanted) {
    kind = wanted;
    if (kind == Ask::product) {
      counts.questions += 1;
      counts.rows_asked += active.count;
    }
    return {.kind = kind, .along = asked(), .rows = active.ids, .count = active.count};
  }

  Queue* queue;
  std::int64_t rows, width;
  Stop stop;
  Limits limits;
  LinearForm form;
  std::unique_ptr<LinearRule<Queue, T>> rule;

  Rows<T> along;  // the vectors asked about
  Rows<T> x;      // the iterates, by row
  Retiring<Queue, T> retiring;
  LinearStates states;

  Ask kind = Ask::done;
  bool probing = false;  // the open question asks how long A makes a vector
  Rows<const T> b;
  Rows<T> result;
  ActiveRows active;
  std::int64_t steps = 0;
  Counts counts;
  Progress progress;
};

template <class Queue, class T>
LinearSolve<Queue, T>::LinearSolve(Queue* queue, std::int64_t rows, std::int64_t width, const LinearMethod& method,
                                   const Stop& stop, const LinearForm& form, Arena& scratch)
    : state_(std::make_unique<State>(queue, rows, width, method, stop, form, scratch)) {}

template <class Queue, class T>
LinearSolve<Queue, T>::~LinearSolve() = default;

template <class Queue, class T>
std::size_t LinearSolve<Queue, T>::scratch_bytes(std::int64_t rows, std::int64_t width, const LinearMethod& method,
                                                 const Stop& stop, const LinearForm& form) {
  Arena counting;
  LinearSolve(nullptr, rows, width, method, stop, form, counting);
  return counting.used();
}

template <class Queue, class T>
Question<T> LinearSolve<Queue, T>::start(Rows<const T> b, Rows<const T> x0, Rows<T> result, const Report& report) {
  return begin(b, x0, result, report, nullptr);
}

template <class Queue, class T>
Question<T> LinearSolve<Queue, T>::start(Rows<const T> b, Rows<T> result, const Report& report,
                                         const LinearPart& part) {
  return begin(b, {}, result, report, &part);
}

template <class Queue, class T>
Question<T> LinearSolve<Queue, T>::begin(Rows<const T> b, Rows<const T> x0, Rows<T> result, const Report& report,
                                         const LinearPart* part) {
  State& s = *state_;
  require(s.x.data != nullptr, "scratch: this solver was made with a counting arena and can only measure");
  require_shape<T>("b", b, s.rows, s.width);
  require_shape<T>("result", result, s.rows, s.width);
  require(!overlap<T>(result, b), "result: overlaps b");
  if (x0.data) {
    require_shape<T>("x0", x0, s.rows, s.width);
    require(!overlap<T>(result, x0), "result: overlaps x0");
  }
  s.b = b;
  s.result = result;
  s.states.report = report;
  s.active = part ? ActiveRows{.ids = part->rows.ids, .count = part->rows.count} : s.retiring.all();
  s.steps = 0;
  s.counts = {};
  s.progress = {.running = s.active.count};
  run(*s.queue, BeginLinear<T>{.rows = s.active,
                               .taking_part = part ? part->taking_part : nullptr,
                               .rtol = part ? part->rtol : nullptr,
                               .go_on_counting = part != nullptr,
                               .number = part ? nullptr : s.retiring.first_ids(),
                               .norm = s.stop.norm,
                               .limits = s.limits,
                               .form = s.operator_form(),
                               .b = b,
                               .x0 = x0,
                               .x = s.x,
                               .r = s.rule->residual(),
                               .result = result,
                               .states = s.states});
  s.rule->start(*s.queue);
  // A residual is known as finely as |A| |x|. From zero the method's own directions show |A|; a given x0, or a good
  // preconditioner, may lie where A is nearly singular, and would hide it.
  s.probing = s.form.preconditioned || (x0.data && !s.form.identity_minus);
  return s.pose();
}

template <class Queue, class T>
Question<T> LinearSolve<Queue, T>::advance(Rows<const T> answer) {
  State& s = *state_;
  require(s.kind != Ask::done, "advance: called without an open question");
  require_shape<T>("answer", answer, s.active.count, s.width);
  require(!overlap<T>(answer, s.asked()), "answer: overlaps the question");
  if (s.kind == Ask::precondition) {
    run(*s.queue, TakeDirection<T>{.rows = s.active, .answer = answer, .along = s.asked(), .states = s.states});
    return s.ask(Ask::product);
  }
  s.steps += 1;
  if (s.probing) {
    s.probing = false;
    run(*s.queue,
        TakeProbe<T>{
            .rows = s.active, .form = s.operator_form(), .along = s.asked(), .answer = answer, .states = s.states});
  } else {
    run(*s.queue, MeasureLinear<T>{.rows = s.active,
                                   .norm = s.stop.norm,
                                   .form = s.operator_form(),
                                   .b = s.b,
                                   .x = s.x,
                                   .answer = answer,
                                   .r = s.rule->residual(),
                                   .states = s.states});
    s.rule->absorb(*s.queue, s.step(answer));
  }
  run(*s.queue, JudgeLinear<T>{.rows = s.active,
                               .limits = s.limits,
                               .max_steps = static_cast<std::int32_t>(s.stop.max_steps),
                               .trusting = s.form.trusting,
                               .states = s.states,
                               .progress = s.queue->mailbox()});
  run(*s.queue, KeepSolution<T>{.rows = s.active, .x = s.x, .result = s.result, .states = s.states});
  if (s.steps % s.stop.look_every == 0 || s.steps >= s.stop.max_steps) {
    s.progress = s.queue->read();  // the only wait
    s.counts.looks += 1;
    if (s.progress.running == 0) {
      s.kind = Ask::done;
      return {};
    }
    s.active = s.retiring.next(*s.queue, s.active, s.progress.running, s.stop.retire, s.states.report.status);
  }
  return s.pose();
}

template <class Queue, class T>
void LinearSolve<Queue, T>::cancel() {
  State& s = *state_;
  if (s.kind == Ask::done) return;
  if (s.kind == Ask::product) {
    s.counts.questions -= 1;
    s.counts.rows_asked -= s.active.count;
  }
  end(Status::cancelled);
}

template <class Queue, class T>
void LinearSolve<Queue, T>::map_failed() {
  end(Status::map_failed);
}

template <class Queue, class T>
void LinearSolve<Queue, T>::end(Status status) {
  State& s = *state_;
  if (s.kind == Ask::done) return;
  run(*s.queue, EndLinear<T>{.rows = s.active, .status = status, .states = s.states});
  s.progress = {.failed = s.progress.failed + s.progress.running};
  s.kind = Ask::done;
}

template <class Queue, class T>
const Counts& LinearSolve<Queue, T>::counts() const {
  return state_->counts;
}

template <class Queue, class T>
const Progress& LinearSolve<Queue, T>::progress() const {
  return state_->progress;
}

template <class Queue, class T>
Rows<T> LinearSolve<Queue, T>::block(int) const {
  return state_->along;
}

DEQCORE_INSTANTIATE(LinearSolve);

}  // namespace deqcore

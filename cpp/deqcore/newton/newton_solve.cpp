// SPDX-License-Identifier: Apache-2.0
// z  accepted point      r = f(z) - z      J = df/dz      eta  forcing term      s  step
//
//     |r - (I - J) s| <= eta |r|                         by GMRES, or s = (I - J)^-1 r by LU
//     trial = z + a s, or the dogleg's point             until |r(trial)| is smaller by enough
//     eta <- 0.9 (|r(trial)| / |r|)^2                    safeguarded (Eisenstat and Walker 1996, choice 2)
//
// Nothing measures the linear residual: that of the map is measured at each trial, and says more.
#include "deqcore/newton/newton_solve.hpp"

#include <algorithm>

#include "deqcore/base/shapes.hpp"
#include "deqcore/device/queues.hpp"
#include "deqcore/kernels/newton.hpp"
#include "deqcore/kernels/retiring.hpp"
#include "deqcore/kernels/vector.hpp"
#include "deqcore/linear/linear_solve.hpp"

namespace deqcore {
namespace {

Stop against_scale(Stop stop, bool root) {
  if (root) stop.relative = Relative::to_scale;
  return stop;
}

}  // namespace

template <class Queue, class T>
struct NewtonSolve<Queue, T>::State {
  State(Queue* queue_, std::int64_t rows_, std::int64_t width_, const NewtonMethod& method, const Stop& stop_,
        const NewtonForm& form_, Arena& scratch)
      : queue(queue_),
        rows(rows_),
        width(width_),
        stop(against_scale(stop_, form_.root)),
        limits(resolve<T>(stop)),
        form(form_) {
    require_batch(rows, width);
    const auto* const dense = std::get_if<Newton>(&method);
    at = scratch.take_rows<T>(rows, width);
    z = scratch.take_rows<T>(rows, width);
    r = scratch.take_rows<T>(rows, width);
    step = scratch.take_rows<T>(rows, width);
    retiring = Retiring<Queue, T>(rows, scratch);
    trying = Retiring<Queue, T>(rows, scratch);
    states = {.report = {},
              .turn = scratch.take<Status>(rows),
              .taken = scratch.take<Taken>(rows),
              .g_norm = scratch.take<double>(rows),
              .f_norm = scratch.take<double>(rows),
              .z_norm = scratch.take<double>(rows),
              .trial = scratch.take<double>(rows),
              .trial_size = scratch.take<double>(rows),
              .length = scratch.take<double>(rows),
              .size = scratch.take<double>(rows),
              .best = scratch.take<double>(rows),
              .forcing = scratch.take<double>(rows),
              .along_step = scratch.take<double>(rows),
              .along_descent = scratch.take<double>(rows)};
    rules = {.max_steps = static_cast<std::int32_t>(stop.max_steps),
             .reserve = dense ? static_cast<std::int32_t>(std::min<std::int64_t>(width + 1, 1 << 30)) : 2,
             .form = form.root ? Operator::matrix : Operator::identity_minus,
             .dogleg = dense != nullptr,
             .descent = dense ? dense->descent : std::get<NewtonKrylov>(method).descent,
             .fixed_forcing = 0};
    if (dense) {
      require(dense->max_width >= 1 && dense->max_width <= 4096, "max_width: ", dense->max_width,
              " given; expected 1 to 4096");
      require(width <= dense->max_width, "width: ", width, " given; Newton factors rows of at most ", dense->max_width,
              " (max_width); use NewtonKrylov");
      along = scratch.take_rows<T>(rows, width);
      dogleg = {.matrix = scratch.take<double>(rows, width, width),
                .pivot = scratch.take<std::int32_t>(rows, width),
                .weights = scratch.take<double>(rows, width),
                .descent = scratch.take<double>(rows, width),
                .work = scratch.take<double>(rows, width),
                .radius = scratch.take<double>(rows),
                .newton = scratch.take<double>(rows),
                .slope = scratch.take<double>(rows),
                .curvature = scratch.take<double>(rows),
                .cross = scratch.take<double>(rows),
                .length = scratch.take<double>(rows),
                .point = scratch.take<double>(rows)};
    } else {
      const auto& krylov = std::get<NewtonKrylov>(method);
      require(krylov.forcing >= 0 && krylov.forcing < 1, "forcing: ", krylov.forcing,
              " given; expected a number in (0, 1), or none");
      rules.fixed_forcing = krylov.forcing;
      Stop inner = stop;
      inner.norm = Norm::two;
      linear =
          std::make_unique<LinearSolve<Queue, T>>(queue, rows, width, GMRES{.restart = krylov.restart}, inner,
                                                  LinearForm{.identity_minus = !form.root, .trusting = true}, scratch);
      along = linear->block(0);
      linear_report = {.status = scratch.take<Status>(rows),
                       .residual = scratch.take<double>(rows),
                       .scale = scratch.take<double>(rows),
                       .rejected = scratch.take<std::int32_t>(rows),
                       .singular = scratch.take<std::int32_t>(rows)};
    }
    if (form.differences) {
      product = scratch.take_rows<T>(rows, width);
      h = scratch.take<double>(rows);
    }
    measures_only = scratch.counting();
  }

  Question<T> ask_value(ActiveRows about) {
    asked = about;
    product_asked = false;
    return ask(Ask::value, {});
  }

  // About J v, or a difference along v, for the rows of `about`; v stands in `along`.
  Question<T> ask_product(ActiveRows about) {
    const bool moved = !product_asked || about.ids != asked.ids || about.count != asked.count;
    asked = about;
    product_asked = true;
    const Rows<T> directions = along.slice(0, asked.count), points = at.slice(0, asked.count);
    if (form.differences) {
      run(*queue,
          PoseDifference<T>{
              .rows = asked, .form = rules.form, .z = z, .along = directions, .at = points, .h = h, .states = states});
      return ask(Ask::value, {});
    }
    if (form.gather_points && moved) run(*queue, GatherRows<T>{.source = asked, .from = z, .to = points});
    return ask(Ask::jvp, directions);
  }

  Question<T> ask(Ask wanted, Rows<const T> directions) {
    kind = wanted;
    counts.questions += 1;
    counts.rows_asked += asked.count;
    counts.products += kind == Ask::jvp ? 1 : 0;
    return {.kind = kind,
            .at = at.slice(0, wanted == Ask::value || form.gather_points ? asked.count : 0),
            .along = directions,
            .rows = asked.ids,
            .count = asked.count};
  }

  Question<T> take_value(Rows<const T> answer) {
    const Rows<const T> points = at.slice(0, asked.count);
    run(*queue,
        MeasureTrial<T>{
            .rows = asked, .norm = stop.norm, .form = rules.form, .at = points, .answer = answer, .states = states});
    run(*queue, JudgeTrial<T>{.rows = active,
                              .limits = limits,
                              .rules = rules,
                              .states = states,
                              .dogleg = dogleg,
                              .batch = rows,
                              .progress = queue->mailbox()});
    run(*queue, TakeTrial<T>{.rows = asked,
                             .form = rules.form,
                             .at = points,
                             .answer = answer,
                             .z = z,
                             .r = r,
                             .result = result,
                             .states = states});
    progress = queue->read();  // which kind of question comes next
    counts.looks += 1;
    if (progress.running == 0) {
      kind = Ask::done;
      return {};
    }
    if (progress.again > 0) return pose_trial(trying.next(*queue, asked, progress.again, stop.retire, states.turn));
    active = retiring.next(*queue, active, progress.running, stop.retire, states.report.status);
    active.source = nullptr;
    return begin_step();
  }

  // The linear solve of every running row.
  Question<T> begin_step() {
    if (rules.dogleg) {
      column = 0;
      return pose_column();
    }
    Report inner = linear_report;
    inner.steps = states.report.steps;
    inner.trace = states.report.trace;
    inner.trace_pitch = states.report.trace_pitch;
    const Question<T> question =
        linear->start(r, step, inner, {.rows = active, .taking_part = states.report.status, .rtol = states.forcing});
    return ask_product({.ids = question.rows, .count = question.count});
  }

  Question<T> pose_column() {
    run(*queue, PoseUnit<T>{.column = column, .along = along.slice(0, active.count)});
    return ask_product(active);
  }

  Question<T> take_product(Rows<const T> answer) {
    if (form.differences) {
      const Rows<T> difference = product.slice(0, asked.count);
      run(*queue,
          TakeDifference<T>{
              .rows = asked, .form = rules.form, .z = z, .r = r, .answer = answer, .product = difference, .h = h});
      answer = difference;
    }
    if (rules.dogleg) {
      run(*queue, KeepJacobian<T>{.rows = asked,
                                  .column = column,
                                  .form = rules.form,
                                  .answer = answer,
                                  .states = states,
                                  .dogleg = dogleg});
      if (++column < width) return pose_column();
      run(*queue, FactorJacobian<T>{.rows = active,
                                    .z = z,
                                    .r = r,
                                    .step = step,
                                    .descent = rules.descent,
                                    .states = states,
                                    .dogleg = dogleg});
      return try_step();
    }
    const Question<T> question = linear->advance(answer);
    if (question) return ask_product({.ids = question.rows, .count = question.count});
    counts.looks += linear->counts().looks;
    run(*queue, StartTrial<T>{.rows = active, .linear = linear_report, .states = states});
    return try_step();
  }

  // Every row that still runs has a step.
  Question<T> try_step() {
    run(*queue, CountNewton<T>{.rows = active, .states = states, .batch = rows, .progress = queue->mailbox()});
    progress = queue->read();
    counts.looks += 1;
    if (progress.running > 0) return pose_trial(active);
    kind = Ask::done;
    return {};
  }

  Question<T> pose_trial(ActiveRows about) {
    about.source = nullptr;
    run(*queue, PoseTrial<T>{.rows = about,
                             .z = z,
                             .step = step,
                             .descent = dogleg.descent,
                             .at = at.slice(0, about.count),
                             .states = states});
    return ask_value(about);
  }

  Queue* queue;
  std::int64_t rows, width;
  Stop stop;
  Limits limits;
  NewtonForm form;
  NewtonRules rules;
  bool measures_only;

  Rows<T> at;           // by position: the points asked about
  Rows<T> along;        // by position: the directions of products; of the linear solve, or unit vectors
  Rows<T> product;      // by position: differences
  double* h = nullptr;  // by position: their lengths
  Rows<T> z, r, step;   // by row
  Retiring<Queue, T> retiring, trying;
  NewtonStates states;
  Dogleg dogleg;
  std::unique_ptr<LinearSolve<Queue, T>> linear;  // null: dense
  Report linear_report;

  Ask kind = Ask::done;
  bool product_asked = false;  // by differences, its kind is Ask::value too
  Rows<T> result;
  ActiveRows active;  // rows that run
  ActiveRows asked;   // rows of the open question
  std::int64_t column = 0;
  Counts counts;
  Progress progress;
};

template <class Queue, class T>
NewtonSolve<Queue, T>::NewtonSolve(Queue* queue, std::int64_t rows, std::int64_t width, const NewtonMethod& method,
                                   const Stop& stop, const NewtonForm& form, Arena& scratch)
    : state_(std::make_unique<State>(queue, rows, width, method, stop, form, scratch)) {}

template <class Queue, class T>
NewtonSolve<Queue, T>::~NewtonSolve() = default;

template <class Queue, class T>
std::size_t NewtonSolve<Queue, T>::scratch_bytes(std::int64_t rows, std::int64_t width, const NewtonMethod& method,
                                                 const Stop& stop, const NewtonForm& form) {
  Arena counting;
  NewtonSolve(nullptr, rows, width, method, stop, form, counting);
  return counting.used();
}

template <class Queue, class T>
Question<T> NewtonSolve<Queue, T>::start(Rows<const T> z0, Rows<T> result, const Report& report, const double* scale) {
  State& s = *state_;
  require(!s.measures_only, "scratch: this solver was made with a counting arena and can only measure");
  require_shape<T>("z0", z0, s.rows, s.width);
  require_shape<T>("result", result, s.rows, s.width);
  require(!overlap<T>(result, z0), "result: overlaps z0");
  s.result = result;
  s.states.report = report;
  s.active = s.retiring.all();
  s.trying.all();
  s.counts = {};
  s.progress = {.running = s.rows};
  run(*s.queue, BeginNewton<T>{.rows = s.rows,
                               .given_scale = scale,
                               .rules = s.rules,
                               .states = s.states,
                               .dogleg = s.dogleg,
                               .width = s.width,
                               .ids = s.retiring.first_ids()});
  for (const Rows<T>& to : {s.at, result}) run(*s.queue, CopyRows<T>{.from = z0, .to = to});
  return s.ask_value(s.active);
}

template <class Queue, class T>
Question<T> NewtonSolve<Queue, T>::advance(Rows<const T> answer) {
  State& s = *state_;
  require(s.kind != Ask::done, "advance: called without an open question");
  require_shape<T>("answer", answer, s.asked.count, s.width);
  for (const Rows<T>& own : {s.at.slice(0, s.asked.count), s.along.slice(0, s.asked.count)})
    require(!overlap<T>(answer, own), "answer: overlaps the question");
  return s.product_asked ? s.take_product(answer) : s.take_value(answer);
}

template <class Queue, class T>
void NewtonSolve<Queue, T>::cancel() {
  State& s = *state_;
  if (s.kind == Ask::done) return;
  s.counts.questions -= 1;
  s.counts.rows_asked -= s.asked.count;
  s.counts.products -= s.kind == Ask::jvp ? 1 : 0;
  end(Status::cancelled);
}

template <class Queue, class T>
void NewtonSolve<Queue, T>::map_failed() {
  end(Status::map_failed);
}

template <class Queue, class T>
void NewtonSolve<Queue, T>::end(Status status) {
  State& s = *state_;
  if (s.kind == Ask::done) return;
  run(*s.queue, EndNewton<T>{.rows = s.active, .status = status, .states = s.states});
  s.progress = {.failed = s.progress.failed + s.progress.running};
  s.kind = Ask::done;
}

template <class Queue, class T>
const Counts& NewtonSolve<Queue, T>::counts() const {
  return state_->counts;
}

template <class Queue, class T>
const Progress& NewtonSolve<Queue, T>::progress() const {
  return state_->progress;
}

template <class Queue, class T>
Rows<T> NewtonSolve<Queue, T>::block(int) const {
  return state_->kind == Ask::jvp ? state_->along : state_->at;
}

template <class Queue, class T>
Rows<T> NewtonSolve<Queue, T>::points() const {
  return state_->at;
}

DEQCORE_INSTANTIATE(NewtonSolve);

}  // namespace deqcore

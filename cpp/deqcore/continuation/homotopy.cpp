// SPDX-License-Identifier: Apache-2.0
// y = (z, lambda)      t  unit tangent, H' t = 0, turned so that it goes on in the last one's direction      h  step
//
//     predict   y_p = y + h t
//     correct   y <- y + d,   [H'; t'] d = (-H, 0)              Newton's method across the path
//     turn      [H'; t'] u = (0, 1),   t_new = u / |u|          since t' u = 1, |u| = 1 / cos(t, t_new)
//
// (Allgower and Georg 1990, "Numerical Continuation Methods"; Keller 1977.) A trial that is not corrected in time, or
// whose tangent turns too far, is given up for half the step. The natural tracker and both ends of a path are the same
// with (0, 1) in place of t': lambda then stays. A path that passes lambda = 1 is cut there, and Newton's method on the
// residual of the map takes over; if it fails, the row goes back to the path and comes in shorter steps.
//
// Each round has two parts that all rows share: an evaluation, and the linear systems of those that need one.
#include "deqcore/continuation/homotopy.hpp"

#include <algorithm>

#include "deqcore/base/shapes.hpp"
#include "deqcore/device/queues.hpp"
#include "deqcore/kernels/homotopy.hpp"
#include "deqcore/kernels/newton.hpp"
#include "deqcore/kernels/retiring.hpp"
#include "deqcore/kernels/vector.hpp"
#include "deqcore/linear/linear_solve.hpp"

namespace deqcore {
namespace {

template <class T>
PathRules rules_of(const Homotopy& method, const Stop& stop, std::int64_t width) {
  require(method.first_step >= 0 && method.first_step <= 1e6, "first_step: ", method.first_step,
          " given; expected a number above 0, or none");
  require(method.most_step > 0 && method.most_step <= 1e6, "most_step: ", method.most_step,
          " given; expected a number above 0");
  require(method.least_step > 0 && method.least_step < 1, "least_step: ", method.least_step,
          " given; expected a number in (0, 1)");
  require(method.tolerance >= 0 && method.tolerance < 1, "tolerance: ", method.tolerance,
          " given; expected a number in (0, 1), or none");
  require(method.corrections >= 1 && method.corrections <= 100, "corrections: ", method.corrections,
          " given; expected 1 to 100");
  require(method.angle > 0 && method.angle < 1, "angle: ", method.angle, " given; expected a number in (0, 1)");
  require(method.blow_up > 1, "blow_up: ", method.blow_up, " given; expected a number above 1, or infinity");
  require(method.max_solves >= 1 && method.max_solves < (std::int64_t{1} << 31), "max_solves: ", method.max_solves,
          " given; expected 1 to 2147483647");
  require(method.dense_width >= 0 && method.dense_width <= 4096, "dense_width: ", method.dense_width,
          " given; expected 0 to 4096");
  const bool dense = width <= method.dense_width, arclength = method.tracker == Tracker::arclength;
  const double tolerance = method.tolerance > 0 ? method.tolerance : sizeof(T) == 4 ? 2e-5 : 1e-9;
  const double first = method.first_step > 0 ? method.first_step : arclength ? 0.1 : 0.05;
  return {.kind = method.kind,
          .tracker = method.tracker,
          .max_steps = static_cast<std::int32_t>(stop.max_steps),
          .max_solves = static_cast<std::int32_t>(method.max_solves),
          .reserve = static_cast<std::int32_t>((dense ? width : 1) + 1 + (method.kind == HomotopyKind::own ? 1 : 0)),
          .corrections = static_cast<std::int32_t>(method.corrections),
          .tolerance = tolerance,
          .first_step = std::min(first, method.most_step),
          .most_step = method.most_step,
          .least_step = method.least_step,
          .angle = method.angle,
          .blow_up = method.blow_up,
          .by_products = !dense};
}

}  // namespace

template <class Queue, class T>
struct FollowPath<Queue, T>::State {
  State(Queue* queue_, std::int64_t rows_, std::int64_t width_, const Homotopy& method, const Stop& stop_,
        const HomotopyForm& form_, Arena& scratch)
      : queue(queue_), rows(rows_), width(width_), stop(stop_), limits(resolve<T>(stop)), form(form_) {
    require_batch(rows, width);
    // the last evaluation of an own homotopy is about the map: it has its place among the steps, if there is more than
    // one
    verifies = form.verify && method.kind == HomotopyKind::own && stop.max_steps > 1;
    stop.max_steps -= verifies ? 1 : 0;
    rules = rules_of<T>(method, stop, width);
    at = scratch.take_rows<T>(rows, width);
    z = scratch.take_rows<T>(rows, width);
    last = scratch.take_rows<T>(rows, width);
    tangent = scratch.take_rows<T>(rows, width);
    base = scratch.take_rows<T>(rows, width);
    r = scratch.take_rows<T>(rows, width);
    rate = scratch.take_rows<T>(rows, width);
    right = scratch.take_rows<T>(rows, width + 1);
    solution = scratch.take_rows<T>(rows, width + 1);
    along = scratch.take_rows<T>(rows, width);
    if (rules.own()) {
      time = scratch.take<double>(rows);
      order = scratch.take<std::int32_t>(rows);
    }
    retiring = Retiring<Queue, T>(rows, scratch);
    solving = Retiring<Queue, T>(rows, scratch);
    states = {.report = {},
              .path = {},
              .turn = scratch.take<Status>(rows),
              .stage = scratch.take<PathStage>(rows),
              .need = scratch.take<PathNeed>(rows),
              .move = scratch.take<PathMove>(rows),
              .sign = scratch.take<std::int8_t>(rows),
              .fresh = scratch.take<Fresh>(rows),
              .corrections = scratch.take<std::int32_t>(rows),
              .lambda = scratch.take<double>(rows),
              .last_lambda = scratch.take<double>(rows),
              .slope = scratch.take<double>(rows),
              .h = scratch.take<double>(rows),
              .fraction = scratch.take<double>(rows),
              .g_norm = scratch.take<double>(rows),
              .f_norm = scratch.take<double>(rows),
              .z_norm = scratch.take<double>(rows),
              .miss = scratch.take<double>(rows),
              .before = scratch.take<double>(rows),
              .length = scratch.take<double>(rows),
              .size = scratch.take<double>(rows),
              .extent = scratch.take<double>(rows),
              .best = scratch.take<double>(rows),
              .forcing = scratch.take<double>(rows)};
    linear_report.status = scratch.take<Status>(rows);
    if (rules.by_products) {
      Stop inner = stop;
      inner.norm = Norm::two;
      linear = std::make_unique<LinearSolve<Queue, T>>(queue, rows, width + 1, GMRES{.restart = method.restart}, inner,
                                                       LinearForm{.trusting = true}, scratch);
      product = scratch.take_rows<T>(rows, width + 1);
      linear_report.residual = scratch.take<double>(rows);
      linear_report.scale = scratch.take<double>(rows);
      linear_report.rejected = scratch.take<std::int32_t>(rows);
      linear_report.singular = scratch.take<std::int32_t>(rows);
    } else {
      bordered = {.matrix = scratch.take<double>(rows, width + 1, width + 1),
                  .pivot = scratch.take<std::int32_t>(rows, width + 1),
                  .work = scratch.take<double>(rows, width + 1)};
    }
    if (form.differences) {
      difference = scratch.take_rows<T>(rows, width);
      step = scratch.take<double>(rows);
    }
    measures_only = scratch.counting();
  }

  // What the open question is about.
  enum class About : std::int8_t { point, rate, product, map };

  Operator difference_form() const { return rules.own() ? Operator::matrix : Operator::identity_minus; }

  // PoseDifference and TakeDifference read these alone.
  NewtonStates sizes() const {
    NewtonStates sizes;
    sizes.length = states.length;
    sizes.size = states.size;
    return sizes;
  }

  Question<T> ask(About what, ActiveRows rows_asked, Ask wanted, Rows<const T> directions = {}) {
    about = what;
    asked = rows_asked;
    kind = wanted;
    counts.questions += 1;
    counts.rows_asked += asked.count;
    counts.products += kind == Ask::value ? 0 : 1;
    const bool points = kind != Ask::jvp || form.gather_points || rules.own();
    return {.kind = kind,
            .at = at.slice(0, points ? asked.count : 0),
            .along = directions,
            .time = what == About::map ? nullptr : time,
            .rows = asked.ids,
            .count = asked.count};
  }

  void gather(ActiveRows of) {
    run(*queue, PosePath<T>{.rows = of, .z = z, .at = at.slice(0, of.count), .time = time, .states = states});
  }

  Question<T> ask_point() {
    gather(active);
    return ask(About::point, active, Ask::value);
  }

  Question<T> take_point(Rows<const T> answer) {
    run(*queue, MeasurePath<T>{.rows = asked,
                               .norm = stop.norm,
                               .rules = rules,
                               .at = at.slice(0, asked.count),
                               .answer = answer,
                               .base = base,
                               .r = r,
                               .rate = rate,
                               .right = right,
                               .states = states});
    run(*queue, JudgePath<T>{.rows = asked, .limits = limits, .rules = rules, .states = states});
    run(*queue, MovePath<T>{.rows = asked,
                            .rules = rules,
                            .z = z,
                            .last = last,
                            .tangent = tangent,
                            .result = result,
                            .right = right,
                            .states = states});
    look();
    if (progress.running == 0) return finish();
    if (progress.again == 0) return go_on();
    const ActiveRows part = solving.next(*queue, asked, progress.again, stop.retire, states.turn);
    system = {.ids = part.ids, .count = part.count};
    if (!rules.own()) return begin_system();
    gather(system);
    if (form.rate_differences) {
      run(*queue, PoseRate<T>{.rows = system, .time = time, .states = states});
      return ask(About::rate, system, Ask::value);
    }
    return ask(About::rate, system, Ask::rate);
  }

  Question<T> take_rate(Rows<const T> answer) {
    run(*queue, TakeRate<T>{.rows = asked,
                            .differences = form.rate_differences,
                            .answer = answer,
                            .r = r,
                            .rate = rate,
                            .states = states});
    return begin_system();
  }

  Question<T> begin_system() {
    moved = true;
    column = 0;
    if (!rules.by_products) return pose_column();
    Report inner = linear_report;
    inner.steps = states.report.steps;
    return pose_direction(
        linear->start(right, solution, inner, {.rows = system, .taking_part = states.turn, .rtol = states.forcing}));
  }

  Question<T> pose_column() {
    run(*queue, PoseUnit<T>{.column = column, .along = along.slice(0, system.count)});
    return ask_product(system);
  }

  Question<T> pose_direction(const Question<T>& question) {
    const ActiveRows of{.ids = question.rows, .count = question.count};
    moved = moved || of.ids != asked.ids || of.count != asked.count;
    run(*queue, PoseBordered<T>{.direction = question.along, .along = along.slice(0, of.count)});
    return ask_product(of);
  }

  // About J v, or a difference along v; v stands in `along`.
  Question<T> ask_product(ActiveRows of) {
    const Rows<T> directions = along.slice(0, of.count), points = at.slice(0, of.count);
    if (moved) gather(of);
    moved = false;
    if (!form.differences) return ask(About::product, of, Ask::jvp, directions);
    run(*queue, PoseDifference<T>{.rows = of,
                                  .form = difference_form(),
                                  .z = z,
                                  .along = directions,
                                  .at = points,
                                  .h = step,
                                  .states = sizes()});
    return ask(About::product, of, Ask::value);
  }

  Question<T> take_product(Rows<const T> answer) {
    if (form.differences) {
      const Rows<T> quotient = difference.slice(0, asked.count);
      run(*queue, TakeDifference<T>{.rows = asked,
                                    .form = difference_form(),
                                    .z = z,
                                    .r = r,
                                    .answer = answer,
                                    .product = quotient,
                                    .h = step});
      answer = quotient;
    }
    if (!rules.by_products) {
      run(*queue, KeepBordered<T>{.rows = asked,
                                  .column = column,
                                  .rules = rules,
                                  .answer = answer,
                                  .tangent = tangent,
                                  .states = states,
                                  .bordered = bordered});
      if (++column < width) return pose_column();
      run(*queue, FactorBordered<T>{.rows = system,
                                    .rules = rules,
                                    .rate = rate,
                                    .right = right,
                                    .solution = solution,
                                    .solved = linear_report.status,
                                    .states = states,
                                    .bordered = bordered});
      return take_steps();
    }
    const Rows<T> whole = product.slice(0, asked.count);
    run(*queue, TakeBordered<T>{.rows = asked,
                                .rules = rules,
                                .solving = linear_report.status,
                                .direction = linear->block(0).slice(0, asked.count),
                                .answer = answer,
                                .tangent = tangent,
                                .rate = rate,
                                .product = whole,
                                .states = states});
    const Question<T> question = linear->advance(whole);
    if (question) return pose_direction(question);
    counts.looks += linear->counts().looks;
    return take_steps();
  }

  // The linear systems are solved.
  Question<T> take_steps() {
    run(*queue, StepPath<T>{.rows = system,
                            .rules = rules,
                            .linear = linear_report,
                            .solution = solution,
                            .z = z,
                            .last = last,
                            .tangent = tangent,
                            .result = result,
                            .states = states});
    look();
    return progress.running == 0 ? finish() : go_on();
  }

  void look() {
    run(*queue, CountPath<T>{.rows = active, .states = states, .batch = rows, .progress = queue->mailbox()});
    progress = queue->read();
    counts.looks += 1;
  }

  Question<T> go_on() {
    active = retiring.next(*queue, active, progress.running, stop.retire, states.report.status);
    active.source = nullptr;
    return ask_point();
  }

  Question<T> finish() {
    if (verifies) {
      active = {.ids = order, .count = rows};
      run(*queue, CopyRows<T>{.from = result, .to = at});
      return ask(About::map, active, Ask::value);
    }
    kind = Ask::done;
    return {};
  }

  Question<T> take_map(Rows<const T> answer) {
    run(*queue, VerifyPath<T>{
                    .rows = asked, .norm = stop.norm, .limits = limits, .at = at, .answer = answer, .states = states});
    look();
    kind = Ask::done;
    return {};
  }

  Queue* queue;
  std::int64_t rows, width;
  Stop stop;  // its steps without the one that verifies
  Limits limits;
  HomotopyForm form;
  PathRules rules;
  bool verifies = false;
  bool measures_only;

  Rows<T> at;                                                // by position: the points asked about
  Rows<T> along;                                             // by position: the directions of products
  double* time = nullptr;                                    // by position: lambda, of an own homotopy
  std::int32_t* order = nullptr;                             // all rows, for the last question about an own homotopy
  Rows<T> difference;                                        // by position: products by differences
  double* step = nullptr;                                    // by position: their lengths
  Rows<T> product;                                           // by position: with the bordered matrix
  Rows<T> z, last, tangent, base, r, rate, right, solution;  // by row
  Retiring<Queue, T> retiring, solving;
  PathStates states;
  Bordered bordered;
  std::unique_ptr<LinearSolve<Queue, T>> linear;  // null: dense
  Report linear_report;

  Ask kind = Ask::done;
  About about = About::point;
  bool moved = true;  // `at` does not hold the points that the next product is about
  Rows<T> result;
  ActiveRows active;  // rows that run
  ActiveRows asked;   // rows of the open question
  ActiveRows system;  // rows whose linear systems are being solved
  std::int64_t column = 0;
  Counts counts;
  Progress progress;
};

template <class Queue, class T>
FollowPath<Queue, T>::FollowPath(Queue* queue, std::int64_t rows, std::int64_t width, const Homotopy& method,
                                 const Stop& stop, const HomotopyForm& form, Arena& scratch)
    : state_(std::make_unique<State>(queue, rows, width, method, stop, form, scratch)) {}

template <class Queue, class T>
FollowPath<Queue, T>::~FollowPath() = default;

template <class Queue, class T>
std::size_t FollowPath<Queue, T>::scratch_bytes(std::int64_t rows, std::int64_t width, const Homotopy& method,
                                                const Stop& stop, const HomotopyForm& form) {
  Arena counting;
  FollowPath(nullptr, rows, width, method, stop, form, counting);
  return counting.used();
}

template <class Queue, class T>
Question<T> FollowPath<Queue, T>::start(Rows<const T> z0, Rows<T> result, const Report& report, const PathReport& path,
                                        const double* scale) {
  State& s = *state_;
  require(!s.measures_only, "scratch: this solver was made with a counting arena and can only measure");
  require_shape<T>("z0", z0, s.rows, s.width);
  require_shape<T>("result", result, s.rows, s.width);
  require(!overlap<T>(result, z0), "result: overlaps z0");
  s.result = result;
  s.states.report = report;
  s.states.path = path;
  s.states.path.record.rows = s.rows;
  s.active = s.retiring.all();
  s.solving.all();
  s.asked = {};
  s.counts = {};
  s.progress = {.running = s.rows};
  run(*s.queue, BeginPath<T>{.rows = s.rows,
                             .given_scale = scale,
                             .rules = s.rules,
                             .states = s.states,
                             .ids = s.retiring.first_ids(),
                             .order = s.order});
  for (const Rows<T>& to : {s.z, s.last, s.base, result}) run(*s.queue, CopyRows<T>{.from = z0, .to = to});
  return s.ask_point();
}

template <class Queue, class T>
Question<T> FollowPath<Queue, T>::advance(Rows<const T> answer) {
  State& s = *state_;
  require(s.kind != Ask::done, "advance: called without an open question");
  require_shape<T>("answer", answer, s.asked.count, s.width);
  for (const Rows<T>& own : {s.at.slice(0, s.asked.count), s.along.slice(0, s.asked.count)})
    require(!overlap<T>(answer, own), "answer: overlaps the question");
  switch (s.about) {
    case State::About::point: return s.take_point(answer);
    case State::About::rate: return s.take_rate(answer);
    case State::About::product: return s.take_product(answer);
    case State::About::map: return s.take_map(answer);
  }
  return {};
}

template <class Queue, class T>
void FollowPath<Queue, T>::cancel() {
  State& s = *state_;
  if (s.kind == Ask::done) return;
  s.counts.questions -= 1;
  s.counts.rows_asked -= s.asked.count;
  s.counts.products -= s.kind == Ask::value ? 0 : 1;
  end(Status::cancelled);
}

template <class Queue, class T>
void FollowPath<Queue, T>::map_failed() {
  end(Status::map_failed);
}

template <class Queue, class T>
void FollowPath<Queue, T>::end(Status status) {
  State& s = *state_;
  if (s.kind == Ask::done) return;
  run(*s.queue,
      EndPath<T>{.rows = s.active, .status = status, .unverified = s.about == State::About::map, .states = s.states});
  s.progress = {.failed = s.progress.failed + s.progress.running};
  s.kind = Ask::done;
}

template <class Queue, class T>
const Counts& FollowPath<Queue, T>::counts() const {
  return state_->counts;
}

template <class Queue, class T>
const Progress& FollowPath<Queue, T>::progress() const {
  return state_->progress;
}

template <class Queue, class T>
Rows<T> FollowPath<Queue, T>::block(int) const {
  return state_->kind == Ask::jvp ? state_->along : state_->at;
}

template <class Queue, class T>
Rows<T> FollowPath<Queue, T>::points() const {
  return state_->at;
}

template <class Queue, class T>
const double* FollowPath<Queue, T>::times() const {
  return state_->time;
}

DEQCORE_INSTANTIATE(FollowPath);

}  // namespace deqcore

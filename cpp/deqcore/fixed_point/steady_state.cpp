// SPDX-License-Identifier: Apache-2.0
// z  the last accepted point      g(y) = f(y) - y      K_s = g(Y_s)      h  step of the row in pseudo-time
//
//     Y_s = z + h sum_(j<s) a_sj K_j,      z_next = z + h sum_j b_j K_j
//     accepted: |h sum_j e_j K_j| <= accuracy |h K_0|
//
// The tolerance of a step falls with the residual, so that steps are as long as is stable, and the residual has no
// floor. All rows are at the same stage; each has its own h. Every point asked about is measured like any other
// method's, and any may be the solution; but only z0 and accepted points can run away or be without an image. Stages of
// a step too long for its row can, and the step is then shortened like any other whose error is too large.
#include <algorithm>
#include <cmath>

#include "deqcore/device/queues.hpp"
#include "deqcore/fixed_point/method.hpp"
#include "deqcore/kernels/stages.hpp"
#include "deqcore/kernels/tableau.hpp"

namespace deqcore {
namespace {

template <class Queue, class T>
class SteadyStateRule final : public MethodRule<Queue, T> {
 public:
  SteadyStateRule(const SteadyState& options, std::int64_t rows, std::int64_t width, Arena& scratch)
      : options_(options),
        tableau_(options.pair == SteadyState::Pair::dormand_prince ? dormand_prince : bogacki_shampine),
        rows_(rows),
        z_(scratch.take_rows<T>(rows, width)),
        time_(scratch.take<double>(rows)),
        trial_(scratch.take<Trial>(rows)) {
    require(options.accuracy > 0 && options.accuracy <= 0.2, "accuracy: ", options.accuracy,
            " given; expected a number in (0, 0.2]");
    require(options.first_step > 0 && std::isfinite(options.first_step), "first_step: ", options.first_step,
            " given; expected a finite number > 0");
    stages_.stages = tableau_.blocks();
    stages_.swaps = true;
    for (int s = 0; s < stages_.stages; ++s) stages_.block[s] = scratch.take_rows<T>(rows, width);
    states_ = {.report = {.evaluations = scratch.take<std::int32_t>(rows), .reached = scratch.take<double>(rows)},
               .h = scratch.take<double>(rows),
               .taken = scratch.take<double>(rows),
               .before = scratch.take<double>(rows),
               .measure = scratch.take<double>(rows),
               .from = scratch.take<std::int32_t>(rows),
               .next = scratch.take<std::int32_t>(rows),
               .after_rejection = scratch.take<std::int8_t>(rows),
               .swapped = scratch.take<std::int8_t>(rows),
               .event = scratch.take<StepEvent>(rows)};
  }

  void start(Queue& queue) override {
    stage_ = 0;
    run(queue, BeginPseudo<T>{.rows = rows_, .h = options_.first_step, .states = states_});
  }

  Trials weigh(Queue& queue, const Step<T>& step) override {
    if (stage_ < tableau_.stages) return {.all = stage_ == 0 ? Trial::no : Trial::yes};
    states_.report.status = step.states.report.status;
    MeasurePseudo<T> measure = {.rows = step.rows,
                                .accuracy = options_.accuracy,
                                .errors = {},
                                .answer = step.f,
                                .at = step.z,
                                .z = z_,
                                .trial = trial_,
                                .stages = stages_,
                                .states = states_};
    std::copy_n(tableau_.e, most_stages, measure.errors);
    run(queue, measure);
    return {.by_row = trial_};
  }

  void update(Queue& queue, const Step<T>& step, Rows<T> next) override {
    states_.report.status = step.states.report.status;
    states_.report.rejected = step.states.report.rejected;
    const bool at_end = stage_ == tableau_.stages;
    if (at_end) {
      run(queue, JudgePseudo<T>{.rows = step.rows, .order = tableau_.error_order, .states = states_});
    }
    if (at_end || stage_ == 0)  // at the start, z0
      run(queue, TakeStep<T>{.rows = step.rows,
                             .times = nullptr,
                             .count = 0,
                             .powers = {},
                             .at = step.z,
                             .z = z_,
                             .values = z_,
                             .stride = 0,
                             .stages = stages_,
                             .states = states_});
    PoseStage<T> pose = {.rows = step.rows,
                         .stage = at_end ? -1 : stage_,
                         .relax = true,
                         .weights = {},
                         .c = 0,
                         .asked = step.z,
                         .answer = at_end ? Rows<const T>{} : step.f,
                         .z = z_,
                         .at = next,
                         .time = time_,
                         .stages = stages_,
                         .states = states_};
    stage_ = at_end ? 1 : stage_ + 1;
    std::copy_n(stage_ == tableau_.stages ? tableau_.b : tableau_.a[stage_], most_stages, pose.weights);
    run(queue, pose);
  }

  std::int64_t history() const override { return 0; }

 private:
  SteadyState options_;
  const Tableau& tableau_;
  std::int64_t rows_;
  Rows<T> z_;     // by row
  double* time_;  // which nobody asks for
  Trial* trial_;  // by row: whether the last step is taken
  StageBlocks<T> stages_;
  OdeStates states_;
  int stage_ = 0;  // of the point that has been asked about
};

}  // namespace

template <class Queue, class T>
std::unique_ptr<MethodRule<Queue, T>> SteadyStateFactory<Queue, T>::make(const SteadyState& options, std::int64_t rows,
                                                                         std::int64_t width, Arena& scratch) {
  return std::make_unique<SteadyStateRule<Queue, T>>(options, rows, width, scratch);
}

DEQCORE_INSTANTIATE(SteadyStateFactory);

}  // namespace deqcore

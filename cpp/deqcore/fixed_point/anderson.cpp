// SPDX-License-Identifier: Apache-2.0
// Anderson acceleration, type II (Anderson 1965; Walker and Ni 2011), one window per row.
//
// z  point      f  image      g = f - z  residual      m  history
// dF, dG  differences of the last images and residuals, at most m columns
//
//     gamma   = argmin | g - dG gamma |^2  +  ridge sum_j |dG_j|^2 gamma_j^2
//     z_next  = f - dF gamma  -  (1 - beta) (g - dG gamma)
//
// The least-squares problem is solved through the normal equations, summed and factored in double. The ridge is
// relative to each column: an absolute one turns acceleration into harm as soon as the squared residuals fall below it,
// and one relative to the trace drops the newest, smallest columns of a long window. This one needs as many evaluations
// as an orthogonal factorisation (benchmarks/README.md). Safeguard: a residual above `growth` times the row's best, or
// a step that changed nothing, clears the row's window, so that the next step is plain.
//
// In 16 bits the columns are rounded once, when they are written, and gamma is the best for the rounded ones; what a
// step reached is measured in full precision like any other. The rounding errors e of the columns are independent of
// gamma, so the residual to expect is |g - dG gamma|^2 + e^2 sum_j |dG_j|^2 gamma_j^2: a ridge, and the least there is.
// Without it nearly dependent columns give steps of any length. A column with an element beyond the range of
// bfloat16, 3.39e38, clears the window and is counted as `singular`; elements below 4.6e-41 are zeros.
#include <algorithm>
#include <cmath>

#include "deqcore/device/queues.hpp"
#include "deqcore/fixed_point/method.hpp"
#include "deqcore/kernels/history.hpp"
#include "deqcore/kernels/row_math.hpp"

namespace deqcore {
namespace {

constexpr double rounding_of_bfloat16 = 0x1p-19;  // squared, relative, on average

template <class Queue, class T>
class AndersonRule final : public MethodRule<Queue, T> {
 public:
  AndersonRule(const Anderson& options, std::int64_t rows, std::int64_t width, Arena& scratch)
      : options_(options), rows_(rows) {
    const std::int64_t m = options.history;
    require(m >= 1 && m <= row_math::max_history, "history: ", m, " given; expected 1 to ", row_math::max_history);
    require(options.beta > 0 && options.beta < 2, "beta: ", options.beta, " given; expected a number in (0, 2)");
    require(options.ridge >= 0 && std::isfinite(options.ridge), "ridge: ", options.ridge,
            " given; expected a finite number >= 0");
    require(options.growth > 1, "growth: ", options.growth, " given; expected a number above 1, or infinity");
    const bool in_16_bits = options.storage == Storage::bfloat16;
    if (in_16_bits) options_.ridge = std::max(options_.ridge, rounding_of_bfloat16);
    const std::int64_t line = Arena::alignment / (in_16_bits ? sizeof(BFloat16) : sizeof(T));
    const std::int64_t pitch = (width + line - 1) / line * line;
    history_ = {.dF = in_16_bits ? nullptr : scratch.take<T>(rows, m, pitch),
                .dG = in_16_bits ? nullptr : scratch.take<T>(rows, m, pitch),
                .dF16 = in_16_bits ? scratch.take<BFloat16>(rows, m, pitch) : nullptr,
                .dG16 = in_16_bits ? scratch.take<BFloat16>(rows, m, pitch) : nullptr,
                .m = m,
                .width = width,
                .pitch = pitch,
                .f_last = scratch.take_rows<T>(rows, width),
                .g_last = scratch.take_rows<T>(rows, width),
                .depth = scratch.take<std::int32_t>(rows),
                .slot = scratch.take<std::int32_t>(rows),
                .gram = scratch.take<double>(rows, m, m),
                .rhs = scratch.take<double>(rows, m),
                .gamma = scratch.take<double>(rows, m)};
  }

  void start(Queue& queue) override { run(queue, ClearHistory<T>{.rows = rows_, .history = history_}); }

  void update(Queue& queue, const Step<T>& step, Rows<T> next) override {
    // 1  rows whose residual grew, or whose point did not change, forget their window
    run(queue,
        GuardHistory<T>{.rows = step.rows, .growth = options_.growth, .states = step.states, .history = history_});
    // 2  dF[slot] = f - f_last,  dG[slot] = g - g_last;  one line of dG^T dG;  dG^T g       depth + 4 reads, 4 writes
    run(queue, PushHistory<T>{.rows = step.rows, .z = step.z, .f = step.f, .states = step.states, .into = history_});
    // 3  (dG^T dG + ridge diag(dG^T dG)) gamma = dG^T g
    run(queue, SolveSmall<T>{.rows = step.rows, .ridge = options_.ridge, .states = step.states, .history = history_});
    // 4  z_next                                                                             depth + 1 reads, 1 write
    run(queue, MixHistory<T>{.rows = step.rows,
                             .beta = options_.beta,
                             .z = step.z,
                             .f = step.f,
                             .states = step.states,
                             .history = history_,
                             .next = next});
  }

  std::int64_t history() const override { return options_.history; }

  RowMemory<T> memory() const override {
    return {.columns = {history_.dF, history_.dG},
            .columns16 = {history_.dF16, history_.dG16},
            .in_16_bits = options_.storage == Storage::bfloat16,
            .m = history_.m,
            .width = history_.width,
            .pitch = history_.pitch,
            .small = history_.m * history_.m,
            .matrix = history_.gram,
            .slot = history_.slot,
            .depth = history_.depth};
  }

 private:
  Anderson options_;
  std::int64_t rows_;
  History<T> history_;
};

}  // namespace

template <class Queue, class T>
std::unique_ptr<MethodRule<Queue, T>> AndersonFactory<Queue, T>::make(const Anderson& options, std::int64_t rows,
                                                                      std::int64_t width, Arena& scratch) {
  return std::make_unique<AndersonRule<Queue, T>>(options, rows, width, scratch);
}

DEQCORE_INSTANTIATE(AndersonFactory);

}  // namespace deqcore

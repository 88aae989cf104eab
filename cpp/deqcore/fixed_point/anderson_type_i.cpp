// SPDX-License-Identifier: Apache-2.0
// Anderson acceleration, type I, safeguarded (Zhang, O'Donoghue and Boyd 2020, "Globally convergent type-I Anderson
// acceleration for non-smooth fixed-point iterations"), one approximation of the inverse Jacobian per row.
//
// z  point      r = f - z  residual      s  step      y = r_new - r      B ~ (dr/dz)^-1, at first -I
// s_hat  the part of s that is orthogonal to the steps before
//
//     B_next = B + theta (s - B y) (s_hat^T B) / (gamma |s_hat|^2)          gamma = (s_hat, B y) / |s_hat|^2
//     z_next = z - B r        while |r| <= safeguard |r_0| / (n + 1)^(1 + decay), n accelerated steps so far
//              z + beta r     otherwise: an averaged step (Krasnoselskii-Mann)
//
// Powell's regularisation: where |gamma| < powell, gamma becomes +-powell and theta = (1 -+ powell) / (1 - gamma);
// otherwise theta = 1. That is the update with theta y + (1 - theta) B^-1 s in place of y, and |det B^-1| shrinks by no
// more than `powell`. When the memory is full, or |s_hat| < independence |s|, a row begins anew. For a nonexpansive map
// the iterates converge. A step that changed nothing makes the row forget, so that its next step is plain.
//
// Reconstructed: the constants, and the first step, here with B = -I. After an averaged step the paper measures y to
// the point that was rejected, by a second evaluation; here s and y are those of the step that was taken, one
// evaluation in either case. The bounds on B, and so the proof, need no more.
#include <cmath>

#include "deqcore/device/queues.hpp"
#include "deqcore/fixed_point/method.hpp"
#include "deqcore/kernels/row_math.hpp"
#include "deqcore/kernels/type_i.hpp"

namespace deqcore {
namespace {

template <class Queue, class T>
class AndersonTypeIRule final : public MethodRule<Queue, T> {
 public:
  AndersonTypeIRule(const AndersonTypeI& options, std::int64_t rows, std::int64_t width, Arena& scratch)
      : options_(options), rows_(rows) {
    const std::int64_t m = options.history;
    require(m >= 1 && m <= row_math::max_history, "history: ", m, " given; expected 1 to ", row_math::max_history);
    require(options.beta > 0 && options.beta <= 1, "beta: ", options.beta, " given; expected a number in (0, 1]");
    require(options.powell > 0 && options.powell < 1, "powell: ", options.powell,
            " given; expected a number in (0, 1)");
    require(options.independence > 0 && options.independence < 1, "independence: ", options.independence,
            " given; expected a number in (0, 1)");
    require(options.safeguard > 0, "safeguard: ", options.safeguard, " given; expected a number above 0, or infinity");
    require(options.decay > 0 && std::isfinite(options.decay), "decay: ", options.decay,
            " given; expected a finite number above 0");
    constexpr std::int64_t line = Arena::alignment / sizeof(T);
    const std::int64_t pitch = (width + line - 1) / line * line;
    memory_ = {.pairs = {.U = scratch.take<T>(rows, m, pitch),
                         .V = scratch.take<T>(rows, m, pitch),
                         .m = m,
                         .width = width,
                         .pitch = pitch,
                         .s = scratch.take_rows<T>(rows, width),
                         .r_last = scratch.take_rows<T>(rows, width),
                         .depth = scratch.take<std::int32_t>(rows),
                         .a = scratch.take<double>(rows, m),
                         .b = scratch.take<double>(rows, m),
                         .change = scratch.take<double>(rows, m)},
               .R = scratch.take<double>(rows, m, m),
               .p = scratch.take<double>(rows, m),
               .first = scratch.take<double>(rows),
               .averaged = scratch.take<std::int8_t>(rows)};
  }

  void start(Queue& queue) override { run(queue, ClearSecant<T>{.rows = rows_, .secant = memory_.pairs}); }

  void update(Queue& queue, const Step<T>& step, Rows<T> next) override {
    // 1  which rows take an averaged step
    run(queue, GuardTypeI<T>{.rows = step.rows,
                             .safeguard = options_.safeguard,
                             .decay = options_.decay,
                             .states = step.states,
                             .into = memory_});
    // 2  one more pair, and the next step                                             4 depth + 14 reads, 9 writes
    run(queue, PushTypeI<T>{.rows = step.rows,
                            .beta = options_.beta,
                            .powell = options_.powell,
                            .independence = options_.independence,
                            .z = step.z,
                            .f = step.f,
                            .states = step.states,
                            .into = memory_,
                            .next = next});
  }

  std::int64_t history() const override { return options_.history; }

 private:
  AndersonTypeI options_;
  std::int64_t rows_;
  TypeI<T> memory_;
};

}  // namespace

template <class Queue, class T>
std::unique_ptr<MethodRule<Queue, T>> AndersonTypeIFactory<Queue, T>::make(const AndersonTypeI& options,
                                                                           std::int64_t rows, std::int64_t width,
                                                                           Arena& scratch) {
  return std::make_unique<AndersonTypeIRule<Queue, T>>(options, rows, width, scratch);
}

DEQCORE_INSTANTIATE(AndersonTypeIFactory);

}  // namespace deqcore

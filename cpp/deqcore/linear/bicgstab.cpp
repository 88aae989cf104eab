// SPDX-License-Identifier: Apache-2.0
// BiCGSTAB (van der Vorst 1992), preconditioned from the right.
//
// r = b - A x     r0  the residual at the start     p, s  directions     v = A p     t = A s
//
//     alpha = (r0, r) / (r0, v)      s = r - alpha v       omega = (t, s) / (t, t)
//     x <- x + alpha p + omega s     r <- s - omega t
//     p <- r + beta (p - omega v)    beta = (r0, r_new) / (r0, r) alpha / omega
//
// r is a recurrence and drifts from b - A x, so x is measured before a row is called converged, and the method begins
// anew from what was measured. It does so, too, when (r0, r), (r0, v) or omega vanishes; if that does not help, the row
// has broken down.
#include "deqcore/device/queues.hpp"
#include "deqcore/kernels/krylov.hpp"
#include "deqcore/linear/linear_method.hpp"

namespace deqcore {
namespace {

template <class Queue, class T>
class BiCGSTABRule final : public LinearRule<Queue, T> {
 public:
  BiCGSTABRule(const LinearShape& shape, Arena& scratch) : shape_(shape) {
    const auto vectors = [&] { return scratch.take_rows<T>(shape.rows, shape.width); };
    vectors_ = {.r = vectors(),
                .r0 = vectors(),
                .p = vectors(),
                .v = vectors(),
                .p_hat = shape.preconditioned ? vectors() : Rows<T>{},
                .rho = scratch.take<double>(shape.rows),
                .alpha = scratch.take<double>(shape.rows),
                .r0_norm = scratch.take<double>(shape.rows)};
  }

  void start(Queue&) override {}  // PoseTwoSided begins anew

  void absorb(Queue& queue, const LinearStep<T>& step) override {
    run(queue, StepTwoSided<T>{.rows = step.rows,
                               .form = shape_.form,
                               .max_steps = shape_.max_steps,
                               .along = step.along,
                               .answer = step.answer,
                               .x = step.x,
                               .states = step.states,
                               .vectors = vectors_});
  }

  void pose(Queue& queue, const LinearStep<T>& step, Rows<T> along) override {
    run(queue,
        PoseTwoSided<T>{.rows = step.rows, .x = step.x, .along = along, .states = step.states, .vectors = vectors_});
  }

  Rows<T> residual() const override { return vectors_.r; }

 private:
  LinearShape shape_;
  TwoSided<T> vectors_;
};

}  // namespace

template <class Queue, class T>
std::unique_ptr<LinearRule<Queue, T>> BiCGSTABFactory<Queue, T>::make(const BiCGSTAB&, const LinearShape& shape,
                                                                      Arena& scratch) {
  return std::make_unique<BiCGSTABRule<Queue, T>>(shape, scratch);
}

DEQCORE_INSTANTIATE(BiCGSTABFactory);

}  // namespace deqcore

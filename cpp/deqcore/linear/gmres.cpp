// SPDX-License-Identifier: Apache-2.0
// Restarted GMRES (Saad and Schultz 1986), one basis per row; preconditioned from the right and flexible (Saad 1993).
//
// r = b - A x     V  orthonormal basis of span{r, A r, A^2 r, ...}     H  upper Hessenberg, A V_j = V_(j+1) H
//
//     y = argmin | |r| e_1 - H y |        x <- x + V y
//
// H is rotated to triangular form column by column, so the residual's size is known at every step without x. After
// `restart` steps, or when that estimate has reached the goal, x is formed and its residual measured by a product of
// its own; from there the method begins anew. Orthogonalisation is classical Gram-Schmidt, done a second time when the
// first took away more than half of the square ("twice is enough", Daniel, Gragg, Kaufman and Stewart 1976).
#include <algorithm>

#include "deqcore/device/queues.hpp"
#include "deqcore/kernels/krylov.hpp"
#include "deqcore/linear/linear_method.hpp"

namespace deqcore {
namespace {

template <class Queue, class T>
class GMRESRule final : public LinearRule<Queue, T> {
 public:
  GMRESRule(const GMRES& options, const LinearShape& shape, Arena& scratch) : shape_(shape) {
    require(options.restart >= 1 && options.restart <= 500, "restart: ", options.restart, " given; expected 1 to 500");
    const std::int64_t rows = shape.rows, m = std::min(options.restart, shape.width);
    constexpr std::int64_t line = Arena::alignment / sizeof(T);
    const std::int64_t pitch = (shape.width + line - 1) / line * line;
    basis_ = {.V = scratch.take<T>(rows, m + 1, pitch),
              .Z = shape.preconditioned ? scratch.take<T>(rows, m, pitch) : nullptr,
              .m = m,
              .width = shape.width,
              .pitch = pitch,
              .column = scratch.take<std::int32_t>(rows),
              .norm = scratch.take<double>(rows),
              .R = scratch.take<double>(rows, m * (m + 1) / 2),
              .cosine = scratch.take<double>(rows, m),
              .sine = scratch.take<double>(rows, m),
              .rhs = scratch.take<double>(rows, m + 1),
              .h = scratch.take<double>(rows, m + 1),
              .c = scratch.take<double>(rows, m + 1)};
  }

  void start(Queue&) override {}  // PoseBasis begins anew

  void absorb(Queue& queue, const LinearStep<T>& step) override {
    run(queue, ExtendBasis<T>{.rows = step.rows,
                              .form = shape_.form,
                              .max_steps = shape_.max_steps,
                              .along = step.along,
                              .answer = step.answer,
                              .x = step.x,
                              .states = step.states,
                              .basis = basis_});
  }

  void pose(Queue& queue, const LinearStep<T>& step, Rows<T> along) override {
    run(queue, PoseBasis<T>{.rows = step.rows, .x = step.x, .along = along, .states = step.states, .basis = basis_});
  }

  Rows<T> residual() const override {
    return {.data = basis_.V, .rows = shape_.rows, .width = shape_.width, .pitch = (basis_.m + 1) * basis_.pitch};
  }

 private:
  LinearShape shape_;
  Arnoldi<T> basis_;
};

}  // namespace

template <class Queue, class T>
std::unique_ptr<LinearRule<Queue, T>> GMRESFactory<Queue, T>::make(const GMRES& options, const LinearShape& shape,
                                                                   Arena& scratch) {
  return std::make_unique<GMRESRule<Queue, T>>(options, shape, scratch);
}

DEQCORE_INSTANTIATE(GMRESFactory);

}  // namespace deqcore

// SPDX-License-Identifier: Apache-2.0
// A x = b by factoring A, for narrow rows.
//
//     A e_1, ..., A e_n          one product per column
//     P A = L U                  partial pivoting, in double whatever the element type
//     x = A^-1 b                 and then, while it helps, x <- x + A^-1 (b - A x)
//
// Every solution's residual is measured by a product of its own.
#include "deqcore/device/queues.hpp"
#include "deqcore/kernels/lu.hpp"
#include "deqcore/linear/linear_method.hpp"

namespace deqcore {
namespace {

template <class Queue, class T>
class DirectRule final : public LinearRule<Queue, T> {
 public:
  DirectRule(const Direct& options, const LinearShape& shape, Arena& scratch) : shape_(shape) {
    require(options.max_width >= 1 && options.max_width <= 4096, "max_width: ", options.max_width,
            " given; expected 1 to 4096");
    require(shape.width <= options.max_width, "width: ", shape.width, " given; Direct factors rows of at most ",
            options.max_width, " (max_width); use GMRES");
    require(!shape.preconditioned, "preconditioner: Direct takes none");
    factored_ = {.matrix = scratch.take<double>(shape.rows, shape.width, shape.width),
                 .pivot = scratch.take<std::int32_t>(shape.rows, shape.width),
                 .column = scratch.take<std::int32_t>(shape.rows),
                 .work = scratch.take<double>(shape.rows, shape.width),
                 .r = scratch.take_rows<T>(shape.rows, shape.width)};
  }

  void start(Queue& queue) override { run(queue, ClearColumns<T>{.rows = shape_.rows, .factored = factored_}); }

  void absorb(Queue& queue, const LinearStep<T>& step) override {
    run(queue, KeepColumn<T>{.rows = step.rows,
                             .form = shape_.form,
                             .answer = step.answer,
                             .x = step.x,
                             .states = step.states,
                             .factored = factored_});
  }

  void pose(Queue& queue, const LinearStep<T>& step, Rows<T> along) override {
    run(queue,
        PoseColumn<T>{.rows = step.rows, .x = step.x, .along = along, .states = step.states, .factored = factored_});
  }

  Rows<T> residual() const override { return factored_.r; }

 private:
  LinearShape shape_;
  Factored<T> factored_;
};

}  // namespace

template <class Queue, class T>
std::unique_ptr<LinearRule<Queue, T>> DirectFactory<Queue, T>::make(const Direct& options, const LinearShape& shape,
                                                                    Arena& scratch) {
  return std::make_unique<DirectRule<Queue, T>>(options, shape, scratch);
}

DEQCORE_INSTANTIATE(DirectFactory);

}  // namespace deqcore

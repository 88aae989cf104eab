// SPDX-License-Identifier: Apache-2.0
// Picard iteration, damped by beta (Krasnoselskii-Mann for 0 < beta < 1).
//
//     z_next = z + beta (f(z) - z)
#include "deqcore/device/queues.hpp"
#include "deqcore/fixed_point/method.hpp"
#include "deqcore/kernels/history.hpp"

namespace deqcore {
namespace {

template <class Queue, class T>
class PicardRule final : public MethodRule<Queue, T> {
 public:
  explicit PicardRule(const Picard& options) : options_(options) {
    require(options.beta > 0 && options.beta < 2, "beta: ", options.beta, " given; expected a number in (0, 2)");
  }

  void start(Queue&) override {}

  void update(Queue& queue, const Step<T>& step, Rows<T> next) override {
    run(queue,
        DampedStep<T>{
            .rows = step.rows, .beta = options_.beta, .z = step.z, .f = step.f, .states = step.states, .next = next});
  }

  std::int64_t history() const override { return 0; }

 private:
  Picard options_;
};

}  // namespace

template <class Queue, class T>
std::unique_ptr<MethodRule<Queue, T>> PicardFactory<Queue, T>::make(const Picard& options) {
  return std::make_unique<PicardRule<Queue, T>>(options);
}

DEQCORE_INSTANTIATE(PicardFactory);

}  // namespace deqcore

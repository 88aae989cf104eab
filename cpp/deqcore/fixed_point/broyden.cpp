// SPDX-License-Identifier: Apache-2.0
// Broyden's good method (Broyden 1965) with limited memory, one approximation of the inverse Jacobian per row.
//
// z  point      r = f - z  residual      s  step      y = r_new - r      B ~ (dr/dz)^-1, at first -I
//
//     s      = -B r                          z_next = z + s
//     B_next = B + (s - B y) (s^T B) / (s^T B y)
//
// kept as B = -I + sum_i u_i v_i^T with v = B^T s and u = (s - B y) / (v, y). When the memory is full a row begins
// anew, or keeps the best approximation of the sum by two pairs less. Overwriting the oldest pair, as in Anderson's
// window, would break the inverse: the pairs are not independent. Safeguard as in Anderson: a residual above `growth`
// times the row's best, or a step that changed nothing, makes the row forget, so that its next step is plain.
#include "deqcore/device/queues.hpp"
#include "deqcore/fixed_point/method.hpp"
#include "deqcore/kernels/row_math.hpp"
#include "deqcore/kernels/secant.hpp"

namespace deqcore {
namespace {

constexpr std::int64_t most_pairs = 500;

template <class Queue, class T>
class BroydenRule final : public MethodRule<Queue, T> {
 public:
  BroydenRule(const Broyden& options, std::int64_t rows, std::int64_t width, Arena& scratch)
      : options_(options), rows_(rows) {
    const std::int64_t m = options.history, least = compresses() ? 3 : 1;
    const std::int64_t most = compresses() ? row_math::max_history : most_pairs;
    require(m >= least && m <= most, "history: ", m, " given; expected ", least, " to ", most);
    require(options.growth > 1, "growth: ", options.growth, " given; expected a number above 1, or infinity");
    constexpr std::int64_t line = Arena::alignment / sizeof(T);
    const std::int64_t pitch = (width + line - 1) / line * line;
    secant_ = {.U = scratch.take<T>(rows, m, pitch),
               .V = scratch.take<T>(rows, m, pitch),
               .m = m,
               .width = width,
               .pitch = pitch,
               .s = scratch.take_rows<T>(rows, width),
               .r_last = scratch.take_rows<T>(rows, width),
               .depth = scratch.take<std::int32_t>(rows),
               .a = scratch.take<double>(rows, m),
               .b = scratch.take<double>(rows, m),
               .change = scratch.take<double>(rows, m),
               .gram = compresses() ? scratch.take<double>(rows, 4 * m * m) : nullptr};
  }

  void start(Queue& queue) override { run(queue, ClearSecant<T>{.rows = rows_, .secant = secant_}); }

  void update(Queue& queue, const Step<T>& step, Rows<T> next) override {
    // 1  rows whose residual grew, or whose memory is full, forget
    run(queue, GuardSecant<T>{.rows = step.rows,
                              .growth = options_.growth,
                              .restart = !compresses(),
                              .states = step.states,
                              .secant = secant_});
    // 2  or keep the best of what they know                                                 2 m reads, now and then
    if (compresses())
      run(queue, CompressPairs<T>{.rows = step.rows,
                                  .keep = static_cast<std::int32_t>(options_.history - 2),
                                  .states = step.states,
                                  .secant = secant_});
    // 3  one more pair, and the next step                                             4 depth + 10 reads, 6 writes
    run(queue,
        PushPair<T>{.rows = step.rows, .z = step.z, .f = step.f, .states = step.states, .into = secant_, .next = next});
  }

  std::int64_t history() const override { return options_.history; }

  RowMemory<T> memory() const override {
    return {.columns = {secant_.U, secant_.V},
            .m = secant_.m,
            .width = secant_.width,
            .pitch = secant_.pitch,
            .depth = secant_.depth};
  }

 private:
  bool compresses() const { return options_.full == Broyden::Full::compress; }

  Broyden options_;
  std::int64_t rows_;
  Secant<T> secant_;
};

}  // namespace

template <class Queue, class T>
std::unique_ptr<MethodRule<Queue, T>> BroydenFactory<Queue, T>::make(const Broyden& options, std::int64_t rows,
                                                                     std::int64_t width, Arena& scratch) {
  return std::make_unique<BroydenRule<Queue, T>>(options, rows, width, scratch);
}

DEQCORE_INSTANTIATE(BroydenFactory);

}  // namespace deqcore

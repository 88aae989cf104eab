// SPDX-License-Identifier: Apache-2.0
// A linear method sees I - J^T through its products. A fixed-point method asks for the image of u, which is the answer
// J^T u plus g.
#include "deqcore/adjoint/adjoint.hpp"

#include "deqcore/adjoint/neumann_sum.hpp"
#include "deqcore/base/overloaded.hpp"
#include "deqcore/base/shapes.hpp"
#include "deqcore/device/queues.hpp"
#include "deqcore/fixed_point/fixed_point.hpp"
#include "deqcore/kernels/vector.hpp"
#include "deqcore/linear/linear_solve.hpp"

namespace deqcore {
namespace {

template <class Method, class... Methods>
constexpr bool one_of = (std::is_same_v<Method, Methods> || ...);

}  // namespace

template <class Queue, class T>
Adjoint<Queue, T>::Adjoint(Queue* queue, std::int64_t rows, std::int64_t width, const AdjointMethod& method,
                           const Stop& stop, bool gather_points, Arena& scratch)
    : queue_(queue), rows_(rows), width_(width), norm_(stop.norm), measures_only_(scratch.counting()) {
  Stop against_g = stop;
  against_g.relative = Relative::to_scale;
  std::visit(
      [&]<class Options>(const Options& options) {
        if constexpr (one_of<Options, Neumann>)
          solver_ = std::make_unique<NeumannSum<Queue, T>>(queue, rows, width, options, stop, scratch);
        else if constexpr (one_of<Options, Picard, Anderson, AndersonTypeI, Broyden>)
          solver_ = std::make_unique<FixedPoint<Queue, T>>(queue, rows, width, options, against_g, scratch);
        else
          solver_ = std::make_unique<LinearSolve<Queue, T>>(queue, rows, width, options, against_g,
                                                            LinearForm{.identity_minus = true}, scratch);
      },
      method);
  if (gather_points) points_ = scratch.take_rows<T>(rows, width);
  if (!std::holds_alternative<std::unique_ptr<FixedPoint<Queue, T>>>(solver_)) return;
  image_ = scratch.take_rows<T>(rows, width);
  scale_ = scratch.take<double>(rows);
}

template <class Queue, class T>
Adjoint<Queue, T>::~Adjoint() = default;

template <class Queue, class T>
std::size_t Adjoint<Queue, T>::scratch_bytes(std::int64_t rows, std::int64_t width, const AdjointMethod& method,
                                             const Stop& stop, bool gather_points) {
  Arena counting;
  Adjoint(nullptr, rows, width, method, stop, gather_points, counting);
  return counting.used();
}

template <class Queue, class T>
Question<T> Adjoint<Queue, T>::start(Rows<const T> z, Rows<const T> g, Rows<const T> u0, Rows<T> result,
                                     const Report& report) {
  require(!measures_only_, "scratch: this solver was made with a counting arena and can only measure");
  require_shape<T>("g", g, rows_, width_);
  require_shape<T>("result", result, rows_, width_);
  if (points_.rows) require_shape<T>("z", z, rows_, width_);
  if (u0.data) require_shape<T>("u0", u0, rows_, width_);
  require(!overlap<T>(result, g), "result: overlaps g");
  require(!u0.data || !overlap<T>(result, u0), "result: overlaps u0");
  require(!points_.rows || !overlap<T>(result, z), "result: overlaps z");
  z_ = z;
  g_ = g;
  const Question<T> first = std::visit(
      Overloaded{
          [&](const std::unique_ptr<LinearSolve<Queue, T>>& solver) { return solver->start(g, u0, result, report); },
          [&](const std::unique_ptr<FixedPoint<Queue, T>>& solver) {
            run(*queue_, MeasureRows<T>{.norm = norm_, .x = g, .norms = scale_});
            const Question<T> question = solver->start(u0.data ? u0 : g, result, report, scale_);
            // g = 0 has no scale, and one solution: the question about such a row starts there.
            run(*queue_, ClearRows<T>{.norms = scale_, .x = solver->block(0)});
            return question;
          },
          [&](const std::unique_ptr<NeumannSum<Queue, T>>& solver) { return solver->start(g, result, report); }},
      solver_);
  if (points_.rows && first) run(*queue_, CopyRows<T>{.from = z, .to = points_});
  return pose(first);
}

template <class Queue, class T>
Question<T> Adjoint<Queue, T>::advance(Rows<const T> answer) {
  require(static_cast<bool>(open_), "advance: called without an open question");
  require_shape<T>("answer", answer, open_.count, width_);
  if (image_.rows) {
    const Rows<T> image = image_.slice(0, open_.count);
    run(*queue_, AddRows<T>{.rows = {.ids = open_.rows, .count = open_.count}, .a = answer, .b = g_, .sum = image});
    answer = image;
  }
  const Question<T> next = visit([&](auto& solver) { return solver.advance(answer); });
  if (points_.rows && next && next.rows != open_.rows)  // rows have left, and with them their points
    run(*queue_,
        GatherRows<T>{
            .source = {.ids = next.rows, .count = next.count}, .from = z_, .to = points_.slice(0, next.count)});
  return pose(next);
}

template <class Queue, class T>
Question<T> Adjoint<Queue, T>::pose(Question<T> inner) {
  open_ = inner;
  if (!inner) return inner;
  return {.kind = Ask::vjp,
          .at = points_.slice(0, points_.rows ? inner.count : 0),
          .along = inner.kind == Ask::value ? inner.at : inner.along,
          .rows = inner.rows,
          .count = inner.count};
}

template <class Queue, class T>
template <class Visit>
decltype(auto) Adjoint<Queue, T>::visit(const Visit& what) const {
  return std::visit([&](const auto& solver) -> decltype(auto) { return what(*solver); }, solver_);
}

template <class Queue, class T>
void Adjoint<Queue, T>::cancel() {
  open_ = {};
  visit([](auto& solver) { solver.cancel(); });
}

template <class Queue, class T>
void Adjoint<Queue, T>::map_failed() {
  open_ = {};
  visit([](auto& solver) { solver.map_failed(); });
}

template <class Queue, class T>
const Counts& Adjoint<Queue, T>::counts() const {
  return visit([](auto& solver) -> const Counts& { return solver.counts(); });
}

template <class Queue, class T>
const Progress& Adjoint<Queue, T>::progress() const {
  return visit([](auto& solver) -> const Progress& { return solver.progress(); });
}

template <class Queue, class T>
Rows<T> Adjoint<Queue, T>::block(int which) const {
  return visit([&](auto& solver) { return solver.block(which); });
}

DEQCORE_INSTANTIATE(Adjoint);

}  // namespace deqcore

// SPDX-License-Identifier: Apache-2.0
// u = J^T u + g as a fixed point: the inner solver asks for the image of u, which is the answer J^T u plus g.
#include "deqcore/adjoint/adjoint.hpp"

#include "deqcore/device/queues.hpp"
#include "deqcore/kernels/vector.hpp"

namespace deqcore {
namespace {

Stop against_scale(Stop stop) {
  stop.relative = Relative::to_scale;
  return stop;
}

}  // namespace

template <class Queue, class T>
Adjoint<Queue, T>::Adjoint(Queue* queue, std::int64_t rows, std::int64_t width, const Method& method, const Stop& stop,
                           bool gather_points, Arena& scratch)
    : queue_(queue),
      solver_(queue, rows, width, method, against_scale(stop), scratch),
      points_(gather_points ? scratch.take_rows<T>(rows, width) : Rows<T>{}),
      image_(scratch.take_rows<T>(rows, width)),
      scale_(scratch.take<double>(rows)),
      norm_(stop.norm) {}

template <class Queue, class T>
std::size_t Adjoint<Queue, T>::scratch_bytes(std::int64_t rows, std::int64_t width, const Method& method,
                                             const Stop& stop, bool gather_points) {
  Arena counting;
  Adjoint(nullptr, rows, width, method, stop, gather_points, counting);
  return counting.used();
}

template <class Queue, class T>
Question<T> Adjoint<Queue, T>::start(Rows<const T> z, Rows<const T> g, Rows<const T> u0, Rows<T> result,
                                     const Report& report) {
  require(image_.data != nullptr, "scratch: this solver was made with a counting arena and can only measure");
  require(g.rows == image_.rows && g.width == image_.width, "g: ", g.rows, " x ", g.width, " given; expected ",
          image_.rows, " x ", image_.width);
  require(!points_.rows || (z.rows == g.rows && z.width == g.width), "z: ", z.rows, " x ", z.width,
          " given; expected the shape of g, ", g.rows, " x ", g.width);
  require(u0.rows == g.rows && u0.width == g.width, "u0: ", u0.rows, " x ", u0.width,
          " given; expected the shape of g, ", g.rows, " x ", g.width);
  require(!overlap<T>(result, g), "result: overlaps g");
  require(!overlap<T>(result, u0), "result: overlaps u0");
  require(!points_.rows || !overlap<T>(result, z), "result: overlaps z");
  z_ = z;
  g_ = g;
  run(*queue_, MeasureRows<T>{.norm = norm_, .x = g, .norms = scale_});
  const Question<T> first = solver_.start(u0, result, report, scale_);
  if (points_.rows) run(*queue_, CopyRows<T>{.from = z, .to = points_});
  return pose(first);
}

template <class Queue, class T>
Question<T> Adjoint<Queue, T>::advance(Rows<const T> answer) {
  require(static_cast<bool>(open_), "advance: called without an open question");
  require(answer.rows == open_.count && answer.width == image_.width, "answer: ", answer.rows, " x ", answer.width,
          " given; expected ", open_.count, " x ", image_.width);
  const Rows<T> image = image_.slice(0, open_.count);
  run(*queue_, AddRows<T>{.rows = {.ids = open_.rows, .count = open_.count}, .a = answer, .b = g_, .sum = image});
  const Question<T> next = solver_.advance(image);
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
          .along = inner.at,
          .rows = inner.rows,
          .count = inner.count};
}

DEQCORE_INSTANTIATE(Adjoint);

}  // namespace deqcore

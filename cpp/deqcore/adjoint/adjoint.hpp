// SPDX-License-Identifier: Apache-2.0
// The implicit backward solve: for a fixed point z = f(z) with Jacobian J = df/dz and a gradient g,
//
//     u = J(z)^T u + g          so that  (I - J)^T u = g,
//
// by a fixed-point method, with per-row statuses. Convergence is measured against |g|. A dialogue like FixedPoint,
// whose questions have kind Ask::vjp: the answer is J(at)^T along.
#pragma once

#include "deqcore/fixed_point/fixed_point.hpp"

namespace deqcore {

template <class Queue, class T>
class Adjoint {
 public:
  // stop.relative is set to Relative::to_scale. gather_points: whether questions carry `at`, the points z of the rows
  // asked about; a map that keeps its derivative by row does not need them.
  Adjoint(Queue& queue, std::int64_t rows, std::int64_t width, const Method& method, const Stop& stop,
          bool gather_points, Arena& scratch)
      : Adjoint(&queue, rows, width, method, stop, gather_points, scratch) {}

  static std::size_t scratch_bytes(std::int64_t rows, std::int64_t width, const Method& method, const Stop& stop,
                                   bool gather_points);

  // The same constructor, which with a counting arena and no queue only measures.
  Adjoint(Queue* queue, std::int64_t rows, std::int64_t width, const Method& method, const Stop& stop,
          bool gather_points, Arena& scratch);

  // `z` (unless points are not gathered) and `g` are read until the end of the solve. `u0` is the starting point;
  // `result` must overlap none of them.
  Question<T> start(Rows<const T> z, Rows<const T> g, Rows<const T> u0, Rows<T> result, const Report& report);

  Question<T> advance(Rows<const T> answer);

  void cancel() { solver_.cancel(); }
  void map_failed() { solver_.map_failed(); }

  const Counts& counts() const { return solver_.counts(); }
  const Progress& progress() const { return solver_.progress(); }

  Rows<T> block(int which) const { return solver_.block(which); }  // question.along alternates between these two
  Rows<T> points() const { return points_; }

 private:
  Question<T> pose(Question<T> inner);

  Queue* queue_;
  FixedPoint<Queue, T> solver_;
  Rows<T> points_;  // z of the rows asked about
  Rows<T> image_;   // J^T u + g of the rows asked about
  double* scale_;   // |g| by row
  Norm norm_;
  Rows<const T> z_, g_;
  Question<T> open_;
};

}  // namespace deqcore

// SPDX-License-Identifier: Apache-2.0
// The implicit backward solve: for a fixed point z = f(z) with Jacobian J = df/dz and a gradient g,
//
//     (I - J(z))^T u = g,
//
// by a linear method, by a fixed-point method on u = J^T u + g, or by the first terms of its Neumann series; with
// per-row statuses. Convergence is measured against |g|. A dialogue like FixedPoint, whose questions have kind
// Ask::vjp: the answer is J(at)^T along. With answers J(at) along it solves (I - J) t = g, the forward mode.
#pragma once

#include <memory>
#include <variant>

#include "deqcore/adjoint/methods.hpp"
#include "deqcore/base/arena.hpp"
#include "deqcore/base/question.hpp"
#include "deqcore/base/report.hpp"
#include "deqcore/base/stop.hpp"

namespace deqcore {

template <class Queue, class T>
class FixedPoint;
template <class Queue, class T>
class LinearSolve;
template <class Queue, class T>
class NeumannSum;

template <class Queue, class T>
class Adjoint {
 public:
  // stop.relative is set to Relative::to_scale. gather_points: whether questions carry `at`, the points z of the rows
  // asked about; a map that keeps its derivative by row does not need them.
  Adjoint(Queue& queue, std::int64_t rows, std::int64_t width, const AdjointMethod& method, const Stop& stop,
          bool gather_points, Arena& scratch)
      : Adjoint(&queue, rows, width, method, stop, gather_points, scratch) {}
  ~Adjoint();
  Adjoint(const Adjoint&) = delete;
  Adjoint& operator=(const Adjoint&) = delete;

  static std::size_t scratch_bytes(std::int64_t rows, std::int64_t width, const AdjointMethod& method, const Stop& stop,
                                   bool gather_points);

  // The same constructor, which with a counting arena and no queue only measures.
  Adjoint(Queue* queue, std::int64_t rows, std::int64_t width, const AdjointMethod& method, const Stop& stop,
          bool gather_points, Arena& scratch);

  // `z` (unless points are not gathered) and `g` are read until the end of the solve. `u0` is the starting point; none:
  // a linear method starts from zero, whose residual is known to be g, a fixed-point method from g, which is its first
  // step from zero. `result` must overlap none of them.
  Question<T> start(Rows<const T> z, Rows<const T> g, Rows<const T> u0, Rows<T> result, const Report& report);

  Question<T> advance(Rows<const T> answer);

  void cancel();
  void map_failed();

  const Counts& counts() const;
  const Progress& progress() const;

  Rows<T> block(int which) const;  // question.along stands in one of these two, which may be the same
  Rows<T> points() const { return points_; }

 private:
  Question<T> pose(Question<T> inner);
  template <class Visit>
  decltype(auto) visit(const Visit& what) const;

  Queue* queue_;
  std::int64_t rows_, width_;
  std::variant<std::unique_ptr<LinearSolve<Queue, T>>, std::unique_ptr<FixedPoint<Queue, T>>,
               std::unique_ptr<NeumannSum<Queue, T>>>
      solver_;
  Rows<T> points_;           // z of the rows asked about
  Rows<T> image_;            // fixed-point methods: J^T u + g of the rows asked about
  double* scale_ = nullptr;  // fixed-point methods: |g| by row
  Norm norm_;
  bool measures_only_;
  Rows<const T> z_, g_;
  Question<T> open_;
};

}  // namespace deqcore

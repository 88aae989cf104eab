// SPDX-License-Identifier: Apache-2.0
// The dense equilibrium map and its derivatives,
//
//     f(z, c) = a(W z + c)                      d = a'(W z + c), elementwise
//     J v     = d * (W v)                       J^T u = W^T (d * u)
//     dL/dW   = sum over rows of (d * u) z^T    dL/dc = d * u            for u = dL/df
//
// c, the injection, is one row for all or one per row.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>

#include "deqcore/adjoint/adjoint.hpp"
#include "deqcore/continuation/ode.hpp"
#include "deqcore/device/cpu_queue.hpp"
#include "deqcore/fixed_point/fixed_point.hpp"
#include "deqcore/maps/activation.hpp"
#include "deqcore/maps/tiles.hpp"
#include "deqcore/newton/newton_solve.hpp"

namespace deqcore {

// How a native solve takes its products. `bfloat16`: most of them as corrections of float products, rounded to that
// type, where the CPU has the instruction (refined.hpp); fixed-point methods on float only, forward and backward.
enum class Products : std::int8_t { full, bfloat16 };

template <class T>
class PackedMatrix;

template <class T>
class Dense {
 public:
  // W, square, is copied.
  Dense(Rows<const T> W, Activation activation, Products products = Products::full);
  ~Dense();

  std::int64_t width() const { return width_; }
  Activation activation() const { return activation_; }
  Products products() const { return products_; }

  // A map with the weights of now, whatever update() does later.
  Dense snapshot() const;

  // A copy of W, width x width, dense.
  void copy_weights(T* to) const;

  // New weights of the same width. A product or solve that is running goes on with the old ones.
  void update(Rows<const T> W);

  // Row i of each block belongs to row i of the injection, or to its only row. Outputs must not overlap inputs.
  void value(const CpuQueue& queue, Rows<const T> z, Rows<const T> injection, Rows<T> f) const;
  void jvp(const CpuQueue& queue, Rows<const T> z, Rows<const T> injection, Rows<const T> v, Rows<T> Jv) const;
  void vjp(const CpuQueue& queue, Rows<const T> z, Rows<const T> injection, Rows<const T> u, Rows<T> JTu) const;
  void parameter_gradients(const CpuQueue& queue, Rows<const T> z, Rows<const T> injection, Rows<const T> u, Rows<T> dW,
                           Rows<T> dc) const;

  // Whole solves, cut into tiles over `threads`. The counts are those of all tiles; `questions` is the longest tile's.
  Counts solve(int threads, const Method& method, const Stop& stop, Rows<const T> z0, Rows<const T> injection,
               Rows<T> result, const Report& report, const double* scale, Interrupt* interrupt,
               const KeptHistory& history = {}) const;
  Counts solve(int threads, const NewtonMethod& method, const Stop& stop, Rows<const T> z0, Rows<const T> injection,
               Rows<T> result, const Report& report, const double* scale, Interrupt* interrupt) const;
  Counts solve_adjoint(int threads, const AdjointMethod& method, const Stop& stop, Rows<const T> z,
                       Rows<const T> injection, Rows<const T> g, Rows<const T> u0, Rows<T> result, const Report& report,
                       Interrupt* interrupt) const;
  // (I - J) t = dz, by the same methods.
  Counts solve_tangent(int threads, const AdjointMethod& method, const Stop& stop, Rows<const T> z,
                       Rows<const T> injection, Rows<const T> dz, Rows<const T> t0, Rows<T> result,
                       const Report& report, Interrupt* interrupt) const;
  // The backward solve at z, and the gradients to W and to the injection, of the loss (g, z), or of |z - target|^2 / 2
  // where g is null.
  Counts solve_gradients(int threads, const AdjointMethod& method, const Stop& stop, Rows<const T> z,
                         Rows<const T> injection, Rows<const T> g, Rows<const T> target, Rows<T> u, Rows<T> dW,
                         Rows<T> dc, const Report& report, Interrupt* interrupt) const;

  // The integration of dz/dt = f(z, c), or with options.relax of f(z, c) - z (dense_ode.cpp). The values at the first
  // time stand at the rows of `values`, those at the next z0.rows rows further on.
  Counts integrate(int threads, const OdeOptions& options, Rows<const T> z0, const double* times, std::int64_t count,
                   Rows<const T> injection, Rows<T> values, const OdeReport& report, Interrupt* interrupt) const;
  std::size_t integrate_bytes(int threads, const OdeOptions& options, std::int64_t rows) const;

  // What such a solve allocates, once, before its first step.
  std::size_t solve_bytes(int threads, const Method& method, const Stop& stop, std::int64_t rows) const;
  std::size_t solve_bytes(int threads, const NewtonMethod& method, const Stop& stop, std::int64_t rows) const;
  std::size_t solve_adjoint_bytes(int threads, const AdjointMethod& method, const Stop& stop, std::int64_t rows) const;

 private:
  struct Weights;

  Dense(std::int64_t width, Activation activation, Products products, std::shared_ptr<const Weights> weights);
  bool refines() const;
  std::shared_ptr<const Weights> weights() const;
  static const PackedMatrix<T>& product_of(const Weights& weights);
  void check(const char* argument, Rows<const T> z, Rows<const T> injection) const;
  Counts solve_linearised(bool transposed, int threads, const AdjointMethod& method, const Stop& stop, Rows<const T> z,
                          Rows<const T> injection, Rows<const T> g, Rows<const T> u0, Rows<T> result, Rows<T> slopes,
                          const Report& report, Interrupt* interrupt) const;
  void check_gradients(Rows<const T> z, Rows<const T> injection, Rows<const T> u, Rows<T> dW, Rows<T> dc) const;
  void sum_gradients(const CpuQueue& queue, Rows<const T> z, Rows<T> d, Rows<const T> u, Rows<T> dW, Rows<T> dc) const;
  template <class Measure, class Solve>
  Counts solve_tiles(int threads, Rows<const T> z0, Rows<const T> injection, Rows<T> result, const Measure& bytes,
                     const Solve& solve_tile, Interrupt* interrupt) const;
  template <class Measure>
  Tiling tiling_for(int threads, std::int64_t rows, const Measure& scratch_bytes) const;

  std::int64_t width_;
  Activation activation_;
  Products products_;
  mutable std::mutex replacing_;
  std::shared_ptr<const Weights> weights_;
};

}  // namespace deqcore

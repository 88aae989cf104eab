// SPDX-License-Identifier: Apache-2.0
// A dense field with a condition, and its derivatives, for dz/dt = F(z, u):
//
//     F(z, u) = A2 y + b2,   y = a(A1 z + u)        d = a'(A1 z + u), elementwise
//     a' dF/dz = A1^T D      a' dF/du = D           D = d * (A2^T a),  for a cotangent a of F
//     a' dF/dA1 = D z^T      a' dF/dA2 = a y^T      a' dF/db2 = a,  each summed over the rows
//
// A1: hidden x width, A2: width x hidden; u, the condition, is one row for all or one per row, of the hidden width.
#pragma once

#include <cstdint>
#include <memory>

#include "deqcore/base/interrupt.hpp"
#include "deqcore/continuation/ode.hpp"
#include "deqcore/device/cpu_queue.hpp"
#include "deqcore/maps/activation.hpp"

namespace deqcore {

// Which gradient of an integration: by the exact adjoint; back through the fixed steps of the solver; or with a
// cotangent that stays as it is.
enum class OdeGradient : std::int8_t { adjoint, solver, frozen };

template <class T>
struct FieldGradients {
  Rows<T> A1, A2;
  T* b2 = nullptr;
};

template <class T>
class Field {
 public:
  // All are copied.
  Field(Rows<const T> A1, Rows<const T> A2, const T* b2, Activation activation);
  ~Field();

  std::int64_t width() const;
  std::int64_t hidden() const;

  // Row i of each block belongs to row i of u, or to its only row. Outputs must not overlap inputs.
  void value(const CpuQueue& queue, Rows<const T> z, Rows<const T> u, Rows<T> F) const;
  // du: as many rows as u.
  void vjp(Rows<const T> z, Rows<const T> u, Rows<const T> a, Rows<T> dz, Rows<T> du,
           const FieldGradients<T>& gradients) const;

  // As Dense::integrate.
  Counts integrate(int threads, const OdeOptions& options, Rows<const T> z0, const double* times, std::int64_t count,
                   Rows<const T> u, Rows<T> values, const OdeReport& report, Interrupt* interrupt) const;
  std::size_t integrate_bytes(int threads, const OdeOptions& options, std::int64_t rows) const;

  // From one requested time to the one before: `a` becomes dL/dz there, and what the interval gives is added to the
  // other gradients. z begins anew at its values at both times. Each row has its own steps, and the sums have one order
  // whatever the threads.
  Counts differentiate(int threads, const OdeOptions& options, OdeGradient gradient, Rows<const T> z_earlier,
                       Rows<const T> z_later, Rows<const T> u, double earlier, double later, Rows<T> a, Rows<T> du,
                       const FieldGradients<T>& gradients, const OdeReport& report, Interrupt* interrupt) const;
  std::size_t differentiate_bytes(int threads, const OdeOptions& options, OdeGradient gradient,
                                  std::int64_t rows) const;

 private:
  struct Weights;
  struct Sums;

  void check(const char* argument, Rows<const T> z, Rows<const T> u) const;
  void check_gradients(Rows<const T> u, Rows<T> du, const FieldGradients<T>& gradients) const;
  std::size_t tile_bytes(const OdeOptions& options, OdeGradient gradient, std::int64_t rows) const;
  // Of the hidden width: y, D, and room for A2^T a.
  struct Inner {
    Rows<T> y, D, back;
  };
  struct StagePoints;
  Inner take_inner(Arena& scratch, std::int64_t rows) const;
  std::size_t inner_bytes(std::int64_t rows) const;
  std::int64_t partial_size(bool shared) const;
  FieldGradients<T> partial_gradients(T* from) const;
  void clear(Rows<T> du, const FieldGradients<T>& gradients) const;
  // y, D and a' dF/dz at z, and F where it is asked for. The rows are those of u from `first` on, named by `ids` or in
  // order.
  void products(Rows<const T> z, Rows<const T> u, std::int64_t first, const std::int32_t* ids, Rows<const T> a,
                const Inner& inner, Rows<T> dz, const Rows<T>* F) const;
  Counts by_adjoint(Arena scratch, const OdeOptions& options, bool frozen, Rows<const T> z, Rows<const T> u,
                    std::int64_t first, const double* times, Rows<T> a, Sums& sums, const OdeReport& report,
                    Interrupt* interrupt) const;
  Counts through_solver(Arena scratch, const OdeOptions& options, Rows<const T> z, Rows<const T> u, std::int64_t first,
                        const double* times, Rows<T> a, Sums& sums, const OdeReport& report,
                        Interrupt* interrupt) const;

  std::unique_ptr<const Weights> weights_;
};

}  // namespace deqcore

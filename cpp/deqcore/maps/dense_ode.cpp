// SPDX-License-Identifier: Apache-2.0
// dz/dt = f(z, c), or with `relax` f(z, c) - z, for the dense map f(z, c) = a(W z + c).
#include "deqcore/base/shapes.hpp"
#include "deqcore/maps/dense.hpp"
#include "deqcore/maps/integrate.hpp"
#include "deqcore/maps/packed.hpp"

namespace deqcore {

template <class T>
Counts Dense<T>::integrate(int threads, const OdeOptions& options, Rows<const T> z0, const double* times,
                           std::int64_t count, Rows<const T> injection, Rows<T> values, const OdeReport& report,
                           Interrupt* interrupt) const {
  check("z0", z0, injection);
  const auto held = weights();
  const PackedMatrix<T>& W = product_of(*held);
  const int sharing = z0.rows == 1 ? threads : 1;  // tiles share out the rows; the product of an only row is shared
  const auto evaluate = [&](std::int64_t first, const Question<T>& question, Rows<T> answer, T*) {
    W.multiply(question.at, answer, sharing);
    for (std::int64_t i = 0; i < question.count; ++i)
      activate(activation_, width_, injection[injection.rows == 1 ? 0 : first + question.rows[i]], answer[i]);
  };
  return deqcore::integrate<T>(threads, 0, 2 * width_ * width_, options,
                               {.z0 = z0, .times = times, .count = count, .values = values, .report = report}, evaluate,
                               interrupt);
}

template <class T>
std::size_t Dense<T>::integrate_bytes(int threads, const OdeOptions& options, std::int64_t rows) const {
  return deqcore::integrate_bytes<T>(threads, rows, width_, 0, 2 * width_ * width_, options);
}

template Counts Dense<float>::integrate(int, const OdeOptions&, Rows<const float>, const double*, std::int64_t,
                                        Rows<const float>, Rows<float>, const OdeReport&, Interrupt*) const;
template Counts Dense<double>::integrate(int, const OdeOptions&, Rows<const double>, const double*, std::int64_t,
                                         Rows<const double>, Rows<double>, const OdeReport&, Interrupt*) const;
template std::size_t Dense<float>::integrate_bytes(int, const OdeOptions&, std::int64_t) const;
template std::size_t Dense<double>::integrate_bytes(int, const OdeOptions&, std::int64_t) const;

}  // namespace deqcore

// SPDX-License-Identifier: Apache-2.0
// NumPy arrays as views. Nothing is converted: a wrong dtype, layout or device is refused.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <algorithm>

#include "deqcore/base/error.hpp"
#include "deqcore/base/ode_report.hpp"
#include "deqcore/base/report.hpp"
#include "deqcore/base/rows.hpp"
#include "deqcore/fixed_point/fixed_point.hpp"

namespace deqcore::python {

namespace nb = nanobind;

// numpy.ndarray, for as long as the process lives: importing it anew takes longer than a step.
inline nb::handle ndarray_type;

template <class T>
using Matrix = nb::ndarray<T, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

using Scratch = nb::ndarray<std::uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

template <class T>
using Vector = nb::ndarray<T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

// What handles hold: words in, places of rows, words out; each may be None.
using Words = std::optional<Matrix<const std::int64_t>>;
using Places = std::optional<Vector<const std::int32_t>>;
using WordsOut = std::optional<Matrix<std::int64_t>>;

// Rows of `words` words; places lie inside the handle.
inline KeptHistory history_of(std::int64_t rows, std::int64_t words, const Words& from, const Places& at,
                              const WordsOut& to) {
  if (from) {
    require(static_cast<std::int64_t>(from->shape(1)) == words, "history: rows of ", from->shape(1),
            " words given; expected ", words);
    require(at && static_cast<std::int64_t>(at->shape(0)) == rows, "history: expected a place for each of ", rows,
            " rows");
    for (std::int64_t row = 0; row < rows; ++row)
      require(at->data()[row] < static_cast<std::int64_t>(from->shape(0)), "history: place ", at->data()[row],
              " given; expected less than ", from->shape(0));
  }
  require(!to || (static_cast<std::int64_t>(to->shape(0)) == rows && static_cast<std::int64_t>(to->shape(1)) == words),
          "history: expected room for ", rows, " rows of ", words, " words");
  return {.from = from ? from->data() : nullptr, .at = at ? at->data() : nullptr, .to = to ? to->data() : nullptr};
}

template <class T>
Rows<T> rows_of(const Matrix<T>& array) {
  const auto rows = static_cast<std::int64_t>(array.shape(0)), width = static_cast<std::int64_t>(array.shape(1));
  return {array.data(), rows, width, width};
}

// Where the first number that is NaN or infinite stands; -1 if there is none.
template <class T>
std::int64_t first_not_finite(const T* data, std::int64_t n) {
  constexpr std::int64_t piece = 1024;
  for (std::int64_t start = 0; start < n; start += piece) {
    T poison = 0;  // 0 x is NaN for NaN and infinity: no branch in the loop over good data
    for (std::int64_t i = start; i < std::min(n, start + piece); ++i) poison += 0 * data[i];
    if (poison == 0) continue;
    for (std::int64_t i = start; i < n; ++i)
      if (!(data[i] - data[i] == 0)) return i;  // NOLINT(misc-redundant-expression): NaN unless it is finite
  }
  return -1;
}

// The report's arrays, made by the Python side. Few blocks: taking an array costs more than a small solve's step.
struct ReportArrays {
  Vector<std::int8_t> status;
  Matrix<std::int32_t> integers;  // a row each: steps, rejected, singular
  Matrix<double> reals;           // residual, scale
  std::optional<Matrix<double>> trace;

  Report view() const {
    const std::size_t rows = status.shape(0);
    return {.status = reinterpret_cast<Status*>(status.data()),
            .steps = integers.data(),
            .residual = reals.data(),
            .scale = reals.data() + rows,
            .rejected = integers.data() + rows,
            .singular = integers.data() + 2 * rows,
            .trace = trace ? trace->data() : nullptr,
            .trace_pitch = trace ? static_cast<std::int64_t>(trace->shape(1)) : 0};
  }
};

// The same of an integration.
struct OdeArrays {
  Vector<std::int8_t> status;
  Matrix<std::int32_t> integers;  // a row each: evaluations, accepted, rejected
  Vector<double> reached;

  OdeReport view() const {
    const std::size_t rows = status.shape(0);
    return {.status = reinterpret_cast<Status*>(status.data()),
            .evaluations = integers.data(),
            .accepted = integers.data() + rows,
            .rejected = integers.data() + 2 * rows,
            .reached = reached.data()};
  }
};

// An integration's values as rows: those at the first time, then those at the second.
template <class T>
Rows<T> values_of(const Matrix<T>& values, Rows<const T> z0, const Vector<const double>& times) {
  const Rows<T> all = rows_of(values);
  const auto count = static_cast<std::int64_t>(times.shape(0));
  require(all.rows == count * z0.rows && all.width == z0.width, "values: ", all.rows, " x ", all.width,
          " given; expected ", count * z0.rows, " x ", z0.width);
  return all;
}

// What advance() says to the Python loop.
enum Reply : int {
  refused = -1,  // the answer is not a contiguous NumPy array of this shape and dtype, or overlaps the question
  done = 0,
  flipped = 1,   // the question is in the other block, with the same rows
  reshaped = 2,  // rows have left
};

// The map's answer, if it can be used as it is.
template <class T>
bool usable(nb::handle answer, const std::vector<std::int64_t>& shape, const void* scratch, std::size_t scratch_bytes,
            nb::ndarray<const T, nb::c_contig, nb::device::cpu>& array) {
  if (answer.type().ptr() != ndarray_type.ptr()) return false;
  if (!nb::try_cast(answer, array, false)) return false;
  if (array.ndim() != shape.size()) return false;
  for (std::size_t axis = 0; axis < shape.size(); ++axis)
    if (static_cast<std::int64_t>(array.shape(axis)) != shape[axis]) return false;
  const auto first = reinterpret_cast<std::uintptr_t>(array.data());
  const auto own = reinterpret_cast<std::uintptr_t>(scratch);
  const bool overlaps = first < own + scratch_bytes && own < first + array.nbytes();
  return !overlaps && first % alignof(T) == 0;
}

}  // namespace deqcore::python

// SPDX-License-Identifier: Apache-2.0
// Native solves that are called again and again: options are converted once, and a call brings arrays alone. Such a
// call takes what can be used as it is. To anything else - another type, dtype, layout or shape, a number that is not
// finite - it answers None, and the long way through Python says what is wrong with it, or copies it.
#pragma once

#include <nanobind/nanobind.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <variant>

#include "arrays.hpp"
#include "deqcore/adjoint/adjoint.hpp"
#include "deqcore/device/pool.hpp"
#include "deqcore/maps/dense.hpp"
#include "deqcore/newton/newton_solve.hpp"
#include "without_lock.hpp"

namespace deqcore::python {

// numpy.empty, its dtypes, and the word "dtype", for as long as the process lives.
inline nb::handle new_array, dtype_float32, dtype_float64, dtype_word;

template <class T>
nb::handle dtype_of() {
  return std::is_same_v<std::remove_const_t<T>, float> ? dtype_float32 : dtype_float64;
}

// A NumPy array of numbers of the type T, held for the length of a call, by the buffer protocol: several times faster
// than as nb::ndarray.
template <class T>
class Held {
 public:
  explicit Held(nb::handle array) {
    if (array.type().ptr() != ndarray_type.ptr()) return;
    const nb::object dtype = array.attr(dtype_word);
    if (!dtype.is(dtype_of<T>()) && !dtype.equal(dtype_of<T>())) return;
    held_ = PyObject_GetBuffer(array.ptr(), &view_, PyBUF_ND | (std::is_const_v<T> ? 0 : PyBUF_WRITABLE)) == 0;
    if (!held_) PyErr_Clear();  // not contiguous
  }
  Held(const Held&) = delete;
  Held& operator=(const Held&) = delete;
  ~Held() {
    if (held_) PyBuffer_Release(&view_);
  }

  // Whether it has one or two axes and something in it, and can be read where it lies.
  bool usable() const {
    return held_ && (view_.ndim == 1 || view_.ndim == 2) && view_.len > 0 &&
           reinterpret_cast<std::uintptr_t>(view_.buf) % alignof(T) == 0;
  }

  // One axis is one row.
  Rows<T> rows() const {
    const std::int64_t width = view_.shape[view_.ndim - 1];
    return dense_rows(static_cast<T*>(view_.buf), view_.ndim == 2 ? view_.shape[0] : 1, width);
  }

  bool finite() const { return first_not_finite(static_cast<const T*>(view_.buf), view_.len / view_.itemsize) < 0; }

  template <class Other>
  bool like(const Other& other) const {
    return view_.ndim == other.view().ndim && std::equal(view_.shape, view_.shape + view_.ndim, other.view().shape);
  }

  const Py_buffer& view() const { return view_; }

 private:
  Py_buffer view_{};
  bool held_ = false;
};

// A new array, and its memory.
template <class T>
class Fresh {
 public:
  Fresh(const Py_ssize_t* shape, int axes) : array_(make(shape, axes)), held_(array_) {}
  explicit Fresh(const Py_buffer& like) : Fresh(like.shape, like.ndim) {}

  const nb::object& array() const { return array_; }
  Rows<T> rows() const { return held_.rows(); }

 private:
  static nb::object make(const Py_ssize_t* shape, int axes) {
    return axes == 1 ? new_array(shape[0], dtype_of<T>())
                     : new_array(nb::make_tuple(shape[0], shape[1]), dtype_of<T>());
  }

  nb::object array_;
  Held<T> held_;
};

// Memory for a report, as a bytearray: residual and scale, then steps, rejected and singular, then status. The Python
// side makes arrays of it when somebody asks.
class FreshReport {
 public:
  explicit FreshReport(std::int64_t rows)
      : rows_(rows), bytes_(nb::steal(PyByteArray_FromStringAndSize(nullptr, rows * bytes_per_row))) {
    if (!bytes_.is_valid()) throw nb::python_error();
  }

  const nb::object& bytes() const { return bytes_; }

  Report view() const {
    char* const start = PyByteArray_AS_STRING(bytes_.ptr());
    auto* const reals = reinterpret_cast<double*>(start);
    auto* const integers = reinterpret_cast<std::int32_t*>(reals + 2 * rows_);
    return {.status = reinterpret_cast<Status*>(integers + 3 * rows_),
            .steps = integers,
            .residual = reals,
            .scale = reals + rows_,
            .rejected = integers + rows_,
            .singular = integers + 2 * rows_};
  }

  std::int64_t unsolved() const {
    const Status* const status = view().status;
    return rows_ - std::count(status, status + rows_, Status::converged);
  }

 private:
  static constexpr std::int64_t bytes_per_row = 2 * sizeof(double) + 3 * sizeof(std::int32_t) + sizeof(Status);

  std::int64_t rows_;
  nb::object bytes_;
};

// Options of a forward solve of one map, and of a backward one; `threads`: none is the default of the time.
template <class... Methods>
class Prepared {
 public:
  Prepared(std::variant<Methods...> method, const Stop& stop, std::optional<int> threads)
      : method_(std::move(method)), stop_(stop), threads_(threads) {}

  int threads() const { return threads_ ? *threads_ : num_threads(); }
  const Stop& stop() const { return stop_; }

  // run(method): of whatever family it is
  template <class Run>
  auto with_method(const Run& run) const {
    return std::visit(run, method_);
  }

  // measure() says how much memory such a solve takes; it was asked before for most.
  template <class Measure>
  std::size_t scratch_bytes(std::int64_t rows, int threads, const Measure& measure) {
    if (rows != rows_ || threads != measured_for_) {
      scratch_bytes_ = measure();
      rows_ = rows;
      measured_for_ = threads;
    }
    return scratch_bytes_;
  }

 private:
  std::variant<Methods...> method_;
  Stop stop_;
  std::optional<int> threads_;
  std::size_t scratch_bytes_ = 0;  // of so many rows on so many threads; read and written under the interpreter lock
  std::int64_t rows_ = 0;
  int measured_for_ = 0;
};

using PreparedSolve = Prepared<Method, NewtonMethod>;
using PreparedAdjoint = Prepared<AdjointMethod>;

// Whether the states fit the map, and the injection the states.
template <class T>
bool fits(const Dense<T>& map, const Held<const T>& z, const Held<const T>& injection) {
  if (!z.usable() || !injection.usable()) return false;
  const Rows<const T> state = z.rows(), c = injection.rows();
  return state.width == map.width() && c.width == map.width() && (c.rows == 1 || injection.like(z)) && z.finite() &&
         injection.finite();
}

template <class T>
bool fits(const Held<const T>& right, const Held<const T>& z) {
  return right.usable() && right.like(z) && right.finite();
}

// A solve's account for the Python side: (value, report, rows that did not converge, rows, questions, products, rows
// asked, scratch bytes)
template <class T>
nb::tuple account(const Fresh<T>& value, const FreshReport& report, const Counts& counts, std::size_t scratch_bytes) {
  return nb::make_tuple(value.array(), report.bytes(), report.unsolved(), value.rows().rows, counts.questions,
                        counts.products, counts.rows_asked, scratch_bytes);
}

// -> None, or the account
template <class T>
nb::object solve_prepared(const Dense<T>& self, PreparedSolve& prepared, nb::handle z0, nb::handle injection) {
  const Held<const T> start(z0), c(injection);
  if (!fits(self, start, c)) return nb::none();
  const Fresh<T> z(start.view());
  const FreshReport report(z.rows().rows);
  const int threads = prepared.threads();
  const Stop& stop = prepared.stop();
  return prepared.with_method([&](const auto& method) -> nb::object {
    const Counts counts = without_lock([&](Interrupt& interrupt) {
      return self.solve(threads, method, stop, start.rows(), c.rows(), z.rows(), report.view(), nullptr, &interrupt);
    });
    const auto measure = [&] { return self.solve_bytes(threads, method, stop, z.rows().rows); };
    return account(z, report, counts, prepared.scratch_bytes(z.rows().rows, threads, measure));
  });
}

// -> None, or the account
template <class T>
nb::object solve_adjoint_prepared(const Dense<T>& self, PreparedAdjoint& prepared, nb::handle z, nb::handle injection,
                                  nb::handle g) {
  const Held<const T> state(z), c(injection), right(g);
  if (!fits(self, state, c) || !fits(right, state)) return nb::none();
  const Fresh<T> u(state.view());
  const FreshReport report(u.rows().rows);
  const int threads = prepared.threads();
  const Stop& stop = prepared.stop();
  return prepared.with_method([&](const AdjointMethod& method) -> nb::object {
    const Counts counts = without_lock([&](Interrupt& interrupt) {
      return self.solve_adjoint(threads, method, stop, state.rows(), c.rows(), right.rows(), {}, u.rows(),
                                report.view(), &interrupt);
    });
    const auto measure = [&] { return self.solve_adjoint_bytes(threads, method, stop, u.rows().rows); };
    return account(u, report, counts, prepared.scratch_bytes(u.rows().rows, threads, measure));
  });
}

// A training step between loss and optimiser, of the loss (g, z) or |z - target|^2 / 2: one of the two is None.
// -> None, or (dW, dc, the account of the forward solve, that of the backward one)
template <class T>
nb::object differentiate_prepared(const Dense<T>& self, PreparedSolve& forward, PreparedAdjoint& backward,
                                  nb::handle z0, nb::handle injection, nb::handle g, nb::handle target) {
  const Held<const T> start(z0), c(injection), given(g.is_none() ? target : g);
  if (!fits(self, start, c) || !fits(given, start)) return nb::none();
  const Py_ssize_t square[] = {self.width(), self.width()};
  const Fresh<T> z(start.view()), u(start.view()), dW(square, 2), dc(c.view());
  const std::int64_t rows = z.rows().rows;
  const FreshReport report(rows), adjoint_report(rows);
  const int threads = forward.threads();
  const Rows<const T> right = g.is_none() ? Rows<const T>{} : given.rows();
  const Rows<const T> aim = g.is_none() ? given.rows() : Rows<const T>{};
  const Dense<T> map = self.snapshot();  // the same weights forward and backward
  return forward.with_method([&](const auto& method) {
    return backward.with_method([&](const AdjointMethod& adjoint_method) -> nb::object {
      Counts adjoint_counts;
      const Counts counts = without_lock([&](Interrupt& interrupt) {
        const Counts asked = map.solve(threads, method, forward.stop(), start.rows(), c.rows(), z.rows(), report.view(),
                                       nullptr, &interrupt);
        adjoint_counts = map.solve_gradients(threads, adjoint_method, backward.stop(), z.rows(), c.rows(), right, aim,
                                             u.rows(), dW.rows(), dc.rows(), adjoint_report.view(), &interrupt);
        return asked;
      });
      const auto bytes = [&] { return map.solve_bytes(threads, method, forward.stop(), rows); };
      const auto adjoint_bytes = [&] {
        return map.solve_adjoint_bytes(threads, adjoint_method, backward.stop(), rows);
      };
      return nb::make_tuple(
          dW.array(), dc.array(), account(z, report, counts, forward.scratch_bytes(rows, threads, bytes)),
          account(u, adjoint_report, adjoint_counts, backward.scratch_bytes(rows, threads, adjoint_bytes)));
    });
  });
}

}  // namespace deqcore::python

// SPDX-License-Identifier: Apache-2.0
#include "deqcore/fixed_point/fixed_point.hpp"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/variant.h>
#include <nanobind/stl/vector.h>

#include "dialogue.hpp"
#include "init.hpp"

namespace deqcore::python {
namespace {

template <class T>
void bind(nb::module_& m, const char* name) {
  using Solver = FixedPoint<CpuQueue, T>;
  using D = Dialogue<Solver, T>;
  nb::class_<D> c(m, name);
  c.def(
       "__init__",
       [](D* self, std::int64_t rows, std::int64_t width, std::vector<std::int64_t> shape, const Method& method,
          const Stop& stop, int threads, Scratch scratch) {
         new (self) D(threads, std::move(scratch), std::move(shape), [&](CpuQueue& queue, Arena& arena) {
           return std::make_unique<Solver>(queue, rows, width, method, stop, arena);
         });
       },
       nb::arg("rows"), nb::arg("width"), nb::arg("shape"), nb::arg("method"), nb::arg("stop"), nb::arg("threads"),
       nb::arg("scratch").noconvert())
      .def(
          "start",
          [](D& self, Matrix<const T> z0, Matrix<T> result, const ReportArrays& report,
             std::optional<Vector<const double>> scale) {
            self.open(
                self.solver().start(rows_of(z0), rows_of(result), report.view(), scale ? scale->data() : nullptr));
          },
          nb::arg("z0").noconvert(), nb::arg("result").noconvert(), nb::arg("report"), nb::arg("scale").none(),
          nb::keep_alive<1, 3>(), nb::keep_alive<1, 4>())
      .def_static("scratch_bytes", &Solver::scratch_bytes, nb::arg("rows"), nb::arg("width"), nb::arg("method"),
                  nb::arg("stop"));
  bind_dialogue(c);
}

}  // namespace

void init_fixed_point(nb::module_& m) {
  nb::class_<Picard>(m, "Picard").def(nb::init<>()).def_rw("beta", &Picard::beta);
  nb::class_<Anderson>(m, "Anderson")
      .def(nb::init<>())
      .def_rw("history", &Anderson::history)
      .def_rw("beta", &Anderson::beta)
      .def_rw("ridge", &Anderson::ridge)
      .def_rw("growth", &Anderson::growth);
  bind<float>(m, "FixedPoint32");
  bind<double>(m, "FixedPoint64");
}

}  // namespace deqcore::python

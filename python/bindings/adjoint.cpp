// SPDX-License-Identifier: Apache-2.0
#include "deqcore/adjoint/adjoint.hpp"

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
  using Solver = Adjoint<CpuQueue, T>;
  using D = Dialogue<Solver, T>;
  nb::class_<D> c(m, name);
  c.def(
       "__init__",
       [](D* self, std::int64_t rows, std::int64_t width, std::vector<std::int64_t> shape, const Method& method,
          const Stop& stop, int threads, Scratch scratch) {
         new (self) D(threads, std::move(scratch), std::move(shape), [&](CpuQueue& queue, Arena& arena) {
           return std::make_unique<Solver>(queue, rows, width, method, stop, true, arena);
         });
       },
       nb::arg("rows"), nb::arg("width"), nb::arg("shape"), nb::arg("method"), nb::arg("stop"), nb::arg("threads"),
       nb::arg("scratch").noconvert())
      .def(
          "start",
          [](D& self, Matrix<const T> z, Matrix<const T> g, Matrix<const T> u0, Matrix<T> result,
             const ReportArrays& report) {
            self.open(self.solver().start(rows_of(z), rows_of(g), rows_of(u0), rows_of(result), report.view()));
          },
          nb::arg("z").noconvert(), nb::arg("g").noconvert(), nb::arg("u0").noconvert(), nb::arg("result").noconvert(),
          nb::arg("report"), nb::keep_alive<1, 2>(), nb::keep_alive<1, 3>(), nb::keep_alive<1, 5>(),
          nb::keep_alive<1, 6>())
      .def_static(
          "scratch_bytes",
          [](std::int64_t rows, std::int64_t width, const Method& method, const Stop& stop) {
            return Solver::scratch_bytes(rows, width, method, stop, true);
          },
          nb::arg("rows"), nb::arg("width"), nb::arg("method"), nb::arg("stop"))
      .def_prop_ro("points_offset", [](D& self) { return self.offset(self.solver().points().data); });
  bind_dialogue(c);
}

}  // namespace

void init_adjoint(nb::module_& m) {
  bind<float>(m, "Adjoint32");
  bind<double>(m, "Adjoint64");
}

}  // namespace deqcore::python

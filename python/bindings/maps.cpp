// SPDX-License-Identifier: Apache-2.0
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/variant.h>

#include <string>
#include <variant>

#include "arrays.hpp"
#include "deqcore/maps/dense.hpp"
#include "init.hpp"
#include "prepared.hpp"
#include "without_lock.hpp"

namespace deqcore::python {

using namespace nb::literals;

namespace {

template <class T>
Counts by_newton(const Dense<T>& self, Matrix<const T> z0, Matrix<const T> injection, Matrix<T> result,
                 const ReportArrays& report, std::optional<Vector<const double>> scale, const NewtonMethod& method,
                 const Stop& stop, int threads) {
  return without_lock([&](Interrupt& interrupt) {
    return self.solve(threads, method, stop, rows_of(z0), rows_of(injection), rows_of(result), report.view(),
                      scale ? scale->data() : nullptr, &interrupt);
  });
}

// A solve with the map's derivative: adjoint or tangent.
template <class T, auto Solve>
Counts linearised(const Dense<T>& self, Matrix<const T> z, Matrix<const T> injection, Matrix<const T> g,
                  std::optional<Matrix<const T>> u0, Matrix<T> result, const ReportArrays& report,
                  const AdjointMethod& method, const Stop& stop, int threads) {
  return without_lock([&](Interrupt& interrupt) {
    return (self.*Solve)(threads, method, stop, rows_of(z), rows_of(injection), rows_of(g),
                         u0 ? rows_of(*u0) : Rows<const T>{}, rows_of(result), report.view(), &interrupt);
  });
}

template <class... Methods>
void bind_prepared(nb::module_& m, const char* name) {
  nb::class_<Prepared<Methods...>>(m, name).def(nb::init<std::variant<Methods...>, const Stop&, std::optional<int>>(),
                                                nb::arg("method"), nb::arg("stop"), nb::arg("threads").none());
}

template <class T>
void bind(nb::module_& m, const char* name) {
  using D = Dense<T>;
  using In = Matrix<const T>;
  using Out = Matrix<T>;
  nb::class_<D>(m, name)
      .def(
          "__init__",
          [](D* self, In W, const std::string& activation, bool bfloat16) {
            new (self) D(rows_of(W), activation_named(activation), bfloat16 ? Products::bfloat16 : Products::full);
          },
          nb::arg("W").noconvert(), nb::arg("activation"), nb::arg("bfloat16"))
      .def_prop_ro("width", &D::width)
      .def(
          "update", [](D& self, In W) { self.update(rows_of(W)); }, nb::arg("W").noconvert())
      .def(
          "value",
          [](const D& self, In z, In injection, Out f, int threads) {
            const nb::gil_scoped_release others_run;
            self.value(CpuQueue(threads), rows_of(z), rows_of(injection), rows_of(f));
          },
          nb::arg("z").noconvert(), nb::arg("injection").noconvert(), nb::arg("f").noconvert(), nb::arg("threads"))
      .def(
          "jvp",
          [](const D& self, In z, In injection, In v, Out product, int threads) {
            const nb::gil_scoped_release others_run;
            self.jvp(CpuQueue(threads), rows_of(z), rows_of(injection), rows_of(v), rows_of(product));
          },
          nb::arg("z").noconvert(), nb::arg("injection").noconvert(), nb::arg("v").noconvert(),
          nb::arg("product").noconvert(), nb::arg("threads"))
      .def(
          "vjp",
          [](const D& self, In z, In injection, In u, Out product, int threads) {
            const nb::gil_scoped_release others_run;
            self.vjp(CpuQueue(threads), rows_of(z), rows_of(injection), rows_of(u), rows_of(product));
          },
          nb::arg("z").noconvert(), nb::arg("injection").noconvert(), nb::arg("u").noconvert(),
          nb::arg("product").noconvert(), nb::arg("threads"))
      .def(
          "parameter_gradients",
          [](const D& self, In z, In injection, In u, Out dW, Out dc, int threads) {
            const nb::gil_scoped_release others_run;
            self.parameter_gradients(CpuQueue(threads), rows_of(z), rows_of(injection), rows_of(u), rows_of(dW),
                                     rows_of(dc));
          },
          nb::arg("z").noconvert(), nb::arg("injection").noconvert(), nb::arg("u").noconvert(),
          nb::arg("dW").noconvert(), nb::arg("dc").noconvert(), nb::arg("threads"))
      .def(
          "solve",
          [](const D& self, In z0, In injection, Out result, const ReportArrays& report,
             std::optional<Vector<const double>> scale, const Method& method, const Stop& stop, int threads,
             const Words& history, const Places& at, const WordsOut& kept) {
            const std::int64_t words = FixedPoint<CpuQueue, T>::history_words(self.width(), method);
            const KeptHistory own = history_of(rows_of(z0).rows, words, history, at, kept);
            return without_lock([&](Interrupt& interrupt) {
              return self.solve(threads, method, stop, rows_of(z0), rows_of(injection), rows_of(result), report.view(),
                                scale ? scale->data() : nullptr, &interrupt, own);
            });
          },
          nb::arg("z0").noconvert(), nb::arg("injection").noconvert(), nb::arg("result").noconvert(), nb::arg("report"),
          nb::arg("scale").none(), nb::arg("method"), nb::arg("stop"), nb::arg("threads"),
          nb::arg("history").none() = nb::none(), nb::arg("at").none() = nb::none(),
          nb::arg("kept").none() = nb::none())
      .def("solve", &by_newton<T>, nb::arg("z0").noconvert(), nb::arg("injection").noconvert(),
           nb::arg("result").noconvert(), nb::arg("report"), nb::arg("scale").none(), nb::arg("method"),
           nb::arg("stop"), nb::arg("threads"))
      .def("solve_adjoint", &linearised<T, &D::solve_adjoint>, nb::arg("z").noconvert(),
           nb::arg("injection").noconvert(), nb::arg("g").noconvert(), nb::arg("u0").none(),
           nb::arg("result").noconvert(), nb::arg("report"), nb::arg("method"), nb::arg("stop"), nb::arg("threads"))
      .def("solve_tangent", &linearised<T, &D::solve_tangent>, nb::arg("z").noconvert(),
           nb::arg("injection").noconvert(), nb::arg("dz").noconvert(), nb::arg("t0").none(),
           nb::arg("result").noconvert(), nb::arg("report"), nb::arg("method"), nb::arg("stop"), nb::arg("threads"))
      .def("solve_prepared", &solve_prepared<T>, nb::arg("prepared"), nb::arg("z0"), nb::arg("injection"))
      .def("solve_adjoint_prepared", &solve_adjoint_prepared<T>, nb::arg("prepared"), nb::arg("z"),
           nb::arg("injection"), nb::arg("g"))
      .def("differentiate_prepared", &differentiate_prepared<T>, nb::arg("forward"), nb::arg("backward"), nb::arg("z0"),
           nb::arg("injection"), nb::arg("g").none(), nb::arg("target").none())
      .def(
          "copy_weights", [](const D& self, Out W) { self.copy_weights(W.data()); }, nb::arg("W").noconvert())
      .def("solve_bytes", nb::overload_cast<int, const Method&, const Stop&, std::int64_t>(&D::solve_bytes, nb::const_),
           nb::arg("threads"), nb::arg("method"), nb::arg("stop"), nb::arg("rows"))
      .def("solve_bytes",
           nb::overload_cast<int, const NewtonMethod&, const Stop&, std::int64_t>(&D::solve_bytes, nb::const_),
           nb::arg("threads"), nb::arg("method"), nb::arg("stop"), nb::arg("rows"))
      .def("solve_adjoint_bytes", &D::solve_adjoint_bytes, nb::arg("threads"), nb::arg("method"), nb::arg("stop"),
           nb::arg("rows"));
}

}  // namespace

void init_maps(nb::module_& m) {
  const nb::module_ numpy = nb::module_::import_("numpy");
  new_array = numpy.attr("empty").inc_ref();
  dtype_float32 = numpy.attr("dtype")("f").release();
  dtype_float64 = numpy.attr("dtype")("d").release();
  dtype_word = PyUnicode_InternFromString("dtype");
  const nb::object find_main_thread = nb::cpp_function([] {
    main_thread = nb::cast<unsigned long>(nb::module_::import_("threading").attr("main_thread")().attr("ident"));
  });
  find_main_thread();
  nb::module_::import_("os").attr("register_at_fork")("after_in_child"_a = find_main_thread);
  nb::list names;
  for (Activation activation : activations) names.append(std::string(name(activation)));
  m.attr("activations") = nb::tuple(names);
  bind_prepared<Method, NewtonMethod>(m, "PreparedSolve");
  bind_prepared<AdjointMethod>(m, "PreparedAdjoint");
  bind<float>(m, "Dense32");
  bind<double>(m, "Dense64");
}

}  // namespace deqcore::python

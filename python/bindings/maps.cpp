// SPDX-License-Identifier: Apache-2.0
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/variant.h>

#include <string>
#include <variant>

#include "arrays.hpp"
#include "deqcore/maps/dense.hpp"
#include "deqcore/maps/field.hpp"
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

template <class Map, class T>
Counts integrate(const Map& self, Matrix<const T> z0, Matrix<const T> injection, Vector<const double> times,
                 Matrix<T> values, const OdeArrays& report, const OdeOptions& options, int threads) {
  const Rows<const T> from = rows_of(z0);
  const Rows<T> all = values_of(values, from, times);
  return without_lock([&](Interrupt& interrupt) {
    return self.integrate(threads, options, from, times.data(), static_cast<std::int64_t>(times.shape(0)),
                          rows_of(injection), all.slice(0, from.rows), report.view(), &interrupt);
  });
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
      .def("solve_prepared", &solve_prepared<T>, nb::arg("prepared"), nb::arg("z0").none(),
           nb::arg("injection").none())  // None goes the long way too, which has the words for it
      .def("solve_adjoint_prepared", &solve_adjoint_prepared<T>, nb::arg("prepared"), nb::arg("z").none(),
           nb::arg("injection").none(), nb::arg("g").none())
      .def("differentiate_prepared", &differentiate_prepared<T>, nb::arg("forward"), nb::arg("backward"),
           nb::arg("z0").none(), nb::arg("injection").none(), nb::arg("g").none(), nb::arg("target").none())
      .def("integrate", &integrate<D, T>, nb::arg("z0").noconvert(), nb::arg("injection").noconvert(),
           nb::arg("times").noconvert(), nb::arg("values").noconvert(), nb::arg("report"), nb::arg("options"),
           nb::arg("threads"))
      .def("integrate_bytes", &D::integrate_bytes, nb::arg("threads"), nb::arg("options"), nb::arg("rows"))
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

template <class T>
void bind_field(nb::module_& m, const char* name) {
  using F = Field<T>;
  using In = Matrix<const T>;
  using Out = Matrix<T>;
  nb::class_<F>(m, name)
      .def(
          "__init__",
          [](F* self, In A1, In A2, Vector<const T> b2, const std::string& activation) {
            require(static_cast<std::int64_t>(b2.shape(0)) == rows_of(A2).rows, "b2: ", b2.shape(0),
                    " given; expected ", rows_of(A2).rows);
            new (self) F(rows_of(A1), rows_of(A2), b2.data(), activation_named(activation));
          },
          nb::arg("A1").noconvert(), nb::arg("A2").noconvert(), nb::arg("b2").noconvert(), nb::arg("activation"))
      .def(
          "value",
          [](const F& self, In z, In u, Out value, int threads) {
            const nb::gil_scoped_release others_run;
            self.value(CpuQueue(threads), rows_of(z), rows_of(u), rows_of(value));
          },
          nb::arg("z").noconvert(), nb::arg("u").noconvert(), nb::arg("value").noconvert(), nb::arg("threads"))
      .def(
          "vjp",
          [](const F& self, In z, In u, In a, Out dz, Out du, Out dA1, Out dA2, Vector<T> db2) {
            const nb::gil_scoped_release others_run;
            self.vjp(rows_of(z), rows_of(u), rows_of(a), rows_of(dz), rows_of(du),
                     {.A1 = rows_of(dA1), .A2 = rows_of(dA2), .b2 = db2.data()});
          },
          nb::arg("z").noconvert(), nb::arg("u").noconvert(), nb::arg("a").noconvert(), nb::arg("dz").noconvert(),
          nb::arg("du").noconvert(), nb::arg("dA1").noconvert(), nb::arg("dA2").noconvert(), nb::arg("db2").noconvert())
      .def("integrate", &integrate<F, T>, nb::arg("z0").noconvert(), nb::arg("u").noconvert(),
           nb::arg("times").noconvert(), nb::arg("values").noconvert(), nb::arg("report"), nb::arg("options"),
           nb::arg("threads"))
      .def("integrate_bytes", &F::integrate_bytes, nb::arg("threads"), nb::arg("options"), nb::arg("rows"))
      .def(
          "differentiate",
          [](const F& self, In earlier, In later, In u, double t_earlier, double t_later, Out a, Out du, Out dA1,
             Out dA2, Vector<T> db2, const OdeArrays& report, const OdeOptions& options, int gradient, int threads) {
            return without_lock([&](Interrupt& interrupt) {
              return self.differentiate(threads, options, static_cast<OdeGradient>(gradient), rows_of(earlier),
                                        rows_of(later), rows_of(u), t_earlier, t_later, rows_of(a), rows_of(du),
                                        {.A1 = rows_of(dA1), .A2 = rows_of(dA2), .b2 = db2.data()}, report.view(),
                                        &interrupt);
            });
          },
          nb::arg("earlier").noconvert(), nb::arg("later").noconvert(), nb::arg("u").noconvert(), nb::arg("t_earlier"),
          nb::arg("t_later"), nb::arg("a").noconvert(), nb::arg("du").noconvert(), nb::arg("dA1").noconvert(),
          nb::arg("dA2").noconvert(), nb::arg("db2").noconvert(), nb::arg("report"), nb::arg("options"),
          nb::arg("gradient"), nb::arg("threads"))
      .def(
          "differentiate_bytes",
          [](const F& self, const OdeOptions& options, int gradient, std::int64_t rows, int threads) {
            return self.differentiate_bytes(threads, options, static_cast<OdeGradient>(gradient), rows);
          },
          nb::arg("options"), nb::arg("gradient"), nb::arg("rows"), nb::arg("threads"));
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
  bind_field<float>(m, "Field32");
  bind_field<double>(m, "Field64");
}

}  // namespace deqcore::python

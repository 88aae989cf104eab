// SPDX-License-Identifier: Apache-2.0
#include "deqcore/continuation/ode.hpp"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/vector.h>

#include "dialogue.hpp"
#include "init.hpp"

namespace deqcore::python {
namespace {

template <class T>
void bind(nb::module_& m, const char* name) {
  using Solver = OdeSolve<CpuQueue, T>;
  using D = Dialogue<CpuQueue, Solver, T>;
  nb::class_<D> c(m, name);
  c.def(
       "__init__",
       [](D* self, std::int64_t rows, std::int64_t width, std::vector<std::int64_t> shape, const OdeOptions& options,
          int threads, Scratch scratch) {
         const auto make = [&](CpuQueue& queue, Arena& arena) {
           return std::make_unique<Solver>(queue, rows, width, options, arena);
         };
         new (self) D(scratch.data(), scratch.nbytes(), std::move(shape), make, threads);
       },
       nb::arg("rows"), nb::arg("width"), nb::arg("shape"), nb::arg("options"), nb::arg("threads"),
       nb::arg("scratch").noconvert(), nb::keep_alive<1, 7>())
      .def("advance", &D::advance, nb::arg("answer").none())  // None is refused like any other answer that is none
      .def(
          "start",
          [](D& self, Matrix<const T> z0, Vector<const double> times, std::int64_t count, Matrix<T> values,
             const OdeArrays& report) {
            const Rows<const T> from = rows_of(z0);
            const Rows<T> all = values_of(values, from, times);
            self.open(self.solver().start(from, times.data(), count, all.slice(0, from.rows), from.rows * from.width,
                                          report.view()));
          },
          nb::arg("z0").noconvert(), nb::arg("times").noconvert(), nb::arg("count"), nb::arg("values").noconvert(),
          nb::arg("report"), nb::keep_alive<1, 3>(), nb::keep_alive<1, 5>(), nb::keep_alive<1, 6>())
      .def_static("scratch_bytes", &Solver::scratch_bytes, nb::arg("rows"), nb::arg("width"), nb::arg("options"))
      .def_prop_ro("times_offset", [](D& self) { return self.offset(self.solver().times()); });
  bind_dialogue(c);
}

// The same on a CUDA stream, on arrays given by their addresses.
template <class T>
void bind_cuda([[maybe_unused]] nb::module_& m, [[maybe_unused]] const char* name) {
#if DEQCORE_HAS_CUDA
  using Solver = OdeSolve<CudaQueue, T>;
  using D = Dialogue<CudaQueue, Solver, T>;
  nb::class_<D> c(m, name);
  c.def(
       "__init__",
       [](D* self, std::int64_t rows, std::int64_t width, const OdeOptions& options, int device, std::uintptr_t stream,
          std::uintptr_t scratch, std::size_t bytes, const nb::object&) {
         const auto make = [&](CudaQueue& queue, Arena& arena) {
           return std::make_unique<Solver>(queue, rows, width, options, arena);
         };
         new (self)
             D(reinterpret_cast<void*>(scratch), bytes, {}, make, device, reinterpret_cast<CUstream_st*>(stream));
       },
       nb::arg("rows"), nb::arg("width"), nb::arg("options"), nb::arg("device"), nb::arg("stream"), nb::arg("scratch"),
       nb::arg("bytes"), nb::arg("owner"), nb::keep_alive<1, 9>())  // the stream's owner
      .def("advance", &D::advance_at, nb::arg("answer"))
      .def(
          "start",
          [](D& self, std::uintptr_t z0, std::uintptr_t times, std::int64_t count, std::uintptr_t values,
             const DeviceOdeReport& report) {
            const Rows<T> block = self.solver().block(0);
            self.open(self.solver().start(
                rows_at<const T>(z0, block.rows, block.width), reinterpret_cast<const double*>(times), count,
                rows_at<T>(values, block.rows, block.width), block.rows * block.width, report.report));
          },
          nb::arg("z0"), nb::arg("times"), nb::arg("count"), nb::arg("values"), nb::arg("report"))
      .def_static("scratch_bytes", &Solver::scratch_bytes, nb::arg("rows"), nb::arg("width"), nb::arg("options"))
      .def_prop_ro("times_offset", [](D& self) { return self.offset(self.solver().times()); });
  bind_dialogue(c);
#endif
}

}  // namespace

void init_ode(nb::module_& m) {
  nb::enum_<OdeMethod>(m, "OdeMethod")
      .value("euler", OdeMethod::euler)
      .value("midpoint", OdeMethod::midpoint)
      .value("rk4", OdeMethod::rk4)
      .value("bogacki_shampine", OdeMethod::bogacki_shampine)
      .value("dormand_prince", OdeMethod::dormand_prince);
  m.def("stage_weights", &stage_weights, nb::arg("method"), nb::arg("stage"));
  nb::enum_<Control>(m, "Control").value("rows", Control::rows).value("batch", Control::batch);
  nb::class_<OdeOptions>(m, "OdeOptions")
      .def(nb::init<>())
      .def_rw("method", &OdeOptions::method)
      .def_rw("steps", &OdeOptions::steps)
      .def_rw("rtol", &OdeOptions::rtol)
      .def_rw("atol", &OdeOptions::atol)
      .def_rw("first_step", &OdeOptions::first_step)
      .def_rw("max_steps", &OdeOptions::max_steps)
      .def_rw("control", &OdeOptions::control)
      .def_rw("relax", &OdeOptions::relax)
      .def_rw("retire", &OdeOptions::retire)
      .def_rw("look_every", &OdeOptions::look_every);
  nb::class_<OdeArrays>(m, "OdeReport")
      .def(
          "__init__",
          [](OdeArrays* self, Vector<std::int8_t> status, Matrix<std::int32_t> integers, Vector<double> reached) {
            const std::size_t rows = status.shape(0);
            require(integers.shape(0) == 3 && integers.shape(1) == rows, "integers: expected 3 x ", rows);
            require(reached.shape(0) == rows, "reached: expected ", rows);
            new (self) OdeArrays{status, integers, reached};
          },
          nb::arg("status").noconvert(), nb::arg("integers").noconvert(), nb::arg("reached").noconvert());
  nb::class_<DeviceOdeReport>(m, "DeviceOdeReport")
      .def(
          "__init__",
          [](DeviceOdeReport* self, std::uintptr_t status, std::uintptr_t evaluations, std::uintptr_t accepted,
             std::uintptr_t rejected, std::uintptr_t reached) {
            new (self) DeviceOdeReport{{.status = reinterpret_cast<Status*>(status),
                                        .evaluations = reinterpret_cast<std::int32_t*>(evaluations),
                                        .accepted = reinterpret_cast<std::int32_t*>(accepted),
                                        .rejected = reinterpret_cast<std::int32_t*>(rejected),
                                        .reached = reinterpret_cast<double*>(reached)}};
          },
          nb::arg("status"), nb::arg("evaluations"), nb::arg("accepted"), nb::arg("rejected"), nb::arg("reached"));
  bind<float>(m, "OdeSolve32");
  bind<double>(m, "OdeSolve64");
  bind_cuda<float>(m, "CudaOdeSolve32");
  bind_cuda<double>(m, "CudaOdeSolve64");
}

}  // namespace deqcore::python

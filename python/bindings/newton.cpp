// SPDX-License-Identifier: Apache-2.0
#include "deqcore/newton/newton_solve.hpp"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/variant.h>
#include <nanobind/stl/vector.h>

#include "dialogue.hpp"
#include "init.hpp"

namespace deqcore::python {
namespace {

NewtonForm form(bool root, bool differences) {
  return {.root = root, .differences = differences};
}

template <class Solver>
std::size_t scratch_bytes(std::int64_t rows, std::int64_t width, const NewtonMethod& method, const Stop& stop,
                          bool root, bool differences) {
  return Solver::scratch_bytes(rows, width, method, stop, form(root, differences));
}

template <class T>
void bind(nb::module_& m, const char* name) {
  using Solver = NewtonSolve<CpuQueue, T>;
  using D = Dialogue<CpuQueue, Solver, T>;
  nb::class_<D> c(m, name);
  c.def(
       "__init__",
       [](D* self, std::int64_t rows, std::int64_t width, std::vector<std::int64_t> shape, const NewtonMethod& method,
          const Stop& stop, bool root, bool differences, int threads, Scratch scratch) {
         const auto make = [&](CpuQueue& queue, Arena& arena) {
           return std::make_unique<Solver>(queue, rows, width, method, stop, form(root, differences), arena);
         };
         new (self) D(scratch.data(), scratch.nbytes(), std::move(shape), make, threads);
       },
       nb::arg("rows"), nb::arg("width"), nb::arg("shape"), nb::arg("method"), nb::arg("stop"), nb::arg("root"),
       nb::arg("differences"), nb::arg("threads"), nb::arg("scratch").noconvert(), nb::keep_alive<1, 10>())
      .def("advance", &D::advance, nb::arg("answer").none())  // None is refused like any other answer that is none
      .def(
          "start",
          [](D& self, Matrix<const T> z0, Matrix<T> result, const ReportArrays& report,
             std::optional<Vector<const double>> scale) {
            self.open(
                self.solver().start(rows_of(z0), rows_of(result), report.view(), scale ? scale->data() : nullptr));
          },
          nb::arg("z0").noconvert(), nb::arg("result").noconvert(), nb::arg("report"), nb::arg("scale").none(),
          nb::keep_alive<1, 3>(), nb::keep_alive<1, 4>())
      .def_static("scratch_bytes", &scratch_bytes<Solver>, nb::arg("rows"), nb::arg("width"), nb::arg("method"),
                  nb::arg("stop"), nb::arg("root"), nb::arg("differences"))
      .def_prop_ro("points_offset", [](D& self) { return self.offset(self.solver().points().data); });
  bind_dialogue(c);
}

// The same on a CUDA stream, on arrays given by their addresses.
template <class T>
void bind_cuda([[maybe_unused]] nb::module_& m, [[maybe_unused]] const char* name) {
#if DEQCORE_HAS_CUDA
  using Solver = NewtonSolve<CudaQueue, T>;
  using D = Dialogue<CudaQueue, Solver, T>;
  nb::class_<D> c(m, name);
  c.def(
       "__init__",
       [](D* self, std::int64_t rows, std::int64_t width, const NewtonMethod& method, const Stop& stop, bool root,
          bool differences, int device, std::uintptr_t stream, std::uintptr_t scratch, std::size_t bytes,
          const nb::object&) {
         const auto make = [&](CudaQueue& queue, Arena& arena) {
           return std::make_unique<Solver>(queue, rows, width, method, stop, form(root, differences), arena);
         };
         new (self)
             D(reinterpret_cast<void*>(scratch), bytes, {}, make, device, reinterpret_cast<CUstream_st*>(stream));
       },
       nb::arg("rows"), nb::arg("width"), nb::arg("method"), nb::arg("stop"), nb::arg("root"), nb::arg("differences"),
       nb::arg("device"), nb::arg("stream"), nb::arg("scratch"), nb::arg("bytes"), nb::arg("owner"),
       nb::keep_alive<1, 12>())  // the stream's owner
      .def("advance", &D::advance_at, nb::arg("answer"))
      .def(
          "start",
          [](D& self, std::uintptr_t z0, std::uintptr_t result, const DeviceReport& report, std::uintptr_t scale) {
            const Rows<T> block = self.solver().block(0);
            self.open(self.solver().start(rows_at<const T>(z0, block.rows, block.width),
                                          rows_at<T>(result, block.rows, block.width), report.report,
                                          reinterpret_cast<const double*>(scale)));
          },
          nb::arg("z0"), nb::arg("result"), nb::arg("report"), nb::arg("scale"))
      .def_static("scratch_bytes", &scratch_bytes<Solver>, nb::arg("rows"), nb::arg("width"), nb::arg("method"),
                  nb::arg("stop"), nb::arg("root"), nb::arg("differences"))
      .def_prop_ro("points_offset", [](D& self) { return self.offset(self.solver().points().data); });
  bind_dialogue(c);
#endif
}

}  // namespace

void init_newton(nb::module_& m) {
  nb::class_<NewtonKrylov>(m, "NewtonKrylov")
      .def(nb::init<>())
      .def_rw("restart", &NewtonKrylov::restart)
      .def_rw("forcing", &NewtonKrylov::forcing)
      .def_rw("descent", &NewtonKrylov::descent);
  nb::class_<Newton>(m, "Newton")
      .def(nb::init<>())
      .def_rw("max_width", &Newton::max_width)
      .def_rw("descent", &Newton::descent);
  bind<float>(m, "NewtonSolve32");
  bind<double>(m, "NewtonSolve64");
  bind_cuda<float>(m, "CudaNewtonSolve32");
  bind_cuda<double>(m, "CudaNewtonSolve64");
}

}  // namespace deqcore::python

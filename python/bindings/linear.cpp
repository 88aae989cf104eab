// SPDX-License-Identifier: Apache-2.0
#include "deqcore/linear/linear_solve.hpp"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/variant.h>
#include <nanobind/stl/vector.h>

#include "dialogue.hpp"
#include "init.hpp"

namespace deqcore::python {
namespace {

template <class Solver>
std::size_t scratch_bytes(std::int64_t rows, std::int64_t width, const LinearMethod& method, const Stop& stop,
                          bool preconditioned) {
  return Solver::scratch_bytes(rows, width, method, stop, {.preconditioned = preconditioned});
}

template <class T>
void bind(nb::module_& m, const char* name) {
  using Solver = LinearSolve<CpuQueue, T>;
  using D = Dialogue<CpuQueue, Solver, T>;
  nb::class_<D> c(m, name);
  c.def(
       "__init__",
       [](D* self, std::int64_t rows, std::int64_t width, std::vector<std::int64_t> shape, const LinearMethod& method,
          const Stop& stop, bool preconditioned, int threads, Scratch scratch) {
         const auto make = [&](CpuQueue& queue, Arena& arena) {
           return std::make_unique<Solver>(queue, rows, width, method, stop,
                                           LinearForm{.preconditioned = preconditioned}, arena);
         };
         new (self) D(scratch.data(), scratch.nbytes(), std::move(shape), make, threads);
       },
       nb::arg("rows"), nb::arg("width"), nb::arg("shape"), nb::arg("method"), nb::arg("stop"),
       nb::arg("preconditioned"), nb::arg("threads"), nb::arg("scratch").noconvert(), nb::keep_alive<1, 9>())
      .def("advance", &D::advance, nb::arg("answer").none())  // None is refused like any other answer that is none
      .def(
          "start",
          [](D& self, Matrix<const T> b, std::optional<Matrix<const T>> x0, Matrix<T> result,
             const ReportArrays& report) {
            self.open(
                self.solver().start(rows_of(b), x0 ? rows_of(*x0) : Rows<const T>{}, rows_of(result), report.view()));
          },
          nb::arg("b").noconvert(), nb::arg("x0").none(), nb::arg("result").noconvert(), nb::arg("report"),
          nb::keep_alive<1, 2>(), nb::keep_alive<1, 4>(), nb::keep_alive<1, 5>())
      .def_static("scratch_bytes", &scratch_bytes<Solver>, nb::arg("rows"), nb::arg("width"), nb::arg("method"),
                  nb::arg("stop"), nb::arg("preconditioned"));
  bind_dialogue(c);
}

// The same on a CUDA stream, on arrays given by their addresses.
template <class T>
void bind_cuda([[maybe_unused]] nb::module_& m, [[maybe_unused]] const char* name) {
#if DEQCORE_HAS_CUDA
  using Solver = LinearSolve<CudaQueue, T>;
  using D = Dialogue<CudaQueue, Solver, T>;
  nb::class_<D> c(m, name);
  c.def(
       "__init__",
       [](D* self, std::int64_t rows, std::int64_t width, const LinearMethod& method, const Stop& stop,
          bool preconditioned, int device, std::uintptr_t stream, std::uintptr_t scratch, std::size_t bytes,
          const nb::object&) {
         const auto make = [&](CudaQueue& queue, Arena& arena) {
           return std::make_unique<Solver>(queue, rows, width, method, stop,
                                           LinearForm{.preconditioned = preconditioned}, arena);
         };
         new (self)
             D(reinterpret_cast<void*>(scratch), bytes, {}, make, device, reinterpret_cast<CUstream_st*>(stream));
       },
       nb::arg("rows"), nb::arg("width"), nb::arg("method"), nb::arg("stop"), nb::arg("preconditioned"),
       nb::arg("device"), nb::arg("stream"), nb::arg("scratch"), nb::arg("bytes"), nb::arg("owner"),
       nb::keep_alive<1, 11>())  // the stream's owner
      .def("advance", &D::advance_at, nb::arg("answer"))
      .def(
          "start",
          [](D& self, std::uintptr_t b, std::uintptr_t x0, std::uintptr_t result, const DeviceReport& report) {
            const Rows<T> block = self.solver().block(0);
            const auto rows = [&](std::uintptr_t address) {
              return rows_at<const T>(address, block.rows, block.width);
            };
            self.open(self.solver().start(rows(b), x0 ? rows(x0) : Rows<const T>{},
                                          rows_at<T>(result, block.rows, block.width), report.report));
          },
          nb::arg("b"), nb::arg("x0"), nb::arg("result"), nb::arg("report"))
      .def_static("scratch_bytes", &scratch_bytes<Solver>, nb::arg("rows"), nb::arg("width"), nb::arg("method"),
                  nb::arg("stop"), nb::arg("preconditioned"));
  bind_dialogue(c);
#endif
}

}  // namespace

void init_linear(nb::module_& m) {
  nb::class_<GMRES>(m, "GMRES").def(nb::init<>()).def_rw("restart", &GMRES::restart);
  nb::class_<BiCGSTAB>(m, "BiCGSTAB").def(nb::init<>());
  nb::class_<Direct>(m, "Direct").def(nb::init<>()).def_rw("max_width", &Direct::max_width);
  bind<float>(m, "LinearSolve32");
  bind<double>(m, "LinearSolve64");
  bind_cuda<float>(m, "CudaLinearSolve32");
  bind_cuda<double>(m, "CudaLinearSolve64");
}

}  // namespace deqcore::python

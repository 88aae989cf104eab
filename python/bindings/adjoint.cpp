// SPDX-License-Identifier: Apache-2.0
#include "deqcore/adjoint/adjoint.hpp"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/variant.h>
#include <nanobind/stl/vector.h>

#include "deqcore/adjoint/shine.hpp"
#include "dialogue.hpp"
#include "init.hpp"

namespace deqcore::python {
namespace {

// Callables are asked about points as well, so these solvers gather them.
template <class Solver>
std::size_t scratch_bytes(std::int64_t rows, std::int64_t width, const AdjointMethod& method, const Stop& stop) {
  return Solver::scratch_bytes(rows, width, method, stop, true);
}

template <class T>
void bind(nb::module_& m, const char* name) {
  using Solver = Adjoint<CpuQueue, T>;
  using D = Dialogue<CpuQueue, Solver, T>;
  nb::class_<D> c(m, name);
  c.def(
       "__init__",
       [](D* self, std::int64_t rows, std::int64_t width, std::vector<std::int64_t> shape, const AdjointMethod& method,
          const Stop& stop, int threads, Scratch scratch) {
         const auto make = [&](CpuQueue& queue, Arena& arena) {
           return std::make_unique<Solver>(queue, rows, width, method, stop, true, arena);
         };
         new (self) D(scratch.data(), scratch.nbytes(), std::move(shape), make, threads);
       },
       nb::arg("rows"), nb::arg("width"), nb::arg("shape"), nb::arg("method"), nb::arg("stop"), nb::arg("threads"),
       nb::arg("scratch").noconvert(), nb::keep_alive<1, 8>())
      .def("advance", &D::advance, nb::arg("answer").none())  // None is refused like any other answer that is none
      .def(
          "start",
          [](D& self, Matrix<const T> z, Matrix<const T> g, std::optional<Matrix<const T>> u0, Matrix<T> result,
             const ReportArrays& report) {
            self.open(self.solver().start(rows_of(z), rows_of(g), u0 ? rows_of(*u0) : Rows<const T>{}, rows_of(result),
                                          report.view()));
          },
          nb::arg("z").noconvert(), nb::arg("g").noconvert(), nb::arg("u0").none(), nb::arg("result").noconvert(),
          nb::arg("report"), nb::keep_alive<1, 2>(), nb::keep_alive<1, 3>(), nb::keep_alive<1, 5>(),
          nb::keep_alive<1, 6>())
      .def_static("scratch_bytes", &scratch_bytes<Solver>, nb::arg("rows"), nb::arg("width"), nb::arg("method"),
                  nb::arg("stop"))
      .def_prop_ro("points_offset", [](D& self) { return self.offset(self.solver().points().data); });
  bind_dialogue(c);
}

template <class T>
void bind_shine(nb::module_& m, const char* name) {
  m.def(
      name,
      [](const Broyden& options, const Words& history, const Places& at, double fallback, Matrix<const T> g,
         Matrix<T> w, Vector<std::int32_t> fell, int threads) {
        const std::int64_t words = FixedPoint<CpuQueue, T>::history_words(rows_of(g).width, options);
        const KeptHistory held = history_of(rows_of(g).rows, words, history, at, {});
        const nb::gil_scoped_release others_run;
        CpuQueue queue(threads);
        Shine<CpuQueue, T>::apply(queue, options, held, fallback, rows_of(g), rows_of(w), fell.data());
      },
      nb::arg("method"), nb::arg("history").noconvert(), nb::arg("at").noconvert(), nb::arg("fallback"),
      nb::arg("g").noconvert(), nb::arg("w").noconvert(), nb::arg("fell").noconvert(), nb::arg("threads"));
}

template <class T>
void bind_cuda_shine([[maybe_unused]] nb::module_& m, [[maybe_unused]] const char* name) {
#if DEQCORE_HAS_CUDA
  m.def(
      name,
      [](const Broyden& options, std::uintptr_t history, std::uintptr_t at, double fallback, std::uintptr_t g,
         std::uintptr_t w, std::uintptr_t fell, std::int64_t rows, std::int64_t width, int device,
         std::uintptr_t stream) {
        CudaQueue queue(device, reinterpret_cast<CUstream_st*>(stream));
        Shine<CudaQueue, T>::apply(
            queue, options,
            {.from = reinterpret_cast<const std::int64_t*>(history), .at = reinterpret_cast<const std::int32_t*>(at)},
            fallback, rows_at<const T>(g, rows, width), rows_at<T>(w, rows, width),
            reinterpret_cast<std::int32_t*>(fell));
      },
      nb::arg("method"), nb::arg("history"), nb::arg("at"), nb::arg("fallback"), nb::arg("g"), nb::arg("w"),
      nb::arg("fell"), nb::arg("rows"), nb::arg("width"), nb::arg("device"), nb::arg("stream"));
#endif
}

// The same on a CUDA stream, on arrays given by their addresses.
template <class T>
void bind_cuda([[maybe_unused]] nb::module_& m, [[maybe_unused]] const char* name) {
#if DEQCORE_HAS_CUDA
  using Solver = Adjoint<CudaQueue, T>;
  using D = Dialogue<CudaQueue, Solver, T>;
  nb::class_<D> c(m, name);
  c.def(
       "__init__",
       [](D* self, std::int64_t rows, std::int64_t width, const AdjointMethod& method, const Stop& stop, int device,
          std::uintptr_t stream, std::uintptr_t scratch, std::size_t bytes, const nb::object&) {
         const auto make = [&](CudaQueue& queue, Arena& arena) {
           return std::make_unique<Solver>(queue, rows, width, method, stop, true, arena);
         };
         new (self)
             D(reinterpret_cast<void*>(scratch), bytes, {}, make, device, reinterpret_cast<CUstream_st*>(stream));
       },
       nb::arg("rows"), nb::arg("width"), nb::arg("method"), nb::arg("stop"), nb::arg("device"), nb::arg("stream"),
       nb::arg("scratch"), nb::arg("bytes"), nb::arg("owner"), nb::keep_alive<1, 10>())  // the stream's owner
      .def("advance", &D::advance_at, nb::arg("answer"))
      .def(
          "start",
          [](D& self, std::uintptr_t z, std::uintptr_t g, std::uintptr_t u0, std::uintptr_t result,
             const DeviceReport& report) {
            const Rows<T> block = self.solver().block(0);
            const auto rows = [&](std::uintptr_t address) {
              return rows_at<const T>(address, block.rows, block.width);
            };
            self.open(self.solver().start(rows(z), rows(g), u0 ? rows(u0) : Rows<const T>{},
                                          rows_at<T>(result, block.rows, block.width), report.report));
          },
          nb::arg("z"), nb::arg("g"), nb::arg("u0"), nb::arg("result"), nb::arg("report"))
      .def_static("scratch_bytes", &scratch_bytes<Solver>, nb::arg("rows"), nb::arg("width"), nb::arg("method"),
                  nb::arg("stop"))
      .def_prop_ro("points_offset", [](D& self) { return self.offset(self.solver().points().data); });
  bind_dialogue(c);
#endif
}

}  // namespace

void init_adjoint(nb::module_& m) {
  nb::class_<Neumann>(m, "Neumann").def(nb::init<>()).def_rw("k", &Neumann::k).def_rw("tau", &Neumann::tau);
  bind<float>(m, "Adjoint32");
  bind<double>(m, "Adjoint64");
  bind_cuda<float>(m, "CudaAdjoint32");
  bind_cuda<double>(m, "CudaAdjoint64");
  bind_shine<float>(m, "shine32");
  bind_shine<double>(m, "shine64");
  bind_cuda_shine<float>(m, "cuda_shine32");
  bind_cuda_shine<double>(m, "cuda_shine64");
}

}  // namespace deqcore::python

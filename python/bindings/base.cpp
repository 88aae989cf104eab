// SPDX-License-Identifier: Apache-2.0
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>

#include <string>

#include "arrays.hpp"
#include "deqcore/base/report.hpp"
#include "deqcore/base/stop.hpp"
#include "deqcore/base/version.hpp"
#include "deqcore/device/pool.hpp"
#include "deqcore/device/simd.hpp"
#include "dialogue.hpp"
#include "init.hpp"

#ifdef DEQCORE_EMULATE_CUDA
#include "cuda_emulator.hpp"
#endif

namespace deqcore::python {
namespace {

constexpr std::int64_t alignment = Arena::alignment;

// Bytes to skip in memory of the Python side, up to an address that a solver accepts.
std::int64_t to_alignment(const Scratch& memory) {
  return -reinterpret_cast<std::intptr_t>(memory.data()) & (alignment - 1);
}

template <class T>
std::int64_t first_not_finite_of(const nb::ndarray<const T, nb::c_contig, nb::device::cpu>& array) {
  return first_not_finite(array.data(), static_cast<std::int64_t>(array.size()));
}

#ifdef DEQCORE_EMULATE_CUDA
// For the tests' stand-in of an array library.
void init_emulator(nb::module_& m) {
  const auto stream = [](std::uintptr_t address) { return reinterpret_cast<cudaStream_t>(address); };
  m.def("emulator_make_stream", [] { return reinterpret_cast<std::uintptr_t>(cuda_emulator::make_stream()); });
  m.def("emulator_run", [=](std::uintptr_t address) { cuda_emulator::run_pending(stream(address)); });
  m.def("emulator_synchronize", [=](std::uintptr_t address) { cudaStreamSynchronize(stream(address)); });
  m.def("emulator_pending", [=](std::uintptr_t address) { return cuda_emulator::pending(stream(address)); });
  m.def("emulator_waits", [] { return cuda_emulator::machine().waits; });
  m.def("emulator_seed", [](std::uint64_t seed) { cuda_emulator::machine().order_seed = seed; });
  m.def("emulator_driver", [](int version, int devices) {
    cuda_emulator::machine().driver = version;
    cuda_emulator::machine().devices = devices;
  });
}
#endif

}  // namespace

void init_base(nb::module_& m) {
  ndarray_type = nb::object(nb::module_::import_("numpy").attr("ndarray")).release();
  m.attr("version") = version;
  m.attr("built_with") = built_with;
  m.def("simd_level", [] { return std::string(name(simd_level())); });
  m.def("num_threads", &num_threads);
  m.def("set_num_threads", &set_num_threads, nb::arg("threads"));
  m.def("first_not_finite", &first_not_finite_of<float>, nb::arg("array").noconvert());
  m.def("first_not_finite", &first_not_finite_of<double>, nb::arg("array").noconvert());
  m.attr("alignment") = alignment;
  m.def("to_alignment", &to_alignment, nb::arg("memory").noconvert());
  m.def("status_name", [](int code) { return std::string(name(static_cast<Status>(code))); }, nb::arg("code"));

  nb::enum_<Relative>(m, "Relative")
      .value("to_image", Relative::to_image)
      .value("to_scale", Relative::to_scale)
      .value("to_residual", Relative::to_residual);
  nb::enum_<Norm>(m, "Norm").value("two", Norm::two).value("inf", Norm::inf);
  nb::enum_<Retire>(m, "Retire").value("off", Retire::off).value("on", Retire::on).value("halve", Retire::halve);

  nb::class_<Stop>(m, "Stop")
      .def(nb::init<>())
      .def_rw("rtol", &Stop::rtol, nb::arg().none())
      .def_rw("atol", &Stop::atol)
      .def_rw("max_steps", &Stop::max_steps)
      .def_rw("norm", &Stop::norm)
      .def_rw("relative", &Stop::relative)
      .def_rw("look_every", &Stop::look_every)
      .def_rw("retire", &Stop::retire);
  m.def("resolved_rtol32", [](const Stop& stop) { return resolve<float>(stop).rtol; }, nb::arg("stop"));
  m.def("resolved_rtol64", [](const Stop& stop) { return resolve<double>(stop).rtol; }, nb::arg("stop"));

  nb::class_<ReportArrays>(m, "Report")
      .def(
          "__init__",
          [](ReportArrays* self, Vector<std::int8_t> status, Matrix<std::int32_t> integers, Matrix<double> reals,
             std::optional<Matrix<double>> trace) {
            const std::size_t rows = status.shape(0);
            require(integers.shape(0) == 3 && integers.shape(1) == rows, "integers: expected 3 x ", rows);
            require(reals.shape(0) == 2 && reals.shape(1) == rows, "reals: expected 2 x ", rows);
            new (self) ReportArrays{status, integers, reals, trace};
          },
          nb::arg("status").noconvert(), nb::arg("integers").noconvert(), nb::arg("reals").noconvert(),
          nb::arg("trace").none());

  m.attr("has_cuda") = has_cuda;
#ifdef DEQCORE_EMULATE_CUDA
  init_emulator(m);
#endif
#if DEQCORE_HAS_CUDA
  m.def("cuda_summary", &cuda_summary);
  m.def("cuda_devices", &cuda_devices);
#endif
  nb::class_<DeviceReport>(m, "DeviceReport")
      .def(
          "__init__",
          [](DeviceReport* self, std::uintptr_t status, std::uintptr_t steps, std::uintptr_t residual,
             std::uintptr_t scale, std::uintptr_t rejected, std::uintptr_t singular, std::uintptr_t trace,
             std::int64_t trace_pitch) {
            new (self) DeviceReport{{.status = reinterpret_cast<Status*>(status),
                                     .steps = reinterpret_cast<std::int32_t*>(steps),
                                     .residual = reinterpret_cast<double*>(residual),
                                     .scale = reinterpret_cast<double*>(scale),
                                     .rejected = reinterpret_cast<std::int32_t*>(rejected),
                                     .singular = reinterpret_cast<std::int32_t*>(singular),
                                     .trace = reinterpret_cast<double*>(trace),
                                     .trace_pitch = trace_pitch}};
          },
          nb::arg("status"), nb::arg("steps"), nb::arg("residual"), nb::arg("scale"), nb::arg("rejected"),
          nb::arg("singular"), nb::arg("trace"), nb::arg("trace_pitch"));

  nb::class_<Counts>(m, "Counts")
      .def_ro("questions", &Counts::questions)
      .def_ro("rows_asked", &Counts::rows_asked)
      .def_ro("looks", &Counts::looks)
      .def_ro("products", &Counts::products);
}

}  // namespace deqcore::python

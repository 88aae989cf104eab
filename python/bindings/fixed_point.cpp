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
  using D = Dialogue<CpuQueue, Solver, T>;
  nb::class_<D> c(m, name);
  c.def(
       "__init__",
       [](D* self, std::int64_t rows, std::int64_t width, std::vector<std::int64_t> shape, const Method& method,
          const Stop& stop, int threads, Scratch scratch) {
         const auto make = [&](CpuQueue& queue, Arena& arena) {
           return std::make_unique<Solver>(queue, rows, width, method, stop, arena);
         };
         new (self) D(scratch.data(), scratch.nbytes(), std::move(shape), make, threads);
       },
       nb::arg("rows"), nb::arg("width"), nb::arg("shape"), nb::arg("method"), nb::arg("stop"), nb::arg("threads"),
       nb::arg("scratch").noconvert(), nb::keep_alive<1, 8>())
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
      .def(
          "load",
          [](D& self, const Words& from, const Places& at) {
            self.solver().load(history_of(self.solver().block(0).rows, self.solver().history_words(), from, at, {}));
          },
          nb::arg("history").noconvert(), nb::arg("at").noconvert())
      .def(
          "save",
          [](D& self, const WordsOut& to) {
            self.solver().save(history_of(self.solver().block(0).rows, self.solver().history_words(), {}, {}, to));
          },
          nb::arg("history").noconvert())
      .def_static("scratch_bytes", &Solver::scratch_bytes, nb::arg("rows"), nb::arg("width"), nb::arg("method"),
                  nb::arg("stop"))
      .def_static("history_words", nb::overload_cast<std::int64_t, const Method&>(&Solver::history_words),
                  nb::arg("width"), nb::arg("method"));
  bind_dialogue(c);
}

// The same on a CUDA stream, on arrays given by their addresses.
template <class T>
void bind_cuda([[maybe_unused]] nb::module_& m, [[maybe_unused]] const char* name) {
#if DEQCORE_HAS_CUDA
  using Solver = FixedPoint<CudaQueue, T>;
  using D = Dialogue<CudaQueue, Solver, T>;
  nb::class_<D> c(m, name);
  c.def(
       "__init__",
       [](D* self, std::int64_t rows, std::int64_t width, const Method& method, const Stop& stop, int device,
          std::uintptr_t stream, std::uintptr_t scratch, std::size_t bytes, const nb::object&) {
         const auto make = [&](CudaQueue& queue, Arena& arena) {
           return std::make_unique<Solver>(queue, rows, width, method, stop, arena);
         };
         new (self)
             D(reinterpret_cast<void*>(scratch), bytes, {}, make, device, reinterpret_cast<CUstream_st*>(stream));
       },
       nb::arg("rows"), nb::arg("width"), nb::arg("method"), nb::arg("stop"), nb::arg("device"), nb::arg("stream"),
       nb::arg("scratch"), nb::arg("bytes"), nb::arg("owner"), nb::keep_alive<1, 10>())  // the stream's owner
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
      .def(
          "load",
          [](D& self, std::uintptr_t from, std::uintptr_t at) {
            self.solver().load(
                {.from = reinterpret_cast<const std::int64_t*>(from), .at = reinterpret_cast<const std::int32_t*>(at)});
          },
          nb::arg("history"), nb::arg("at"))
      .def(
          "save", [](D& self, std::uintptr_t to) { self.solver().save({.to = reinterpret_cast<std::int64_t*>(to)}); },
          nb::arg("history"))
      .def_static("scratch_bytes", &Solver::scratch_bytes, nb::arg("rows"), nb::arg("width"), nb::arg("method"),
                  nb::arg("stop"))
      .def_static("history_words", nb::overload_cast<std::int64_t, const Method&>(&Solver::history_words),
                  nb::arg("width"), nb::arg("method"));
  bind_dialogue(c);
#endif
}

}  // namespace

void init_fixed_point(nb::module_& m) {
  nb::class_<Picard>(m, "Picard").def(nb::init<>()).def_rw("beta", &Picard::beta);
  nb::enum_<Storage>(m, "Storage").value("full", Storage::full).value("bfloat16", Storage::bfloat16);
  nb::class_<Anderson>(m, "Anderson")
      .def(nb::init<>())
      .def_rw("history", &Anderson::history)
      .def_rw("beta", &Anderson::beta)
      .def_rw("ridge", &Anderson::ridge)
      .def_rw("growth", &Anderson::growth)
      .def_rw("storage", &Anderson::storage);
  nb::class_<AndersonTypeI>(m, "AndersonTypeI")
      .def(nb::init<>())
      .def_rw("history", &AndersonTypeI::history)
      .def_rw("beta", &AndersonTypeI::beta)
      .def_rw("powell", &AndersonTypeI::powell)
      .def_rw("independence", &AndersonTypeI::independence)
      .def_rw("safeguard", &AndersonTypeI::safeguard)
      .def_rw("decay", &AndersonTypeI::decay);
  nb::enum_<Broyden::Full>(m, "Full")
      .value("restart", Broyden::Full::restart)
      .value("compress", Broyden::Full::compress);
  nb::class_<Broyden>(m, "Broyden")
      .def(nb::init<>())
      .def_rw("history", &Broyden::history)
      .def_rw("full", &Broyden::full)
      .def_rw("growth", &Broyden::growth);
  nb::enum_<SteadyState::Pair>(m, "Pair")
      .value("bogacki_shampine", SteadyState::Pair::bogacki_shampine)
      .value("dormand_prince", SteadyState::Pair::dormand_prince);
  nb::class_<SteadyState>(m, "SteadyState")
      .def(nb::init<>())
      .def_rw("pair", &SteadyState::pair)
      .def_rw("accuracy", &SteadyState::accuracy)
      .def_rw("first_step", &SteadyState::first_step);
  bind<float>(m, "FixedPoint32");
  bind<double>(m, "FixedPoint64");
  bind_cuda<float>(m, "CudaFixedPoint32");
  bind_cuda<double>(m, "CudaFixedPoint64");
}

}  // namespace deqcore::python

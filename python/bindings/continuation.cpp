// SPDX-License-Identifier: Apache-2.0
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/vector.h>

#include "deqcore/continuation/homotopy.hpp"
#include "dialogue.hpp"
#include "init.hpp"

namespace deqcore::python {
namespace {

HomotopyForm form(bool differences, bool rate_differences, bool verify) {
  return {.differences = differences, .rate_differences = rate_differences, .verify = verify};
}

// `integers`: a row each of end, folds, solves, accepted and, if there is a record, how many entries it has.
PathReport path_report(std::int32_t* integers, double* lambda, std::int64_t rows) {
  return {.end = reinterpret_cast<PathEnd*>(integers),
          .folds = integers + rows,
          .solves = integers + 2 * rows,
          .accepted = integers + 3 * rows,
          .lambda = lambda,
          .record = {}};
}

// The arrays about the paths, made by the Python side.
struct PathArrays {
  Matrix<std::int32_t> integers;
  Vector<double> lambda;
  std::optional<Matrix<double>> numbers;      // capacity x 4 rows
  std::optional<Matrix<std::int32_t>> kinds;  // capacity x rows
  std::optional<Matrix<double>> points;       // capacity x (rows picked)
  std::optional<Vector<std::int32_t>> components;

  PathReport view() const {
    const auto rows = static_cast<std::int64_t>(lambda.shape(0));
    require(integers.shape(0) == 5 && static_cast<std::int64_t>(integers.shape(1)) == rows,
            "integers: expected 5 rows of ", rows);
    PathReport report = path_report(integers.data(), lambda.data(), rows);
    if (numbers && kinds && points && components) {
      report.record = {.capacity = static_cast<std::int64_t>(kinds->shape(0)),
                       .count = integers.data() + 4 * rows,
                       .numbers = numbers->data(),
                       .kinds = kinds->data(),
                       .points = points->data(),
                       .picked = static_cast<std::int64_t>(components->shape(0)),
                       .components = components->data(),
                       .rows = rows};
    }
    return report;
  }
};

// The same by addresses of a device.
struct DevicePath {
  PathReport report;
};

template <class Class>
void bind_path(Class& c) {
  using D = typename Class::Type;
  c.def_prop_ro("points_offset", [](D& self) { return self.offset(self.solver().points().data); })
      .def_prop_ro("times_offset", [](D& self) { return self.offset(self.solver().times()); })
      .def_prop_ro("about_rate", [](D& self) { return self.kind() == Ask::rate; })
      .def_prop_ro("about_path", [](D& self) { return self.has_time(); });
}

template <class T>
void bind(nb::module_& m, const char* name) {
  using Solver = FollowPath<CpuQueue, T>;
  using D = Dialogue<CpuQueue, Solver, T>;
  nb::class_<D> c(m, name);
  c.def(
       "__init__",
       [](D* self, std::int64_t rows, std::int64_t width, std::vector<std::int64_t> shape, const Homotopy& method,
          const Stop& stop, bool differences, bool rate_differences, bool verify, int threads, Scratch scratch) {
         const auto make = [&](CpuQueue& queue, Arena& arena) {
           return std::make_unique<Solver>(queue, rows, width, method, stop,
                                           form(differences, rate_differences, verify), arena);
         };
         new (self) D(scratch.data(), scratch.nbytes(), std::move(shape), make, threads);
       },
       nb::arg("rows"), nb::arg("width"), nb::arg("shape"), nb::arg("method"), nb::arg("stop"), nb::arg("differences"),
       nb::arg("rate_differences"), nb::arg("verify"), nb::arg("threads"), nb::arg("scratch").noconvert(),
       nb::keep_alive<1, 11>())
      .def("advance", &D::advance, nb::arg("answer").none())  // None is refused like any other answer that is none
      .def(
          "start",
          [](D& self, Matrix<const T> z0, Matrix<T> result, const ReportArrays& report, const PathArrays& path,
             std::optional<Vector<const double>> scale) {
            self.open(self.solver().start(rows_of(z0), rows_of(result), report.view(), path.view(),
                                          scale ? scale->data() : nullptr));
          },
          nb::arg("z0").noconvert(), nb::arg("result").noconvert(), nb::arg("report"), nb::arg("path"),
          nb::arg("scale").none(), nb::keep_alive<1, 3>(), nb::keep_alive<1, 4>(), nb::keep_alive<1, 5>())
      .def_static(
          "scratch_bytes",
          [](std::int64_t rows, std::int64_t width, const Homotopy& method, const Stop& stop, bool differences,
             bool rate_differences, bool verify) {
            return Solver::scratch_bytes(rows, width, method, stop, form(differences, rate_differences, verify));
          },
          nb::arg("rows"), nb::arg("width"), nb::arg("method"), nb::arg("stop"), nb::arg("differences"),
          nb::arg("rate_differences"), nb::arg("verify"));
  bind_path(c);
  bind_dialogue(c);
}

// The same on a CUDA stream, on arrays given by their addresses.
template <class T>
void bind_cuda([[maybe_unused]] nb::module_& m, [[maybe_unused]] const char* name) {
#if DEQCORE_HAS_CUDA
  using Solver = FollowPath<CudaQueue, T>;
  using D = Dialogue<CudaQueue, Solver, T>;
  nb::class_<D> c(m, name);
  c.def(
       "__init__",
       [](D* self, std::int64_t rows, std::int64_t width, const Homotopy& method, const Stop& stop, bool differences,
          bool rate_differences, bool verify, int device, std::uintptr_t stream, std::uintptr_t scratch,
          std::size_t bytes, const nb::object&) {
         const auto make = [&](CudaQueue& queue, Arena& arena) {
           return std::make_unique<Solver>(queue, rows, width, method, stop,
                                           form(differences, rate_differences, verify), arena);
         };
         new (self)
             D(reinterpret_cast<void*>(scratch), bytes, {}, make, device, reinterpret_cast<CUstream_st*>(stream));
       },
       nb::arg("rows"), nb::arg("width"), nb::arg("method"), nb::arg("stop"), nb::arg("differences"),
       nb::arg("rate_differences"), nb::arg("verify"), nb::arg("device"), nb::arg("stream"), nb::arg("scratch"),
       nb::arg("bytes"), nb::arg("owner"), nb::keep_alive<1, 13>())  // the stream's owner
      .def("advance", &D::advance_at, nb::arg("answer"))
      .def(
          "start",
          [](D& self, std::uintptr_t z0, std::uintptr_t result, const DeviceReport& report, const DevicePath& path,
             std::uintptr_t scale) {
            const Rows<T> block = self.solver().block(0);
            self.open(self.solver().start(rows_at<const T>(z0, block.rows, block.width),
                                          rows_at<T>(result, block.rows, block.width), report.report, path.report,
                                          reinterpret_cast<const double*>(scale)));
          },
          nb::arg("z0"), nb::arg("result"), nb::arg("report"), nb::arg("path"), nb::arg("scale"))
      .def_static(
          "scratch_bytes",
          [](std::int64_t rows, std::int64_t width, const Homotopy& method, const Stop& stop, bool differences,
             bool rate_differences, bool verify) {
            return Solver::scratch_bytes(rows, width, method, stop, form(differences, rate_differences, verify));
          },
          nb::arg("rows"), nb::arg("width"), nb::arg("method"), nb::arg("stop"), nb::arg("differences"),
          nb::arg("rate_differences"), nb::arg("verify"));
  bind_path(c);
  bind_dialogue(c);
#endif
}

}  // namespace

void init_continuation(nb::module_& m) {
  nb::enum_<HomotopyKind>(m, "HomotopyKind")
      .value("fixed_point", HomotopyKind::fixed_point)
      .value("newton", HomotopyKind::newton)
      .value("own", HomotopyKind::own);
  nb::enum_<Tracker>(m, "Tracker").value("arclength", Tracker::arclength).value("natural", Tracker::natural);
  nb::class_<Homotopy>(m, "Homotopy")
      .def(nb::init<>())
      .def_rw("kind", &Homotopy::kind)
      .def_rw("tracker", &Homotopy::tracker)
      .def_rw("first_step", &Homotopy::first_step)
      .def_rw("most_step", &Homotopy::most_step)
      .def_rw("least_step", &Homotopy::least_step)
      .def_rw("tolerance", &Homotopy::tolerance)
      .def_rw("corrections", &Homotopy::corrections)
      .def_rw("angle", &Homotopy::angle)
      .def_rw("blow_up", &Homotopy::blow_up)
      .def_rw("max_solves", &Homotopy::max_solves)
      .def_rw("dense_width", &Homotopy::dense_width)
      .def_rw("restart", &Homotopy::restart);
  nb::class_<PathArrays>(m, "Path").def(
      "__init__",
      [](PathArrays* self, Matrix<std::int32_t> integers, Vector<double> lambda, std::optional<Matrix<double>> numbers,
         std::optional<Matrix<std::int32_t>> kinds, std::optional<Matrix<double>> points,
         std::optional<Vector<std::int32_t>> components) {
        new (self) PathArrays{std::move(integers), std::move(lambda), std::move(numbers),
                              std::move(kinds),    std::move(points), std::move(components)};
      },
      nb::arg("integers").noconvert(), nb::arg("lam").noconvert(), nb::arg("numbers").noconvert().none(),
      nb::arg("kinds").noconvert().none(), nb::arg("points").noconvert().none(),
      nb::arg("components").noconvert().none());
  nb::class_<DevicePath>(m, "DevicePath")
      .def(
          "__init__",
          [](DevicePath* self, std::uintptr_t integers, std::uintptr_t lambda, std::uintptr_t numbers,
             std::uintptr_t kinds, std::uintptr_t points, std::uintptr_t components, std::int64_t rows,
             std::int64_t capacity, std::int64_t picked) {
            auto* const counted = reinterpret_cast<std::int32_t*>(integers);
            new (self) DevicePath{path_report(counted, reinterpret_cast<double*>(lambda), rows)};
            if (capacity == 0) return;
            self->report.record = {.capacity = capacity,
                                   .count = counted + 4 * rows,
                                   .numbers = reinterpret_cast<double*>(numbers),
                                   .kinds = reinterpret_cast<std::int32_t*>(kinds),
                                   .points = reinterpret_cast<double*>(points),
                                   .picked = picked,
                                   .components = reinterpret_cast<const std::int32_t*>(components),
                                   .rows = rows};
          },
          nb::arg("integers"), nb::arg("lam"), nb::arg("numbers"), nb::arg("kinds"), nb::arg("points"),
          nb::arg("components"), nb::arg("rows"), nb::arg("capacity"), nb::arg("picked"));
  bind<float>(m, "FollowPath32");
  bind<double>(m, "FollowPath64");
  bind_cuda<float>(m, "CudaFollowPath32");
  bind_cuda<double>(m, "CudaFollowPath64");
}

}  // namespace deqcore::python

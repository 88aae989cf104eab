// SPDX-License-Identifier: Apache-2.0
// One dialogue as a Python object: the queue, the solver, its scratch (memory that the Python side made), and the map
// from a question to offsets in that scratch. The Python loop makes views of the scratch; no array is made here.
#pragma once

#include <nanobind/nanobind.h>

#include <memory>
#include <utility>
#include <vector>

#include "arrays.hpp"
#include "deqcore/base/arena.hpp"
#include "deqcore/base/question.hpp"
#include "deqcore/device/queues.hpp"

namespace deqcore::python {

template <class Queue, class Solver, class T>
class Dialogue {
 public:
  // make(queue, arena) constructs the solver. `shape`: of an answer about all rows.
  template <class Make, class... QueueArguments>
  Dialogue(void* scratch, std::size_t bytes, std::vector<std::int64_t> shape, const Make& make, QueueArguments... queue)
      : scratch_(scratch),
        bytes_(bytes),
        shape_(std::move(shape)),
        queue_(queue...),
        arena_(scratch, bytes),
        solver_(make(queue_, arena_)) {}

  Solver& solver() { return *solver_; }

  void open(const Question<T>& question) { question_ = question; }

  // The answer is a host array. -> Reply
  int advance(nb::handle answer) {
    require(static_cast<bool>(question_), "advance: no question is open");
    nb::ndarray<const T, nb::c_contig, nb::device::cpu> array;
    if (shape_.size() > 1) shape_[0] = question_.count;
    if (!usable<T>(answer, shape_, scratch_, bytes_, array)) return refused;
    if (array.size() < long_step) return pass_on(array.data());
    const nb::gil_scoped_release others_run;
    return pass_on(array.data());
  }

  // The answer lies at an address of the queue's device, dense, in the shape of the question: the caller has checked
  // it.
  int advance_at(std::uintptr_t answer) {
    require(static_cast<bool>(question_), "advance: no question is open");
    const nb::gil_scoped_release others_run;
    return pass_on(reinterpret_cast<const T*>(answer));
  }

  std::int64_t count() const { return question_.count; }
  bool about_value() const { return question_.kind == Ask::value; }
  Ask kind() const { return question_.kind; }
  bool has_time() const { return question_.time != nullptr; }
  std::int64_t offset(const void* inside) const {
    return static_cast<const std::byte*>(inside) - static_cast<const std::byte*>(scratch_);
  }
  // Of what is asked about: the point, or the direction of a product.
  std::int64_t question_offset() const {
    const bool point = question_.kind == Ask::value || question_.kind == Ask::rate;
    return offset(point ? question_.at.data : question_.along.data);
  }
  std::int64_t rows_offset() const { return offset(question_.rows); }
  std::int64_t block_offset(int which) const { return offset(solver_->block(which).data); }

  const Counts& counts() const { return solver_->counts(); }
  std::pair<std::int64_t, double> progress() const { return {solver_->progress().running, solver_->progress().worst}; }
  std::int64_t failed() const { return solver_->progress().failed; }
  std::int64_t waits() const { return queue_.counts().waits; }
  void cancel() {
    solver_->cancel();
    question_ = {};
  }

 private:
  static constexpr std::size_t long_step = 32 * 1024;  // elements: tens of microseconds, worth handing the lock over

  int pass_on(const T* answer) {
    const Question<T> before = question_;
    question_ = solver_->advance(dense_rows(answer, before.count, solver_->block(0).width));
    if (!question_) return done;
    const auto alike = [&](Ask kind) { return (question_.kind == kind) == (before.kind == kind); };
    const bool same_kind =
        alike(Ask::value) && alike(Ask::rate) && (question_.time == nullptr) == (before.time == nullptr);
    return same_kind && question_.count == before.count && question_.rows == before.rows ? flipped : reshaped;
  }

  void* scratch_;  // kept alive by the Python side (keep_alive on the constructor)
  std::size_t bytes_;
  std::vector<std::int64_t> shape_;  // of an answer; its first entry follows the question unless there is one axis
  Queue queue_;
  Arena arena_;
  std::unique_ptr<Solver> solver_;
  Question<T> question_;
};

// The members that every dialogue shares.
template <class Class>
void bind_dialogue(Class& c) {
  using D = typename Class::Type;
  c.def("cancel", &D::cancel)
      .def("block_offset", &D::block_offset, nb::arg("which"))
      .def_prop_ro("count", &D::count)
      .def_prop_ro("about_value", &D::about_value)
      .def_prop_ro("question_offset", &D::question_offset)
      .def_prop_ro("rows_offset", &D::rows_offset)
      .def_prop_ro("counts", &D::counts)
      .def_prop_ro("progress", &D::progress)
      .def_prop_ro("failed", &D::failed)
      .def_prop_ro("waits", &D::waits);
}

template <class T>
Rows<T> rows_at(std::uintptr_t address, std::int64_t rows, std::int64_t width) {
  return dense_rows(reinterpret_cast<T*>(address), rows, width);
}

// A report whose arrays lie at addresses of a device.
struct DeviceReport {
  Report report;
};

struct DeviceOdeReport {
  OdeReport report;
};

}  // namespace deqcore::python

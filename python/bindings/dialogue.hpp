// SPDX-License-Identifier: Apache-2.0
// One dialogue as a Python object: the solver, its scratch (a NumPy array that the Python side made), and the map from
// a question to offsets in that scratch. The Python loop makes views of the scratch; no array is made here.
#pragma once

#include <nanobind/nanobind.h>

#include <vector>

#include "arrays.hpp"
#include "deqcore/base/question.hpp"
#include "deqcore/device/cpu_queue.hpp"

namespace deqcore::python {

using Scratch = nb::ndarray<std::uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

template <class Solver, class T>
class Dialogue {
 public:
  // make(queue, arena) constructs the solver.
  template <class Make>
  Dialogue(int threads, Scratch scratch, std::vector<std::int64_t> shape, const Make& make)
      : scratch_(std::move(scratch)),
        shape_(std::move(shape)),
        queue_(threads),
        arena_(scratch_.data(), scratch_.nbytes()),
        solver_(make(queue_, arena_)),
        ndarray_type_(nb::module_::import_("numpy").attr("ndarray")) {}

  Solver& solver() { return *solver_; }

  void open(const Question<T>& question) { question_ = question; }

  // -> Reply
  int advance(nb::handle answer) {
    require(static_cast<bool>(question_), "advance: no question is open");
    nb::ndarray<const T, nb::c_contig, nb::device::cpu> array;
    if (shape_.size() > 1) shape_[0] = question_.count;
    if (!usable<T>(answer, ndarray_type_, shape_, scratch_.data(), scratch_.nbytes(), array)) return refused;
    const std::int64_t width = static_cast<std::int64_t>(array.size()) / question_.count;
    const Rows<const T> rows = dense_rows(array.data(), question_.count, width);
    const std::int64_t asked = question_.count;
    if (array.size() >= long_step) {
      const nb::gil_scoped_release others_run;
      question_ = solver_->advance(rows);
    } else {
      question_ = solver_->advance(rows);
    }
    if (!question_) return done;
    return question_.count == asked ? flipped : reshaped;
  }

  std::int64_t count() const { return question_.count; }
  std::int64_t offset(const void* inside) const {
    return static_cast<const std::byte*>(inside) - reinterpret_cast<const std::byte*>(scratch_.data());
  }
  // Of what is asked about: the point, or the direction of a product.
  std::int64_t question_offset() const {
    return offset(question_.kind == Ask::value ? question_.at.data : question_.along.data);
  }
  std::int64_t rows_offset() const { return offset(question_.rows); }
  std::int64_t block_offset(int which) const { return offset(solver_->block(which).data); }

  const Counts& counts() const { return solver_->counts(); }
  std::pair<std::int64_t, double> progress() const { return {solver_->progress().running, solver_->progress().worst}; }
  void cancel() {
    solver_->cancel();
    question_ = {};
  }

 private:
  static constexpr std::size_t long_step = 32 * 1024;  // elements: tens of microseconds, worth handing the lock over

  Scratch scratch_;
  std::vector<std::int64_t> shape_;  // of an answer; its first entry follows the question unless there is one axis
  CpuQueue queue_;
  Arena arena_;
  std::unique_ptr<Solver> solver_;
  Question<T> question_;
  nb::object ndarray_type_;
};

// The members that every dialogue shares.
template <class Class>
void bind_dialogue(Class& c) {
  using D = typename Class::Type;
  c.def("advance", &D::advance, nb::arg("answer").none())  // None is refused like any other answer that is none
      .def("cancel", &D::cancel)
      .def("block_offset", &D::block_offset, nb::arg("which"))
      .def_prop_ro("count", &D::count)
      .def_prop_ro("question_offset", &D::question_offset)
      .def_prop_ro("rows_offset", &D::rows_offset)
      .def_prop_ro("counts", &D::counts)
      .def_prop_ro("progress", &D::progress);
}

}  // namespace deqcore::python

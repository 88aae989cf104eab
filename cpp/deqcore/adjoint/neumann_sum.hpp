// SPDX-License-Identifier: Apache-2.0
// Private to this folder: the first terms of the Neumann series, as a dialogue.
#pragma once

#include "deqcore/adjoint/methods.hpp"
#include "deqcore/base/arena.hpp"
#include "deqcore/base/question.hpp"
#include "deqcore/base/report.hpp"
#include "deqcore/base/stop.hpp"

namespace deqcore {

template <class Queue, class T>
class NeumannSum {
 public:
  NeumannSum(Queue* queue, std::int64_t rows, std::int64_t width, const Neumann& options, const Stop& stop,
             Arena& scratch);

  Question<T> start(Rows<const T> g, Rows<T> result, const Report& report);
  Question<T> advance(Rows<const T> answer);
  void cancel();
  void map_failed() { end(Status::map_failed); }

  const Counts& counts() const { return counts_; }
  const Progress& progress() const { return progress_; }
  Rows<T> block(int) const { return w_; }

 private:
  Question<T> next();
  void end(Status status);

  Queue* queue_;
  Neumann options_;
  Norm norm_;
  Rows<T> w_;
  std::int32_t* ids_;
  Rows<const T> g_;
  Rows<T> result_;
  Report report_;
  bool open_ = false;
  Counts counts_;
  Progress progress_;
};

}  // namespace deqcore

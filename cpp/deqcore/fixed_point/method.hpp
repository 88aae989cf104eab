// SPDX-License-Identifier: Apache-2.0
// Private to this folder: how a method says what the next point is. The loop, and everything that is the same for all
// methods, is in fixed_point.cpp.
#pragma once

#include <memory>

#include "deqcore/base/arena.hpp"
#include "deqcore/fixed_point/methods.hpp"
#include "deqcore/kernels/kept.hpp"
#include "deqcore/kernels/step.hpp"

namespace deqcore {

// What is known after an evaluation. z and f stand at rows.from(position).
template <class T>
struct Step {
  ActiveRows rows;
  Rows<const T> z, f;
  RowStates states;
};

template <class Queue, class T>
class MethodRule {
 public:
  virtual ~MethodRule() = default;

  // Forgets everything that persists between solves.
  virtual void start(Queue& queue) = 0;

  // After a measurement and before the verdict on it, all still at their positions: which points may be given up.
  virtual Trials weigh(Queue& /*queue*/, const Step<T>& /*step*/) { return {}; }

  // Writes the next point of every running row.
  virtual void update(Queue& queue, const Step<T>& step, Rows<T> next) = 0;

  // Columns of differences remembered.
  virtual std::int64_t history() const = 0;

  // What a later solve can go on with.
  virtual RowMemory<T> memory() const { return {}; }
};

// One factory per method, defined and instantiated in the method's own file.
template <class Queue, class T>
class PicardFactory {
 public:
  static std::unique_ptr<MethodRule<Queue, T>> make(const Picard& options);
};

template <class Queue, class T>
class AndersonFactory {
 public:
  static std::unique_ptr<MethodRule<Queue, T>> make(const Anderson& options, std::int64_t rows, std::int64_t width,
                                                    Arena& scratch);
};

template <class Queue, class T>
class AndersonTypeIFactory {
 public:
  static std::unique_ptr<MethodRule<Queue, T>> make(const AndersonTypeI& options, std::int64_t rows, std::int64_t width,
                                                    Arena& scratch);
};

template <class Queue, class T>
class BroydenFactory {
 public:
  static std::unique_ptr<MethodRule<Queue, T>> make(const Broyden& options, std::int64_t rows, std::int64_t width,
                                                    Arena& scratch);
};

template <class Queue, class T>
class SteadyStateFactory {
 public:
  static std::unique_ptr<MethodRule<Queue, T>> make(const SteadyState& options, std::int64_t rows, std::int64_t width,
                                                    Arena& scratch);
};

}  // namespace deqcore

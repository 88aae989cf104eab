// SPDX-License-Identifier: Apache-2.0
// Private to this folder: how a linear method says what it asks next. The loop is in linear_solve.cpp.
#pragma once

#include <memory>

#include "deqcore/base/arena.hpp"
#include "deqcore/kernels/linear.hpp"
#include "deqcore/linear/methods.hpp"

namespace deqcore {

// What is known after a product.
template <class T>
struct LinearStep {
  ActiveRows rows;
  Rows<const T> along, answer;  // by position
  Rows<T> x;                    // by row
  LinearStates states;
};

template <class Queue, class T>
class LinearRule {
 public:
  virtual ~LinearRule() = default;

  // Forgets everything that persists between solves.
  virtual void start(Queue& queue) = 0;

  // Takes the answers of rows that were asked about one of the method's directions.
  virtual void absorb(Queue& queue, const LinearStep<T>& step) = 0;

  // Writes what every active row is asked about next; rows in Phase::start begin from the residual.
  virtual void pose(Queue& queue, const LinearStep<T>& step, Rows<T> along) = 0;

  // Where the residual of a measured row goes, by row.
  virtual Rows<T> residual() const = 0;
};

// What every rule is made from.
struct LinearShape {
  std::int64_t rows, width;
  Operator form;
  std::int32_t max_steps;
  bool preconditioned;
};

// One factory per method, defined and instantiated in the method's own file.
template <class Queue, class T>
class GMRESFactory {
 public:
  static std::unique_ptr<LinearRule<Queue, T>> make(const GMRES& options, const LinearShape& shape, Arena& scratch);
};

template <class Queue, class T>
class BiCGSTABFactory {
 public:
  static std::unique_ptr<LinearRule<Queue, T>> make(const BiCGSTAB& options, const LinearShape& shape, Arena& scratch);
};

template <class Queue, class T>
class DirectFactory {
 public:
  static std::unique_ptr<LinearRule<Queue, T>> make(const Direct& options, const LinearShape& shape, Arena& scratch);
};

}  // namespace deqcore

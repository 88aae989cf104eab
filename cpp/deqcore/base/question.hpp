// SPDX-License-Identifier: Apache-2.0
// What a solver wants evaluated. The caller answers with one row per row of `at`, and calls advance.
#pragma once

#include <cstdint>

#include "deqcore/base/rows.hpp"

namespace deqcore {

enum class Ask : std::int8_t {
  done,          // nothing: the solve has ended
  value,         // f(at)
  jvp,           // J(at) along
  vjp,           // J(at)^T along
  product,       // A along, for a matrix A
  precondition,  // an approximation of A^-1 along
  rate,          // dH/dlambda(at, time), of a homotopy H
};

template <class T>
struct Question {
  Ask kind = Ask::done;
  Rows<const T> at;                    // dense: one row per row asked about
  Rows<const T> along;                 // of products: shaped like `at`
  const double* time = nullptr;        // per row asked about: the parameter of ODEs and homotopies; null elsewhere
  const std::int32_t* rows = nullptr;  // which row of the batch each row of `at` is
  std::int64_t count = 0;              // rows asked about

  explicit operator bool() const { return kind != Ask::done; }
};

}  // namespace deqcore

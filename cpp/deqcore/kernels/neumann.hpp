// SPDX-License-Identifier: Apache-2.0
// A fixed number of terms of the damped Neumann series, by w <- w + tau (J^T w + g - w) from w = tau g. Nothing is
// judged on the way: every row takes every step.
#pragma once

#include "deqcore/base/report.hpp"
#include "deqcore/base/stop.hpp"
#include "deqcore/kernels/kernel.hpp"

namespace deqcore {

// w = tau g; every row running, scale = |g|, residual unknown; ids[row] = row.   1 read, 1 write
template <class T>
struct BeginNeumann {
  Norm norm;
  double tau;
  Rows<const T> g;
  Rows<T> w;
  Report report;
  std::int32_t* ids;
};
DEQCORE_KERNEL(BeginNeumann);

// w <- w + tau (product + g - w), with the product J^T w.   3 reads, 1 write
template <class T>
struct AddTerm {
  double tau;
  Rows<const T> g, product;
  Rows<T> w;
  Report report;
};
DEQCORE_KERNEL(AddTerm);

// result = w, and every row ends with `status`, or as not_finite where w is not.   1 read, 1 write
template <class T>
struct EndNeumann {
  Status status;
  Rows<const T> w;
  Rows<T> result;
  Report report;
};
DEQCORE_KERNEL(EndNeumann);

// To the mailbox: the rows that failed.
template <class T>
struct CountFailed {
  std::int64_t rows;
  Report report;
  Progress* progress;
};
DEQCORE_KERNEL(CountFailed);

}  // namespace deqcore

// SPDX-License-Identifier: Apache-2.0
// Whole rows copied, gathered and added.
#pragma once

#include "deqcore/base/stop.hpp"
#include "deqcore/kernels/kernel.hpp"

namespace deqcore {

// to[i] = from[i]. No overlap. 1 read, 1 write.
template <class T>
struct CopyRows {
  Rows<const T> from;
  Rows<T> to;
};
DEQCORE_KERNEL(CopyRows);

// to[i] = from[source[i]]. No overlap. 1 read, 1 write.
template <class T>
struct GatherRows {
  ActiveRows source;
  Rows<const T> from;
  Rows<T> to;
};
DEQCORE_KERNEL(GatherRows);

// sum[i] = a[i] + b[ids[i]]. `sum` may be `a`. 2 reads, 1 write.
template <class T>
struct AddRows {
  ActiveRows rows;
  Rows<const T> a;  // by position
  Rows<const T> b;  // by row
  Rows<T> sum;      // by position
};
DEQCORE_KERNEL(AddRows);

// x[i] = 0 where norms[i] is 0.   up to 1 write
template <class T>
struct ClearRows {
  const double* norms;
  Rows<T> x;
};
DEQCORE_KERNEL(ClearRows);

// norm[i] = |x[i]|. 1 read.
template <class T>
struct MeasureRows {
  Norm norm;
  Rows<const T> x;
  double* norms;
};
DEQCORE_KERNEL(MeasureRows);

}  // namespace deqcore

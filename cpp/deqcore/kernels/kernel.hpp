// SPDX-License-Identifier: Apache-2.0
// A kernel is a struct that names its operands; a backend is a set of overloads run(queue, kernel). DEQCORE_KERNEL, of
// the generated queues.hpp, declares them for every queue of the build.
#pragma once

#include <cstdint>

#include "deqcore/base/rows.hpp"
#include "deqcore/device/queues.hpp"

// One backend's instantiations of a kernel, for every element type.
#define DEQCORE_INSTANTIATE_KERNEL(Queue, Kernel)         \
  template void run<float>(Queue&, const Kernel<float>&); \
  template void run<double>(Queue&, const Kernel<double>&)

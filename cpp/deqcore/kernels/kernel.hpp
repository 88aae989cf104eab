// SPDX-License-Identifier: Apache-2.0
// A kernel is a struct that names its operands; a backend is a set of overloads run(queue, kernel). The two macros
// declare a kernel for every queue and instantiate one backend's overload for every element type.
#pragma once

#include <cstdint>

#include "deqcore/base/rows.hpp"
#include "deqcore/device/cpu_queue.hpp"

#define DEQCORE_KERNEL(Kernel) \
  template <class T>           \
  void run(CpuQueue& queue, const Kernel<T>& kernel)

#define DEQCORE_INSTANTIATE_KERNEL(Queue, Kernel)         \
  template void run<float>(Queue&, const Kernel<float>&); \
  template void run<double>(Queue&, const Kernel<double>&)

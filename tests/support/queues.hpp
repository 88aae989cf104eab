// SPDX-License-Identifier: Apache-2.0
// The queues and element types that every typed test runs on. The only place where they are listed.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>
#include <tuple>
#include <type_traits>

#include "counting.hpp"
#include "deqcore/device/queues.hpp"

#ifdef DEQCORE_EMULATE_CUDA
#include "cuda_emulator.hpp"
#endif

namespace deqcore::test {

template <class QueueType, class Element, int Threads>
struct On {
  using Queue = QueueType;
  using T = Element;
  static constexpr int threads = Threads;

  static Queue make(int threads_given = Threads) { return Queue(threads_given); }
  static std::int64_t allocations() { return test::allocations(); }
  static std::string name() {
    return "Cpu" + std::to_string(Threads) + (std::is_same_v<T, float> ? "Float" : "Double");
  }
};

#ifdef DEQCORE_EMULATE_CUDA
// The order in which the fibers of a block run: DEQCORE_EMULATED_ORDER, 1 to 3.
inline int emulated_order() {
  const char* named = std::getenv("DEQCORE_EMULATED_ORDER");
  return named ? std::atoi(named) : 1;
}

// The CUDA queue on the emulator. It waits after each kernel, so that a test can read what the kernel wrote.
template <class Element>
struct OnEmulatedCuda {
  using Queue = CudaQueue;
  using T = Element;
  static constexpr int threads = 1;

  static Queue make(int = 1) {
    setenv("DEQCORE_SYNC", "1", 1);
    cuda_emulator::machine().order_seed = emulated_order();
    return Queue(0, nullptr);
  }
  // Of the device: the emulator itself makes objects on the host.
  static std::int64_t allocations() { return cuda_emulator::machine().allocations; }
  static std::string name() { return std::string("EmulatedCuda") + (std::is_same_v<T, float> ? "Float" : "Double"); }
};

using Queues = std::tuple<OnEmulatedCuda<float>, OnEmulatedCuda<double>>;
template <class T>
using OnFirstQueue = OnEmulatedCuda<T>;
#elif DEQCORE_HAS_CUDA
// The first GPU, which must be able to read the host's memory (benchmarks/gpu_check.sh asks it).
template <class Element>
struct OnCuda {
  using Queue = CudaQueue;
  using T = Element;
  static constexpr int threads = 1;

  static Queue make(int = 1) {
    setenv("DEQCORE_SYNC", "1", 1);
    return Queue(0, nullptr);
  }
  static std::int64_t allocations() { return test::allocations(); }
  static std::string name() { return std::string("Cuda") + (std::is_same_v<T, float> ? "Float" : "Double"); }
};

using Queues = std::tuple<OnCuda<float>, OnCuda<double>>;
template <class T>
using OnFirstQueue = OnCuda<T>;
#else
template <class T>
using OnFirstQueue = On<CpuQueue, T, 1>;
using Queues =
    std::tuple<On<CpuQueue, float, 1>, On<CpuQueue, double, 1>, On<CpuQueue, float, 2>, On<CpuQueue, double, 2>>;
#endif

// What solvers are tried on: the emulation under sanitizers, which is slow, tries them in float alone.
#ifdef DEQCORE_SOLVER_TESTS_IN_FLOAT
using SolverQueues = std::tuple<OnFirstQueue<float>>;
#else
using SolverQueues = Queues;
#endif

template <class Tuple>
struct AsTypes;
template <class... Entries>
struct AsTypes<std::tuple<Entries...>> {
  using type = ::testing::Types<Entries...>;
};
template <class Tuple>
using Types = typename AsTypes<Tuple>::type;

template <class... Tuples>
using Join = decltype(std::tuple_cat(std::declval<Tuples>()...));

struct Names {
  template <class Entry>
  static std::string GetName(int) {
    return Entry::name();
  }
};

// For tests of host arithmetic, where the queue does not matter.
struct TypeNames {
  template <class T>
  static std::string GetName(int) {
    return std::is_same_v<T, float> ? "Float" : "Double";
  }
};
using FloatAndDouble = ::testing::Types<float, double>;

}  // namespace deqcore::test

// SPDX-License-Identifier: Apache-2.0
// Ends a long solve from outside. Any thread may call request() and requested(). Solvers call poll() between steps; on
// the thread that made the object, and at most every `interval`, it runs the caller's own check (an interpreter looks
// for Ctrl-C there). On other threads poll() does nothing.
#pragma once

#include <atomic>
#include <chrono>
#include <thread>

#include "deqcore/base/function_ref.hpp"

namespace deqcore {

class Interrupt {
 public:
  static constexpr std::chrono::milliseconds interval{50};

  // check: true ends the solve
  explicit Interrupt(FunctionRef<bool()> check) : check_(check), last_(std::chrono::steady_clock::now()) {}

  void request() { requested_.store(true, std::memory_order_relaxed); }

  bool requested() const { return requested_.load(std::memory_order_relaxed); }

  void poll() {
    if (std::this_thread::get_id() != owner_ || requested()) return;
    const auto now = std::chrono::steady_clock::now();
    if (now - last_ < interval) return;
    last_ = now;
    if (check_()) request();
  }

 private:
  FunctionRef<bool()> check_;
  std::thread::id owner_ = std::this_thread::get_id();
  std::chrono::steady_clock::time_point last_;
  std::atomic<bool> requested_{false};
};

}  // namespace deqcore

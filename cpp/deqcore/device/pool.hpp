// SPDX-License-Identifier: Apache-2.0
// Fork-join over independent tasks. Workers sleep between jobs and a job waits only for workers that have joined it, so
// a busy machine costs parallelism and nothing else. A job started while another runs is done by its caller alone.
#pragma once

#include <cstdint>

#include "deqcore/base/function_ref.hpp"
#include "deqcore/base/interrupt.hpp"

namespace deqcore {

// Threads used where none are named: set_num_threads, else DEQCORE_NUM_THREADS, else the CPUs this process may use.
int num_threads();

// 0: back to the default.
void set_num_threads(int threads);

// Calls task(i) once for every i in [0, tasks), on at most `threads` threads, the caller among them. The first
// exception of a task stops the rest and is thrown here. While the caller waits for the others it polls `interrupt`, if
// given.
void parallel_for(int threads, std::int64_t tasks, FunctionRef<void(std::int64_t)> task,
                  Interrupt* interrupt = nullptr);

}  // namespace deqcore

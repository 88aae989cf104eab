// SPDX-License-Identifier: Apache-2.0
// Long native work: other Python threads run meanwhile, and Ctrl-C is heard.
#pragma once

#include <nanobind/nanobind.h>

#include "deqcore/base/interrupt.hpp"
#include "deqcore/base/report.hpp"

namespace deqcore::python {

namespace nb = nanobind;

// The interpreter's main thread; asked for at import and after a fork, because asking takes longer than a step.
inline unsigned long main_thread;

// Runs a long native solve without the interpreter lock; Ctrl-C ends it and comes out as what the handler raised.
template <class Run>
Counts without_lock(const Run& run) {
  Counts counts;
  bool raised = false;
  // Signals are handled on the main thread alone. A solve on another thread must not ask for the lock while it runs:
  // the interpreter may be shutting down, and then unwinds by force who asks.
  const auto check = [&raised, heard = main_thread == PyThread_get_thread_ident()] {
    if (!heard || raised) return raised;  // asked again, the interpreter would say that nothing is pending
    const nb::gil_scoped_acquire locked;
    return raised = PyErr_CheckSignals() != 0;
  };
  {
    const nb::gil_scoped_release others_run;
    Interrupt interrupt(check);
    counts = run(interrupt);
  }
  if (raised) throw nb::python_error();
  return counts;
}

}  // namespace deqcore::python

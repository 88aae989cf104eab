// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "harness/measure.hpp"

namespace bench {

void kernels(const Plan& plan);   // each kernel against the rate of memory
void dialogue(const Plan& plan);  // the solver's own work per step, on a map that costs nothing
void dense(const Plan& plan);     // whole native solves against the rate of the packed product

}  // namespace bench

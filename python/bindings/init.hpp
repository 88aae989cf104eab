// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nanobind/nanobind.h>

namespace deqcore::python {

void init_base(nanobind::module_& m);
void init_fixed_point(nanobind::module_& m);
void init_linear(nanobind::module_& m);
void init_adjoint(nanobind::module_& m);
void init_newton(nanobind::module_& m);
void init_continuation(nanobind::module_& m);
void init_ode(nanobind::module_& m);
void init_maps(nanobind::module_& m);

}  // namespace deqcore::python

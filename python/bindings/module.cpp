// SPDX-License-Identifier: Apache-2.0
#include <nanobind/nanobind.h>

#include "deqcore/base/error.hpp"
#include "init.hpp"

namespace nb = nanobind;

NB_MODULE(_core, m) {
  nb::set_leak_warnings(false);  // nothing here prints: at exit a daemon thread or a cache may still hold a map
  m.doc() = "The compiled core of deqcore. Private: use the package deqcore.";
  nb::register_exception_translator([](const std::exception_ptr& thrown, void*) {
    try {
      std::rethrow_exception(thrown);
    } catch (const deqcore::Error& error) {
      switch (error.code()) {
        case deqcore::ErrorCode::bad_argument: PyErr_SetString(PyExc_ValueError, error.what()); break;
        case deqcore::ErrorCode::unsupported: PyErr_SetString(PyExc_NotImplementedError, error.what()); break;
        case deqcore::ErrorCode::out_of_memory: PyErr_SetString(PyExc_MemoryError, error.what()); break;
        case deqcore::ErrorCode::device:
          PyErr_SetString(nb::module_::import_("deqcore.errors").attr("DeviceError").ptr(), error.what());
          break;
        case deqcore::ErrorCode::internal: PyErr_SetString(PyExc_RuntimeError, error.what()); break;
      }
    }
  });
  deqcore::python::init_base(m);
  deqcore::python::init_fixed_point(m);
  deqcore::python::init_linear(m);
  deqcore::python::init_adjoint(m);
  deqcore::python::init_newton(m);
  deqcore::python::init_continuation(m);
  deqcore::python::init_ode(m);
  deqcore::python::init_maps(m);
}

// SPDX-License-Identifier: Apache-2.0
// One callable from several, for std::visit.
#pragma once

namespace deqcore {

template <class... Functions>
struct Overloaded : Functions... {
  using Functions::operator()...;
};

}  // namespace deqcore

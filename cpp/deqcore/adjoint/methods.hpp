// SPDX-License-Identifier: Apache-2.0
// The methods of the backward solve: the linear ones, the fixed-point ones, and one that is approximate by name.
#pragma once

#include <cstdint>
#include <variant>

#include "deqcore/fixed_point/methods.hpp"
#include "deqcore/linear/methods.hpp"

namespace deqcore {

// The first k terms of the damped Neumann series, u = tau sum_{i < k} (tau J^T + (1 - tau) I)^i g: k - 1 products, no
// test, status approximate. One term with tau = 1 is the Jacobian-free gradient u = g.
struct Neumann {
  std::int64_t k = 5;  // terms, 1 to 10000
  double tau = 1.0;    // damping, in (0, 2)
};

using AdjointMethod = std::variant<GMRES, BiCGSTAB, Direct, Anderson, AndersonTypeI, Picard, Broyden, Neumann>;

}  // namespace deqcore

// SPDX-License-Identifier: Apache-2.0
// Newton's methods, as options. Defaults live here and nowhere else.
#pragma once

#include <cstdint>
#include <variant>

namespace deqcore {

// Steps by GMRES, only as exact as the progress made deserves; the residual is made to fall by backtracking.
struct NewtonKrylov {
  std::int64_t restart = 80;  // of GMRES, 1 to 500
  double forcing = 0;         // solve each step to this times the residual, in (0, 1); 0: Eisenstat and Walker's choice
  bool descent = true;        // the residual must fall; if not, whole steps are taken
};

// Steps by LU factorisation of the Jacobian, for narrow rows; the residual is made to fall by a dogleg.
struct Newton {
  std::int64_t max_width = 512;  // wider rows are refused: width^2 doubles per row, width^3 operations
  bool descent = true;           // the residual must fall; if not, whole steps are taken
};

using NewtonMethod = std::variant<NewtonKrylov, Newton>;

}  // namespace deqcore

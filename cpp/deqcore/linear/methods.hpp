// SPDX-License-Identifier: Apache-2.0
// The linear methods, as options. Defaults live here and nowhere else.
#pragma once

#include <cstdint>
#include <variant>

namespace deqcore {

// Generalised minimal residuals, restarted: one product per step, `restart` + 1 vectors per row.
struct GMRES {
  std::int64_t restart = 40;  // vectors in the basis before it is begun anew, 1 to 500; never more than the width
};

// Stabilised biconjugate gradients: two products per step, few vectors, no restarts, less robust.
struct BiCGSTAB {};

// LU factorisation of the matrix, assembled from one product per column: for narrow rows.
struct Direct {
  std::int64_t max_width = 512;  // wider rows are refused: width^2 doubles per row, width^3 operations
};

using LinearMethod = std::variant<GMRES, BiCGSTAB, Direct>;

}  // namespace deqcore

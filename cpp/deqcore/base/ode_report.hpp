// SPDX-License-Identifier: Apache-2.0
// How the integration of each row went. The arrays belong to the caller and live where the integration runs.
#pragma once

#include <cstdint>

#include "deqcore/base/report.hpp"

namespace deqcore {

// One entry per row.
struct OdeReport {
  Status* status = nullptr;
  std::int32_t* evaluations = nullptr;  // of the field
  std::int32_t* accepted = nullptr;     // steps
  std::int32_t* rejected = nullptr;     // steps whose error was too large
  double* reached = nullptr;            // the time up to which the row was integrated

  OdeReport slice(std::int64_t first) const {
    return {.status = status + first,
            .evaluations = evaluations + first,
            .accepted = accepted + first,
            .rejected = rejected + first,
            .reached = reached + first};
  }
};

}  // namespace deqcore

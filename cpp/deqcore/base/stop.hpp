// SPDX-License-Identifier: Apache-2.0
// When a row has converged, and how long to try.
//
//     S0         = max(|z0|, |f(z0)|), or the caller's scale
//     threshold  = max(atol + rtol min(|f|, 10 S0), 4 eps S0)          Relative::to_image
//                = max(atol + rtol S0, 4 eps S0)                       Relative::to_scale, to_residual
//     converged  : |f - z| <= threshold
//     diverged   : |f| > 1e4 S0 (float), 1e8 S0 (double); of Relative::to_residual |f - z|
//     stalled    : |f - z| <= threshold <= eps / 2 |f|: too small to be measured
//
// The cap 10 S0 and the diverged rule keep the runaway iterates of a map without a fixed point from passing a relative
// test; the floor 4 eps S0 lets rows end whose fixed point is 0. No rule relative to S0 can tell a step of rtol S0 from
// convergence: a map that drifts slowly from a large start passes unless the caller gives a scale.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>

namespace deqcore {

enum class Norm : std::int8_t { two, inf };

enum class Relative : std::int8_t { to_image, to_scale, to_residual };

enum class Retire : std::int8_t {
  off,    // every row is asked about until the last one has ended
  on,     // rows that have ended leave the question
  halve,  // the same, but the question only shrinks to powers of two
};

struct Stop {
  std::optional<double> rtol;    // at least 4 eps; none: sqrt(eps) of the element type
  double atol = 0.0;             // >= 0
  std::int64_t max_steps = 200;  // map evaluations per row, >= 1
  Norm norm = Norm::two;
  Relative relative = Relative::to_image;
  std::int64_t look_every = 1;  // steps between two looks of the host, >= 1
  Retire retire = Retire::on;
};

// The numbers above for one element type, with rtol resolved.
struct Limits {
  double rtol = 0.0;
  double atol = 0.0;
  double floor = 0.0;     // 4 eps: times S0
  double overflow = 0.0;  // diverged above this times S0
  double noise = 0.0;     // 100 eps: below this times S0 a row without progress has stalled
  Relative relative = Relative::to_image;
};

// Throws on values outside the ranges above.
template <class T>
Limits resolve(const Stop& stop);

}  // namespace deqcore

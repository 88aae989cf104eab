// SPDX-License-Identifier: Apache-2.0
// The coefficients of explicit Runge-Kutta methods, as in kernels/stages.hpp.
//
// Dormand and Prince 1980, J. Comput. Appl. Math. 6, with Shampine's interpolant (1986, Math. Comp. 46), of order 4
// between the steps; Bogacki and Shampine 1989, Appl. Math. Lett. 2, with a cubic one, of order 3.
#pragma once

#include "deqcore/kernels/stages.hpp"

namespace deqcore {

struct Tableau {
  int stages;       // evaluations per step; of a pair without the last one, which only the error and the next step need
  bool embedded;    // whether there is one, and so an estimate of the error
  int error_order;  // the estimate falls as h^error_order
  double a[most_stages][most_stages];
  double b[most_stages];
  double c[most_stages];
  double e[most_stages];               // of the error
  double P[most_stages][most_powers];  // of the interpolant

  int blocks() const { return embedded ? stages + 1 : stages; }
};

inline constexpr Tableau euler = {
    .stages = 1, .embedded = false, .error_order = 0, .a = {}, .b = {1}, .c = {0}, .e = {}, .P = {}};

inline constexpr Tableau midpoint = {.stages = 2,
                                     .embedded = false,
                                     .error_order = 0,
                                     .a = {{}, {1.0 / 2}},
                                     .b = {0, 1},
                                     .c = {0, 1.0 / 2},
                                     .e = {},
                                     .P = {}};

inline constexpr Tableau rk4 = {.stages = 4,
                                .embedded = false,
                                .error_order = 0,
                                .a = {{}, {1.0 / 2}, {0, 1.0 / 2}, {0, 0, 1}},
                                .b = {1.0 / 6, 1.0 / 3, 1.0 / 3, 1.0 / 6},
                                .c = {0, 1.0 / 2, 1.0 / 2, 1},
                                .e = {},
                                .P = {}};

inline constexpr Tableau bogacki_shampine = {
    .stages = 3,
    .embedded = true,
    .error_order = 3,
    .a = {{}, {1.0 / 2}, {0, 3.0 / 4}},
    .b = {2.0 / 9, 1.0 / 3, 4.0 / 9},
    .c = {0, 1.0 / 2, 3.0 / 4, 1},
    .e = {5.0 / 72, -1.0 / 12, -1.0 / 9, 1.0 / 8},
    .P = {{1, -4.0 / 3, 5.0 / 9}, {0, 1, -2.0 / 3}, {0, 4.0 / 3, -8.0 / 9}, {0, -1, 1}}};

inline constexpr Tableau dormand_prince = {
    .stages = 6,
    .embedded = true,
    .error_order = 5,
    .a = {{},
          {1.0 / 5},
          {3.0 / 40, 9.0 / 40},
          {44.0 / 45, -56.0 / 15, 32.0 / 9},
          {19372.0 / 6561, -25360.0 / 2187, 64448.0 / 6561, -212.0 / 729},
          {9017.0 / 3168, -355.0 / 33, 46732.0 / 5247, 49.0 / 176, -5103.0 / 18656}},
    .b = {35.0 / 384, 0, 500.0 / 1113, 125.0 / 192, -2187.0 / 6784, 11.0 / 84},
    .c = {0, 1.0 / 5, 3.0 / 10, 4.0 / 5, 8.0 / 9, 1, 1},
    .e = {-71.0 / 57600, 0, 71.0 / 16695, -71.0 / 1920, 17253.0 / 339200, -22.0 / 525, 1.0 / 40},
    .P = {{1, -8048581381.0 / 2820520608, 8663915743.0 / 2820520608, -12715105075.0 / 11282082432},
          {},
          {0, 131558114200.0 / 32700410799, -68118460800.0 / 10900136933, 87487479700.0 / 32700410799},
          {0, -1754552775.0 / 470086768, 14199869525.0 / 1410260304, -10690763975.0 / 1880347072},
          {0, 127303824393.0 / 49829197408, -318862633887.0 / 49829197408, 701980252875.0 / 199316789632},
          {0, -282668133.0 / 205662961, 2019193451.0 / 616988883, -1453857185.0 / 822651844},
          {0, 40617522.0 / 29380423, -110615467.0 / 29380423, 69997945.0 / 29380423}}};

}  // namespace deqcore

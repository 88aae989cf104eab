// SPDX-License-Identifier: Apache-2.0
// The arithmetic of one row, shared by all backends: constexpr functions, so that device code can call them too.
#pragma once

#include <cstdint>
#include <limits>

#include "deqcore/base/report.hpp"
#include "deqcore/base/stop.hpp"

namespace deqcore::row_math {

// std::sqrt is not constexpr in C++20; the builtin is for g++, and compiles to the one instruction on every backend. A
// template, because a plain constexpr function that clang cannot evaluate is an error there.
template <class T>
constexpr T square_root(T x) {
  return __builtin_sqrt(x);
}

constexpr bool finite(double x) {
  return x - x == 0.0;  // NOLINT(misc-redundant-expression): NaN unless x is finite
}

struct Evaluation {
  double g, f, z;          // norms of the residual, the image and the starting point
  double scale;            // S0; 0 if not known yet
  double best;             // smallest residual / threshold before this evaluation
  std::int32_t steps;      // evaluations, this one included
  std::int32_t best_step;  // the step of `best`
  std::int32_t frozen;     // steps in a row that changed no bit of the point
};

struct Verdict {
  Status status;
  double scale;
  double ratio;  // residual / threshold
  bool new_best;
};

// The stop rule (stop.hpp). The order matters: an iterate that has run away is never called converged.
constexpr Verdict judge(const Evaluation& e, const Limits& limits, std::int32_t max_steps, std::int32_t patience) {
  if (!finite(e.g) || !finite(e.f))
    return {Status::not_finite, e.scale, std::numeric_limits<double>::infinity(), false};
  const double scale = e.scale > 0 ? e.scale : (e.z > e.f ? e.z : e.f);
  const double image = e.f < 10 * scale ? e.f : 10 * scale;
  const double tolerance = limits.atol + limits.rtol * (limits.relative == Relative::to_image ? image : scale);
  const double threshold = tolerance > limits.floor * scale ? tolerance : limits.floor * scale;
  if (!finite(threshold)) return {Status::not_finite, scale, std::numeric_limits<double>::infinity(), false};
  const double ratio = e.g == 0 ? 0.0 : e.g / threshold;  // threshold 0: infinity
  const bool new_best = ratio < e.best || e.steps == 1;
  const auto verdict = [&](Status status) { return Verdict{status, scale, ratio, new_best}; };

  if (e.f > limits.overflow * scale) return {Status::diverged, scale, ratio, e.steps == 1};
  if (ratio <= 1) return verdict(Status::converged);
  if (e.frozen >= 2) return verdict(Status::stalled);  // once: a method may still have a plain step to take
  if (!new_best && e.steps - e.best_step > patience && e.g < limits.noise * scale) return verdict(Status::stalled);
  if (e.steps >= max_steps) return verdict(Status::out_of_steps);
  return verdict(Status::running);
}

constexpr int max_history = 32;

// (A + ridge diag(A)) x = b for the leading n x n block of the symmetric A (row stride m), by Cholesky of A scaled to
// unit diagonal: the columns behind A may differ in size by many orders. False, with x untouched, if the matrix is not
// positive definite to working precision or anything is not finite.
constexpr bool solve_spd(const double* A, std::int64_t m, int n, double ridge, const double* b, double* x) {
  double factor[max_history * (max_history + 1) / 2];  // lower triangle; the diagonal holds reciprocals
  double y[max_history];
  double scale[max_history];  // 0 for an empty column, whose coefficient is 0
  const auto at = [&](int i, int j) -> double& { return factor[i * (i + 1) / 2 + j]; };
  for (int i = 0; i < n; ++i) scale[i] = A[i * m + i] > 0 ? 1 / square_root(A[i * m + i]) : 0.0;
  for (int i = 0; i < n; ++i) {
    for (int j = 0; j <= i; ++j) {
      double v = A[i * m + j] * scale[i] * scale[j] + (i == j ? ridge : 0.0);
      for (int k = 0; k < j; ++k) v -= at(i, k) * at(j, k);
      if (i != j) {
        at(i, j) = v * at(j, j);
      } else {
        if (!(v > std::numeric_limits<double>::epsilon()) || !finite(v)) return false;
        at(i, i) = 1 / square_root(v);
      }
    }
  }
  for (int i = 0; i < n; ++i) {
    double v = b[i] * scale[i];
    for (int k = 0; k < i; ++k) v -= at(i, k) * y[k];
    y[i] = v * at(i, i);
  }
  for (int i = n; i-- > 0;) {
    double v = y[i];
    for (int k = i + 1; k < n; ++k) v -= at(k, i) * y[k];
    y[i] = v * at(i, i);
    if (!finite(y[i] * scale[i])) return false;
  }
  for (int i = 0; i < n; ++i) x[i] = y[i] * scale[i];
  return true;
}

}  // namespace deqcore::row_math

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
  // Against a scale of its own a residual may be smaller than the rounding of the image it is taken from: eps / 2 |f|.
  const double noise = limits.relative == Relative::to_image ? 0.0 : limits.floor / 8 * e.f;
  if (ratio <= 1 && (noise == 0 || e.g + noise <= threshold)) return verdict(Status::converged);
  if (ratio <= 1 && noise >= threshold) return verdict(Status::stalled);
  if (e.frozen >= 2) return verdict(Status::stalled);  // once: a method may still have a plain step to take
  if (!new_best && e.steps - e.best_step > patience && e.g < limits.noise * scale) return verdict(Status::stalled);
  if (e.steps >= max_steps) return verdict(Status::out_of_steps);
  return verdict(Status::running);
}

// The residual at which a row of A x = b is done.
constexpr double goal(double scale, const Limits& limits) {
  const double tolerance = limits.atol + limits.rtol * scale;
  return tolerance > limits.floor * scale ? tolerance : limits.floor * scale;
}

// A measurement of r = b - A x.
struct LinearEvaluation {
  double residual, goal;  // in the stop rule's norm
  double length, before;  // |r|_2 now and at the measurement before
  double noise;           // rounding error of the measurement itself
  std::int32_t steps;     // products, this one included
};

// A residual within the goal is believed only where it could be measured that finely. A method that begins anew from a
// residual as long as the one before would repeat itself: it has stalled at the noise, or broken down above it.
constexpr Status judge_linear(const LinearEvaluation& e, std::int32_t max_steps) {
  if (!finite(e.residual) || !finite(e.length) || !finite(e.goal)) return Status::not_finite;
  if (e.residual + e.noise <= e.goal) return Status::converged;
  if (e.residual <= e.goal && e.noise >= e.goal) return Status::stalled;
  if (e.length > 0.999 * e.before) return e.length <= 400 * e.noise ? Status::stalled : Status::breakdown;
  return e.steps >= max_steps ? Status::out_of_steps : Status::running;
}

// Column j of a Hessenberg matrix, h[0..j + 1], becomes column j of its triangular factor R by the plane rotations so
// far and a new one, which `rhs` follows. -> |rhs[j + 1]|, the residual of the least-squares problem.
constexpr double rotate_column(double* h, std::int32_t j, double* R, double* cosine, double* sine, double* rhs) {
  for (std::int32_t i = 0; i < j; ++i) {
    const double upper = cosine[i] * h[i] + sine[i] * h[i + 1];
    h[i + 1] = cosine[i] * h[i + 1] - sine[i] * h[i];
    h[i] = upper;
  }
  const double a = h[j] < 0 ? -h[j] : h[j], b = h[j + 1], larger = a > b ? a : b;  // b is a length
  const double unit = larger > 0 ? larger : 1.0;
  const double size = unit * square_root((a / unit) * (a / unit) + (b / unit) * (b / unit));
  cosine[j] = size == 0 ? 1.0 : h[j] / size;
  sine[j] = size == 0 ? 0.0 : b / size;
  h[j] = size;
  double* const column = R + j * (j + 1) / 2;
  for (std::int32_t i = 0; i <= j; ++i) column[i] = h[i];
  if (size == 0) {  // a column that adds nothing
    rhs[j + 1] = 0;
    return rhs[j] < 0 ? -rhs[j] : rhs[j];
  }
  rhs[j + 1] = -sine[j] * rhs[j];
  rhs[j] *= cosine[j];
  return rhs[j + 1] < 0 ? -rhs[j + 1] : rhs[j + 1];
}

// R y = rhs for the first n columns of R. A diagonal entry below `tiny` times the largest takes no part: its y is 0.
constexpr void solve_upper(const double* R, std::int32_t n, const double* rhs, double tiny, double* y) {
  double largest = 0;
  for (std::int32_t i = 0; i < n; ++i) {
    const double d = R[i * (i + 1) / 2 + i];
    largest = d > largest ? d : largest;
    y[i] = rhs[i];
  }
  for (std::int32_t i = n; i-- > 0;) {
    const double* const column = R + i * (i + 1) / 2;
    y[i] = column[i] > tiny * largest ? y[i] / column[i] : 0.0;
    for (std::int32_t k = 0; k < i; ++k) y[k] -= column[k] * y[i];
  }
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

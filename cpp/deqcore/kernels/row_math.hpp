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

// For a number, or for each lane of a vector.
template <class V>
[[gnu::always_inline]] constexpr auto finite(const V& x) {
  return x - x == 0;  // NOLINT(misc-redundant-expression): NaN unless x is finite
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

// The residual at which a row has converged.
constexpr double threshold(double f, double scale, const Limits& limits) {
  const double image = f < 10 * scale ? f : 10 * scale;
  const double tolerance = limits.atol + limits.rtol * (limits.relative == Relative::to_image ? image : scale);
  return tolerance > limits.floor * scale ? tolerance : limits.floor * scale;
}

// The stop rule (stop.hpp). The order matters: an iterate that has run away is never called converged.
constexpr Verdict judge(const Evaluation& e, const Limits& limits, std::int32_t max_steps, std::int32_t patience) {
  if (!finite(e.g) || !finite(e.f))
    return {Status::not_finite, e.scale, std::numeric_limits<double>::infinity(), false};
  const double scale = e.scale > 0 ? e.scale : (e.z > e.f ? e.z : e.f);
  const double threshold = row_math::threshold(e.f, scale, limits);
  if (!finite(threshold)) return {Status::not_finite, scale, std::numeric_limits<double>::infinity(), false};
  const double ratio = e.g == 0 ? 0.0 : e.g / threshold;  // threshold 0: infinity
  const bool new_best = ratio < e.best || e.steps == 1;
  const auto verdict = [&](Status status) { return Verdict{status, scale, ratio, new_best}; };

  const double runaway = limits.relative == Relative::to_residual ? e.g : e.f;
  if (runaway > limits.overflow * scale) return {Status::diverged, scale, ratio, e.steps == 1};
  // A residual is known to the rounding of the image it is taken from, eps / 2 |f|.
  const double noise = limits.floor / 8 * e.f;
  const bool counted = limits.relative != Relative::to_image;
  if (ratio <= 1 && (counted ? e.g + noise <= threshold : noise < threshold || threshold == 0))
    return verdict(Status::converged);
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
  if (e.steps >= max_steps) return Status::out_of_steps;
  if (e.length > 0.999 * e.before) return e.length <= 400 * e.noise ? Status::stalled : Status::breakdown;
  return Status::running;
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

// What the type-I update needs of gamma = (s_hat, B y) / |s_hat|^2: the pair is theta (s - B y) / (gamma |s_hat|^2) and
// v, with Powell's theta, which keeps |gamma| at `least`. The change of the residual that theta mixes, a small
// difference of long vectors, is never formed. v_size = |v|^2.
struct TypeIPair {
  bool usable;    // the factors are within the range of their type, whose largest number is `most`
  double s_norm;  // |s_hat|
  double v_norm;
  double to_u;  // times s - B y: u for a v of length 1
};
constexpr TypeIPair regularise(double v_y, double s_size, double v_size, double least, double most) {
  const double raw = v_y / s_size, sign = raw < 0 ? -1.0 : 1.0;
  const bool damped = sign * raw < least;
  const double theta = damped ? (1 - sign * least) / (1 - raw) : 1.0, gamma = damped ? sign * least : raw;
  const double s_norm = square_root(s_size), v_norm = square_root(v_size),
               to_u = theta * v_norm / s_norm / gamma / s_norm;
  return {s_size > 0 && finite(v_norm) && 1 / s_norm <= most && to_u <= most && -to_u <= most, s_norm, v_norm, to_u};
}

// x^(1/n) for x >= 0 and n of 2, 3, 5 by Newton's iteration: the same bits on every backend, which pow does not
// promise.
[[gnu::always_inline]] constexpr double nth_root(double x, std::int32_t n) {
  if (x == 0) return 0.0;
  const double large = x < 1 ? 1 / x : x;
  double y = square_root(large);  // above the root for n >= 2, and from there each iterate is smaller
  for (int i = 0; i < 2000; ++i) {
    const double square = y * y, power = n == 5 ? square * square : n == 3 ? square : y;
    const double next = y - (y - large / power) / n;
    if (!(next < y)) break;
    y = next;
  }
  return x < 1 ? 1 / y : y;
}

// The mean of the squares of a row, each times h^2, from their root sum of squares. No more than `most_mean`, so that
// means over a batch are finite too: beyond it all that counts is that it is far too much.
inline constexpr double most_mean = 1e280;
constexpr double mean_square(double h, double norm, std::int64_t width) {
  const double root = h * (norm / square_root(static_cast<double>(width))), square = root * root;
  if (!finite(norm)) return norm < 0 ? -norm : norm;
  return square < most_mean ? square : most_mean;
}

// The first step of an integration (Hairer, Norsett and Wanner 1993, II.4), from the sizes of z and of F against the
// tolerance: an Euler step as a probe, and then the step. Where the tolerance of z is the absolute one, z says nothing
// about the size of the solution, and F alone decides; else integrations from zero would begin with steps of 1e-6.
constexpr double probe_step(double z_size, double f_size, std::int32_t order, double rtol) {
  return z_size * rtol < 0.1 || f_size == 0 ? nth_root(0.01 / f_size, order) : 0.01 * z_size / f_size;
}
constexpr double first_step(double probe, double f_size, double change, std::int32_t order) {
  const double curvature = change / probe, steepest = f_size > curvature ? f_size : curvature;
  const double step = nth_root(0.01 / steepest, order);
  return finite(curvature) ? (step < 100 * probe ? step : 100 * probe) : 0.01 * probe;
}

// What the next step is multiplied by, from the error of this one relative to the tolerance.
[[gnu::always_inline]] constexpr double step_factor(double error, std::int32_t order) {
  if (!finite(error)) return 0.2;
  const double factor = error == 0 ? 10.0 : 0.9 / nth_root(error, order);
  return factor < 0.2 ? 0.2 : factor > 10 ? 10.0 : factor;
}

struct StepState {
  double t, h;            // where the step begins and how long it is
  double error;           // relative to the tolerance; of fixed steps 0, or not finite
  double factor;          // step_factor of it
  std::int32_t accepted;  // steps before this one
  std::int32_t tried;     // the same with those rejected
  std::int32_t next;      // the first requested time not reached
  bool after_rejection;
};

struct StepVerdict {
  Status status;
  bool accepted;
  double t, h;        // for the next step
  std::int32_t next;  // the first requested time not reached
};

// Of the requested times and the rules, see kernels/stages.hpp.
template <class Rules>
[[gnu::always_inline]] constexpr StepVerdict judge_step(const StepState& s, const Rules& rules) {
  const double start = rules.times[0], end = rules.times[rules.count - 1], direction = end > start ? 1.0 : -1.0;
  StepVerdict verdict = {Status::running, true, s.t, s.h, s.next};
  if (rules.substeps > 0) {
    if (!finite(s.error)) return {Status::not_finite, false, s.t, s.h, s.next};
    const double from = rules.times[s.next - 1], to = rules.times[s.next];
    const std::int32_t step = s.accepted % rules.substeps + 1;
    verdict.t = step == rules.substeps ? to : from + (to - from) * step / rules.substeps;
    if (step < rules.substeps) return verdict;
    verdict.next = s.next + 1;
    if (verdict.next == rules.count)
      verdict.status = Status::finished;
    else
      verdict.h = (rules.times[verdict.next] - to) / rules.substeps;
    return verdict;
  }
  constexpr double eps = std::numeric_limits<double>::epsilon();
  const double left = end - s.t, factor = s.factor, size = s.t < 0 ? -s.t : s.t;
  if (s.h != left && direction * s.h <= 4 * eps * size)  // t + h is not where the step leads
    return {finite(s.error) ? Status::step_underflow : Status::not_finite, false, s.t, s.h, s.next};
  verdict.accepted = s.error <= 1;
  if (verdict.accepted) {
    verdict.t = s.h == left ? end : s.t + s.h;
    while (verdict.next < rules.count && direction * rules.times[verdict.next] <= direction * verdict.t) ++verdict.next;
    if (verdict.next == rules.count) {
      verdict.status = Status::finished;
      return verdict;
    }
    verdict.h = s.h * (s.after_rejection && factor > 1 ? 1.0 : factor);
  } else {
    verdict.h = s.h * (factor < 0.9 ? factor : 0.9);
    if (direction * verdict.h <= 4 * eps * size + 1e-10 * eps * direction * (end - start))
      verdict.status = finite(s.error) ? Status::step_underflow : Status::not_finite;
  }
  if (verdict.status == Status::running && s.tried + 1 >= rules.max_steps) verdict.status = Status::out_of_steps;
  const double rest = end - verdict.t;
  if (direction * verdict.h >= direction * rest) verdict.h = rest;
  return verdict;
}

constexpr int max_history = 32;

// A solve that goes on with what an earlier one remembered starts at a point of that solve. A residual there above this
// share of the scale says that the solution has changed by about its own size: another scene.
constexpr double another_scene = 0.3;

// Whether a row's memory no longer fits it. `depth` below zero: it is of an earlier solve, and nothing was measured
// yet.
constexpr bool outgrown(std::int32_t depth, double g, double best, double growth, double scale) {
  return depth < 0 ? g > another_scene * scale : g > growth * best;
}

// (A + ridge diag(A)) x = b with a symmetric A, by A = L D L^T. V is double, or a vector with one system per lane;
// entry(i, j), i >= j, gives A_ij and right(i) b_i. -> true, per lane, where all pivots are positive to working
// precision, each against its own diagonal entry (the columns behind A may differ in size by many orders), and x is
// finite. A column of zeros has the coefficient 0, and changes no bit of the others.
template <class V, class Entry, class Right>
[[gnu::always_inline]] constexpr auto solve_spd(int n, double ridge, const Entry& entry, const Right& right, V* x) {
  V L[max_history * (max_history - 1) / 2];  // below the diagonal of ones
  V inverse[max_history];                    // of D
  V LD[max_history];                         // the row of L D that is being made
  const auto below = [&](int i, int j) -> V& { return L[i * (i - 1) / 2 + j]; };
  auto solved = finite(entry(0, 0));
  for (int i = 0; i < n; ++i) {
    const V whole = entry(i, i);
    V d = whole + ridge * whole;
    x[i] = right(i);
    for (int j = 0; j < i; ++j) {
      LD[j] = entry(i, j);
      for (int k = 0; k < j; ++k) LD[j] -= LD[k] * below(j, k);
      below(i, j) = LD[j] * inverse[j];
      d -= LD[j] * below(i, j);
      x[i] -= below(i, j) * x[j];
    }
    const auto empty = whole == 0;
    auto usable = d > std::numeric_limits<double>::epsilon() * whole;
    usable &= finite(d);
    usable |= empty;
    solved &= usable;
    inverse[i] = empty ? V{} : 1 / d;
  }
  for (int i = n; i-- > 0;) {
    x[i] *= inverse[i];
    for (int k = i + 1; k < n; ++k) x[i] -= below(k, i) * x[k];
    solved &= finite(x[i]);
  }
  return solved;
}

// The same for the leading n x n block of A (row stride m). False, with x untouched, if it cannot be solved.
constexpr bool solve_spd(const double* A, std::int64_t m, int n, double ridge, const double* b, double* x) {
  double found[max_history];
  const auto entry = [=](int i, int j) { return A[i * m + j]; };
  const auto right = [=](int i) { return b[i]; };
  if (!solve_spd<double>(n, ridge, entry, right, found)) return false;
  for (int i = 0; i < n; ++i) x[i] = found[i];
  return true;
}

// A = L L^T in place, lower triangle, row stride m. False if A is not positive definite to working precision.
constexpr bool cholesky(double* A, std::int64_t m) {
  for (std::int64_t j = 0; j < m; ++j) {
    const double whole = A[j * m + j];
    for (std::int64_t k = 0; k < j; ++k) A[j * m + j] -= A[j * m + k] * A[j * m + k];
    if (!(A[j * m + j] > 1e-14 * whole) || !finite(A[j * m + j])) return false;
    A[j * m + j] = square_root(A[j * m + j]);
    for (std::int64_t i = j + 1; i < m; ++i) {
      for (std::int64_t k = 0; k < j; ++k) A[i * m + j] -= A[i * m + k] * A[j * m + k];
      A[i * m + j] /= A[j * m + j];
    }
  }
  return true;
}

// The best approximation of U V^T by `keep` pairs, from the Gram matrices of U and of V (m x m, lower triangles, which
// are overwritten): factored as L_u L_u^T and L_v L_v^T, the singular value
// decomposition of L_u^T L_v by one-sided Jacobi rotations. The new pairs are U to_u and V to_v (m x m, the first
// columns). -> how many pairs there are; none if a Gram matrix is singular.
constexpr std::int32_t compress_pairs(std::int64_t m, std::int64_t keep, double* gram_u, double* gram_v, double* to_u,
                                      double* to_v) {
  if (!cholesky(gram_u, m) || !cholesky(gram_v, m)) return 0;
  for (std::int64_t i = 0; i < m; ++i)
    for (std::int64_t j = 0; j < m; ++j) {
      double sum = 0;
      for (std::int64_t k = i > j ? i : j; k < m; ++k) sum += gram_u[k * m + i] * gram_v[k * m + j];
      to_u[i * m + j] = sum;
      to_v[i * m + j] = i == j ? 1.0 : 0.0;
    }
  // rotate pairs of columns until all are orthogonal: then they are the left vectors times the singular values
  bool rotated = true;
  for (std::int64_t sweep = 0; rotated && sweep < 30; ++sweep) {
    rotated = false;
    for (std::int64_t p = 0; p + 1 < m; ++p)
      for (std::int64_t q = p + 1; q < m; ++q) {
        double pp = 0, qq = 0, pq = 0;
        for (std::int64_t i = 0; i < m; ++i) {
          pp += to_u[i * m + p] * to_u[i * m + p];
          qq += to_u[i * m + q] * to_u[i * m + q];
          pq += to_u[i * m + p] * to_u[i * m + q];
        }
        if (pq * pq <= 1e-30 * pp * qq) continue;
        rotated = true;
        const double ratio = (qq - pp) / (2 * pq), size = ratio < 0 ? -ratio : ratio;
        const double t = (ratio < 0 ? -1.0 : 1.0) / (size + square_root(1 + size * size));
        const double c = 1 / square_root(1 + t * t), s = c * t;
        for (double* matrix : {to_u, to_v})
          for (std::int64_t i = 0; i < m; ++i) {
            const double left = matrix[i * m + p], right = matrix[i * m + q];
            matrix[i * m + p] = c * left - s * right;
            matrix[i * m + q] = s * left + c * right;
          }
      }
  }
  for (std::int64_t c = 0; c < keep; ++c) {  // the largest to the front
    std::int64_t largest = c;
    double most = -1;
    for (std::int64_t j = c; j < m; ++j) {
      double size = 0;
      for (std::int64_t i = 0; i < m; ++i) size += to_u[i * m + j] * to_u[i * m + j];
      if (size > most) {
        most = size;
        largest = j;
      }
    }
    for (double* matrix : {to_u, to_v})
      for (std::int64_t i = 0; i < m; ++i) {
        const double held = matrix[i * m + c];
        matrix[i * m + c] = matrix[i * m + largest];
        matrix[i * m + largest] = held;
      }
  }
  for (std::int64_t side = 0; side < 2; ++side) {  // times L^-T
    const double* const L = side == 0 ? gram_u : gram_v;
    double* const matrix = side == 0 ? to_u : to_v;
    for (std::int64_t c = 0; c < keep; ++c)
      for (std::int64_t i = m; i-- > 0;) {
        for (std::int64_t k = i + 1; k < m; ++k) matrix[i * m + c] -= L[k * m + i] * matrix[k * m + c];
        matrix[i * m + c] /= L[i * m + i];
      }
  }
  return static_cast<std::int32_t>(keep);
}

}  // namespace deqcore::row_math

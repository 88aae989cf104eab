// SPDX-License-Identifier: Apache-2.0
// What happens to every row around Newton's method: a trial point, its verdict, and the step from where it is accepted.
//
// z  the last accepted point      r = f(z) - z, or -F(z) for a root      A = I - J, or F'      A s = r, at least nearly
//
//     trial = z + a s + b d
//
// Backtracking takes b = 0 and makes a smaller until |r| falls by enough. The dogleg (Powell 1970) bends from the
// steepest descent d of |r|^2 to the Newton step, as far as the row's trust radius allows, in variables scaled by D,
// the lengths of the columns of A (More 1978).
//
// "by position": one entry per row of the dense block asked about; "by row": one entry per row of the batch.
#pragma once

#include <limits>

#include "deqcore/base/report.hpp"
#include "deqcore/base/stop.hpp"
#include "deqcore/kernels/kernel.hpp"
#include "deqcore/kernels/linear.hpp"
#include "deqcore/kernels/row_math.hpp"

namespace deqcore {

// What became of a row's last trial.
enum class Taken : std::int8_t { no, yes, as_best };

// By row. `report` is the caller's; the rest is scratch.
struct NewtonStates {
  Report report;
  Status* turn = nullptr;    // running: the open question is about a trial of this row
  Taken* taken = nullptr;    // the last trial was accepted
  double* g_norm = nullptr;  // of the trial, in the stop rule's norm: residual, image, and the first point
  double* f_norm = nullptr;
  double* z_norm = nullptr;
  double* trial = nullptr;          // |r|_2 at the trial
  double* trial_size = nullptr;     // |trial|_2
  double* length = nullptr;         // |r|_2 at z; infinity: there is none yet
  double* size = nullptr;           // |z|_2
  double* best = nullptr;           // residual / threshold at z
  double* forcing = nullptr;        // eta: the linear solve is done at |r - A s| <= eta |r|
  double* along_step = nullptr;     // a
  double* along_descent = nullptr;  // b

  constexpr bool running(std::int64_t row) const { return report.status[row] == Status::running; }
};

// By row. B = A D^-1, stored column after column and then factored; q = B^T r.
struct Dogleg {
  double* matrix = nullptr;       // [row][width][width]
  std::int32_t* pivot = nullptr;  // [row][width]
  double* weights = nullptr;      // [row][width]   D
  double* descent = nullptr;      // [row][width]   d = D^-1 q
  double* work = nullptr;         // [row][width]
  double* radius = nullptr;       // the longest |D (trial - z)|; 0: not known yet
  double* newton = nullptr;       // |D s|; infinity: A is singular
  double* slope = nullptr;        // |q|^2 = |D d|^2 = (r, A d)
  double* curvature = nullptr;    // |A d|^2
  double* cross = nullptr;        // (D s, D d)
  double* length = nullptr;       // |D (trial - z)|
  double* point = nullptr;        // |D z|
};

struct NewtonRules {
  std::int32_t max_steps;
  std::int32_t reserve;  // what the next step needs at least: products, and the evaluation of its trial
  Operator form;         // identity_minus: the answer is f(z); matrix: it is F(z)
  bool dogleg;
  bool descent;          // the residual must fall; if not, any finite trial is taken
  double fixed_forcing;  // 0: by the progress made (Eisenstat and Walker 1996, choice 2)
};

namespace newton {
inline constexpr double least_decrease = 1e-4;  // of |r| in backtracking, of the predicted in the dogleg
inline constexpr double least_fraction = 1e-6;  // of a step: below it there is no descent
inline constexpr double first_forcing = 0.5, most_forcing = 0.9, forcing_factor = 0.9;
inline constexpr double first_radius = 100;  // times |D z| (More 1978), or |r| if that is more
}  // namespace newton

// The point of the dogleg at the row's radius.
constexpr void bend_dogleg(const NewtonStates& s, const Dogleg& d, std::int64_t row) {
  const double radius = d.radius[row], newton = d.newton[row], slope = d.slope[row];
  const double unit = row_math::square_root(slope);  // |D d|
  const double cauchy = slope / d.curvature[row];    // where |r|^2 is least along d
  double a = 1, b = 0;
  if (!(newton <= radius) || !row_math::finite(newton)) {
    const bool only_descent = !row_math::finite(newton) || cauchy * unit >= radius;
    b = cauchy * unit < radius ? cauchy : radius / unit;
    a = 0;
    if (!only_descent) {  // |(1 - a) cauchy D d + a D s| = radius
      const double start = cauchy * cauchy * slope, both = cauchy * d.cross[row], square = newton * newton;
      const double p = square - 2 * both + start, half = both - start, c = start - radius * radius;
      const double root = row_math::square_root(half * half - p * c);
      a = half > 0 ? -c / (half + root) : (root - half) / p;
      b = (1 - a) * cauchy;
    }
  }
  s.along_step[row] = a;
  s.along_descent[row] = b;
  d.length[row] = a == 1 ? newton : a == 0 ? b * unit : radius;
}

// Whether a trial of the dogleg is accepted; sets the radius of the next.
constexpr bool judge_dogleg(const NewtonStates& s, const Dogleg& d, std::int64_t row, bool usable) {
  const double before = s.length[row], a = s.along_step[row], b = s.along_descent[row], length = d.length[row];
  if (!usable) {
    d.radius[row] = length / 4;
    return false;
  }
  const double after = s.trial[row] / before;
  const double linear = (1 - a) * (1 - a) - 2 * (1 - a) * b * (d.slope[row] / before / before) +
                        b * b * (d.curvature[row] / before / before);  // |r - A (trial - z)|^2 / |r|^2
  const double predicted = 1 - linear, actual = 1 - after * after;
  const double ratio = predicted > 0 ? actual / predicted : 0.0;
  if (ratio < 0.25) {
    d.radius[row] = (after > 10 ? 0.1 : 0.5) * length;
  } else if (ratio >= 0.75 || a == 1) {
    d.radius[row] = d.radius[row] > 2 * length ? d.radius[row] : 2 * length;
  }
  return ratio >= newton::least_decrease;
}

// Whether a trial of the line search is accepted; sets the fraction of the next.
constexpr bool judge_fraction(const NewtonStates& s, std::int64_t row, bool usable) {
  const double before = s.length[row], fraction = s.along_step[row];
  if (!usable) {
    s.along_step[row] = fraction / 4;
    return false;
  }
  const double after = s.trial[row] / before, promised = 1 - s.forcing[row];
  if (after <= 1 - newton::least_decrease * fraction * promised) return true;
  // |r|^2 / |r(z)|^2 as a parabola in the fraction, its slope at 0 that of the linear model
  const double bend = after * after - 1 + 2 * promised * fraction;
  const double least = bend > 0 ? promised * fraction * fraction / bend : 0.5 * fraction;
  s.along_step[row] = least < 0.1 * fraction ? 0.1 * fraction : least > 0.5 * fraction ? 0.5 * fraction : least;
  return false;
}

// The verdict on the trial of a running row, written to its report.
constexpr Status judge_trial(const NewtonStates& s, const Dogleg& d, std::int64_t row, const Limits& limits,
                             const NewtonRules& rules) {
  const std::int32_t steps = ++s.report.steps[row];
  const double g = s.g_norm[row];
  const bool root = rules.form == Operator::matrix, first = !row_math::finite(s.length[row]);
  if (s.report.trace) s.report.trace[(steps - 1) * s.report.trace_pitch + row] = g;
  Limits anywhere = limits;  // a start may be far from what the scale says, and a trial that is worse is not taken
  anywhere.overflow = std::numeric_limits<double>::infinity();
  const row_math::Verdict v = row_math::judge({.g = g,
                                               .f = root ? g : s.f_norm[row],
                                               .z = root ? 0.0 : s.z_norm[row],
                                               .scale = s.report.scale[row],
                                               .best = first ? std::numeric_limits<double>::infinity() : s.best[row],
                                               .steps = steps,
                                               .best_step = steps,
                                               .frozen = 0},
                                              anywhere, std::numeric_limits<std::int32_t>::max(), 0);
  const bool usable = row_math::finite(g) && row_math::finite(s.trial[row]);
  const bool ends = v.status == Status::converged || v.status == Status::stalled;
  s.report.scale[row] = v.scale;
  bool taken = first || ends || (usable && !rules.descent);
  if (!taken) taken = rules.dogleg ? judge_dogleg(s, d, row, usable) : judge_fraction(s, row, usable);
  const bool best = taken && (first || v.ratio < s.best[row]);
  s.taken[row] = best ? Taken::as_best : taken ? Taken::yes : Taken::no;
  if (!taken) {
    s.report.rejected[row] += 1;
    const bool nowhere =
        rules.dogleg ? d.radius[row] <= limits.floor * (d.point[row] > s.length[row] ? d.point[row] : s.length[row])
                     : s.along_step[row] < newton::least_fraction;
    if (nowhere) {
      if (!row_math::finite(g)) return Status::not_finite;
      const double size = root || v.scale > s.size[row] ? v.scale : s.size[row];
      return s.report.residual[row] < limits.noise * size ? Status::stalled : Status::breakdown;
    }
    if (rules.dogleg) bend_dogleg(s, d, row);
    return steps >= rules.max_steps ? Status::out_of_steps : Status::running;
  }
  if (best && row_math::finite(g)) s.report.residual[row] = g;
  if (best) s.best[row] = v.ratio;
  const double before = s.length[row];
  s.length[row] = s.trial[row];
  s.size[row] = s.trial_size[row];
  if (v.status != Status::running) return v.status;
  if (!first && rules.fixed_forcing == 0) {
    const double fall = s.trial[row] / before, eta = s.forcing[row];
    double next = newton::forcing_factor * fall * fall;
    const double held = newton::forcing_factor * eta * eta;
    if (held > 0.1 && held > next) next = held;
    const double enough = 0.8 / v.ratio;  // a little below the threshold: no more is needed
    if (next < enough) next = enough;
    s.forcing[row] = next < newton::most_forcing ? next : newton::most_forcing;
  }
  return steps + rules.reserve > rules.max_steps ? Status::out_of_steps : Status::running;
}

// After a linear solve for a row's step: the whole of it is tried, unless the solve has found nothing.
constexpr void start_trial(const Report& linear, const NewtonStates& s, std::int64_t row) {
  s.turn[row] = Status::converged;
  if (!s.running(row)) return;
  const bool moved = linear.residual[row] < linear.scale[row];
  if (linear.status[row] == Status::not_finite || !moved) {
    s.report.status[row] = linear.status[row] == Status::not_finite ? Status::not_finite : Status::breakdown;
    return;
  }
  s.turn[row] = Status::running;
  s.along_step[row] = 1;
  s.along_descent[row] = 0;
}

// A product asked for outside a linear solve.
constexpr void count_product(const NewtonStates& s, std::int64_t row) {
  const std::int32_t steps = ++s.report.steps[row];
  if (s.report.trace) s.report.trace[(steps - 1) * s.report.trace_pitch + row] = s.report.residual[row];
}

// D never shrinks, and no column is too short to be scaled by.
constexpr double next_weight(double before, double column) {
  const double larger = column > before ? column : before;
  return larger > 0 ? larger : 1.0;
}

struct DoglegSums {
  double slope = 0, curvature = 0, newton = 0, cross = 0, point = 0;  // squares, and the product
};

// The dogleg of a freshly factored Jacobian, and its first trial.
constexpr void start_dogleg(const NewtonStates& s, const Dogleg& d, std::int64_t row, const DoglegSums& sums,
                            bool regular, bool descent) {
  s.turn[row] = Status::converged;
  if (!regular) s.report.singular[row] += 1;
  if (!row_math::finite(sums.slope) || !(sums.slope > 0) || !(sums.curvature > 0)) {
    s.report.status[row] = row_math::finite(sums.slope) ? Status::breakdown : Status::not_finite;
    return;
  }
  d.slope[row] = sums.slope;
  d.curvature[row] = sums.curvature;
  d.newton[row] = regular ? row_math::square_root(sums.newton) : std::numeric_limits<double>::infinity();
  d.cross[row] = sums.cross;
  d.point[row] = row_math::square_root(sums.point);
  const bool fresh = d.radius[row] == 0;
  if (!descent)
    d.radius[row] = std::numeric_limits<double>::infinity();
  else if (fresh)
    d.radius[row] = newton::first_radius * (d.point[row] > s.length[row] ? d.point[row] : s.length[row]);
  bend_dogleg(s, d, row);
  if (fresh && d.length[row] < d.radius[row]) d.radius[row] = d.length[row];
  s.turn[row] = Status::running;
}

// h: the rounding of f over h, and the curvature of f times h, are about as large. What is rounded is of the size of
// the point and of its image; of a root's function nobody knows, and a usual size of 1 is taken for granted.
template <class T>
constexpr double difference_step(Operator form, double point, double residual, double along) {
  const double known = form == Operator::matrix ? (point > 1 ? point : 1.0) : point + residual;
  const double size = known > 0 ? known : 1.0;
  return row_math::square_root(static_cast<double>(std::numeric_limits<T>::epsilon())) * size /
         (along > 0 ? along : 1.0);
}

// Every row: running, its turn, nothing accepted; scale[row] = given[row], or 0 where none is given; ids[row] = row.
template <class T>
struct BeginNewton {
  std::int64_t rows;
  const double* given_scale;  // by row, may be null
  NewtonRules rules;
  NewtonStates states;
  Dogleg dogleg;
  std::int64_t width;
  std::int32_t* ids;
};
DEQCORE_KERNEL(BeginNewton);

// The norms of the rows whose turn it is.   2 reads
template <class T>
struct MeasureTrial {
  ActiveRows rows;
  Norm norm;
  Operator form;
  Rows<const T> at, answer;  // by position
  NewtonStates states;
};
DEQCORE_KERNEL(MeasureTrial);

// Status and report of the rows whose turn it is; it stays the turn of those whose trial was rejected. Progress to the
// mailbox.
template <class T>
struct JudgeTrial {
  ActiveRows rows;
  Limits limits;
  NewtonRules rules;
  NewtonStates states;
  Dogleg dogleg;
  std::int64_t batch;  // rows in all
  Progress* progress;
};
DEQCORE_KERNEL(JudgeTrial);

// How many rows run, and how many have failed, to the mailbox.
template <class T>
struct CountNewton {
  ActiveRows rows;
  NewtonStates states;
  std::int64_t batch;  // rows in all
  Progress* progress;
};
DEQCORE_KERNEL(CountNewton);

// Where a trial was accepted: z = the trial, r = f - z or -F; and result = the trial, if it is the best so far.
//   2 reads, 3 writes
template <class T>
struct TakeTrial {
  ActiveRows rows;
  Operator form;
  Rows<const T> at, answer;  // by position
  Rows<T> z, r, result;      // by row
  NewtonStates states;
};
DEQCORE_KERNEL(TakeTrial);

// After the linear solve: the whole step is tried. Rows whose solve found nothing end.
template <class T>
struct StartTrial {
  ActiveRows rows;
  Report linear;
  NewtonStates states;
};
DEQCORE_KERNEL(StartTrial);

// at = z + a s + b d where it is a row's turn, z elsewhere.   2 or 3 reads, 1 write
template <class T>
struct PoseTrial {
  ActiveRows rows;
  Rows<const T> z, step;  // by row
  const double* descent;  // [row][width]; null: b = 0
  Rows<T> at;             // by position
  NewtonStates states;
};
DEQCORE_KERNEL(PoseTrial);

// A product by a difference: at = z + h v with h = sqrt(eps) times the size of z, over |v|.   2 reads, 1 write
template <class T>
struct PoseDifference {
  ActiveRows rows;
  Operator form;
  Rows<const T> z;      // by row
  Rows<const T> along;  // by position: v
  Rows<T> at;           // by position
  double* h;            // by position
  NewtonStates states;
};
DEQCORE_KERNEL(PoseDifference);

// product = (f(z + h v) - f(z)) / h, or the same of F.   3 reads, 1 write
template <class T>
struct TakeDifference {
  ActiveRows rows;
  Operator form;
  Rows<const T> z, r;    // by row
  Rows<const T> answer;  // by position
  Rows<T> product;       // by position
  const double* h;       // by position
};
DEQCORE_KERNEL(TakeDifference);

// along = the unit vector e_column, in every row.   1 write
template <class T>
struct PoseUnit {
  std::int64_t column;
  Rows<T> along;
};
DEQCORE_KERNEL(PoseUnit);

// Column `column` of A from the product with e_column, where rows run; a step more is counted.
template <class T>
struct KeepJacobian {
  ActiveRows rows;
  std::int64_t column;
  Operator form;
  Rows<const T> answer;  // by position
  NewtonStates states;
  Dogleg dogleg;
};
DEQCORE_KERNEL(KeepJacobian);

// D, d, s and the scalars of the dogleg, and its first trial. A pivot below width eps times the largest entry: A is
// singular, and only d is followed. No descent at all ends a row.   2/3 width^3 flops
template <class T>
struct FactorJacobian {
  ActiveRows rows;
  Rows<const T> z, r;  // by row
  Rows<T> step;        // by row
  bool descent;
  NewtonStates states;
  Dogleg dogleg;
};
DEQCORE_KERNEL(FactorJacobian);

// Ends every running row with `status`.
template <class T>
struct EndNewton {
  ActiveRows rows;
  Status status;
  NewtonStates states;
};
DEQCORE_KERNEL(EndNewton);

}  // namespace deqcore

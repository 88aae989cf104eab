// SPDX-License-Identifier: Apache-2.0
// z, a  the state and the cotangent      y = a(A1 z + u),  d = a'(A1 z + u),  D = d * (A2^T a)      h  step
//
//     adjoint   d(z, a)/dt = (A2 y + b2, -A1^T D), backward as one state of twice the width, and
//               dL/d. = the sum over accepted steps and stages of |h| b_s (D z^T, a y^T, a, D)
//     solver    v_j = h (b_j a + sum_(k>j) a_kj w_k),  w_j = A1^T D(v_j),  a <- a + sum_j w_j,  from the last stage and
//               step to the first, at the points that the solver asked about; dL/d. = the sum of (D z^T, v y^T, v, D)
#include "deqcore/maps/field.hpp"

#include <algorithm>
#include <mutex>
#include <vector>

#include "deqcore/base/shapes.hpp"
#include "deqcore/device/simd.hpp"
#include "deqcore/maps/integrate.hpp"
#include "deqcore/maps/packed.hpp"

namespace deqcore {
namespace {

constexpr std::int64_t tile_height = 32;  // of gradients: sums over the rows must not depend on the threads
constexpr int most_pairs = 8;             // of rows whose outer products are added at once

// sum[i] += sum_g left_g[i] right_g, for up to eight pairs of rows; the sum of rows is read and written once.
template <class T>
struct OuterProducts {
  const T* left[most_pairs];
  const T* right[most_pairs];
  T weight[most_pairs];
  int count = 0;

  void add_to(Rows<T> sum) {
    const int pairs = count;
    at_simd_level([&](auto simd) __attribute__((always_inline)) {
      constexpr int lanes = simd.bytes / sizeof(T);
      using V = simd::Vector<T, lanes>;
      for (std::int64_t i = 0; i < sum.rows; ++i) {
        T factor[most_pairs];
        for (int g = 0; g < pairs; ++g) factor[g] = weight[g] * left[g][i];
        T* to = sum[i];
        std::int64_t j = 0;
        for (; j + lanes <= sum.width; j += lanes) {
          V total = simd::load<V>(to + j);
          for (int g = 0; g < pairs; ++g) total += factor[g] * simd::load<V>(right[g] + j);
          simd::store(to + j, total);
        }
        for (; j < sum.width; ++j)
          for (int g = 0; g < pairs; ++g) to[j] += factor[g] * right[g][j];
      }
    });
    count = 0;
  }
};

template <class T>
void add_scaled(T weight, const T* from, std::int64_t n, T* to) {
  for (std::int64_t j = 0; j < n; ++j) to[j] += weight * from[j];
}

}  // namespace

template <class T>
struct Field<T>::Weights {
  Weights(Rows<const T> A1, Rows<const T> A2, const T* b, Activation activation_)
      : width(A1.width),
        hidden(A1.rows),
        activation(activation_),
        in(hidden, width, A1.data, A1.pitch, 1),
        in_transposed(width, hidden, A1.data, 1, A1.pitch),
        out(width, hidden, A2.data, A2.pitch, 1),
        out_transposed(hidden, width, A2.data, 1, A2.pitch),
        b2(b, b + A2.rows) {}

  std::int64_t flops() const { return 4 * width * hidden; }

  std::int64_t width, hidden;
  Activation activation;
  PackedMatrix<T> in, in_transposed, out, out_transposed;
  std::vector<T> b2;
};

// What the tile of a gradient adds up.
template <class T>
struct Field<T>::Sums {
  FieldGradients<T> to;
  Rows<T> du;  // one row for all, or from the tile's first row on
  OuterProducts<T> in, out;

  // weight times the products at one point of row `row` of the tile.
  void add(T weight, std::int64_t row, const T* z, const T* a, const T* y, const T* D) {
    add_scaled(weight, a, to.A2.rows, to.b2);
    add_scaled(weight, D, du.width, du[du.rows == 1 ? 0 : row]);
    in.left[in.count] = D;
    in.right[in.count] = z;
    in.weight[in.count++] = weight;
    out.left[out.count] = a;
    out.right[out.count] = y;
    out.weight[out.count++] = weight;
    if (in.count == most_pairs) flush();
  }

  // Before what the pairs point to changes.
  void flush() {
    if (in.count == 0) return;
    in.add_to(to.A1);
    out.add_to(to.A2);
  }
};

template <class T>
Field<T>::Field(Rows<const T> A1, Rows<const T> A2, const T* b2, Activation activation) {
  require(A1.rows >= 1 && A1.width >= 1, "A1: ", A1.rows, " x ", A1.width, " given; expected at least 1 x 1");
  require(A2.rows == A1.width && A2.width == A1.rows, "A2: ", A2.rows, " x ", A2.width, " given; expected ", A1.width,
          " x ", A1.rows);
  weights_ = std::make_unique<const Weights>(A1, A2, b2, activation);
}

template <class T>
Field<T>::~Field() = default;

template <class T>
std::int64_t Field<T>::width() const {
  return weights_->width;
}

template <class T>
std::int64_t Field<T>::hidden() const {
  return weights_->hidden;
}

template <class T>
void Field<T>::check(const char* argument, Rows<const T> z, Rows<const T> u) const {
  require(z.rows >= 1, argument, ": ", z.rows, " rows given; expected at least 1");
  require(z.width == width(), argument, ": width ", z.width, " given; expected ", width());
  require(u.width == hidden() && (u.rows == 1 || u.rows == z.rows), "u: ", u.rows, " x ", u.width, " given; expected ",
          z.rows, " x ", hidden(), " or 1 x ", hidden());
}

template <class T>
void Field<T>::check_gradients(Rows<const T> u, Rows<T> du, const FieldGradients<T>& gradients) const {
  require_shape<T>("du", du, u.rows, hidden());
  require_shape<T>("dA1", gradients.A1, hidden(), width());
  require_shape<T>("dA2", gradients.A2, width(), hidden());
}

template <class T>
typename Field<T>::Inner Field<T>::take_inner(Arena& scratch, std::int64_t rows) const {
  Inner inner;
  for (Rows<T>* block : {&inner.y, &inner.D, &inner.back}) *block = scratch.take_rows<T>(rows, hidden());
  return inner;
}

template <class T>
std::size_t Field<T>::inner_bytes(std::int64_t rows) const {
  Arena counting;
  take_inner(counting, rows);
  return counting.used();
}

// A1, A2, b2 and, where it is shared, u: one after the other.
template <class T>
std::int64_t Field<T>::partial_size(bool shared) const {
  return 2 * width() * hidden() + width() + (shared ? hidden() : 0);
}

template <class T>
FieldGradients<T> Field<T>::partial_gradients(T* from) const {
  return {.A1 = dense_rows(from, hidden(), width()),
          .A2 = dense_rows(from + width() * hidden(), width(), hidden()),
          .b2 = from + 2 * width() * hidden()};
}

template <class T>
void Field<T>::clear(Rows<T> du, const FieldGradients<T>& gradients) const {
  for (const Rows<T>& block : {du, gradients.A1, gradients.A2})
    for (std::int64_t i = 0; i < block.rows; ++i) std::fill_n(block[i], block.width, T(0));
  std::fill_n(gradients.b2, width(), T(0));
}

template <class T>
void Field<T>::value(const CpuQueue& queue, Rows<const T> z, Rows<const T> u, Rows<T> F) const {
  check("z", z, u);
  require_shape<T>("F", F, z.rows, width());
  const Weights& w = *weights_;
  HostBuffer memory(z.rows * w.hidden * sizeof(T));
  const Rows<T> y = dense_rows(static_cast<T*>(memory.data()), z.rows, w.hidden);
  queue.for_blocks(z.rows, w.flops() * sizeof(T) / 16, [&](std::int64_t first, std::int64_t count) {
    const Rows<T> inner = y.slice(first, count), to = F.slice(first, count);
    w.in.multiply(z.slice(first, count), inner);
    for (std::int64_t i = 0; i < count; ++i) activate(w.activation, w.hidden, u[u.rows == 1 ? 0 : first + i], inner[i]);
    w.out.multiply(inner, to);
    for (std::int64_t i = 0; i < count; ++i) add_scaled(T(1), w.b2.data(), w.width, to[i]);
  });
}

template <class T>
void Field<T>::products(Rows<const T> z, Rows<const T> u, std::int64_t first, const std::int32_t* ids, Rows<const T> a,
                        const Inner& inner, Rows<T> dz, const Rows<T>* F) const {
  const Weights& w = *weights_;
  const auto [y, D, back] = inner;
  w.in.multiply(z, D);
  for (std::int64_t i = 0; i < z.rows; ++i) {
    const T* condition = u[u.rows == 1 ? 0 : first + (ids ? ids[i] : i)];
    std::copy_n(D[i], w.hidden, y[i]);
    activate(w.activation, w.hidden, condition, y[i]);
    deqcore::differentiate(w.activation, w.hidden, condition, D[i]);
  }
  if (F) {
    w.out.multiply(y, *F);
    for (std::int64_t i = 0; i < z.rows; ++i) add_scaled(T(1), w.b2.data(), w.width, (*F)[i]);
  }
  w.out_transposed.multiply(a, back);
  for (std::int64_t i = 0; i < z.rows; ++i)
    for (std::int64_t j = 0; j < w.hidden; ++j) D[i][j] *= back[i][j];
  w.in_transposed.multiply(D, dz);
}

template <class T>
void Field<T>::vjp(Rows<const T> z, Rows<const T> u, Rows<const T> a, Rows<T> dz, Rows<T> du,
                   const FieldGradients<T>& gradients) const {
  check("z", z, u);
  require_shape<T>("a", a, z.rows, width());
  require_shape<T>("dz", dz, z.rows, width());
  check_gradients(u, du, gradients);
  const HostBuffer memory(inner_bytes(z.rows));
  Arena arena = memory.arena();
  const Inner inner = take_inner(arena, z.rows);
  products(z, u, 0, nullptr, a, inner, dz, nullptr);
  clear(du, gradients);
  Sums sums{.to = gradients, .du = du, .in = {}, .out = {}};
  for (std::int64_t row = 0; row < z.rows; ++row) sums.add(T(1), row, z[row], a[row], inner.y[row], inner.D[row]);
  sums.flush();
}

template <class T>
Counts Field<T>::integrate(int threads, const OdeOptions& options, Rows<const T> z0, const double* times,
                           std::int64_t count, Rows<const T> u, Rows<T> values, const OdeReport& report,
                           Interrupt* interrupt) const {
  check("z0", z0, u);
  const Weights& w = *weights_;
  const auto evaluate = [&](std::int64_t first, const Question<T>& question, Rows<T> answer, T* work) {
    const Rows<T> y = dense_rows(work, question.count, w.hidden);
    w.in.multiply(question.at, y);
    for (std::int64_t i = 0; i < question.count; ++i)
      activate(w.activation, w.hidden, u[u.rows == 1 ? 0 : first + question.rows[i]], y[i]);
    w.out.multiply(y, answer);
    for (std::int64_t i = 0; i < question.count; ++i) add_scaled(T(1), w.b2.data(), w.width, answer[i]);
  };
  return deqcore::integrate<T>(threads, w.hidden, w.flops(), options,
                               {.z0 = z0, .times = times, .count = count, .values = values, .report = report}, evaluate,
                               interrupt);
}

template <class T>
std::size_t Field<T>::integrate_bytes(int threads, const OdeOptions& options, std::int64_t rows) const {
  return deqcore::integrate_bytes<T>(threads, rows, width(), hidden(), weights_->flops(), options);
}

// The points of one stage, by row.
template <class T>
struct Field<T>::StagePoints {
  Rows<T> z, a, y, D;

  void keep(std::int64_t row, const T* z_, const T* a_, const T* y_, const T* D_) const {
    std::copy_n(z_, z.width, z[row]);
    std::copy_n(a_, a.width, a[row]);
    std::copy_n(y_, y.width, y[row]);
    std::copy_n(D_, D.width, D[row]);
  }
};

template <class T>
Counts Field<T>::by_adjoint(Arena scratch, const OdeOptions& options, bool frozen, Rows<const T> z, Rows<const T> u,
                            std::int64_t first, const double* times, Rows<T> a, Sums& sums, const OdeReport& report,
                            Interrupt* interrupt) const {
  const std::int64_t rows = z.rows, wide = width();
  const int inner_stages = stages(options.method);
  const bool by_error = options.steps == 0;
  const std::vector<double> b = stage_weights(options.method, inner_stages);
  CpuQueue queue;
  OdeSolve<CpuQueue, T> solver(queue, rows, 2 * wide, options, scratch);
  const Rows<T> pair = scratch.take_rows<T>(rows, 2 * wide), answers = scratch.take_rows<T>(rows, 2 * wide);
  const Rows<T> values = scratch.take_rows<T>(2 * rows, 2 * wide);
  const Inner inner = take_inner(scratch, rows);
  StagePoints at[7];
  for (int s = 0; s <= inner_stages; ++s)
    at[s] = {.z = scratch.take_rows<T>(rows, wide),
             .a = scratch.take_rows<T>(rows, wide),
             .y = scratch.take_rows<T>(rows, hidden()),
             .D = scratch.take_rows<T>(rows, hidden())};
  auto* const accepted = scratch.take<std::int32_t>(rows);
  auto* const reached = scratch.take<double>(rows);
  for (std::int64_t row = 0; row < rows; ++row) {
    std::copy_n(z[row], wide, pair[row]);
    std::copy_n(a[row], wide, pair[row] + wide);
    accepted[row] = 0;
    reached[row] = times[0];
  }
  const auto half = [&](Rows<T> block, std::int64_t count, std::int64_t from) {
    return Rows<T>{block.data + from, count, wide, 2 * wide};
  };
  int stage = 0;
  bool probing = false;  // the question is the one for the length of the first step
  Question<T> question = solver.start(pair, times, 2, values.slice(0, rows), rows * 2 * wide, report);
  while (question) {
    if (interrupt) {
      interrupt->poll();
      if (interrupt->requested()) {
        solver.cancel();
        break;
      }
    }
    const std::int64_t count = question.count;
    const Rows<const T> points{question.at.data, count, wide, 2 * wide},
        cotangents{question.at.data + wide, count, wide, 2 * wide};
    const Rows<T> F = half(answers, count, 0), da = half(answers, count, wide);
    const Inner own{inner.y.slice(0, count), inner.D.slice(0, count), inner.back.slice(0, count)};
    products(points, u, first, question.rows, cotangents, own, da, &F);
    for (std::int64_t i = 0; i < count; ++i) {
      if (!probing) at[stage].keep(question.rows[i], points[i], cotangents[i], own.y[i], own.D[i]);
      for (std::int64_t j = 0; j < wide; ++j) da[i][j] = frozen ? T(0) : -da[i][j];
    }
    const bool started = by_error && stage == 0;
    question = solver.advance(answers.slice(0, count));
    if (probing) {
      probing = false;
      stage = 1;
    } else if (started) {
      probing = true;
    } else if (++stage == inner_stages + (by_error ? 1 : 0)) {
      for (std::int64_t row = 0; row < rows; ++row) {
        const double h = reached[row] - report.reached[row];  // backward
        for (int k = 0; k < inner_stages && report.accepted[row] != accepted[row]; ++k)
          if (b[k] != 0)
            sums.add(static_cast<T>(h * b[k]), row, at[k].z[row], at[k].a[row], at[k].y[row], at[k].D[row]);
      }
      sums.flush();
      for (std::int64_t row = 0; row < rows; ++row) {
        if (report.accepted[row] == accepted[row]) continue;
        accepted[row] = report.accepted[row];
        reached[row] = report.reached[row];
        const StagePoints& last = at[stage - 1];  // the next step's first
        if (by_error) at[0].keep(row, last.z[row], last.a[row], last.y[row], last.D[row]);
      }
      stage = by_error ? 1 : 0;
    }
  }
  for (std::int64_t row = 0; row < rows; ++row) std::copy_n(values[rows + row] + wide, wide, a[row]);
  return solver.counts();
}

template <class T>
Counts Field<T>::through_solver(Arena scratch, const OdeOptions& options, Rows<const T> z, Rows<const T> u,
                                std::int64_t first, const double* times, Rows<T> a, Sums& sums, const OdeReport& report,
                                Interrupt* interrupt) const {
  const std::int64_t rows = z.rows, wide = width();
  const int s = stages(options.method);
  const Weights& w = *weights_;
  CpuQueue queue;
  OdeSolve<CpuQueue, T> solver(queue, rows, wide, options, scratch);
  const Rows<T> answers = scratch.take_rows<T>(rows, wide), values = scratch.take_rows<T>(2 * rows, wide);
  const Inner inner = take_inner(scratch, rows);
  const Rows<T> back = scratch.take_rows<T>(s * rows, wide), v = scratch.take_rows<T>(rows, wide);
  const Rows<T> points = scratch.take_rows<T>(options.steps * s * rows, wide);
  Question<T> question = solver.start(z, times, 2, values.slice(0, rows), rows * wide, report);
  for (std::int64_t asked = 0; question; ++asked) {
    if (interrupt) {
      interrupt->poll();
      if (interrupt->requested()) {
        solver.cancel();
        return solver.counts();
      }
    }
    const Rows<T> kept = points.slice(asked * rows, rows);
    for (std::int64_t i = 0; i < rows; ++i) {
      std::copy_n(question.at[i], wide, kept[i]);
      std::fill_n(answers[i], wide, T(0));
    }
    w.in.multiply(question.at, inner.y);
    for (std::int64_t i = 0; i < rows; ++i)
      activate(w.activation, w.hidden, u[u.rows == 1 ? 0 : first + i], inner.y[i]);
    w.out.multiply(inner.y, answers);
    for (std::int64_t i = 0; i < rows; ++i) add_scaled(T(1), w.b2.data(), wide, answers[i]);
    question = solver.advance(answers);
  }
  const double h = (times[1] - times[0]) / static_cast<double>(options.steps);
  std::vector<std::vector<double>> weights;
  for (int j = 0; j <= s; ++j) weights.push_back(stage_weights(options.method, j));
  for (std::int64_t step = options.steps; step-- > 0;) {
    for (int j = s; j-- > 0;) {
      for (std::int64_t i = 0; i < rows; ++i) {
        for (std::int64_t c = 0; c < wide; ++c) v[i][c] = static_cast<T>(h * weights[s][j]) * a[i][c];
        for (int k = j + 1; k < s; ++k)
          if (weights[k][j] != 0) add_scaled(static_cast<T>(h * weights[k][j]), back[k * rows + i], wide, v[i]);
      }
      const Rows<T> at = points.slice((step * s + j) * rows, rows);
      products(at, u, first, nullptr, v, inner, back.slice(j * rows, rows), nullptr);
      for (std::int64_t i = 0; i < rows; ++i) sums.add(T(1), i, at[i], v[i], inner.y[i], inner.D[i]);
      sums.flush();
    }
    for (int j = 0; j < s; ++j)
      for (std::int64_t i = 0; i < rows; ++i) add_scaled(T(1), back[j * rows + i], wide, a[i]);
  }
  return solver.counts();
}

template <class T>
std::size_t Field<T>::tile_bytes(const OdeOptions& options, OdeGradient gradient, std::int64_t rows) const {
  Arena counting;
  const std::int64_t wide = width(), s = stages(options.method);
  if (gradient == OdeGradient::solver) {
    const OdeSolve<CpuQueue, T> measured(nullptr, rows, wide, options, counting);
    counting.take<T>(rows * wide);
    counting.take<T>(2 * rows * wide);
    take_inner(counting, rows);
    counting.take<T>(s * rows * wide);
    counting.take<T>(rows * wide);
    counting.take<T>(options.steps * s * rows * wide);
    return counting.used();
  }
  const OdeSolve<CpuQueue, T> measured(nullptr, rows, 2 * wide, options, counting);
  for (int block = 0; block < 2; ++block) counting.take<T>(rows * 2 * wide);
  counting.take<T>(2 * rows * 2 * wide);
  take_inner(counting, rows);
  for (std::int64_t k = 0; k <= s; ++k) {
    for (int block = 0; block < 2; ++block) counting.take<T>(rows * wide);
    for (int block = 0; block < 2; ++block) counting.take<T>(rows * hidden());
  }
  counting.take<std::int32_t>(rows);
  counting.take<double>(rows);
  return counting.used();
}

template <class T>
Counts Field<T>::differentiate(int threads, const OdeOptions& options, OdeGradient gradient, Rows<const T> z_earlier,
                               Rows<const T> z_later, Rows<const T> u, double earlier, double later, Rows<T> a,
                               Rows<T> du, const FieldGradients<T>& gradients, const OdeReport& report,
                               Interrupt* interrupt) const {
  check("z", z_earlier, u);
  require_shape<T>("z", z_later, z_earlier.rows, width());
  require_shape<T>("a", a, z_earlier.rows, width());
  check_gradients(u, du, gradients);
  require(gradient != OdeGradient::solver || options.steps > 0,
          "steps: none given; expected the number of steps that the solver took");
  OdeOptions own = options;
  own.control = Control::rows;
  own.look_every = 1;
  own.retire = gradient == OdeGradient::solver ? Retire::off : Retire::on;
  const bool solver = gradient == OdeGradient::solver;
  const double times[2] = {solver ? earlier : later, solver ? later : earlier};
  const std::int64_t rows = a.rows, tiles = (rows + tile_height - 1) / tile_height;
  const Tiling tiling = {
      .rows = rows, .tiles = tiles, .threads = static_cast<int>(std::min<std::int64_t>(threads, tiles))};
  // a row alone adds to du itself, as the rows of a batch with their own u do: so its bits are the same
  const bool shared = du.rows == 1 && rows > 1;
  const std::int64_t sums_size = partial_size(shared);
  const HostBuffer memory(tiles * sums_size * sizeof(T));
  T* const partial = static_cast<T*>(memory.data());
  Counts total;
  std::mutex adding;
  for_tiles(
      tiling, tile_bytes(own, gradient, tiling.tallest()),
      [&](Arena scratch, std::int64_t first, std::int64_t count) {
        T* const mine = partial + (first * tiles + rows - 1) / rows * sums_size;
        Sums sums{
            .to = partial_gradients(mine),
            .du = shared ? dense_rows(mine + 2 * width() * hidden() + width(), 1, hidden()) : du.slice(first, count),
            .in = {},
            .out = {}};
        std::fill_n(mine, sums_size, T(0));
        const Rows<T> own_a = a.slice(first, count);
        const OdeReport own_report = report.slice(first);
        const Counts counts =
            solver ? through_solver(scratch, own, z_earlier.slice(first, count), u, first, times, own_a, sums,
                                    own_report, interrupt)
                   : by_adjoint(scratch, own, gradient == OdeGradient::frozen, z_later.slice(first, count), u, first,
                                times, own_a, sums, own_report, interrupt);
        const std::lock_guard lock(adding);
        add_tile(total, counts);
      },
      interrupt);
  for (std::int64_t tile = 0; tile < tiles; ++tile) {
    T* const from = partial + tile * sums_size;
    const FieldGradients<T> part = partial_gradients(from);
    for (std::int64_t i = 0; i < hidden(); ++i) add_scaled(T(1), part.A1[i], width(), gradients.A1[i]);
    for (std::int64_t i = 0; i < width(); ++i) add_scaled(T(1), part.A2[i], hidden(), gradients.A2[i]);
    add_scaled(T(1), part.b2, width(), gradients.b2);
    if (shared) add_scaled(T(1), from + 2 * width() * hidden() + width(), hidden(), du[0]);
  }
  return total;
}

template <class T>
std::size_t Field<T>::differentiate_bytes(int threads, const OdeOptions& options, OdeGradient gradient,
                                          std::int64_t rows) const {
  OdeOptions own = options;
  own.control = Control::rows;
  const std::int64_t tiles = (rows + tile_height - 1) / tile_height;
  const Tiling tiling = {
      .rows = rows, .tiles = tiles, .threads = static_cast<int>(std::min<std::int64_t>(threads, tiles))};
  return tile_bytes(own, gradient, tiling.tallest()) * tiling.threads + tiles * partial_size(true) * sizeof(T);
}

template class Field<float>;
template class Field<double>;

}  // namespace deqcore

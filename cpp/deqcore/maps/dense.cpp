// SPDX-License-Identifier: Apache-2.0
#include "deqcore/maps/dense.hpp"

#include <algorithm>
#include <initializer_list>
#include <optional>
#include <type_traits>
#include <utility>

#include "deqcore/base/shapes.hpp"
#include "deqcore/device/buffer.hpp"
#include "deqcore/maps/packed.hpp"
#include "deqcore/maps/packed_bfloat16.hpp"
#include "deqcore/maps/refined.hpp"
#include "deqcore/maps/tiles.hpp"

namespace deqcore {
namespace {

// The injection's row for a row of the batch: its own, or the only one.
template <class T>
const T* injected(Rows<const T> injection, std::int64_t row) {
  return injection[injection.rows == 1 ? 0 : row];
}

// Outputs are written while inputs are still read.
template <class T>
void require_apart(const char* argument, std::type_identity_t<Rows<const T>> output,
                   std::initializer_list<Rows<const T>> inputs) {
  for (const Rows<const T>& input : inputs) require(!overlap<T>(output, input), argument, ": overlaps an input");
}

// y[i] <- d[row of i] * y[i]
template <class T>
void scale_rows(Rows<const T> d, Rows<T> y) {
  for (std::int64_t i = 0; i < y.rows; ++i) {
    const T* factor = d[i];
    T* to = y[i];
    for (std::int64_t j = 0; j < y.width; ++j) to[j] *= factor[j];
  }
}

// Tiles share out the rows; the product of an only row is shared instead.
int threads_of_a_product(int threads, std::int64_t rows) {
  return rows == 1 ? threads : 1;
}

void add(Counts& total, const Counts& tile) {
  total.questions = std::max(total.questions, tile.questions);
  total.rows_asked += tile.rows_asked;
  total.looks = std::max(total.looks, tile.looks);
  total.products = std::max(total.products, tile.products);
}

// What the solve of a tile takes from its arena.
template <class T>
std::size_t forward_bytes(std::int64_t rows, std::int64_t width, const Method& method, const Stop& stop, bool refines) {
  Arena counting;
  const FixedPoint<CpuQueue, T> measured(nullptr, rows, width, method, stop, counting);
  counting.take<T>(rows * width);  // answers
  if (refines) RefinedProducts(nullptr, nullptr, rows, width, stop, counting);
  return counting.used();
}

template <class T>
std::size_t backward_bytes(std::int64_t rows, std::int64_t width, const AdjointMethod& method, const Stop& stop,
                           bool refines) {
  Arena counting;
  const Adjoint<CpuQueue, T> measured(nullptr, rows, width, method, stop, false, counting);
  for (int block = 0; block < 3; ++block) counting.take<T>(rows * width);  // answers, d, d * u
  if (refines) RefinedProducts(nullptr, nullptr, rows, width, stop, counting);
  return counting.used();
}

// u = J^T u + g, iterated: a residual that is known at every step.
bool by_fixed_point(const AdjointMethod& method) {
  return std::holds_alternative<Picard>(method) || std::holds_alternative<Anderson>(method) ||
         std::holds_alternative<AndersonTypeI>(method) || std::holds_alternative<Broyden>(method);
}

// Rows that did not converge are asked about once more, in full, for the residual that is reported.
template <class Map>
void measure_unconverged(RefinedProducts& products, Rows<const float> result, Rows<float> at, const Map& map,
                         float* answers, Counts& counts) {
  const Question<float> failed = products.unconverged(result, at);
  if (!failed) return;
  CpuQueue queue;
  map(queue, failed, dense_rows(answers, failed.count, result.width));
  products.report_residuals(failed);
  counts.questions += 1;
  counts.rows_asked += failed.count;
}

constexpr NewtonForm in_tiles{.gather_points = false};

template <class T>
std::size_t newton_bytes(std::int64_t rows, std::int64_t width, const NewtonMethod& method, const Stop& stop) {
  Arena counting;
  const NewtonSolve<CpuQueue, T> measured(nullptr, rows, width, method, stop, in_tiles, counting);
  for (int block = 0; block < 2; ++block) counting.take<T>(rows * width);  // answers, d
  return counting.used();
}

}  // namespace

// W as products read it. The transpose is packed when a derivative first needs it, what is rounded by the first solve.
template <class T>
struct Dense<T>::Weights {
  explicit Weights(Rows<const T> W) : packed(W.rows, W.width, W.data, W.pitch, 1, num_threads()) {}

  const PackedMatrix<T>& transposed() const {
    std::call_once(transposing, [this] { packed_transposed.emplace(packed.transposed(num_threads())); });
    return *packed_transposed;  // NOLINT(bugprone-unchecked-optional-access): filled by the line above
  }

  const PackedBfloat16& rounded(bool of_transposed) const
    requires(std::is_same_v<T, float>)
  {
    Rounded& kept = in_bfloat16[of_transposed ? 1 : 0];
    std::call_once(kept.once, [&] { kept.packed.emplace(of_transposed ? transposed() : packed, num_threads()); });
    return *kept.packed;  // NOLINT(bugprone-unchecked-optional-access): filled by the line above
  }

  struct Rounded {
    std::once_flag once;
    std::optional<PackedBfloat16> packed;
  };

  PackedMatrix<T> packed;
  mutable std::once_flag transposing;
  mutable std::optional<PackedMatrix<T>> packed_transposed;
  mutable Rounded in_bfloat16[2];  // W, and its transpose
};

template <class T>
Dense<T>::Dense(Rows<const T> W, Activation activation, Products products)
    : width_(W.width), activation_(activation), products_(products) {
  require(products == Products::full || std::is_same_v<T, float>,
          "products: bfloat16 given for a map in double; expected full");
  require(W.width >= 1, "W: ", W.rows, " x ", W.width, " given; expected at least 1 x 1");
  update(W);
}

template <class T>
Dense<T>::Dense(std::int64_t width, Activation activation, Products products, std::shared_ptr<const Weights> weights)
    : width_(width), activation_(activation), products_(products), weights_(std::move(weights)) {}

template <class T>
bool Dense<T>::refines() const {
  return products_ == Products::bfloat16 && PackedBfloat16::supported();
}

template <class T>
Dense<T>::~Dense() = default;

template <class T>
Dense<T> Dense<T>::snapshot() const {
  return Dense(width_, activation_, products_, weights());
}

template <class T>
void Dense<T>::update(Rows<const T> W) {
  require(W.rows == width_ && W.width == width_, "W: ", W.rows, " x ", W.width, " given; expected ", width_, " x ",
          width_);
  auto fresh = std::make_shared<const Weights>(W);
  const std::lock_guard lock(replacing_);
  weights_.swap(fresh);
}

template <class T>
std::shared_ptr<const typename Dense<T>::Weights> Dense<T>::weights() const {
  const std::lock_guard lock(replacing_);
  return weights_;
}

template <class T>
const PackedMatrix<T>& Dense<T>::product_of(const Weights& weights) {
  return weights.packed;
}

template <class T>
void Dense<T>::copy_weights(T* to) const {
  weights()->packed.unpack(to);
}

template <class T>
void Dense<T>::check(const char* argument, Rows<const T> z, Rows<const T> injection) const {
  require(z.rows >= 1, argument, ": ", z.rows, " rows given; expected at least 1");
  require(z.width == width_, argument, ": width ", z.width, " given; expected ", width_);
  require(injection.width == width_ && (injection.rows == 1 || injection.rows == z.rows), "injection: ", injection.rows,
          " x ", injection.width, " given; expected ", z.rows, " x ", width_, " or 1 x ", width_);
}

template <class T>
void Dense<T>::value(const CpuQueue& queue, Rows<const T> z, Rows<const T> injection, Rows<T> f) const {
  check("z", z, injection);
  require_shape<T>("f", f, z.rows, width_);
  require_apart<T>("f", f, {z, injection});
  const auto held = weights();
  queue.for_blocks(z.rows, width_ * sizeof(T) * width_ / 8, [&](std::int64_t first, std::int64_t count) {
    const Rows<T> block = f.slice(first, count);
    held->packed.multiply(z.slice(first, count), block);
    for (std::int64_t i = 0; i < count; ++i) activate(activation_, width_, injected(injection, first + i), block[i]);
  });
}

template <class T>
void Dense<T>::jvp(const CpuQueue& queue, Rows<const T> z, Rows<const T> injection, Rows<const T> v, Rows<T> Jv) const {
  check("z", z, injection);
  require_shape<T>("v", v, z.rows, width_);
  require_shape<T>("Jv", Jv, z.rows, width_);
  require_apart<T>("Jv", Jv, {z, injection, v});
  const auto held = weights();
  HostBuffer memory(z.rows * width_ * sizeof(T));
  const Rows<T> d = dense_rows(static_cast<T*>(memory.data()), z.rows, width_);
  queue.for_blocks(z.rows, width_ * sizeof(T) * width_ / 4, [&](std::int64_t first, std::int64_t count) {
    const Rows<T> slope = d.slice(first, count), out = Jv.slice(first, count);
    held->packed.multiply(z.slice(first, count), slope);
    for (std::int64_t i = 0; i < count; ++i)
      differentiate(activation_, width_, injected(injection, first + i), slope[i]);
    held->packed.multiply(v.slice(first, count), out);
    scale_rows<T>(slope, out);
  });
}

template <class T>
void Dense<T>::vjp(const CpuQueue& queue, Rows<const T> z, Rows<const T> injection, Rows<const T> u,
                   Rows<T> JTu) const {
  check("z", z, injection);
  require_shape<T>("u", u, z.rows, width_);
  require_shape<T>("JTu", JTu, z.rows, width_);
  require_apart<T>("JTu", JTu, {z, injection, u});
  const auto held = weights();
  const PackedMatrix<T>& backward = held->transposed();
  HostBuffer memory(z.rows * width_ * sizeof(T));
  const Rows<T> d = dense_rows(static_cast<T*>(memory.data()), z.rows, width_);
  queue.for_blocks(z.rows, width_ * sizeof(T) * width_ / 4, [&](std::int64_t first, std::int64_t count) {
    const Rows<T> slope = d.slice(first, count);
    held->packed.multiply(z.slice(first, count), slope);
    for (std::int64_t i = 0; i < count; ++i)
      differentiate(activation_, width_, injected(injection, first + i), slope[i]);
    scale_rows<T>(u.slice(first, count), slope);
    backward.multiply(slope, JTu.slice(first, count));
  });
}

template <class T>
void Dense<T>::parameter_gradients(const CpuQueue& queue, Rows<const T> z, Rows<const T> injection, Rows<const T> u,
                                   Rows<T> dW, Rows<T> dc) const {
  check_gradients(z, injection, u, dW, dc);
  const auto held = weights();
  HostBuffer memory(z.rows * width_ * sizeof(T));
  const Rows<T> d = dense_rows(static_cast<T*>(memory.data()), z.rows, width_);
  queue.for_blocks(z.rows, width_ * sizeof(T) * width_ / 8, [&](std::int64_t first, std::int64_t count) {
    const Rows<T> block = d.slice(first, count);
    held->packed.multiply(z.slice(first, count), block);
    for (std::int64_t i = 0; i < count; ++i)
      differentiate(activation_, width_, injected(injection, first + i), block[i]);
  });
  sum_gradients(queue, z, d, u, dW, dc);
}

template <class T>
void Dense<T>::check_gradients(Rows<const T> z, Rows<const T> injection, Rows<const T> u, Rows<T> dW,
                               Rows<T> dc) const {
  check("z", z, injection);
  require_shape<T>("u", u, z.rows, width_);
  require_shape<T>("dW", dW, width_, width_);
  require_shape<T>("dc", dc, dc.rows == 1 ? 1 : z.rows, width_);
  require_apart<T>("dW", dW, {z, injection, u, dc});
  require_apart<T>("dc", dc, {z, injection, u});
}

// dW = (d * u)^T z, dc = d * u or its sum over the rows; d becomes d * u. Columns of z are packed; the rows that meet
// them are those of (d * u)^T, turned a few at a time.
template <class T>
void Dense<T>::sum_gradients(const CpuQueue& queue, Rows<const T> z, Rows<T> d, Rows<const T> u, Rows<T> dW,
                             Rows<T> dc) const {
  scale_rows<T>(u, d);
  const PackedMatrix<T> columns(width_, z.rows, z.data, 1, z.pitch, queue.threads());
  constexpr std::int64_t turned = 64;  // rows of dW
  const HostBuffer memory((width_ + turned - 1) / turned * turned * z.rows * sizeof(T));
  queue.for_blocks((width_ + turned - 1) / turned, turned * z.rows * sizeof(T) * width_ / 8,
                   [&](std::int64_t first, std::int64_t count) {
                     for (std::int64_t j = first * turned; j < std::min(width_, (first + count) * turned);
                          j += turned) {
                       const std::int64_t height = std::min(turned, width_ - j);
                       const Rows<T> du = dense_rows(static_cast<T*>(memory.data()) + j * z.rows, height, z.rows);
                       for (std::int64_t i = 0; i < z.rows; ++i)
                         for (std::int64_t k = 0; k < height; ++k) du[k][i] = d[i][j + k];
                       columns.multiply(du, dW.slice(j, height));
                     }
                   });
  if (dc.rows == z.rows) {
    for (std::int64_t i = 0; i < z.rows; ++i) std::copy_n(d[i], width_, dc[i]);
    return;
  }
  std::fill_n(dc[0], width_, -T(0));  // so that the sum of one row is that row, to the sign of a zero
  for (std::int64_t i = 0; i < z.rows; ++i)
    for (std::int64_t j = 0; j < width_; ++j) dc[0][j] += d[i][j];
}

// solve_tile(scratch, first, count) -> the tile's counts
template <class T>
template <class Measure, class Solve>
Counts Dense<T>::solve_tiles(int threads, Rows<const T> z0, Rows<const T> injection, Rows<T> result,
                             const Measure& bytes, const Solve& solve_tile, Interrupt* interrupt) const {
  check("z0", z0, injection);
  require_shape<T>("result", result, z0.rows, width_);
  require_apart<T>("result", result, {z0, injection});
  const Tiling tiling = tiling_for(threads, z0.rows, bytes);
  Counts total;
  std::mutex adding;
  for_tiles(
      tiling, bytes(tiling.tallest()),
      [&](Arena scratch, std::int64_t first, std::int64_t count) {
        const Counts tile = solve_tile(scratch, first, count);
        const std::lock_guard lock(adding);
        add(total, tile);
      },
      interrupt);
  return total;
}

template <class T>
Counts Dense<T>::solve(int threads, const Method& method, const Stop& stop, Rows<const T> z0, Rows<const T> injection,
                       Rows<T> result, const Report& report, const double* scale, Interrupt* interrupt,
                       const KeptHistory& history) const {
  const auto held = weights();
  const int sharing = threads_of_a_product(threads, z0.rows);
  const bool refined = refines();
  const auto bytes = [&](std::int64_t rows) { return forward_bytes<T>(rows, width_, method, stop, refined); };
  const auto solve_tile = [&](Arena scratch, std::int64_t first, std::int64_t count) {
    CpuQueue queue;
    FixedPoint<CpuQueue, T> solver(queue, count, width_, method, stop, scratch);
    T* const answers = scratch.take<T>(count * width_);
    std::optional<RefinedProducts> products;
    if constexpr (std::is_same_v<T, float>)
      if (refined) {
        products.emplace(&held->packed, &held->rounded(false), count, width_, stop, scratch);
        products->start(report.slice(first));
      }
    const auto map = [&](CpuQueue&, const Question<T>& question, Rows<T> answer) {
      const auto finish = [&](std::int64_t i) {
        activate(activation_, width_, injected(injection, first + question.rows[i]), answer[i]);
      };
      if constexpr (std::is_same_v<T, float>)
        if (products)
          return products->answer(question, {.x = question.at, .points = question.at, .plus = {}, .finish = finish},
                                  answer, sharing);
      held->packed.multiply(question.at, answer, sharing);
      for (std::int64_t i = 0; i < question.count; ++i) finish(i);
    };
    const KeptHistory own = {.from = history.from,
                             .at = history.from ? history.at + first : nullptr,
                             .to = history.to ? history.to + first * solver.history_words() : nullptr};
    const Question<T> question = solver.start(z0.slice(first, count), result.slice(first, count), report.slice(first),
                                              scale ? scale + first : nullptr);
    solver.load(own);
    converse(queue, solver, question, MapRef<CpuQueue, T>(map), answers, interrupt);
    Counts counts = solver.counts();
    if constexpr (std::is_same_v<T, float>)
      if (products) measure_unconverged(*products, result.slice(first, count), solver.block(0), map, answers, counts);
    solver.save(own);
    return counts;
  };
  return solve_tiles(threads, z0, injection, result, bytes, solve_tile, interrupt);
}

// A row is asked about products only where its last value was asked for: a'(W z + c) of there is kept by row.
template <class T>
Counts Dense<T>::solve(int threads, const NewtonMethod& method, const Stop& stop, Rows<const T> z0,
                       Rows<const T> injection, Rows<T> result, const Report& report, const double* scale,
                       Interrupt* interrupt) const {
  const auto held = weights();
  const int sharing = threads_of_a_product(threads, z0.rows);
  const auto bytes = [&](std::int64_t rows) { return newton_bytes<T>(rows, width_, method, stop); };
  const auto solve_tile = [&](Arena scratch, std::int64_t first, std::int64_t count) {
    CpuQueue queue;
    NewtonSolve<CpuQueue, T> solver(queue, count, width_, method, stop, in_tiles, scratch);
    T* const answers = scratch.take<T>(count * width_);
    const Rows<T> d = scratch.take_rows<T>(count, width_);
    const auto map = [&](CpuQueue&, const Question<T>& question, Rows<T> answer) {
      const bool value = question.kind == Ask::value;
      held->packed.multiply(value ? question.at : question.along, answer, sharing);
      for (std::int64_t i = 0; i < question.count; ++i) {
        T *slope = d[question.rows[i]], *to = answer[i];
        if (value) {
          const T* c = injected(injection, first + question.rows[i]);
          std::copy_n(to, width_, slope);
          differentiate(activation_, width_, c, slope);
          activate(activation_, width_, c, to);
        } else {
          for (std::int64_t j = 0; j < width_; ++j) to[j] *= slope[j];
        }
      }
    };
    converse(queue, solver,
             solver.start(z0.slice(first, count), result.slice(first, count), report.slice(first),
                          scale ? scale + first : nullptr),
             MapRef<CpuQueue, T>(map), answers, interrupt);
    return solver.counts();
  };
  return solve_tiles(threads, z0, injection, result, bytes, solve_tile, interrupt);
}

template <class T>
Counts Dense<T>::solve_adjoint(int threads, const AdjointMethod& method, const Stop& stop, Rows<const T> z,
                               Rows<const T> injection, Rows<const T> g, Rows<const T> u0, Rows<T> result,
                               const Report& report, Interrupt* interrupt) const {
  return solve_linearised(true, threads, method, stop, z, injection, g, u0, result, {}, report, interrupt);
}

template <class T>
Counts Dense<T>::solve_tangent(int threads, const AdjointMethod& method, const Stop& stop, Rows<const T> z,
                               Rows<const T> injection, Rows<const T> dz, Rows<const T> t0, Rows<T> result,
                               const Report& report, Interrupt* interrupt) const {
  return solve_linearised(false, threads, method, stop, z, injection, dz, t0, result, {}, report, interrupt);
}

// J^T v = W^T (d * v), J v = d * (W v), with d = a'(W z + c) kept by row, in `slopes` if the caller wants it.
template <class T>
Counts Dense<T>::solve_linearised(bool transposed, int threads, const AdjointMethod& method, const Stop& stop,
                                  Rows<const T> z, Rows<const T> injection, Rows<const T> g, Rows<const T> u0,
                                  Rows<T> result, Rows<T> slopes, const Report& report, Interrupt* interrupt) const {
  check("z", z, injection);
  require_shape<T>("g", g, z.rows, width_);
  if (u0.data) require_shape<T>("u0", u0, z.rows, width_);
  require_shape<T>("result", result, z.rows, width_);
  require_apart<T>("result", result, {z, injection, g});
  if (u0.data) require_apart<T>("result", result, {u0});
  const auto held = weights();
  const PackedMatrix<T>& W = transposed ? held->transposed() : held->packed;
  const int sharing = threads_of_a_product(threads, z.rows);
  const bool refined = refines() && by_fixed_point(method);
  const auto bytes = [&](std::int64_t rows) { return backward_bytes<T>(rows, width_, method, stop, refined); };
  const Tiling tiling = tiling_for(threads, z.rows, bytes);
  Counts total;
  std::mutex adding;
  for_tiles(
      tiling, bytes(tiling.tallest()),
      [&](Arena scratch, std::int64_t first, std::int64_t count) {
        CpuQueue queue;
        Adjoint<CpuQueue, T> solver(queue, count, width_, method, stop, false, scratch);
        T* const answers = scratch.take<T>(count * width_);
        const Rows<T> own = scratch.take_rows<T>(count, width_), du = scratch.take_rows<T>(count, width_);
        const Rows<T> d = slopes.data ? slopes.slice(first, count) : own;
        held->packed.multiply(z.slice(first, count), d, sharing);
        for (std::int64_t i = 0; i < count; ++i)
          differentiate(activation_, width_, injected(injection, first + i), d[i]);
        std::optional<RefinedProducts> products;
        if constexpr (std::is_same_v<T, float>)
          if (refined) {
            Stop against_g = stop;
            against_g.relative = Relative::to_scale;
            products.emplace(&W, &held->rounded(transposed), count, width_, against_g, scratch);
            products->start(report.slice(first));
          }
        const auto scale_row = [&](std::int64_t row, const T* v, T* to) {
          const T* slope = d[row];
          for (std::int64_t j = 0; j < width_; ++j) to[j] = slope[j] * v[j];
        };
        const auto map = [&](CpuQueue&, const Question<T>& question, Rows<T> answer) {
          if (transposed)
            for (std::int64_t i = 0; i < question.count; ++i) scale_row(question.rows[i], question.along[i], du[i]);
          const Rows<const T> x = transposed ? Rows<const T>(du.slice(0, question.count)) : question.along;
          const auto finish = [&](std::int64_t i) {
            if (!transposed) scale_row(question.rows[i], answer[i], answer[i]);
          };
          if constexpr (std::is_same_v<T, float>)
            if (products)
              return products->answer(
                  question, {.x = x, .points = question.along, .plus = g.slice(first, count), .finish = finish}, answer,
                  sharing);
          W.multiply(x, answer, sharing);
          for (std::int64_t i = 0; i < question.count; ++i) finish(i);
        };
        converse(queue, solver,
                 solver.start({}, g.slice(first, count), u0.data ? u0.slice(first, count) : u0,
                              result.slice(first, count), report.slice(first)),
                 MapRef<CpuQueue, T>(map), answers, interrupt);
        Counts counts = solver.counts();
        if constexpr (std::is_same_v<T, float>)
          if (products)
            measure_unconverged(*products, result.slice(first, count), solver.block(0), map, answers, counts);
        const std::lock_guard lock(adding);
        add(total, counts);
      },
      interrupt);
  return total;
}

template <class T>
Counts Dense<T>::solve_gradients(int threads, const AdjointMethod& method, const Stop& stop, Rows<const T> z,
                                 Rows<const T> injection, Rows<const T> g, Rows<const T> target, Rows<T> u, Rows<T> dW,
                                 Rows<T> dc, const Report& report, Interrupt* interrupt) const {
  HostBuffer difference(g.data ? 0 : z.rows * width_ * sizeof(T));
  if (!g.data) {
    require_shape<T>("target", target, z.rows, z.width);
    const Rows<T> to = dense_rows(static_cast<T*>(difference.data()), z.rows, z.width);
    for (std::int64_t i = 0; i < z.rows; ++i)
      for (std::int64_t j = 0; j < z.width; ++j) to[i][j] = z[i][j] - target[i][j];
    g = to;
  }
  check_gradients(z, injection, u, dW, dc);
  const HostBuffer memory(z.rows * width_ * sizeof(T));
  const Rows<T> d = dense_rows(static_cast<T*>(memory.data()), z.rows, width_);
  const Counts counts = solve_linearised(true, threads, method, stop, z, injection, g, {}, u, d, report, interrupt);
  sum_gradients(CpuQueue(threads), z, d, u, dW, dc);
  return counts;
}

template <class T>
template <class Measure>
Tiling Dense<T>::tiling_for(int threads, std::int64_t rows, const Measure& scratch_bytes) const {
  require(threads >= 1, "threads: ", threads, " given; expected at least 1");
  const std::int64_t sample = 64;  // rows over which the scratch per row is taken
  const auto bytes_per_row = static_cast<std::int64_t>(scratch_bytes(sample)) / sample;
  return tile_rows(rows, bytes_per_row, 2 * width_ * width_, threads);
}

template <class T>
std::size_t Dense<T>::solve_bytes(int threads, const Method& method, const Stop& stop, std::int64_t rows) const {
  const auto bytes = [&](std::int64_t count) { return forward_bytes<T>(count, width_, method, stop, refines()); };
  const Tiling tiling = tiling_for(threads, rows, bytes);
  return bytes(tiling.tallest()) * tiling.threads;
}

template <class T>
std::size_t Dense<T>::solve_bytes(int threads, const NewtonMethod& method, const Stop& stop, std::int64_t rows) const {
  const auto bytes = [&](std::int64_t count) { return newton_bytes<T>(count, width_, method, stop); };
  const Tiling tiling = tiling_for(threads, rows, bytes);
  return bytes(tiling.tallest()) * tiling.threads;
}

template <class T>
std::size_t Dense<T>::solve_adjoint_bytes(int threads, const AdjointMethod& method, const Stop& stop,
                                          std::int64_t rows) const {
  const bool refined = refines() && by_fixed_point(method);
  const auto bytes = [&](std::int64_t count) { return backward_bytes<T>(count, width_, method, stop, refined); };
  const Tiling tiling = tiling_for(threads, rows, bytes);
  return bytes(tiling.tallest()) * tiling.threads;
}

template class Dense<float>;
template class Dense<double>;

}  // namespace deqcore

// SPDX-License-Identifier: Apache-2.0
// Whole native solves of z = tanh(W z + x), |W|_2 = 0.9, rtol 1e-6, beside what they are made of: the packed product at
// the same tiles, the activation, and for the floor the best rate that the packed product reaches on this machine.
#include <cmath>

#include "cpp/cases.hpp"
#include "deqcore/maps/packed.hpp"

namespace bench {
namespace {

using namespace deqcore;

// Scales W, width x width, to a spectral norm of `norm`, by power iteration on its Gram matrix.
void normalise(std::vector<double>& W, std::int64_t width, double norm) {
  std::vector<double> v(width), Wv(width);
  Random(3).fill(v.data(), width);
  double size = 0;
  for (int i = 0; i < 100; ++i) {
    std::fill(Wv.begin(), Wv.end(), 0.0);
    for (std::int64_t r = 0; r < width; ++r)
      for (std::int64_t c = 0; c < width; ++c) Wv[r] += W[r * width + c] * v[c];
    std::fill(v.begin(), v.end(), 0.0);
    for (std::int64_t r = 0; r < width; ++r)
      for (std::int64_t c = 0; c < width; ++c) v[c] += W[r * width + c] * Wv[r];
    double squares = 0;
    for (const double x : v) squares += x * x;
    size = std::sqrt(squares);
    for (double& x : v) x /= size;
  }
  for (double& w : W) w *= norm / std::sqrt(size);
}

// The packed product where it does best: everything in cache, whole tiles. One copy per thread.
template <class T>
class Peak {
 public:
  static constexpr std::int64_t rows = 96, width = 256;

  explicit Peak(int threads) : threads_(threads), numbers_(width * width + 2 * threads * rows * width) {
    Random(4).fill(numbers_.data(), static_cast<std::int64_t>(numbers_.size()));
    for (int t = 0; t < threads; ++t) matrices_.emplace_back(width, width, numbers_.data(), width, 1);
  }

  void run() {
    parallel_for(threads_, threads_, [&](std::int64_t t) {
      T* x = numbers_.data() + width * width + 2 * t * rows * width;
      for (int i = 0; i < 8; ++i)
        matrices_[t].multiply(dense_rows<const T>(x, rows, width), dense_rows(x + rows * width, rows, width));
    });
  }

  double flops() const { return 8.0 * threads_ * 2 * rows * width * width; }

 private:
  int threads_;
  std::vector<T> numbers_;
  std::vector<PackedMatrix<T>> matrices_;
};

template <class T>
void measure(const Plan& plan, const char* name, const Method& method, std::int64_t rows, std::int64_t width,
             int threads) {
  Random random(5);
  std::vector<double> wide(width * width);
  random.fill(wide.data(), width * width);
  normalise(wide, width, 0.9);
  const std::vector<T> W(wide.begin(), wide.end());
  std::vector<T> z0(rows * width), x(rows * width), result(rows * width), y(rows * width);
  random.fill(x.data(), rows * width, std::sqrt(3.0));  // unit variance
  const auto block = [&](std::vector<T>& of) { return dense_rows(of.data(), rows, width); };
  const Stop stop{.rtol = 1e-6, .max_steps = 1000};
  const Dense<T> map(dense_rows(W.data(), width, width), Activation::tanh);
  ReportBuffer report(rows);
  Counts counts;
  const auto solve = [&] {
    counts = map.solve(threads, method, stop, block(z0), block(x), block(result), report.view(), nullptr, nullptr);
  };
  solve();
  for (const Status status : report.status)
    require(status == Status::converged, "dense ", rows, " x ", width, ": a row ended as ", deqcore::name(status));
  std::int64_t steps = 0;
  for (const std::int32_t of_row : report.steps) steps += of_row;

  // as many evaluations of all rows, in the tiles that the solve uses
  const PackedMatrix<T> packed(width, width, W.data(), width, 1);
  const std::int64_t sample = 64;
  const auto bytes_per_row =
      static_cast<std::int64_t>(FixedPoint<CpuQueue, T>::scratch_bytes(sample, width, method, stop)) / sample;
  const Tiling tiling = tile_rows(rows, bytes_per_row, 2 * width * width, threads);
  const auto in_tiles = [&](const auto& body) {
    parallel_for(tiling.threads, tiling.tiles,
                 [&](std::int64_t tile) { body(tiling.first(tile), tiling.first(tile + 1) - tiling.first(tile)); });
  };
  const auto product = [&] {
    in_tiles([&](std::int64_t first, std::int64_t count) {
      for (std::int64_t step = 0; step < counts.questions; ++step)
        packed.multiply(block(result).slice(first, count), block(y).slice(first, count));
    });
  };
  const auto activation = [&] {
    in_tiles([&](std::int64_t first, std::int64_t count) {
      for (std::int64_t step = 0; step < counts.questions; ++step)
        for (std::int64_t i = first; i < first + count; ++i)
          activate(Activation::tanh, width, x.data() + i * width, y.data() + i * width);
    });
  };
  Peak<T> peak(threads);
  const auto weight_bytes = width * width * static_cast<std::int64_t>(sizeof(T));
  const Memory weights(weight_bytes, 1);  // each thread reads them all, for its own rows
  const auto times = in_turn(plan, threads, weights.with({solve, product, activation, [&] { peak.run(); }}));

  const double asked = static_cast<double>(counts.rows_asked),
               share = asked / static_cast<double>(rows * counts.questions);
  const double by_flops = asked * 2 * width * width / (peak.flops() / times[3].median);
  const double by_weights = static_cast<double>(counts.questions * weight_bytes) / weights.rate(times);
  const Floor floor = by_flops > by_weights ? Floor{by_flops, "flops"} : Floor{by_weights, "reading the weights"};
  write({"dense tanh, norm 0.9, rtol 1e-6", name, type_name<T>, rows, width, threads},
        {{"questions", counts.questions}, {"rows_asked", counts.rows_asked}, {"steps", steps}, {"looks", counts.looks}},
        times[0], floor,
        {{"product", times[1].median * share},
         {"activation", times[2].median * share},
         {"flop/s at peak", peak.flops() / times[3].median}});
}

template <class T>
void all(const Plan& plan) {
  struct Shape {
    std::int64_t rows, width;
  };
  const std::vector<Shape> shapes =
      plan.quick ? std::vector<Shape>{{1, 8}, {3, 20}}
                 : std::vector<Shape>{{1, 64}, {1, 1024}, {32, 128}, {64, 512}, {256, 1024}, {1024, 256}};
  for (const auto [rows, width] : shapes)
    for (const int threads : {1, 2}) {
      measure<T>(plan, "picard", Picard{}, rows, width, threads);
      measure<T>(plan, "anderson", Anderson{}, rows, width, threads);
    }
}

}  // namespace

void dense(const Plan& plan) {
  all<float>(plan);
  all<double>(plan);
}

}  // namespace bench

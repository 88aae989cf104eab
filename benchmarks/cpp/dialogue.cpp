// SPDX-License-Identifier: Apache-2.0
// One step of a solver whose map costs nothing: the answers are ready, random and more than the window holds, so that
// no row ever converges and every window stays full.
#include "cpp/cases.hpp"

namespace bench {
namespace {

using namespace deqcore;

constexpr std::int64_t answers = 9;

template <class T>
void measure(const Plan& plan, const char* name, const Method& method, std::int64_t rows, std::int64_t width,
             int threads) {
  const Stop stop{.rtol = 1e-6, .max_steps = std::numeric_limits<std::int32_t>::max()};
  HostBuffer scratch(FixedPoint<CpuQueue, T>::scratch_bytes(rows, width, method, stop));
  HostBuffer states((answers + 2) * rows * width * sizeof(T));
  T* const numbers = static_cast<T*>(states.data());
  Random(2).fill(numbers, (answers + 2) * rows * width);
  const auto block = [&](std::int64_t i) { return dense_rows(numbers + i * rows * width, rows, width); };
  ReportBuffer report(rows);
  CpuQueue queue(threads);
  Arena arena = scratch.arena();
  FixedPoint<CpuQueue, T> solver(queue, rows, width, method, stop, arena);
  solver.start(block(answers), block(answers + 1), report.view());
  std::int64_t at = 0;
  const auto step = [&] {
    solver.advance(block(at));
    at = (at + 1) % answers;
  };
  for (int i = 0; i < 40; ++i) step();  // fills the window
  const KernelCounts before = queue.counts();
  step();
  const std::int64_t bytes = queue.counts().bytes - before.bytes;
  const std::int64_t kernels = queue.counts().kernels - before.kernels;
  const std::int64_t waits = queue.counts().waits - before.waits;

  const Memory memory(static_cast<std::int64_t>(scratch.bytes() + answers * rows * width * sizeof(T)), threads);
  const auto times = in_turn(plan, threads, memory.with({step}));
  const double rate = memory.rate(times);
  write({"free map, one step", name, type_name<T>, rows, width, threads},
        {{"questions", 1}, {"rows_asked", rows}, {"kernels", kernels}, {"bytes", bytes}, {"waits", waits}}, times[0],
        {static_cast<double>(bytes) / rate, "bytes"}, {{"per row", times[0].median / static_cast<double>(rows)}});
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
      if (rows < threads || (plan.quick && threads > 1)) continue;
      measure<T>(plan, "picard", Picard{}, rows, width, threads);
      measure<T>(plan, "anderson", Anderson{.growth = std::numeric_limits<double>::infinity()}, rows, width, threads);
    }
}

}  // namespace

void dialogue(const Plan& plan) {
  all<float>(plan);
  all<double>(plan);
}

}  // namespace bench

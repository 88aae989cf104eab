// SPDX-License-Identifier: Apache-2.0
// An outside program: solves z = 0.5 z + 1 for three rows and prints the answer.
#include <cstdio>
#include <vector>

#include "deqcore/deqcore.hpp"

int main() {
  using namespace deqcore;
  const std::int64_t rows = 3, width = 4;
  std::vector<double> z0(rows * width), result(rows * width), answer(rows * width);
  ReportBuffer report(rows);
  const Stop stop{.rtol = 1e-12};
  const Method method = Anderson{.history = 3};

  CpuQueue queue;
  const HostBuffer memory(FixedPoint<CpuQueue, double>::scratch_bytes(rows, width, method, stop));
  Arena scratch = memory.arena();
  FixedPoint<CpuQueue, double> solver(queue, rows, width, method, stop, scratch);
  auto map = [](CpuQueue&, const Question<double>& question, Rows<double> f) {
    for (std::int64_t i = 0; i < question.count; ++i)
      for (std::int64_t j = 0; j < f.width; ++j) f[i][j] = 0.5 * question.at[i][j] + 1;
  };
  solve(queue, solver, MapRef<CpuQueue, double>(map), dense_rows<const double>(z0.data(), rows, width),
        dense_rows(result.data(), rows, width), report.view(), answer.data());
  std::printf("%s %.9f\n", name(report.status[0]).data(), result[0]);
  return report.status[0] == Status::converged ? 0 : 1;
}

// SPDX-License-Identifier: Apache-2.0
// Whole solves of z = tanh(W z + x) repeated from C++, by deqcore and by a limit program: what a small solve takes
// without a call from Python.
#include <cstdint>
#include <string_view>
#include <vector>

#include "deqcore/deqcore.hpp"

namespace {

using namespace deqcore;

struct Solve {
  Solve(std::int64_t rows, std::int64_t width, const float* W, const float* x)
      : map(dense_rows(W, width, width), Activation::tanh),
        injection(dense_rows(x, rows, width)),
        start(rows * width),
        report(rows) {}

  Dense<float> map;
  Rows<const float> injection;
  std::vector<float> start;
  ReportBuffer report;
  Method method;
  Stop stop;
  int threads = 1;
};

// The signature of the limit program's solve.
using Limit = void (*)(int method, int kind, int rows, int width, int act, const float* W, const float* c,
                       const float* s, double tol, int max_steps, int history, int threads, float* z, int* steps,
                       const float* packed);

}  // namespace

extern "C" {

// x stays the caller's and must outlive it.
[[gnu::visibility("default")]] void* compare_solve_new(const char* method, std::int64_t rows, std::int64_t width,
                                                       int threads, double rtol, int max_steps, const float* W,
                                                       const float* x) {
  auto* solve = new Solve(rows, width, W, x);
  if (std::string_view(method) == "anderson")
    solve->method = Anderson{};
  else
    solve->method = Picard{};
  solve->stop = {.rtol = rtol, .max_steps = max_steps};
  solve->threads = threads;
  return solve;
}

[[gnu::visibility("default")]] void compare_solve_run(void* handle, float* z, std::int64_t times) {
  Solve& s = *static_cast<Solve*>(handle);
  const std::int64_t rows = s.injection.rows, width = s.injection.width;
  for (std::int64_t i = 0; i < times; ++i)
    s.map.solve(s.threads, s.method, s.stop, dense_rows<const float>(s.start.data(), rows, width), s.injection,
                dense_rows(z, rows, width), s.report.view(), nullptr, nullptr);
}

[[gnu::visibility("default")]] void compare_solve_delete(void* handle) {
  delete static_cast<Solve*>(handle);
}

[[gnu::visibility("default")]] void compare_limit_run(void* function, int method, int rows, int width, int threads,
                                                      double rtol, int max_steps, int history, const float* W,
                                                      const float* x, const float* packed, float* z, int* steps,
                                                      std::int64_t times) {
  const auto solve = reinterpret_cast<Limit>(function);
  for (std::int64_t i = 0; i < times; ++i)
    solve(method, 0, rows, width, 0, W, x, nullptr, rtol, max_steps, history, threads, z, steps, packed);
}
}

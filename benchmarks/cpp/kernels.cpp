// SPDX-License-Identifier: Apache-2.0
// Each kernel on rows that all go on running, the state they are in at nearly every step. Kernels that only touch a few
// numbers per row move no bytes worth counting: for them the time per row speaks.
#include <numeric>
#include <string>

#include "cpp/cases.hpp"
#include "deqcore/kernels/history.hpp"
#include "deqcore/kernels/step.hpp"
#include "deqcore/kernels/vector.hpp"

namespace bench {
namespace {

using namespace deqcore;

constexpr std::int64_t m = 6;

// Operands of every kernel, in one block of memory.
template <class T>
class Operands {
 public:
  Operands(std::int64_t rows_, std::int64_t width_, bool with_history)
      : rows(rows_), width(width_), memory(measured(with_history)), report_(rows_) {
    Arena arena = memory.arena();
    lay_out(arena, with_history);
    Random random(1);
    for (const Rows<T>& block : {z, f, before, next, result}) random.fill(block.data, rows * width);
    states.report = report_.view();
    std::iota(ids, ids + rows, 0);
    *states.failed = 0;
    for (std::int64_t row = 0; row < rows; ++row) {
      states.report.scale[row] = states.report.residual[row] = 1;
      states.g_norm[row] = states.f_norm[row] = states.best[row] = 1;
      states.best_step[row] = 0;
      states.best_at[row] = BestAt::block;
      states.event[row] = Event::new_best;
      states.frozen[row] = 0;
    }
    if (!with_history) return;
    CpuQueue queue;
    run(queue, ClearHistory<T>{.rows = rows, .history = history});
    for (std::int64_t column = 0; column <= m; ++column) {
      random.fill(f.data, rows * width);
      run(queue, push());
    }
    run(queue, solve());
  }

  ActiveRows active() const { return {.ids = ids, .count = rows}; }
  PushHistory<T> push() const { return {.rows = active(), .z = z, .f = f, .states = states, .into = history}; }
  SolveSmall<T> solve() const {
    return {.rows = active(), .ridge = Anderson{}.ridge, .states = states, .history = history};
  }

  std::int64_t rows, width;
  HostBuffer memory;
  Rows<T> z, f, before, next, result;
  RowStates states;
  History<T> history;
  std::int32_t *ids = nullptr, *kept = nullptr, *source = nullptr;

 private:
  std::size_t measured(bool with_history) {
    Arena counting;
    lay_out(counting, with_history);
    return counting.used();
  }

  void lay_out(Arena& arena, bool with_history) {
    for (Rows<T>* block : {&z, &f, &before, &next, &result}) *block = arena.take_rows<T>(rows, width);
    for (std::int32_t** list : {&ids, &kept, &source}) *list = arena.take<std::int32_t>(rows);
    for (double** numbers : {&states.g_norm, &states.f_norm, &states.z_norm, &states.best})
      *numbers = arena.take<double>(rows);
    states.best_step = arena.take<std::int32_t>(rows);
    states.best_at = arena.take<BestAt>(rows);
    states.event = arena.take<Event>(rows);
    states.frozen = arena.take<std::int8_t>(rows);
    states.failed = arena.take<std::int64_t>(1);
    if (!with_history) return;
    history = {.dF = arena.take<T>(rows * m * width),
               .dG = arena.take<T>(rows * m * width),
               .m = m,
               .width = width,
               .pitch = width,
               .f_last = arena.take_rows<T>(rows, width),
               .g_last = arena.take_rows<T>(rows, width),
               .depth = arena.take<std::int32_t>(rows),
               .slot = arena.take<std::int32_t>(rows),
               .gram = arena.take<double>(rows * m * m),
               .rhs = arena.take<double>(rows * m),
               .gamma = arena.take<double>(rows * m)};
  }

  ReportBuffer report_;
};

template <class T, class Kernel>
void measure(const Plan& plan, const Operands<T>& on, int threads, const char* name, const Kernel& kernel) {
  CpuQueue queue(threads);
  run(queue, kernel);
  const std::int64_t bytes = queue.counts().bytes;
  const Labels labels{name, "kernel", type_name<T>, on.rows, on.width, threads};
  if (bytes == 0) {
    const auto times = in_turn(plan, threads, {[&] { run(queue, kernel); }});
    return write(labels, {{"kernels", 1}, {"bytes", 0}}, times[0], {},
                 {{"per row", times[0].median / static_cast<double>(on.rows)}});
  }
  const Memory memory(bytes, threads);
  const auto times = in_turn(plan, threads, memory.with({[&] { run(queue, kernel); }}));
  const double rate = memory.rate(times);
  write(labels, {{"kernels", 1}, {"bytes", bytes}}, times[0], {static_cast<double>(bytes) / rate, "bytes"},
        {{"byte/s of memory", rate}});
}

template <class T>
void vectors_and_steps(const Plan& plan, std::int64_t rows, std::int64_t width, int threads) {
  Operands<T> on(rows, width, false);
  const Limits limits = resolve<T>({.rtol = 1e-6});
  Progress progress;
  const auto active = on.active();
  const auto go = [&](const char* name, const auto& kernel) { measure(plan, on, threads, name, kernel); };
  go("CopyRows", CopyRows<T>{.from = on.z, .to = on.next});
  go("GatherRows", GatherRows<T>{.source = active, .from = on.z, .to = on.next});
  go("AddRows", AddRows<T>{.rows = active, .a = on.z, .b = on.f, .sum = on.next});
  go("MeasureRows", MeasureRows<T>{.norm = Norm::two, .x = on.z, .norms = on.states.z_norm});
  for (const Norm norm : {Norm::two, Norm::inf}) {
    const char* name = norm == Norm::two ? "MeasureResidual norm 2" : "MeasureResidual norm inf";
    go(name, MeasureResidual<T>{.rows = active,
                                .norm = norm,
                                .first = false,
                                .z = on.z,
                                .f = on.f,
                                .z_before = on.before,
                                .states = on.states});
  }
  for (const double beta : {1.0, 0.5}) {
    const char* name = beta == 1 ? "DampedStep beta 1" : "DampedStep beta 0.5";
    go(name, DampedStep<T>{.rows = active, .beta = beta, .z = on.z, .f = on.f, .states = on.states, .next = on.next});
  }
  if (threads > 1) return;  // the rest runs on the calling thread alone
  std::fill_n(on.states.g_norm, rows, 1.0);
  std::fill_n(on.states.f_norm, rows, 1.0);
  go("JudgeRows", JudgeRows<T>{.rows = active,
                               .limits = limits,
                               .max_steps = std::numeric_limits<std::int32_t>::max(),
                               .patience = 32,
                               .states = on.states,
                               .progress = &progress});
  go("KeepBest",
     KeepBest<T>{.rows = active, .z = on.z, .z_before = on.before, .result = on.result, .states = on.states});
  go("HoldRows", HoldRows<T>{.rows = active, .z = on.z, .next = on.next, .states = on.states});
  go("SelectRows", SelectRows<T>{.rows = active,
                                 .keep = rows,
                                 .running = rows,
                                 .status = on.states.report.status,
                                 .ids = on.kept,
                                 .source = on.source});
  go("EndRows", EndRows<T>{.rows = active,
                           .status = Status::running,  // so that it can be run again
                           .z = on.z,
                           .z_before = on.before,
                           .result = on.result,
                           .states = on.states});
  go("BeginRows", BeginRows<T>{.rows = rows, .given_scale = nullptr, .states = on.states, .ids = on.ids});
}

template <class T>
void histories(const Plan& plan, std::int64_t rows, std::int64_t width, int threads) {
  const Operands<T> on(rows, width, true);
  const auto go = [&](const char* name, const auto& kernel) { measure(plan, on, threads, name, kernel); };
  for (const double beta : {1.0, 0.5}) {
    const char* name = beta == 1 ? "MixHistory beta 1" : "MixHistory beta 0.5";
    go(name, MixHistory<T>{.rows = on.active(),
                           .beta = beta,
                           .z = on.z,
                           .f = on.f,
                           .states = on.states,
                           .history = on.history,
                           .next = on.next});
  }
  if (threads == 1) {
    go("GuardHistory",
       GuardHistory<T>{.rows = on.active(), .growth = Anderson{}.growth, .states = on.states, .history = on.history});
    go("SolveSmall", on.solve());
  }
  go("PushHistory", on.push());
  if (threads == 1) go("ClearHistory", ClearHistory<T>{.rows = rows, .history = on.history});
}

template <class T>
void all(const Plan& plan) {
  const std::vector<int> thread_counts = plan.quick ? std::vector{1} : std::vector{1, 2};
  struct Shape {
    std::int64_t rows, width;
  };
  // a single row; what a core's own cache holds; more than the last level of cache holds
  const std::vector<Shape> plain =
      plan.quick ? std::vector<Shape>{{3, 20}} : std::vector<Shape>{{1, 64}, {64, 512}, {1024, 16384}};
  const std::vector<Shape> remembering =
      plan.quick ? std::vector<Shape>{{3, 20}} : std::vector<Shape>{{1, 64}, {16, 512}, {1024, 2048}};
  for (const int threads : thread_counts) {
    for (const auto [rows, width] : plain)
      if (rows >= threads) vectors_and_steps<T>(plan, rows, width, threads);
    for (const auto [rows, width] : remembering)
      if (rows >= threads) histories<T>(plan, rows, width, threads);
  }
}

}  // namespace

void kernels(const Plan& plan) {
  all<float>(plan);
  all<double>(plan);
}

}  // namespace bench

// SPDX-License-Identifier: Apache-2.0
// One solve of a catalogue problem by any solver, held as a dialogue, with everything counted from outside.
#pragma once

#include <cstring>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "counting.hpp"
#include "deqcore/adjoint/adjoint.hpp"
#include "deqcore/continuation/homotopy.hpp"
#include "deqcore/device/buffer.hpp"
#include "deqcore/fixed_point/fixed_point.hpp"
#include "deqcore/linear/linear_solve.hpp"
#include "deqcore/newton/newton_solve.hpp"
#include "problems.hpp"
#include "queues.hpp"
#include "shapes.hpp"

namespace deqcore::test {

// Which solver: how it is made, and what it is given to start from.
struct Forward {
  using Method = deqcore::Method;

  template <class Queue, class T>
  using Solver = FixedPoint<Queue, T>;

  static std::string name() { return "FixedPoint"; }

  template <class Queue, class T>
  static std::size_t bytes(std::int64_t rows, std::int64_t width, const Method& method, const Stop& stop) {
    return Solver<Queue, T>::scratch_bytes(rows, width, method, stop);
  }
  template <class Queue, class T>
  static auto make(Queue& queue, std::int64_t rows, std::int64_t width, const Method& method, const Stop& stop,
                   Arena& arena) {
    return std::make_unique<Solver<Queue, T>>(queue, rows, width, method, stop, arena);
  }
};

struct Backward {
  using Method = AdjointMethod;

  template <class Queue, class T>
  using Solver = Adjoint<Queue, T>;

  static std::string name() { return "Adjoint"; }

  template <class Queue, class T>
  static std::size_t bytes(std::int64_t rows, std::int64_t width, const Method& method, const Stop& stop) {
    return Solver<Queue, T>::scratch_bytes(rows, width, method, stop, true);
  }
  template <class Queue, class T>
  static auto make(Queue& queue, std::int64_t rows, std::int64_t width, const Method& method, const Stop& stop,
                   Arena& arena) {
    return std::make_unique<Solver<Queue, T>>(queue, rows, width, method, stop, true, arena);
  }
};

// A x = b with A = I - J^T and b = g, by a linear method itself.
struct Linear {
  using Method = LinearMethod;

  template <class Queue, class T>
  using Solver = LinearSolve<Queue, T>;

  static std::string name() { return "LinearSolve"; }
  static constexpr LinearForm form{.identity_minus = true};

  template <class Queue, class T>
  static std::size_t bytes(std::int64_t rows, std::int64_t width, const Method& method, const Stop& stop) {
    return Solver<Queue, T>::scratch_bytes(rows, width, method, stop, form);
  }
  template <class Queue, class T>
  static auto make(Queue& queue, std::int64_t rows, std::int64_t width, const Method& method, const Stop& stop,
                   Arena& arena) {
    return std::make_unique<Solver<Queue, T>>(queue, rows, width, method, stop, form, arena);
  }
};

// Newton's methods, with products or with differences.
struct Newtonian {
  struct Method {
    NewtonMethod options;
    bool differences = false;
  };

  template <class Queue, class T>
  using Solver = NewtonSolve<Queue, T>;

  static std::string name() { return "NewtonSolve"; }

  template <class Queue, class T>
  static std::size_t bytes(std::int64_t rows, std::int64_t width, const Method& method, const Stop& stop) {
    return Solver<Queue, T>::scratch_bytes(rows, width, method.options, stop, {.differences = method.differences});
  }
  template <class Queue, class T>
  static auto make(Queue& queue, std::int64_t rows, std::int64_t width, const Method& method, const Stop& stop,
                   Arena& arena) {
    const NewtonForm form{.differences = method.differences};
    return std::make_unique<Solver<Queue, T>>(queue, rows, width, method.options, stop, form, arena);
  }
};

// Continuation, with products or with differences. A path takes more steps than a solve.
struct Following {
  struct Method {
    Homotopy options;
    bool differences = false;
  };

  template <class Queue, class T>
  using Solver = FollowPath<Queue, T>;

  static std::string name() { return "FollowPath"; }

  static Stop longer(Stop stop) {
    if (stop.max_steps == Stop{}.max_steps) stop.max_steps = 100000;
    return stop;
  }
  template <class Queue, class T>
  static std::size_t bytes(std::int64_t rows, std::int64_t width, const Method& method, const Stop& stop) {
    const HomotopyForm form{.differences = method.differences};
    return Solver<Queue, T>::scratch_bytes(rows, width, method.options, longer(stop), form);
  }
  template <class Queue, class T>
  static auto make(Queue& queue, std::int64_t rows, std::int64_t width, const Method& method, const Stop& stop,
                   Arena& arena) {
    const HomotopyForm form{.differences = method.differences};
    return std::make_unique<Solver<Queue, T>>(queue, rows, width, method.options, longer(stop), form, arena);
  }
};

// Solvers that work in turns: not every row takes part in every question.
template <class Kind>
inline constexpr bool in_turns = std::is_same_v<Kind, Newtonian> || std::is_same_v<Kind, Following>;

// Memory for what is told of paths.
struct PathBuffer {
  explicit PathBuffer(std::int64_t rows, std::int64_t entries = 0, std::vector<std::int32_t> picked = {})
      : end(rows),
        folds(rows),
        solves(rows),
        accepted(rows),
        lambda(rows),
        count(rows),
        kinds(entries * rows),
        components(std::move(picked)),
        numbers(4 * entries * rows),
        points(entries * rows * components.size()),
        capacity(entries) {}

  PathReport view() {
    PathReport report{.end = end.data(),
                      .folds = folds.data(),
                      .solves = solves.data(),
                      .accepted = accepted.data(),
                      .lambda = lambda.data(),
                      .record = {}};
    if (capacity > 0)
      report.record = {.capacity = capacity,
                       .count = count.data(),
                       .numbers = numbers.data(),
                       .kinds = kinds.data(),
                       .points = points.data(),
                       .picked = static_cast<std::int64_t>(components.size()),
                       .components = components.data(),
                       .rows = static_cast<std::int64_t>(end.size())};
    return report;
  }

  std::vector<PathEnd> end;
  std::vector<std::int32_t> folds, solves, accepted;
  std::vector<double> lambda;
  std::vector<std::int32_t> count, kinds, components;
  std::vector<double> numbers, points;
  std::int64_t capacity;
};

// Every method. A new one is one line here.
template <class Method>
struct NamedMethod {
  const char* name;
  Method method;
};
template <class Kind>
std::vector<NamedMethod<typename Kind::Method>> methods_of() {
  std::vector<NamedMethod<typename Kind::Method>> methods;
  if constexpr (std::is_same_v<Kind, Newtonian>)
    return {{"NewtonKrylov", {NewtonKrylov{}}},
            {"NewtonKrylovByDifferences", {NewtonKrylov{}, true}},
            {"ShortNewtonKrylov", {NewtonKrylov{.restart = 3, .forcing = 1e-3}}},
            {"Newton", {Newton{}}},
            {"NewtonByDifferences", {Newton{}, true}}};
  else if constexpr (std::is_same_v<Kind, Following>)
    return {{"Dense", {{.first_step = 1, .dense_width = 4096}}},
            {"DenseByDifferences", {{.first_step = 1, .dense_width = 4096}, true}},
            {"Krylov", {{.first_step = 1, .dense_width = 0}}},
            {"NewtonHomotopyByDifferences",
             {{.kind = HomotopyKind::newton, .first_step = 1, .dense_width = 0, .restart = 5}, true}},
            {"Natural", {{.tracker = Tracker::natural, .first_step = 0.5, .dense_width = 4096}}}};
  else if constexpr (!std::is_same_v<Kind, Linear>)
    methods = {{"Picard", Picard{}},
               {"DampedPicard", Picard{.beta = 0.7}},
               {"Anderson", Anderson{}},
               {"DampedAnderson", Anderson{.history = 3, .beta = 0.8}},
               {"AndersonIn16Bits", Anderson{.storage = Storage::bfloat16}},
               {"AndersonTypeI", AndersonTypeI{.history = 20}},
               {"WaryAndersonTypeI", AndersonTypeI{.history = 3, .beta = 0.5, .powell = 0.1, .safeguard = 10}},
               {"Broyden", Broyden{.history = 20}},
               {"ShortBroyden", Broyden{.history = 3}},
               {"CompressedBroyden", Broyden{.history = 5, .full = Broyden::Full::compress}}};
  if constexpr (std::is_same_v<Kind, Forward>) {
    methods.push_back({"SteadyState", SteadyState{}});
    methods.push_back({"SteadyStateByDormandPrince", SteadyState{.pair = SteadyState::Pair::dormand_prince}});
  }
  if constexpr (std::is_same_v<Kind, Backward> || std::is_same_v<Kind, Linear>) {
    methods.push_back({"GMRES", GMRES{}});
    methods.push_back({"ShortGMRES", GMRES{.restart = 3}});
    methods.push_back({"BiCGSTAB", BiCGSTAB{}});
    methods.push_back({"Direct", Direct{}});
  }
  return methods;
}

// Linear methods measure the residual at some of their steps and estimate it at the others.
template <class Method>
bool estimates(const Method& method) {
  return std::visit(
      []<class Options>(const Options&) {
        return !std::is_same_v<Options, Picard> && !std::is_same_v<Options, Anderson> &&
               !std::is_same_v<Options, AndersonTypeI> && !std::is_same_v<Options, Broyden> &&
               !std::is_same_v<Options, SteadyState>;
      },
      method);
}

inline bool estimates(const Newtonian::Method&) {
  return false;
}  // of the residuals that it reports

inline bool estimates(const Following::Method&) {
  return false;
}

template <class Kind>
typename Kind::Method usual_method() {
  if constexpr (std::is_same_v<Kind, Linear>)
    return GMRES{};
  else if constexpr (std::is_same_v<Kind, Newtonian>)
    return {NewtonKrylov{}};
  else if constexpr (std::is_same_v<Kind, Following>)
    return {};
  else
    return Anderson{};
}

// One solver on one queue and element type.
template <class KindType, class Entry>
struct Case {
  using Kind = KindType;
  using Queue = typename Entry::Queue;
  using T = typename Entry::T;
  using Solver = typename Kind::template Solver<Queue, T>;
  static constexpr int threads = Entry::threads;

  static Queue make_queue(int workers) { return Entry::make(workers); }
  static std::int64_t allocations() { return Entry::allocations(); }
  static std::string name() { return Entry::name(); }
};

// For tests of results: the queue changes no bit, which the dialogue checks show.
#ifdef DEQCORE_SOLVER_TESTS_IN_FLOAT
template <class Kind>
using SerialCases = ::testing::Types<Case<Kind, OnFirstQueue<float>>>;
#else
template <class Kind>
using SerialCases = ::testing::Types<Case<Kind, OnFirstQueue<float>>, Case<Kind, OnFirstQueue<double>>>;
#endif

// What a solve gave.
template <class T>
struct Outcome {
  std::vector<T> value;  // row by row
  std::int64_t width = 0;
  std::vector<Status> status;
  std::vector<std::int32_t> steps, rejected, singular;
  std::vector<double> residual, scale, trace;
  Counts counts;  // as the solver counted
  MapCounts map;  // as counted in the map
  std::int64_t waits = 0;

  std::int32_t longest() const { return *std::max_element(steps.begin(), steps.end()); }
};

// The same answer to the bit: result, status, steps, residual, scale and the counts of rejections.
template <class T>
::testing::AssertionResult same_answer(const Outcome<T>& a, const Outcome<T>& b) {
  if (auto same = same_bits(a.value, b.value); !same) return same << " of the result";
  if (auto same = same_bits(a.status, b.status); !same) return same << " of the status";
  if (auto same = same_bits(a.steps, b.steps); !same) return same << " of the steps";
  if (auto same = same_bits(a.residual, b.residual); !same) return same << " of the residual";
  if (auto same = same_bits(a.scale, b.scale); !same) return same << " of the scale";
  if (auto same = same_bits(a.rejected, b.rejected); !same) return same << " of the rejections";
  return same_bits(a.singular, b.singular);
}

// Row `at` of one outcome is row `other_at` of the other.
template <class T>
::testing::AssertionResult same_row(const Outcome<T>& a, std::int64_t at, const Outcome<T>& b, std::int64_t other_at) {
  const auto row = [](const Outcome<T>& of, std::int64_t i) {
    Outcome<T> one;
    one.value.assign(of.value.begin() + i * of.width, of.value.begin() + (i + 1) * of.width);
    one.status = {of.status[i]};
    one.steps = {of.steps[i]};
    one.residual = {of.residual[i]};
    one.scale = {of.scale[i]};
    one.rejected = {of.rejected[i]};
    one.singular = {of.singular[i]};
    return one;
  };
  return same_answer(row(a, at), row(b, other_at)) << " (rows " << at << " and " << other_at << ")";
}

inline std::vector<std::int64_t> first_rows(std::int64_t rows) {
  std::vector<std::int64_t> ids(rows);
  std::iota(ids.begin(), ids.end(), 0);
  return ids;
}

struct Setting {
  Stop stop = {};
  std::vector<std::int64_t> ids = {};  // rows of the problem, in the order of the batch; empty: all
  int threads = 0;                     // 0: those of the case
  std::int64_t trace_steps = 0;
  std::int64_t gap = 0;  // between the rows of inputs and result
};

// Memory, solver and map of one batch. Backward solves stand at the points z0, start from zero and carry a random g.
template <class Case>
class Solve {
 public:
  using T = typename Case::T;
  using Queue = typename Case::Queue;
  using Solver = typename Case::Solver;
  using Kind = typename Case::Kind;
  using Method = typename Kind::Method;
  static constexpr bool newton = in_turns<Kind>;
  static constexpr bool backward = !newton && !std::is_same_v<Kind, Forward>;

  explicit Solve(const Problem<T>& problem_, const Setting& setting = {}, const Method& method = usual_method<Kind>())
      : problem(problem_),
        stop(setting.stop),
        ids(setting.ids.empty() ? first_rows(problem_.rows) : setting.ids),
        rows(static_cast<std::int64_t>(ids.size())),
        width(problem_.width),
        z(rows, width, setting.gap),
        g(rows, width, setting.gap),
        start_point(rows, width, setting.gap),
        result(rows, width, setting.gap, T(-77)),
        answers(rows, width),
        report(rows, setting.trace_steps),
        path(rows),
        queue(Case::make_queue(setting.threads ? setting.threads : Case::threads)),
        memory(Kind::template bytes<Queue, T>(rows, width, method, stop)),
        arena(memory.arena()),
        solver(Kind::template make<Queue, T>(queue, rows, width, method, stop, arena)),
        linear(estimates(method)) {
    for (std::int64_t i = 0; i < rows; ++i) {
      Random random(200 + static_cast<std::uint64_t>(ids[i]));
      for (std::int64_t j = 0; j < width; ++j) {
        z(i, j) = problem.z0(ids[i], j);
        g(i, j) = static_cast<T>(random.normal());
        start_point(i, j) = backward ? T(0) : z(i, j);
      }
    }
  }

  Question<T> start() {
    map = {};
    const Block<T>&z_in = z, &g_in = g, &point_in = start_point;
    if constexpr (std::is_same_v<Kind, Linear>)
      return solver->start(g_in.view(), point_in.view(), result.view(), report.view());
    else if constexpr (backward)
      return solver->start(z_in.view(), g_in.view(), point_in.view(), result.view(), report.view());
    else if constexpr (std::is_same_v<Kind, Following>)
      return solver->start(point_in.view(), result.view(), report.view(), path.view());
    else
      return solver->start(point_in.view(), result.view(), report.view());
  }

  // The map, as a caller would write it.
  Rows<const T> answer(const Question<T>& question) {
    map.calls += 1;
    map.rows += question.count;
    for (std::int64_t at = 0; at < question.count; ++at) {
      const std::int64_t id = ids[question.rows[at]];
      if constexpr (backward)
        problem.vjp(id, std::is_same_v<Kind, Linear> ? &z(question.rows[at], 0) : question.at[at], question.along[at],
                    &answers(at, 0));
      else if (question.kind == Ask::jvp)
        problem.jvp(id, question.at[at], question.along[at], &answers(at, 0));
      else
        problem.value(id, question.at[at], &answers(at, 0));
    }
    return answers.view().slice(0, question.count);
  }

  void run_to_end(Question<T> question) {
    while (question) question = solver->advance(answer(question));
  }

  Outcome<T> run() {
    const std::int64_t waits = queue.counts().waits;
    run_to_end(start());
    Outcome<T> outcome = outcome_now();
    outcome.waits = queue.counts().waits - waits;
    return outcome;
  }

  Outcome<T> outcome_now() const {
    Outcome<T> outcome;
    for (std::int64_t i = 0; i < rows; ++i)
      outcome.value.insert(outcome.value.end(), &result(i, 0), &result(i, 0) + width);
    outcome.width = width;
    outcome.status = report.status;
    outcome.steps = report.steps;
    outcome.rejected = report.rejected;
    outcome.singular = report.singular;
    outcome.residual = report.residual;
    outcome.scale = report.scale;
    outcome.trace = report.trace;
    outcome.counts = solver->counts();
    outcome.map = map;
    return outcome;
  }

  // |f(point) - point| for row i
  double residual_at(std::int64_t i, const T* point) const {
    std::vector<T> f(width);
    if constexpr (backward)
      problem.vjp(ids[i], &z(i, 0), point, f.data());
    else
      problem.value(ids[i], point, f.data());
    const bool rounded = std::is_same_v<Kind, Backward> && !linear;  // the sum with g, to the element type
    return textbook_norm(stop.norm, width, [&](std::int64_t j) {
      const T sum = backward ? f[j] + g(i, j) : f[j];
      const auto image = rounded || !backward ? static_cast<long double>(sum)
                                              : static_cast<long double>(f[j]) + static_cast<long double>(g(i, j));
      return image - static_cast<long double>(point[j]);
    });
  }

  // How far a reported residual may be from one computed with more digits.
  double rounding(double residual) const { return 1e-12 * residual + (linear ? 1e-14 : 0); }

  const Problem<T> problem;
  const Stop stop;
  const std::vector<std::int64_t> ids;
  const std::int64_t rows, width;
  Block<T> z, g, start_point, result, answers;
  ReportBuffer report;
  PathBuffer path;
  Queue queue;
  HostBuffer memory;
  Arena arena;
  std::unique_ptr<Solver> solver;
  const bool linear;
  MapCounts map;
};

}  // namespace deqcore::test

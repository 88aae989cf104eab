// SPDX-License-Identifier: Apache-2.0
// One JSON line per case, and the clock, spreads and memory rates that go into it. The fields are those of measure.py.
#pragma once

#include <time.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "deqcore/deqcore.hpp"
#include "deqcore/device/simd.hpp"

namespace bench {

struct Plan {
  bool quick = false;

  int repeats() const { return quick ? 1 : 41; }
  double sample_seconds() const { return quick ? 0 : 1e-3; }  // shortest stretch that is timed
  double case_seconds() const { return 1.5; }                 // beyond which a case takes fewer repeats
  int fewest() const { return quick ? 1 : 7; }
};

struct Spread {
  double median = 0, low = 0, high = 0;  // low, high: the 10 % and 90 % quantiles
  int repeats = 0;
};

inline Spread spread_of(std::vector<double> samples) {
  std::sort(samples.begin(), samples.end());
  const auto at = [&](double q) { return samples[static_cast<std::size_t>(q * (samples.size() - 1) + 0.5)]; };
  return {at(0.5), at(0.1), at(0.9), static_cast<int>(samples.size())};
}

// One thread is timed by its own CPU time, which a busy machine disturbs least; several only the wall's clock can time.
inline double now(int threads) {
  timespec t;
  clock_gettime(threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

// Seconds per call of each body. All bodies take turns in every round, so that a slow moment of the machine meets all
// of them and their ratios survive it.
inline std::vector<Spread> in_turn(const Plan& plan, int threads, const std::vector<std::function<void()>>& bodies) {
  const auto seconds = [threads](const std::function<void()>& body, std::int64_t calls) {
    const double start = now(threads);
    for (std::int64_t i = 0; i < calls; ++i) body();
    return now(threads) - start;
  };
  std::vector<std::int64_t> calls(bodies.size(), 1);
  double round = 0;
  for (std::size_t b = 0; b < bodies.size(); ++b) {
    double taken = seconds(bodies[b], 1);  // warms up
    while (taken < plan.sample_seconds()) taken = seconds(bodies[b], calls[b] *= 2);
    round += taken;
  }
  const int rounds = std::clamp(static_cast<int>(plan.case_seconds() / std::max(round, 1e-9)),
                                std::min(plan.fewest(), plan.repeats()), plan.repeats());
  std::vector<std::vector<double>> samples(bodies.size());
  for (int i = 0; i < rounds; ++i)
    for (std::size_t b = 0; b < bodies.size(); ++b)
      samples[b].push_back(seconds(bodies[b], calls[b]) / static_cast<double>(calls[b]));
  std::vector<Spread> spreads;
  for (auto& s : samples) spreads.push_back(spread_of(std::move(s)));
  return spreads;
}

// Memory as large as a case's own, to be read and copied: the rate that the case's bytes are held against. A floor must
// not be too high, so it is the best of reading and copying, on one thread and on as many as the case has.
class Memory {
 public:
  Memory(std::int64_t bytes, int threads)
      : bytes_(std::max<std::int64_t>(bytes, 2 * line) / (2 * line) * (2 * line)), block_(bytes_) {
    std::memset(block_.data(), 0, bytes_);
    bodies_ = {[this] { read(1); }, [this] { copy(1); }};
    if (threads > 1) {
      bodies_.push_back([this, threads] { read(threads); });
      bodies_.push_back([this, threads] { copy(threads); });
    }
  }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  // The case's bodies and then this one's, for in_turn.
  std::vector<std::function<void()>> with(std::vector<std::function<void()>> bodies) const {
    bodies.insert(bodies.end(), bodies_.begin(), bodies_.end());
    return bodies;
  }

  // Bytes per second, from what in_turn said of the bodies of with().
  double rate(const std::vector<Spread>& times) const {
    double best = std::numeric_limits<double>::infinity();
    for (std::size_t i = times.size() - bodies_.size(); i < times.size(); ++i) best = std::min(best, times[i].median);
    return static_cast<double>(bytes_) / best;
  }

 private:
  static constexpr std::int64_t line = 64;

  void read(int threads) const {
    split(threads, bytes_, [&](std::int64_t first, std::int64_t count) { keep(sum(start() + first, count)); });
  }

  // Half to the other half: as many bytes read and written as read() reads.
  void copy(int threads) const {
    split(threads, bytes_ / 2, [&](std::int64_t first, std::int64_t count) {
      std::memcpy(start() + bytes_ / 2 + first, start() + first, count);
      keep(0);
    });
  }

  template <class Body>
  static void split(int threads, std::int64_t bytes, const Body& body) {
    if (threads == 1) return body(0, bytes);
    const std::int64_t lines = bytes / line;
    deqcore::parallel_for(threads, threads, [&](std::int64_t t) {
      const std::int64_t first = lines * t / threads, last = lines * (t + 1) / threads;
      body(first * line, (last - first) * line);
    });
  }

  static float sum(const std::byte* from, std::int64_t bytes) {
    float total = 0;
    deqcore::at_simd_level([&](auto simd) __attribute__((always_inline)) {
      constexpr int lanes = simd.bytes / sizeof(float);
      using V = deqcore::simd::Vector<float, lanes>;
      const float* x = reinterpret_cast<const float*>(from);
      const std::int64_t n = bytes / static_cast<std::int64_t>(sizeof(float));
      V partial[8] = {};
      std::int64_t i = 0;
      for (; i + 8 * lanes <= n; i += 8 * lanes)
        for (int k = 0; k < 8; ++k) partial[k] += deqcore::simd::load<V>(x + i + k * lanes);
      for (; i + lanes <= n; i += lanes) partial[0] += deqcore::simd::load<V>(x + i);
      for (int k = 1; k < 8; ++k) partial[0] += partial[k];
      for (int k = 0; k < lanes; ++k) total += partial[0][k];
    });
    return total;
  }

  // Neither the value nor anything in memory may be optimised away.
  static void keep(float value) { asm volatile("" : : "r"(&value) : "memory"); }

  std::byte* start() const { return static_cast<std::byte*>(block_.data()); }

  std::int64_t bytes_;
  deqcore::HostBuffer block_;
  std::vector<std::function<void()>> bodies_;
};

template <class T>
constexpr const char* type_name = std::is_same_v<T, float> ? "float32" : "float64";

struct Labels {
  std::string problem, method;
  const char* type;
  std::int64_t rows, width;
  int threads;
};

struct Floor {
  double seconds = 0;  // 0: none
  const char* by = "";
};

using Numbers = std::initializer_list<std::pair<const char*, std::int64_t>>;
using Parts = std::initializer_list<std::pair<const char*, double>>;

// counts: exact, the same in every run. parts: further medians in seconds.
inline void write(const Labels& labels, Numbers counts, const Spread& time, const Floor& floor, Parts parts = {}) {
  std::printf("{\"problem\": \"%s\", \"method\": \"%s\", \"queue\": \"cpu\", \"type\": \"%s\", ",
              labels.problem.c_str(), labels.method.c_str(), labels.type);
  std::printf("\"rows\": %lld, \"width\": %lld, \"threads\": %d, \"counts\": {", static_cast<long long>(labels.rows),
              static_cast<long long>(labels.width), labels.threads);
  const char* comma = "";
  for (const auto& [name, value] : counts) {
    std::printf("%s\"%s\": %lld", comma, name, static_cast<long long>(value));
    comma = ", ";
  }
  std::printf("}, \"seconds\": {\"median\": %.4g, \"low\": %.4g, \"high\": %.4g, \"repeats\": %d, \"clock\": \"%s\"}",
              time.median, time.low, time.high, time.repeats, labels.threads == 1 ? "cpu" : "wall");
  if (floor.seconds > 0)
    std::printf(", \"floor\": {\"seconds\": %.4g, \"by\": \"%s\"}, \"over_floor\": %.4g", floor.seconds, floor.by,
                time.median / floor.seconds);
  if (parts.size() > 0) {
    std::printf(", \"parts\": {");
    comma = "";
    for (const auto& [name, value] : parts) {
      std::printf("%s\"%s\": %.4g", comma, name, value);
      comma = ", ";
    }
    std::printf("}");
  }
  std::printf("}\n");
  std::fflush(stdout);
}

// The same numbers everywhere: uniform in (-1, 1), so that counts do not hang on a library's distributions.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}

  double operator()() {  // splitmix64
    std::uint64_t x = state_ += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return static_cast<double>(static_cast<std::int64_t>(x ^ (x >> 31))) * 0x1p-63;
  }

  template <class T>
  void fill(T* to, std::int64_t count, double scale = 1) {
    for (std::int64_t i = 0; i < count; ++i) to[i] = static_cast<T>(scale * (*this)());
  }

 private:
  std::uint64_t state_;
};

}  // namespace bench

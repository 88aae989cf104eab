// SPDX-License-Identifier: Apache-2.0
// Private to this folder: an integration of a native field, tile by tile. By rows, each tile goes its own way to the
// end. As one system, all tiles take every stage together, and judge each step by the numbers of all rows: the same
// bits whatever the tiles.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "deqcore/continuation/ode.hpp"
#include "deqcore/device/buffer.hpp"
#include "deqcore/device/cpu_queue.hpp"
#include "deqcore/maps/tiles.hpp"

namespace deqcore {

// What the tile of a field takes from its arena: `work` elements per row for the field itself.
template <class T>
std::size_t integrate_bytes(std::int64_t rows, std::int64_t width, std::int64_t work, const OdeOptions& options) {
  Arena counting;
  const OdeSolve<CpuQueue, T> measured(nullptr, rows, width, options, counting);
  counting.take<T>(rows * width);  // answers
  counting.take<T>(rows * work);
  return counting.used();
}

template <class T>
Tiling integrate_tiling(int threads, std::int64_t rows, std::int64_t width, std::int64_t work, std::int64_t flops,
                        const OdeOptions& options) {
  require(threads >= 1, "threads: ", threads, " given; expected at least 1");
  const std::int64_t sample = 64;  // rows over which the scratch per row is taken
  return tile_rows(rows, static_cast<std::int64_t>(integrate_bytes<T>(sample, width, work, options)) / sample, flops,
                   threads);
}

// Of the whole integration. Tiles that go together all hold their own.
template <class T>
std::size_t integrate_bytes(int threads, std::int64_t rows, std::int64_t width, std::int64_t work, std::int64_t flops,
                            const OdeOptions& options) {
  const Tiling tiling = integrate_tiling<T>(threads, rows, width, work, flops, options);
  const std::size_t tile = integrate_bytes<T>(tiling.tallest(), width, work, options);
  return options.control == Control::rows ? tile * tiling.threads : tile * tiling.tiles + 2 * rows * sizeof(double);
}

template <class T>
struct Integration {
  Rows<const T> z0;
  const double* times = nullptr;
  std::int64_t count = 0;
  Rows<T> values;  // at the first time; z0.rows rows further on at the next
  OdeReport report;
};

inline void add_tile(Counts& total, const Counts& tile) {
  total.questions = std::max(total.questions, tile.questions);
  total.rows_asked += tile.rows_asked;
  total.looks = std::max(total.looks, tile.looks);
}

template <class T>
Question<T> start_tile(OdeSolve<CpuQueue, T>& solver, const Integration<T>& all, std::int64_t first,
                       std::int64_t count) {
  return solver.start(all.z0.slice(first, count), all.times, all.count, all.values.slice(first, count),
                      all.z0.rows * all.z0.width, all.report.slice(first));
}

// evaluate(first, question, answer, work): the field at the question's rows, counted from the tile's first.
template <class T, class Evaluate>
Counts integrate_together(const Tiling& tiling, std::int64_t work, const OdeOptions& options, const Integration<T>& all,
                          const Evaluate& evaluate, Interrupt* interrupt) {
  struct Tile {
    std::int64_t first;
    Arena arena;
    CpuQueue queue;
    std::unique_ptr<OdeSolve<CpuQueue, T>> solver;
    T *answers, *work;
    bool measured;
  };
  const std::int64_t rows = all.z0.rows, width = all.z0.width;
  const std::size_t bytes = integrate_bytes<T>(tiling.tallest(), width, work, options);
  const std::size_t aligned = (bytes + Arena::alignment - 1) / Arena::alignment * Arena::alignment;
  const HostBuffer memory(aligned * tiling.tiles), numbers(2 * rows * sizeof(double));
  auto* const measure = static_cast<double*>(numbers.data());
  std::vector<Tile> tiles(tiling.tiles);
  for (std::int64_t i = 0; i < tiling.tiles; ++i) {
    Tile& tile = tiles[i];
    tile.first = tiling.first(i);
    const std::int64_t count = tiling.first(i + 1) - tile.first;
    tile.arena = Arena(static_cast<std::byte*>(memory.data()) + i * aligned, aligned);
    tile.solver = std::make_unique<OdeSolve<CpuQueue, T>>(
        tile.queue, count, width, options, tile.arena,
        OdeBatch{.measure = measure, .slope = measure + rows, .rows = rows, .first = tile.first});
    tile.answers = tile.arena.template take<T>(count * width);
    tile.work = tile.arena.template take<T>(count * work);
    start_tile(*tile.solver, all, tile.first, count);
  }
  const auto each = [&](const auto& task) {
    parallel_for(tiling.threads, tiling.tiles, [&](std::int64_t i) { task(tiles[i]); }, interrupt);
  };
  while (tiles[0].solver->question()) {
    if (interrupt) {
      interrupt->poll();
      if (interrupt->requested()) {
        for (const Tile& tile : tiles) tile.solver->cancel();
        break;
      }
    }
    each([&](Tile& tile) {
      const Question<T>& question = tile.solver->question();
      const Rows<T> answer = dense_rows(tile.answers, question.count, width);
      evaluate(tile.first, question, answer, tile.work);
      tile.measured = tile.solver->absorb(answer);
    });
    // a judgement reads what every tile has measured
    if (tiles[0].measured) each([](Tile& tile) { tile.solver->settle(); });
  }
  Counts total;
  for (const Tile& tile : tiles) add_tile(total, tile.solver->counts());
  return total;
}

template <class T, class Evaluate>
Counts integrate(int threads, std::int64_t work, std::int64_t flops, const OdeOptions& options,
                 const Integration<T>& all, const Evaluate& evaluate, Interrupt* interrupt) {
  const std::int64_t width = all.z0.width;
  const Tiling tiling = integrate_tiling<T>(threads, all.z0.rows, width, work, flops, options);
  if (options.control == Control::batch) return integrate_together<T>(tiling, work, options, all, evaluate, interrupt);
  Counts total;
  std::mutex adding;
  for_tiles(
      tiling, integrate_bytes<T>(tiling.tallest(), width, work, options),
      [&](Arena scratch, std::int64_t first, std::int64_t count) {
        CpuQueue queue;
        OdeSolve<CpuQueue, T> solver(queue, count, width, options, scratch);
        T* const answers = scratch.take<T>(count * width);
        T* const own = scratch.take<T>(count * work);
        Question<T> question = start_tile(solver, all, first, count);
        while (question) {
          if (interrupt) {
            interrupt->poll();
            if (interrupt->requested()) {
              solver.cancel();
              break;
            }
          }
          const Rows<T> answer = dense_rows(answers, question.count, width);
          evaluate(first, question, answer, own);
          question = solver.advance(answer);
        }
        const std::lock_guard lock(adding);
        add_tile(total, solver.counts());
      },
      interrupt);
  return total;
}

}  // namespace deqcore

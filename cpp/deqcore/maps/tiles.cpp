// SPDX-License-Identifier: Apache-2.0
#include "deqcore/maps/tiles.hpp"

#include <algorithm>
#include <atomic>

#include "deqcore/device/buffer.hpp"
#include "deqcore/device/pool.hpp"

namespace deqcore {
namespace {

constexpr std::int64_t cache = 1024 * 1024;           // bytes that one core can hope to keep to itself
constexpr std::int64_t shortest = 24, highest = 256;  // rows over which the weights are read once per step
constexpr std::int64_t worth_waking = 400'000;        // flops per evaluation: some 10 microseconds for one thread

}  // namespace

Tiling tile_rows(std::int64_t rows, std::int64_t bytes_per_row, std::int64_t flops_per_row, int threads) {
  if (rows * flops_per_row < worth_waking) threads = 1;
  const std::int64_t height = std::clamp(cache / bytes_per_row, shortest, highest);
  std::int64_t tiles = std::max<std::int64_t>((rows + height - 1) / height, std::min<std::int64_t>(threads, rows));
  if (threads > 1) tiles = std::min(rows, (tiles + threads - 1) / threads * threads);
  return {.rows = rows, .tiles = tiles, .threads = static_cast<int>(std::min<std::int64_t>(threads, tiles))};
}

void for_tiles(const Tiling& tiling, std::size_t bytes_per_tile,
               FunctionRef<void(Arena, std::int64_t, std::int64_t)> solve, Interrupt* interrupt) {
  const std::size_t bytes = (bytes_per_tile + Arena::alignment - 1) / Arena::alignment * Arena::alignment;
  const HostBuffer memory(bytes * tiling.threads);
  std::atomic<std::int64_t> next{0};
  parallel_for(
      tiling.threads, tiling.threads,
      [&](std::int64_t thread) {
        std::byte* own = static_cast<std::byte*>(memory.data()) + thread * bytes;
        for (std::int64_t tile; (tile = next.fetch_add(1, std::memory_order_relaxed)) < tiling.tiles;) {
          const std::int64_t first = tiling.first(tile);
          solve(Arena(own, bytes), first, tiling.first(tile + 1) - first);
        }
      },
      interrupt);
}

}  // namespace deqcore

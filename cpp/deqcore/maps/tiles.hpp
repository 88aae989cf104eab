// SPDX-License-Identifier: Apache-2.0
// A native solve runs tile by tile: a thread takes a few rows, whose state and history stay in its cache, iterates them
// to the end, and takes the next. Rows are independent, so tiles change the time and nothing else.
#pragma once

#include <cstddef>
#include <cstdint>

#include "deqcore/base/arena.hpp"
#include "deqcore/base/function_ref.hpp"
#include "deqcore/base/interrupt.hpp"

namespace deqcore {

struct Tiling {
  std::int64_t rows = 0;
  std::int64_t tiles = 0;
  int threads = 1;

  std::int64_t first(std::int64_t tile) const { return rows * tile / tiles; }
  std::int64_t tallest() const { return (rows + tiles - 1) / tiles; }
};

// bytes_per_row: state, history and answer. flops_per_row: of one evaluation.
Tiling tile_rows(std::int64_t rows, std::int64_t bytes_per_row, std::int64_t flops_per_row, int threads);

// solve(scratch, first, count) for every tile. One block of bytes_per_tile per thread is allocated beforehand.
void for_tiles(const Tiling& tiling, std::size_t bytes_per_tile,
               FunctionRef<void(Arena scratch, std::int64_t first, std::int64_t count)> solve, Interrupt* interrupt);

}  // namespace deqcore

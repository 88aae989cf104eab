// SPDX-License-Identifier: Apache-2.0
// A matrix rounded to bfloat16, for products with vectors rounded likewise, summed in float:
//
//     y[i] = B x[i]            |B - W| <= 2^-8 |W|, elementwise
//
// It lies in panels of 16 outputs, pairs of inputs innermost, as the CPU's instruction wants them. Every output sums
// over the inputs in one order, whatever the number of rows.
#pragma once

#include <cstdint>

#include "deqcore/device/buffer.hpp"
#include "deqcore/maps/packed.hpp"

namespace deqcore {

class PackedBfloat16 {
 public:
  // Whether this CPU has the instruction, and DEQCORE_SIMD allows it.
  static bool supported();

  explicit PackedBfloat16(const PackedMatrix<float>& W, int threads = 1);

  // Elements of a rounded vector: the inputs, and a zero where they are odd in number.
  std::int64_t pitch() const { return 2 * pairs_; }

  // to <- bfloat16(a - b), pitch() elements. NaN may become any number.
  void round_difference(const float* a, const float* b, std::uint16_t* to) const;

  // y[which[i]] = B x[i], x dense. Few rows and a large matrix are shared by up to `threads` threads.
  void multiply(const std::uint16_t* x, Rows<float> y, Positions which, int threads) const;

 private:
  void multiply_panels(const std::uint16_t* x, Rows<float> y, Positions which, std::int64_t first,
                       std::int64_t last) const;

  std::int64_t outputs_, inputs_, pairs_;
  HostBuffer panels_;
};

}  // namespace deqcore

// SPDX-License-Identifier: Apache-2.0
// A matrix that many rows will be multiplied with, stored once in the order in which its product reads it.
//
//     y[i] = W x[i]                W: outputs x inputs
//
// Every output sums over the inputs in one order, whatever the number of rows: a row's product has the same bits alone
// and in a batch. The matrix lies in panels of 64 bytes of outputs, one panel after the other, inputs innermost.
#pragma once

#include <cstdint>

#include "deqcore/base/rows.hpp"
#include "deqcore/device/buffer.hpp"

namespace deqcore {

// Some rows of a block, or without a list its first `count`.
struct Positions {
  const std::int32_t* list = nullptr;
  std::int64_t count = 0;

  constexpr std::int64_t operator[](std::int64_t i) const { return list ? list[i] : i; }
};

template <class T>
class PackedMatrix {
 public:
  static constexpr std::int64_t panel = 64 / sizeof(T);  // outputs

  // Entry (output, input) is from[output * output_stride + input * input_stride]; one of the strides is 1.
  PackedMatrix(std::int64_t outputs, std::int64_t inputs, const T* from, std::int64_t output_stride,
               std::int64_t input_stride, int threads = 1);

  // W^T, packed.
  PackedMatrix transposed(int threads = 1) const;

  // W, row by row.
  void unpack(T* to) const;

  std::int64_t outputs() const { return outputs_; }
  std::int64_t inputs() const { return inputs_; }

  // y must not overlap x. Runs on the calling thread.
  void multiply(Rows<const T> x, Rows<T> y) const;

  // The same for few rows and a large matrix, whose outputs are shared by up to `threads` threads.
  void multiply(Rows<const T> x, Rows<T> y, int threads) const;

  // The same for some rows of x and y only: those that `which` names.
  void multiply(Rows<const T> x, Rows<T> y, Positions which, int threads) const;

  // Panel p: inputs x panel, dense.
  const T* panel_at(std::int64_t p) const { return panel_of(p * panel); }

 private:
  void multiply_panels(Rows<const T> x, Rows<T> y, Positions which, std::int64_t first, std::int64_t last) const;

  PackedMatrix(std::int64_t outputs, std::int64_t inputs);
  T* panel_of(std::int64_t output) const { return static_cast<T*>(panels_.data()) + output / panel * panel * inputs_; }

  std::int64_t outputs_, inputs_;
  HostBuffer panels_;
};

}  // namespace deqcore

// SPDX-License-Identifier: Apache-2.0
// What a method remembers of a row, kept from one solve to the next: a handle holds a row of words for each row, in one
// layout whatever the method,
//
//     [columns in use, place of the next]  [m][m] doubles, if the method has a small matrix  [2][m][width] elements
//
// The elements are Ts, or bfloat16 where the method keeps its columns so.
//
// A row of zeros holds nothing. Between two solves the map may change, so the last point of a solve is not kept: no
// difference is taken across the change.
#pragma once

#include "deqcore/kernels/bfloat16.hpp"
#include "deqcore/kernels/kernel.hpp"
#include "deqcore/kernels/step.hpp"

namespace deqcore {

// Where a method keeps it while it iterates, by row. m 0: the method remembers nothing.
template <class T>
struct RowMemory {
  T* columns[2] = {};           // [row][m][pitch]
  BFloat16* columns16[2] = {};  // instead, if in_16_bits
  bool in_16_bits = false;
  std::int64_t m = 0;
  std::int64_t width = 0;
  std::int64_t pitch = 0;
  std::int64_t small = 0;         // entries of the small matrix: m m or 0
  double* matrix = nullptr;       // [row][m][m]
  std::int32_t* slot = nullptr;   // may be null
  std::int32_t* depth = nullptr;  // n columns in use; ~n before the first evaluation of a solve that goes on with them

  constexpr std::int64_t column_bytes() const {
    return width * static_cast<std::int64_t>(in_16_bits ? sizeof(BFloat16) : sizeof(T));
  }
};

// The rows of a handle; of const T, to read.
template <class T>
struct KeptRows {
  template <class U>
  using As = std::conditional_t<std::is_const_v<T>, const U, U>;

  As<std::int64_t>* data = nullptr;
  std::int64_t m = 0;
  std::int64_t width = 0;
  std::int64_t small = 0;
  bool in_16_bits = false;

  KeptRows() = default;
  constexpr KeptRows(const RowMemory<std::remove_const_t<T>>& memory, As<std::int64_t>* data_)
      : data(data_), m(memory.m), width(memory.width), small(memory.small), in_16_bits(memory.in_16_bits) {}

  constexpr std::int64_t words() const {
    constexpr std::int64_t word = sizeof(std::int64_t);
    const auto element = static_cast<std::int64_t>(in_16_bits ? sizeof(BFloat16) : sizeof(T));
    return m == 0 ? 0 : 1 + small + (2 * m * width * element + word - 1) / word;
  }
  constexpr As<std::int32_t>* counts(std::int64_t row) const {
    return reinterpret_cast<As<std::int32_t>*>(data + row * words());
  }
  constexpr As<double>* matrix(std::int64_t row) const {
    return reinterpret_cast<As<double>*>(data + row * words() + 1);
  }
  template <class Element = T>
  constexpr As<Element>* column(std::int64_t row, int which, std::int64_t at) const {
    return reinterpret_cast<As<Element>*>(data + row * words() + 1 + small) + (which * m + at) * width;
  }
};

// to[row] = what is remembered of the row if it has converged, and nothing otherwise.   up to 2 m reads, 2 m writes
template <class T>
struct SaveRows {
  std::int64_t rows;
  const Status* status;
  RowMemory<T> memory;
  KeptRows<T> to;
};
DEQCORE_KERNEL(SaveRows);

// Row i goes on with row at[i] of the handle; below zero: with nothing.   up to 2 m reads, 2 m writes
template <class T>
struct LoadRows {
  std::int64_t rows;
  KeptRows<const T> from;
  const std::int32_t* at;
  RowMemory<T> memory;
};
DEQCORE_KERNEL(LoadRows);

// w = -B^T g = g - sum_i v_i (u_i, g), with the pairs of row at[i] of a handle. Where nothing is kept of a row, or |w|
// > fallback |g|, w = g, and fell = 1.   2 depth + 3 reads, depth + 2 writes
template <class T>
struct ApplyInverseTransposed {
  KeptRows<const T> pairs;
  const std::int32_t* at;
  double fallback;
  Rows<const T> g;
  Rows<T> w;  // may not be g
  std::int32_t* fell;
};
DEQCORE_KERNEL(ApplyInverseTransposed);

}  // namespace deqcore

// SPDX-License-Identifier: Apache-2.0
// A tile of the product, `Height` rows by `Panels` panels, is summed in registers over all inputs:
//
//     sum[row][output] += x[row][input] * W[output][input]       input = 0, 1, 2, ...
#include <algorithm>

#include "deqcore/device/simd.hpp"
#include "deqcore/maps/packed.hpp"
#include "deqcore/maps/panels.hpp"

namespace deqcore {
namespace {

template <class T>
constexpr std::int64_t panels_of(std::int64_t outputs) {
  return (outputs + PackedMatrix<T>::panel - 1) / PackedMatrix<T>::panel;
}

// The tallest tile whose sums fit the registers of a level, and how many panels keep them busy at a given height.
template <int Bytes>
inline constexpr int tallest = Bytes == 64   ? 8
                               : Bytes == 32 ? 6
                                             : 2;

template <int Bytes>
constexpr int panels_at(int height) {
  const int sums = Bytes == 64 ? 16 : 8;  // at least this many independent sums hide the latency of one
  return std::clamp(sums / (height * (64 / Bytes)), 1, 4);
}

template <class T, int Bytes, int Height, int Panels>
[[gnu::always_inline]] inline void tile(const T* panels, std::int64_t inputs, Rows<const T> x, Rows<T> y,
                                        Positions which, std::int64_t first_row, std::int64_t first_output) {
  using V = simd::Vector<T, Bytes / sizeof(T)>;
  constexpr int lanes = Bytes / sizeof(T), vectors = Panels * 64 / Bytes;
  constexpr int per_panel = 64 / Bytes;
  constexpr std::int64_t panel = PackedMatrix<T>::panel;
  V sums[Height][vectors] = {};
  const T* rows[Height];
  for (int i = 0; i < Height; ++i) rows[i] = x[which[first_row + i]];
  for (std::int64_t k = 0; k < inputs; ++k) {
    V w[vectors];
#pragma GCC unroll 16
    for (int v = 0; v < vectors; ++v)
      w[v] = simd::load<V>(panels + (v / per_panel * inputs + k) * panel + v % per_panel * lanes);
#pragma GCC unroll 16
    for (int i = 0; i < Height; ++i) {
      const T value = rows[i][k];
#pragma GCC unroll 16
      for (int v = 0; v < vectors; ++v) sums[i][v] += value * w[v];
    }
  }
  const std::int64_t left = std::min<std::int64_t>(Panels * panel, y.width - first_output);
#pragma GCC unroll 16
  for (int i = 0; i < Height; ++i) {
    T* to = y[which[first_row + i]] + first_output;
    if (left == Panels * panel) {
#pragma GCC unroll 16
      for (int v = 0; v < vectors; ++v) simd::store(to + v * lanes, sums[i][v]);
    } else {
      T whole[Panels * panel];
#pragma GCC unroll 16
      for (int v = 0; v < vectors; ++v) simd::store(whole + v * lanes, sums[i][v]);
      std::copy_n(whole, left, to);
    }
  }
}

// All outputs of `Height` rows or fewer.
template <class T, int Bytes, int Height>
[[gnu::always_inline]] inline void strip(const T* panels, std::int64_t inputs, Rows<const T> x, Rows<T> y,
                                         Positions which, std::int64_t row, std::int64_t height,
                                         std::int64_t first_panel, std::int64_t last_panel) {
  if constexpr (Height > 1)
    if (height < Height)
      return strip<T, Bytes, Height - 1>(panels, inputs, x, y, which, row, height, first_panel, last_panel);
  constexpr int wide = panels_at<Bytes>(Height);
  constexpr std::int64_t panel = PackedMatrix<T>::panel;
  std::int64_t p = first_panel;
  for (; p + wide <= last_panel; p += wide)
    tile<T, Bytes, Height, wide>(panels + p * panel * inputs, inputs, x, y, which, row, p * panel);
  if constexpr (wide > 1)
    for (; p < last_panel; ++p)
      tile<T, Bytes, Height, 1>(panels + p * panel * inputs, inputs, x, y, which, row, p * panel);
}

// to[j][i] = from[i][j] for `rows` x `columns` entries, both at most a panel; the rows of `to` are panels.
template <class T>
void turn(const T* from, std::int64_t pitch, std::int64_t rows, std::int64_t columns, T* to) {
  constexpr std::int64_t panel = PackedMatrix<T>::panel;
  if (rows == panel && columns == panel) {  // nearly always; loops of known length become moves of registers
    for (std::int64_t i = 0; i < panel; ++i)
      for (std::int64_t j = 0; j < panel; ++j) to[j * panel + i] = from[i * pitch + j];
    return;
  }
  for (std::int64_t i = 0; i < rows; ++i)
    for (std::int64_t j = 0; j < columns; ++j) to[j * panel + i] = from[i * pitch + j];
}

}  // namespace

template <class T>
PackedMatrix<T>::PackedMatrix(std::int64_t outputs, std::int64_t inputs)
    : outputs_(outputs), inputs_(inputs), panels_(panels_of<T>(outputs) * panel * inputs * sizeof(T)) {}

// Blocks of `panel` outputs by as many inputs: both sides are read and written in whole cache lines.
template <class T>
PackedMatrix<T>::PackedMatrix(std::int64_t outputs, std::int64_t inputs, const T* from, std::int64_t output_stride,
                              std::int64_t input_stride, int threads)
    : PackedMatrix(outputs, inputs) {
  const auto pack = [&](std::int64_t p) {
    const std::int64_t first = p * panel, filled = std::min(panel, outputs - first);
    T* const to = panel_of(first);
    for (std::int64_t k = 0; k < inputs; k += panel) {
      const std::int64_t count = std::min(panel, inputs - k);
      const T* const block = from + first * output_stride + k * input_stride;
      if (input_stride == 1)
        turn(block, output_stride, filled, count, to + k * panel);
      else
        for (std::int64_t i = 0; i < count; ++i)
          for (std::int64_t o = 0; o < filled; ++o) to[(k + i) * panel + o] = block[i * input_stride + o];
      for (std::int64_t i = 0; i < count; ++i) std::fill(to + (k + i) * panel + filled, to + (k + i + 1) * panel, T(0));
    }
  };
  share_panels(threads, panels_of<T>(outputs), panel * inputs * sizeof(T), [&](std::int64_t p, std::int64_t last) {
    for (; p < last; ++p) pack(p);
  });
}

template <class T>
PackedMatrix<T> PackedMatrix<T>::transposed(int threads) const {
  PackedMatrix other(inputs_, outputs_);
  const auto pack = [&](std::int64_t p) {
    const std::int64_t first = p * panel, filled = std::min(panel, inputs_ - first);
    T* const to = other.panel_of(first);
    for (std::int64_t o = 0; o < outputs_; o += panel) {
      const std::int64_t count = std::min(panel, outputs_ - o);
      turn(panel_of(o) + first * panel, panel, filled, count, to + o * panel);
      for (std::int64_t i = 0; i < count; ++i) std::fill(to + (o + i) * panel + filled, to + (o + i + 1) * panel, T(0));
    }
  };
  share_panels(threads, panels_of<T>(inputs_), panel * outputs_ * sizeof(T), [&](std::int64_t p, std::int64_t last) {
    for (; p < last; ++p) pack(p);
  });
  return other;
}

template <class T>
void PackedMatrix<T>::unpack(T* to) const {
  for (std::int64_t o = 0; o < outputs_; ++o)
    for (std::int64_t k = 0; k < inputs_; ++k) to[o * inputs_ + k] = panel_of(o)[k * panel + o % panel];
}

template <class T>
void PackedMatrix<T>::multiply(Rows<const T> x, Rows<T> y) const {
  multiply_panels(x, y, {.count = x.rows}, 0, panels_of<T>(outputs_));
}

template <class T>
void PackedMatrix<T>::multiply(Rows<const T> x, Rows<T> y, int threads) const {
  multiply(x, y, {.count = x.rows}, threads);
}

template <class T>
void PackedMatrix<T>::multiply(Rows<const T> x, Rows<T> y, Positions which, int threads) const {
  constexpr std::int64_t most_rows = 16;  // above, threads share the rows, and each reads all panels
  if (which.count > most_rows) {
    const std::int64_t pieces =
        which.count * outputs_ * inputs_ < 200'000 ? 1 : std::min<std::int64_t>(threads, which.count / 8);
    return parallel_for(threads, pieces, [&](std::int64_t i) {
      const std::int64_t first = which.count * i / pieces, last = which.count * (i + 1) / pieces;
      if (which.list)
        multiply_panels(x, y, {which.list + first, last - first}, 0, panels_of<T>(outputs_));
      else
        multiply_panels(x.slice(first, last - first), y.slice(first, last - first), {.count = last - first}, 0,
                        panels_of<T>(outputs_));
    });
  }
  share_panels(threads, panels_of<T>(outputs_), panel * inputs_ * sizeof(T),
               [&](std::int64_t first, std::int64_t last) { multiply_panels(x, y, which, first, last); });
}

template <class T>
void PackedMatrix<T>::multiply_panels(Rows<const T> x, Rows<T> y, Positions which, std::int64_t first,
                                      std::int64_t last) const {
  const T* panels = static_cast<const T*>(panels_.data());
  constexpr std::int64_t cached = 256 * 1024;  // bytes of panels that stay in a core's cache while all rows pass
  const std::int64_t group = std::max<std::int64_t>(4, cached / (panel * inputs_ * sizeof(T)));
  at_simd_level([&](auto simd) __attribute__((always_inline)) {
    constexpr int height = tallest<simd.bytes>;
    for (std::int64_t p = first; p < last; p += group)
      for (std::int64_t row = 0; row < which.count; row += height)
        strip<T, simd.bytes, height>(panels, inputs_, x, y, which, row,
                                     std::min<std::int64_t>(height, which.count - row), p, std::min(last, p + group));
  });
}

template class PackedMatrix<float>;
template class PackedMatrix<double>;

}  // namespace deqcore

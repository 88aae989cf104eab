// SPDX-License-Identifier: Apache-2.0
#include "deqcore/kernels/lu.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

namespace deqcore {
namespace {

// P A = L U in place, column after column. False if a pivot is rounding: A is singular to working precision.
bool factor(double* A, std::int32_t* pivot, std::int64_t n, double tiny) {
  double largest = 0;
  for (std::int64_t at = 0; at < n * n; ++at) largest = std::max(largest, std::abs(A[at]));
  for (std::int64_t j = 0; j < n; ++j) {
    double* const left = A + j * n;
    std::int64_t p = j;
    for (std::int64_t i = j + 1; i < n; ++i)
      if (std::abs(left[i]) > std::abs(left[p])) p = i;
    pivot[j] = static_cast<std::int32_t>(p);
    if (!(std::abs(left[p]) > tiny * largest)) return false;
    for (std::int64_t c = 0; c < n && p != j; ++c) std::swap(A[c * n + j], A[c * n + p]);
    const double inverse = 1 / left[j];
    for (std::int64_t i = j + 1; i < n; ++i) left[i] *= inverse;
    for (std::int64_t c = j + 1; c < n; ++c) {
      double* const right = A + c * n;
      const double top = right[j];
      for (std::int64_t i = j + 1; i < n; ++i) right[i] -= left[i] * top;
    }
  }
  return true;
}

// x += A^-1 r
template <class T>
void correct(const double* A, const std::int32_t* pivot, std::int64_t n, const T* r, double* work, T* x) {
  std::copy_n(r, n, work);
  for (std::int64_t j = 0; j < n; ++j) std::swap(work[j], work[pivot[j]]);
  for (std::int64_t j = 0; j < n; ++j)
    for (std::int64_t i = j + 1; i < n; ++i) work[i] -= A[j * n + i] * work[j];
  for (std::int64_t j = n; j-- > 0;) {
    work[j] /= A[j * n + j];
    for (std::int64_t i = 0; i < j; ++i) work[i] -= A[j * n + i] * work[j];
  }
  for (std::int64_t i = 0; i < n; ++i) x[i] = static_cast<T>(static_cast<double>(x[i]) + work[i]);
}

}  // namespace

template <class T>
void run(CpuQueue& queue, const ClearColumns<T>& k) {
  queue.note("ClearColumns", 0);
  std::fill_n(k.factored.column, k.rows, 0);
}

template <class T>
void run(CpuQueue& queue, const KeepColumn<T>& k) {
  const Factored<T>& f = k.factored;
  const std::int64_t n = k.x.width, bytes = n * (sizeof(T) + sizeof(double));
  queue.note("KeepColumn", k.rows.count * bytes);
  queue.for_blocks(k.rows.count, bytes * n, [&](std::int64_t first, std::int64_t count) {
    const LinearStates& s = k.states;
    for (std::int64_t i = first; i < first + count; ++i) {
      const std::int64_t row = k.rows.ids[i];
      if (!s.running(row) || s.phase[row] != Phase::first) continue;
      const std::int32_t at = f.column[row]++;
      double *A = f.matrix + row * n * n, *to = A + at * n, size = 0;
      const T* answer = k.answer[i];
      for (std::int64_t j = 0; j < n; ++j) {
        const auto entry = static_cast<double>(answer[j]);
        to[j] = k.form == Operator::matrix ? entry : (j == at ? 1.0 : 0.0) - entry;
        size += to[j] * to[j];
      }
      s.answered[row] = Answered::product;
      s.growth[row] = std::max(s.growth[row], std::sqrt(size));
      if (!std::isfinite(size)) s.residual[row] = size;
      if (at + 1 < n || !std::isfinite(s.residual[row])) continue;
      const double tiny = static_cast<double>(n) * std::numeric_limits<double>::epsilon();
      if (!factor(A, f.pivot + row * n, n, tiny)) {
        s.answered[row] = Answered::broke_down;
        continue;
      }
      correct(A, f.pivot + row * n, n, static_cast<const T*>(f.r[row]), f.work + row * n, k.x[row]);
      s.phase[row] = Phase::residual;
    }
  });
}

template <class T>
void run(CpuQueue& queue, const PoseColumn<T>& k) {
  const Factored<T>& f = k.factored;
  const std::int64_t n = k.x.width, bytes = n * sizeof(T);
  queue.note("PoseColumn", k.rows.count * bytes);
  for (std::int64_t i = 0; i < k.rows.count; ++i) {
    const std::int64_t row = k.rows.ids[i];
    const LinearStates& s = k.states;
    if (s.running(row) && s.phase[row] == Phase::start) {
      const bool factored = f.column[row] == n;
      if (factored)
        correct(f.matrix + row * n * n, f.pivot + row * n, n, static_cast<const T*>(f.r[row]), f.work + row * n,
                k.x[row]);
      s.phase[row] = factored ? Phase::residual : Phase::first;
    }
    if (s.running(row) && s.phase[row] == Phase::first) {
      std::fill_n(k.along[i], n, T(0));
      k.along[i][f.column[row]] = T(1);
    } else {
      std::copy_n(k.x[row], n, k.along[i]);
    }
  }
}

DEQCORE_INSTANTIATE_KERNEL(CpuQueue, ClearColumns);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, KeepColumn);
DEQCORE_INSTANTIATE_KERNEL(CpuQueue, PoseColumn);

}  // namespace deqcore

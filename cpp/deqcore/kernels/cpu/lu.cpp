// SPDX-License-Identifier: Apache-2.0
#include "deqcore/kernels/lu.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "deqcore/kernels/cpu/lu_factor.hpp"

namespace deqcore {
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
      if (!lu::factor(A, f.pivot + row * n, n, tiny)) {
        s.answered[row] = Answered::broke_down;
        continue;
      }
      lu::correct(A, f.pivot + row * n, n, static_cast<const T*>(f.r[row]), f.work + row * n, k.x[row]);
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
        lu::correct(f.matrix + row * n * n, f.pivot + row * n, n, static_cast<const T*>(f.r[row]), f.work + row * n,
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

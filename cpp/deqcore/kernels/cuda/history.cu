// SPDX-License-Identifier: Apache-2.0
#include "deqcore/kernels/history.hpp"

#include "deqcore/kernels/cuda/reduce.cuh"
#include "deqcore/kernels/row_math.hpp"

namespace deqcore {
namespace {

constexpr int columns_at_once = 4;  // whose sums stay in registers while the new difference is read once

template <class T>
__device__ T element(const T* column, std::int64_t at) {
  return column[at];
}
__device__ inline float element(const BFloat16* column, std::int64_t at) {
  return widen(column[at]);
}

// One element of a column of dF and of dG.
template <class T>
__device__ void store_elements(T* dF, T* dG, T of_f, T of_g) {
  *dF = of_f;
  *dG = of_g;
}
template <class T>
__device__ void store_elements(BFloat16* dF, BFloat16* dG, T of_f, T of_g) {
  *dF = narrow(of_f);
  *dG = finite(*dF) ? narrow(of_g) : BFloat16{0xffff};  // a NaN
}

// Columns of Ts, or of bfloat16.
template <class T, class Column>
void push(CudaQueue& queue, const PushHistory<T>& k, Column* all_dF, Column* all_dG) {
  queue.note("PushHistory", k.rows.count * k.into.bytes(6, k.into.m + 2));
  cuda::for_each_row(queue, "PushHistory", k.rows.count, k.into.width, 2 * columns_at_once,
                     [k, all_dF, all_dG] __device__(std::int64_t i) {
                       const History<T>& h = k.into;
                       const std::int64_t row = k.rows.ids[i];
                       if (!k.states.running(row)) return;
                       const T *z = k.z[k.rows.from(i)], *f = k.f[k.rows.from(i)];
                       T *f_last = h.f_last[row], *g_last = h.g_last[row];
                       const std::int32_t depth_before = h.depth[row], slot = h.slot[row];
                       __syncthreads();         // all threads have read depth and slot before one of them writes them
                       if (depth_before < 0) {  // nothing to take a difference with
                         for (std::int64_t at = threadIdx.x; at < h.width; at += blockDim.x) {
                           f_last[at] = f[at];
                           g_last[at] = f[at] - z[at];
                         }
                         const int kept = ~depth_before;
                         for (int j = 0; j < kept; ++j) {  // only where a solve goes on with an earlier one's window
                           double sum[1] = {};             // a thread reads the elements of g that it wrote itself
                           for (std::int64_t at = threadIdx.x; at < h.width; at += blockDim.x)
                             sum[0] += static_cast<double>(element(h.column(all_dG, row, j), at)) *
                                       static_cast<double>(g_last[at]);
                           cuda::block_sum(sum, cuda::shared_doubles());
                           if (threadIdx.x == 0) h.rhs[row * h.m + j] = sum[0];
                         }
                         if (threadIdx.x != 0) return;
                         h.depth[row] = kept;
                         if (kept == 0) h.slot[row] = 0;
                         return;
                       }
                       const int depth = depth_before < h.m ? depth_before + 1 : static_cast<int>(h.m);
                       Column *dF = h.column(all_dF, row, slot), *dG = h.column(all_dG, row, slot);
                       for (std::int64_t at = threadIdx.x; at < h.width; at += blockDim.x) {
                         const T image = f[at], g = image - z[at];
                         store_elements(dF + at, dG + at, image - f_last[at], g - g_last[at]);
                         f_last[at] = image;
                         g_last[at] = g;
                       }
                       // No barrier: below, a thread reads only the elements of the new column that it wrote itself.
                       double *gram = h.gram + row * h.m * h.m, *rhs = h.rhs + row * h.m;
                       for (int first = 0; first < depth; first += columns_at_once) {
                         double sums[2 * columns_at_once] = {};  // dG_j . dG_slot, then dG_j . g
                         for (std::int64_t at = threadIdx.x; at < h.width; at += blockDim.x) {
                           const double newest = element(dG, at), g = g_last[at];
#pragma unroll
                           for (int c = 0; c < columns_at_once; ++c) {
                             if (first + c >= depth) break;
                             const double entry = element(h.column(all_dG, row, first + c), at);
                             sums[c] += entry * newest;
                             sums[columns_at_once + c] += entry * g;
                           }
                         }
                         cuda::block_sum(sums, cuda::shared_doubles());
                         if (threadIdx.x != 0) continue;
#pragma unroll
                         for (int c = 0; c < columns_at_once; ++c) {
                           const int j = first + c;
                           if (j >= depth) break;
                           gram[slot * h.m + j] = gram[j * h.m + slot] = sums[c];
                           rhs[j] = sums[columns_at_once + c];
                         }
                       }
                       if (threadIdx.x != 0) return;
                       h.depth[row] = depth;
                       h.slot[row] = static_cast<std::int32_t>((slot + 1) % h.m);
                     });
}

template <class T, class Column>
void mix(CudaQueue& queue, const MixHistory<T>& k, Column* dF, Column* dG) {
  const bool damped = k.beta != 1;
  const std::int64_t m = k.history.m;
  queue.note("MixHistory", k.rows.count * (damped ? k.history.bytes(3, 2 * m) : k.history.bytes(2, m)));
  const T held = static_cast<T>(1 - k.beta);
  cuda::for_each_cell(queue, "MixHistory", k.rows.count, k.history.width,
                      [k, damped, held, dF, dG] __device__(std::int64_t i, std::int64_t at) {
                        const History<T>& h = k.history;
                        const std::int64_t row = k.rows.ids[i], from = k.rows.from(i);
                        if (!k.states.running(row)) return;
                        const double* gamma = h.gamma + row * h.m;
                        const int depth = h.depth[row];
                        T correction = 0;
                        for (int j = 0; j < depth; ++j)
                          correction += static_cast<T>(gamma[j]) * element(h.column(dF, row, j), at);
                        const T image = k.f[from][at];
                        T mixed = image - correction;
                        if (damped) {
                          T g = image - k.z[from][at];
                          for (int j = 0; j < depth; ++j)
                            g -= static_cast<T>(gamma[j]) * element(h.column(dG, row, j), at);
                          mixed -= held * g;
                        }
                        k.next[i][at] = mixed;
                      });
}

}  // namespace

template <class T>
void run(CudaQueue& queue, const ClearHistory<T>& k) {
  queue.note("ClearHistory", 0);
  cuda::for_each_entry(queue, "ClearHistory", k.rows, [k] __device__(std::int64_t row) {
    k.history.depth[row] = -1;
    k.history.slot[row] = 0;
  });
}

template <class T>
void run(CudaQueue& queue, const GuardHistory<T>& k) {
  queue.note("GuardHistory", 0);
  cuda::for_each_entry(queue, "GuardHistory", k.rows.count, [k] __device__(std::int64_t i) {
    const std::int64_t row = k.rows.ids[i];
    const std::int32_t depth = k.history.depth[row];
    if (!k.states.running(row) || depth == 0 || depth == -1) return;
    const bool grew = row_math::outgrown(depth, k.states.g_norm[row], k.states.report.residual[row], k.growth,
                                         k.states.report.scale[row]);
    if (!grew && k.states.frozen[row] == 0) return;
    k.history.depth[row] = -1;
    k.states.report.rejected[row] += 1;
  });
}

template <class T>
void run(CudaQueue& queue, const PushHistory<T>& k) {
  if (k.into.dF16)
    push(queue, k, k.into.dF16, k.into.dG16);
  else
    push(queue, k, k.into.dF, k.into.dG);
}

template <class T>
void run(CudaQueue& queue, const SolveSmall<T>& k) {
  queue.note("SolveSmall", 0);
  cuda::for_each_entry(queue, "SolveSmall", k.rows.count, [k] __device__(std::int64_t i) {
    const History<T>& h = k.history;
    const std::int64_t row = k.rows.ids[i];
    if (!k.states.running(row) || h.depth[row] < 1) return;
    if (row_math::solve_spd(h.gram + row * h.m * h.m, h.m, h.depth[row], k.ridge, h.rhs + row * h.m,
                            h.gamma + row * h.m))
      return;
    h.depth[row] = 0;  // the last f and g stay good
    h.slot[row] = 0;
    k.states.report.singular[row] += 1;
  });
}

template <class T>
void run(CudaQueue& queue, const MixHistory<T>& k) {
  if (k.history.dF16)
    mix(queue, k, k.history.dF16, k.history.dG16);
  else
    mix(queue, k, k.history.dF, k.history.dG);
}

template <class T>
void run(CudaQueue& queue, const DampedStep<T>& k) {
  const bool damped = k.beta != 1;
  queue.note("DampedStep", (damped ? 3 : 2) * k.rows.count * k.z.width * sizeof(T));
  const T beta = static_cast<T>(k.beta);
  cuda::for_each_cell(queue, "DampedStep", k.rows.count, k.z.width,
                      [k, damped, beta] __device__(std::int64_t i, std::int64_t at) {
                        const std::int64_t from = k.rows.from(i);
                        if (!k.states.running(k.rows.ids[i])) return;
                        const T image = k.f[from][at];
                        const T point = damped ? k.z[from][at] : image;
                        k.next[i][at] = damped ? point + beta * (image - point) : image;
                      });
}

DEQCORE_INSTANTIATE_KERNEL(CudaQueue, ClearHistory);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, GuardHistory);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, PushHistory);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, SolveSmall);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, MixHistory);
DEQCORE_INSTANTIATE_KERNEL(CudaQueue, DampedStep);

}  // namespace deqcore

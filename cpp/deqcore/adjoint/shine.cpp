// SPDX-License-Identifier: Apache-2.0
#include "deqcore/adjoint/shine.hpp"

#include "deqcore/base/shapes.hpp"
#include "deqcore/device/queues.hpp"
#include "deqcore/kernels/kept.hpp"

namespace deqcore {

template <class Queue, class T>
void Shine<Queue, T>::apply(Queue& queue, const Broyden& options, const KeptHistory& history, double fallback,
                            Rows<const T> g, Rows<T> w, std::int32_t* fell) {
  require_batch(g.rows, g.width);
  require_shape<T>("w", w, g.rows, g.width);
  require(!overlap<T>(w, g), "w: overlaps g");
  require(fallback > 0, "fallback: ", fallback, " given; expected a number above 0, or infinity");
  RowMemory<T> memory;
  memory.m = options.history;
  memory.width = g.width;
  run(queue, ApplyInverseTransposed<T>{.pairs = KeptRows<const T>(memory, history.from),
                                       .at = history.at,
                                       .fallback = fallback,
                                       .g = g,
                                       .w = w,
                                       .fell = fell});
}

DEQCORE_INSTANTIATE(Shine);

}  // namespace deqcore

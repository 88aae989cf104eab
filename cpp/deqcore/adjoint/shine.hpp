// SPDX-License-Identifier: Apache-2.0
// SHINE (Ramzi, Mannel, Bai, Starck, Ciuciu and Moreau 2022): the inverse that Broyden's method has learnt on the way
// to a fixed point, B = -I + sum u_i v_i^T ~ (J - I)^-1, serves the backward solve. No product with J is taken:
//
//     w = -B^T g = g - sum_i v_i (u_i, g)  ~  (I - J)^-T g
//
// A row whose |w| exceeds `fallback` |g|, or of which nothing is kept, falls back to the Jacobian-free w = g.
#pragma once

#include "deqcore/base/rows.hpp"
#include "deqcore/fixed_point/fixed_point.hpp"

namespace deqcore {

template <class Queue, class T>
class Shine {
 public:
  // history.from: what a solve by these options has saved; row i of g belongs to its row history.at[i]. fell[i]: 1
  // where row i fell back, else 0.
  static void apply(Queue& queue, const Broyden& options, const KeptHistory& history, double fallback, Rows<const T> g,
                    Rows<T> w, std::int32_t* fell);
};

}  // namespace deqcore

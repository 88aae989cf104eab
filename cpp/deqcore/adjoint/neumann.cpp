// SPDX-License-Identifier: Apache-2.0
// Neumann series, cut and damped (Geng, Zhang, Bai, Wang and Lin 2021).
//
//     w_1 = tau g        w_(i+1) = w_i + tau (J^T w_i + g - w_i)        u = w_k = tau sum_{i < k} (tau J^T + (1 - tau)
//     I)^i g
#include "deqcore/kernels/neumann.hpp"
#include "deqcore/adjoint/neumann_sum.hpp"
#include "deqcore/base/shapes.hpp"
#include "deqcore/device/queues.hpp"

namespace deqcore {

template <class Queue, class T>
NeumannSum<Queue, T>::NeumannSum(Queue* queue, std::int64_t rows, std::int64_t width, const Neumann& options,
                                 const Stop& stop, Arena& scratch)
    : queue_(queue), options_(options), norm_(stop.norm) {
  require_batch(rows, width);
  require(options.k >= 1 && options.k <= 10000, "k: ", options.k, " given; expected 1 to 10000");
  require(options.tau > 0 && options.tau < 2, "tau: ", options.tau, " given; expected a number in (0, 2)");
  w_ = scratch.take_rows<T>(rows, width);
  ids_ = scratch.take<std::int32_t>(rows);
}

template <class Queue, class T>
Question<T> NeumannSum<Queue, T>::start(Rows<const T> g, Rows<T> result, const Report& report) {
  g_ = g;
  result_ = result;
  report_ = report;
  counts_ = {};
  progress_ = {.running = w_.rows};
  open_ = true;
  run(*queue_, BeginNeumann<T>{.norm = norm_, .tau = options_.tau, .g = g, .w = w_, .report = report, .ids = ids_});
  return next();
}

template <class Queue, class T>
Question<T> NeumannSum<Queue, T>::advance(Rows<const T> answer) {
  require(open_, "advance: called without an open question");
  require_shape<T>("answer", answer, w_.rows, w_.width);
  require(!overlap<T>(answer, w_), "answer: overlaps the question");
  run(*queue_, AddTerm<T>{.tau = options_.tau, .g = g_, .product = answer, .w = w_, .report = report_});
  return next();
}

template <class Queue, class T>
Question<T> NeumannSum<Queue, T>::next() {
  if (counts_.questions == options_.k - 1) {
    end(Status::approximate);
    return {};
  }
  counts_.questions += 1;
  counts_.rows_asked += w_.rows;
  return {.kind = Ask::product, .along = w_, .rows = ids_, .count = w_.rows};
}

template <class Queue, class T>
void NeumannSum<Queue, T>::cancel() {
  if (!open_) return;
  counts_.questions -= 1;
  counts_.rows_asked -= w_.rows;
  end(Status::cancelled);
}

template <class Queue, class T>
void NeumannSum<Queue, T>::end(Status status) {
  if (!open_) return;
  open_ = false;
  run(*queue_, EndNeumann<T>{.status = status, .w = w_, .result = result_, .report = report_});
  run(*queue_, CountFailed<T>{.rows = w_.rows, .report = report_, .progress = queue_->mailbox()});
  progress_ = queue_->read();  // the only wait
  counts_.looks += 1;
}

DEQCORE_INSTANTIATE(NeumannSum);

}  // namespace deqcore

// SPDX-License-Identifier: Apache-2.0
// The products of a solve by a fixed-point method, most of them taken in bfloat16.
//
//     W x  =  W r + B (x - r)          r  the row's reference vector, W r known in full;  B  W rounded to bfloat16
//
// x is the point z forward, d * u in a backward solve. The error, some 2^-8 |B (x - r)| where the products' terms do
// not cancel each other, shrinks with the steps: what is rounded is a correction. A row's reference moves to its x, at
// the price of a full product, when the residual has fallen to 2^-6 of the reference's, or grown, where that error may
// exceed a quarter of the residual, and where the residual comes near the row's threshold: so a residual that ends a
// row as converged is never rounded. Where terms cancel, or a method lives on exact products of a map with few
// different eigenvalues, rounding can cost any number of steps. Each row decides by its own residuals, and has the same
// bits whatever its neighbours.
#pragma once

#include <cstdint>

#include "deqcore/base/arena.hpp"
#include "deqcore/base/function_ref.hpp"
#include "deqcore/base/question.hpp"
#include "deqcore/base/report.hpp"
#include "deqcore/base/stop.hpp"
#include "deqcore/maps/packed.hpp"
#include "deqcore/maps/packed_bfloat16.hpp"

namespace deqcore {

class RefinedProducts {
 public:
  // Null matrices with a counting arena only measure.
  RefinedProducts(const PackedMatrix<float>* W, const PackedBfloat16* B, std::int64_t rows, std::int64_t width,
                  const Stop& stop, Arena& scratch);

  // Before a solve's first question. The report is the solve's.
  void start(const Report& report);

  // answer <- W x for the rows of the question, then finish(i), which makes row i of it what was asked for. The image
  // of `points`, whose residual is measured, is that, plus the row's own row of `plus` if there is one.
  struct Rule {
    Rows<const float> x, points;  // by position
    Rows<const float> plus;       // by row
    FunctionRef<void(std::int64_t)> finish;
  };
  void answer(const Question<float>& question, const Rule& rule, Rows<float> answer, int threads);

  // After the solve: the rows that did not converge, to be asked about once more. Their answer, by answer() again, is
  // in full, and report_residuals() puts their residuals into the report.
  Question<float> unconverged(Rows<const float> result, Rows<float> at);
  void report_residuals(const Question<float>& question);

 private:
  bool rounds(std::int64_t row) const;
  double threshold(std::int64_t row) const;
  void in_full(const Question<float>& question, const Rule& rule, Rows<float> answer, Positions which, int threads);
  void measure(const Question<float>& question, const Rule& rule, Rows<float> answer, std::int64_t i);

  const PackedMatrix<float>* W_;
  const PackedBfloat16* B_;
  std::int64_t rows_;
  Stop stop_;
  Limits limits_;
  Report report_;
  Rows<float> reference_, product_;  // by row: r and W r
  Rows<float> image_;                // one row
  double* reference_residual_;       // by row; 0: there is none yet
  double *g_norm_, *f_norm_;         // by row, of the last evaluation
  Status* running_;                  // by row: measuring passes over rows that have ended
  std::int8_t* frozen_;              // by row: written by measuring, and not used
  std::int32_t *full_, *rounded_;    // positions
  std::int32_t* ended_;              // rows
  std::uint16_t* corrections_;       // dense
};

}  // namespace deqcore

// SPDX-License-Identifier: Apache-2.0
#include "deqcore/maps/refined.hpp"

#include <algorithm>

#include "deqcore/device/cpu_queue.hpp"
#include "deqcore/kernels/row_math.hpp"
#include "deqcore/kernels/step.hpp"
#include "deqcore/kernels/vector.hpp"

namespace deqcore {
namespace {

constexpr double refined = 1.0 / 64;  // of the reference's residual: there the reference moves
constexpr double grown = 2;           // times the reference's residual: there it moves too
constexpr double near_the_end = 2;    // times the threshold: from there on every product is in full
constexpr double doubtful = 1.5;      // times the threshold: a rounded residual below is measured again in full
constexpr double rounding = 1.75 / 512, share = 0.25;  // of the correction; what it may be of the residual

}  // namespace

RefinedProducts::RefinedProducts(const PackedMatrix<float>* W, const PackedBfloat16* B, std::int64_t rows,
                                 std::int64_t width, const Stop& stop, Arena& scratch)
    : W_(W),
      B_(B),
      rows_(rows),
      stop_(stop),
      limits_(resolve<float>(stop)),
      reference_(scratch.take_rows<float>(rows, width)),
      product_(scratch.take_rows<float>(rows, width)),
      image_(scratch.take_rows<float>(1, width)),
      reference_residual_(scratch.take<double>(rows)),
      g_norm_(scratch.take<double>(rows)),
      f_norm_(scratch.take<double>(rows)),
      running_(scratch.take<Status>(rows)),
      frozen_(scratch.take<std::int8_t>(rows)),
      full_(scratch.take<std::int32_t>(rows)),
      rounded_(scratch.take<std::int32_t>(rows)),
      ended_(scratch.take<std::int32_t>(rows)),
      corrections_(scratch.take<std::uint16_t>(rows * ((width + 1) / 2 * 2))) {}

void RefinedProducts::start(const Report& report) {
  report_ = report;
  std::fill_n(reference_residual_, rows_, 0.0);
  std::fill_n(g_norm_, rows_, 0.0);
  std::fill_n(f_norm_, rows_, 0.0);
  std::fill_n(running_, rows_, Status::running);
  std::fill_n(frozen_, rows_, std::int8_t{0});
}

double RefinedProducts::threshold(std::int64_t row) const {
  return row_math::threshold(f_norm_[row], report_.scale[row], limits_);
}

bool RefinedProducts::rounds(std::int64_t row) const {
  const double reference = reference_residual_[row], last = g_norm_[row];
  return reference > 0 && last > refined * reference && last < grown * reference &&
         last > near_the_end * threshold(row);
}

void RefinedProducts::answer(const Question<float>& question, const Rule& rule, Rows<float> answer, int threads) {
  const std::int64_t width = answer.width;
  Positions full{full_, 0}, rounded{rounded_, 0};
  for (std::int64_t i = 0; i < question.count; ++i) {
    const std::int64_t row = question.rows[i];
    if (!rounds(row)) {
      full_[full.count++] = static_cast<std::int32_t>(i);
      continue;
    }
    B_->round_difference(rule.x[i], reference_[row], corrections_ + rounded.count * B_->pitch());
    rounded_[rounded.count++] = static_cast<std::int32_t>(i);
  }
  if (rounded.count > 0) B_->multiply(corrections_, answer, rounded, threads);
  for (std::int64_t at = 0; at < rounded.count; ++at) {
    const std::int64_t i = rounded[at];
    const std::int64_t row = question.rows[i];
    const float* product = product_[row];
    float* to = answer[i];
    double correction;
    CpuQueue queue;
    run(queue, MeasureRows<float>{.norm = stop_.norm, .x = answer.slice(i, 1), .norms = &correction});
    for (std::int64_t j = 0; j < width; ++j) to[j] += product[j];
    rule.finish(i);
    measure(question, rule, answer, i);
    const bool trusted = g_norm_[row] > doubtful * threshold(row) && rounding * correction < share * g_norm_[row] &&
                         row_math::finite(g_norm_[row]);
    if (!trusted) full_[full.count++] = static_cast<std::int32_t>(i);
  }
  if (full.count > 0) in_full(question, rule, answer, full, threads);
}

void RefinedProducts::in_full(const Question<float>& question, const Rule& rule, Rows<float> answer, Positions which,
                              int threads) {
  W_->multiply(rule.x, answer, which, threads);
  for (std::int64_t at = 0; at < which.count; ++at) {
    const std::int64_t i = which[at], row = question.rows[i];
    std::copy_n(rule.x[i], answer.width, reference_[row]);
    std::copy_n(answer[i], answer.width, product_[row]);
    rule.finish(i);
    measure(question, rule, answer, i);
    reference_residual_[row] = g_norm_[row];
  }
}

Question<float> RefinedProducts::unconverged(Rows<const float> result, Rows<float> at) {
  std::int64_t count = 0;
  for (std::int64_t row = 0; row < rows_; ++row) {
    reference_residual_[row] = 0;
    if (report_.status[row] == Status::converged) continue;
    std::copy_n(result[row], result.width, at[count]);
    ended_[count++] = static_cast<std::int32_t>(row);
  }
  const Rows<const float> points = at.slice(0, count);
  return {.kind = count > 0 ? Ask::value : Ask::done, .at = points, .along = points, .rows = ended_, .count = count};
}

void RefinedProducts::report_residuals(const Question<float>& question) {
  for (std::int64_t i = 0; i < question.count; ++i) report_.residual[ended_[i]] = g_norm_[ended_[i]];
}

void RefinedProducts::measure(const Question<float>& question, const Rule& rule, Rows<float> answer, std::int64_t i) {
  CpuQueue queue;
  const Rows<const float> z = rule.points.slice(i, 1);
  Rows<const float> image = answer.slice(i, 1);
  if (rule.plus.data) {
    const float *a = answer[i], *b = rule.plus[question.rows[i]];
    for (std::int64_t j = 0; j < answer.width; ++j) image_[0][j] = a[j] + b[j];
    image = image_;
  }
  RowStates states{.report = {.status = running_}, .g_norm = g_norm_, .f_norm = f_norm_, .frozen = frozen_};
  run(queue, MeasureResidual<float>{.rows = {.ids = question.rows + i, .count = 1},
                                    .norm = stop_.norm,
                                    .first = false,
                                    .z = z,
                                    .f = image,
                                    .z_before = z,
                                    .states = states});
}

}  // namespace deqcore

// SPDX-License-Identifier: Apache-2.0
// The catalogue of small maps. The rows of a map are independent: what row i gives depends on i and its point alone,
// in arithmetic of the element type and in one order.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "block.hpp"

namespace deqcore::test {

template <class T>
struct Problem {
  using Value = std::function<void(std::int64_t row, const T* z, T* f)>;
  using Product = std::function<void(std::int64_t row, const T* z, const T* u, T* product)>;  // J(z)^T u or J(z) u

  std::string name;
  std::int64_t rows = 0, width = 0;
  Value value;
  Product vjp, jvp;  // empty where they are not needed
  Block<T> z0{0, 0};
};

using Matrix = std::vector<double>;  // width x width, row by row

template <class T>
std::shared_ptr<const std::vector<T>> rounded(const Matrix& W) {
  return std::make_shared<const std::vector<T>>(W.begin(), W.end());
}

// y = W x, or W^T x
template <class T>
void multiply(const std::vector<T>& W, bool transposed, const T* x, T* y, std::int64_t n) {
  for (std::int64_t j = 0; j < n; ++j) {
    T sum = 0;
    for (std::int64_t k = 0; k < n; ++k) sum += W[transposed ? k * n + j : j * n + k] * x[k];
    y[j] = sum;
  }
}

// f = W z + b, one b per row.
template <class T>
Problem<T> affine(std::string name, std::int64_t rows, std::int64_t width, const Matrix& W, const Block<T>& b) {
  const auto A = rounded<T>(W);
  return {.name = std::move(name),
          .rows = rows,
          .width = width,
          .value =
              [A, b, width](std::int64_t row, const T* z, T* f) {
                multiply(*A, false, z, f, width);
                for (std::int64_t j = 0; j < width; ++j) f[j] += b(row, j);
              },
          .vjp = [A, width](std::int64_t, const T*, const T* u, T* product) { multiply(*A, true, u, product, width); },
          .z0 = Block<T>(rows, width)};
}

// Q diag(values) Q with the reflection Q = I - 2 v v^T
inline Matrix reflected(Random& random, const std::vector<double>& values) {
  const auto n = values.size();
  std::vector<double> v(n);
  for (double& entry : v) entry = random.normal();
  const double size = std::sqrt(std::inner_product(v.begin(), v.end(), v.begin(), 0.0));
  Matrix W(n * n, 0.0);
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t j = 0; j < n; ++j)
      for (std::size_t k = 0; k < n; ++k) {
        const auto q = [&](std::size_t a) { return (a == k ? 1.0 : 0.0) - 2 * v[a] * v[k] / (size * size); };
        W[i * n + j] += q(i) * values[k] * q(j);
      }
  return W;
}

// Symmetric, with eigenvalues spread over [-factor, factor] and `factor` among them.
template <class T>
Problem<T> linear_contraction(double factor, std::int64_t rows = 5, std::int64_t width = 8) {
  Random random(100);
  std::vector<double> values(width);
  for (std::int64_t k = 0; k < width; ++k)
    values[k] = width == 1 ? factor : factor * (1 - 2 * static_cast<double>(k) / static_cast<double>(width - 1));
  const Matrix W = reflected(random, values);
  return affine("linear contraction", rows, width, W, Block<T>::random(random, rows, width));
}

// One eigenvalue of J at 1 - distance.
template <class T>
Problem<T> nearly_singular(double distance, std::int64_t rows = 4, std::int64_t width = 8) {
  Random random(101);
  std::vector<double> values(width, 0.3);
  for (double& value : values) value = random.uniform(-0.5, 0.5);
  values[0] = 1 - distance;
  const Matrix W = reflected(random, values);
  return affine("nearly singular", rows, width, W, Block<T>::random(random, rows, width));
}

// Spectral radius 1/2, norm above 1: residuals grow before they fall.
template <class T>
Problem<T> non_normal(std::int64_t rows = 4, std::int64_t width = 8) {
  Random random(102);
  Matrix W(width * width, 0.0);
  for (std::int64_t j = 0; j < width; ++j) {
    W[j * width + j] = 0.5;
    if (j + 1 < width) W[j * width + j + 1] = 1.0;
  }
  return affine("non-normal", rows, width, W, Block<T>::random(random, rows, width));
}

// f = tanh(W z + x), |W| <= 0.9
template <class T>
Problem<T> tanh_network(std::int64_t rows = 6, std::int64_t width = 10) {
  Random random(103);
  Matrix W(width * width);
  for (double& w : W) w = random.normal();
  const double size = std::sqrt(std::inner_product(W.begin(), W.end(), W.begin(), 0.0));
  for (double& w : W) w *= 0.9 / size;
  Problem<T> problem = affine("tanh", rows, width, W, Block<T>::random(random, rows, width));
  problem.vjp = [A = rounded<T>(W), linear = problem.value, width](std::int64_t row, const T* z, const T* u,
                                                                   T* product) {
    std::vector<T> slope(width);
    linear(row, z, slope.data());
    for (std::int64_t j = 0; j < width; ++j) {
      const T t = std::tanh(slope[j]);
      slope[j] = (1 - t * t) * u[j];
    }
    multiply(*A, true, slope.data(), product, width);
  };
  problem.value = [linear = problem.value, width](std::int64_t row, const T* z, T* f) {
    linear(row, z, f);
    for (std::int64_t j = 0; j < width; ++j) f[j] = std::tanh(f[j]);
  };
  return problem;
}

// The forward-backward step of a monotone operator: f = relu((1 - alpha) z + alpha (W z + x)) with
// I - W = m I + A^T A + B - B^T, and alpha small enough for the step to be a contraction.
template <class T>
Problem<T> monotone(std::int64_t rows = 4, std::int64_t width = 6) {
  Random random(104);
  const std::int64_t n = width;
  const double m = 0.5;
  Matrix A(n * n), B(n * n), W(n * n);
  for (double& a : A) a = 0.2 * random.normal();
  for (double& b : B) b = 0.2 * random.normal();
  double size = 0;
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t j = 0; j < n; ++j) {
      double entry = (i == j ? m : 0.0) + B[i * n + j] - B[j * n + i];
      for (std::int64_t k = 0; k < n; ++k) entry += A[k * n + i] * A[k * n + j];
      W[i * n + j] = entry;
      size += entry * entry;
    }
  const double alpha = m / size;
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t j = 0; j < n; ++j) W[i * n + j] = (i == j ? 1.0 : 0.0) - alpha * W[i * n + j];
  Problem<T> problem = affine("monotone", rows, width, W, Block<T>::random(random, rows, width));
  problem.value = [linear = problem.value, width](std::int64_t row, const T* z, T* f) {
    linear(row, z, f);
    for (std::int64_t j = 0; j < width; ++j) f[j] = std::max(f[j], T(0));
  };
  problem.vjp = nullptr;
  return problem;
}

// f = s_row phi(Q z) + x with phi(y) = y / (1 + |y|), the reflection Q, and factors s_row from `slowest` down to 0.1:
// rows of very different speed, cheap at any width.
template <class T>
Problem<T> different_speeds(std::int64_t rows = 12, std::int64_t width = 17, double slowest = 0.8) {
  Random random(105);
  std::vector<double> v(width);
  for (double& entry : v) entry = random.normal();
  const double size = std::sqrt(std::inner_product(v.begin(), v.end(), v.begin(), 0.0));
  auto axis = std::make_shared<std::vector<T>>();
  for (const double entry : v) axis->push_back(static_cast<T>(entry / size));
  auto speed = std::make_shared<std::vector<T>>();
  for (std::int64_t row = 0; row < rows; ++row)  // neighbours differ: the fast rows are spread over the batch
    speed->push_back(
        static_cast<T>(0.1 + (slowest - 0.1) * static_cast<double>((row * 7 + 3) % rows) / static_cast<double>(rows)));
  Block<T> x(rows, width), z0(rows, width);
  for (std::int64_t row = 0; row < rows; ++row)
    for (std::int64_t j = 0; j < width; ++j) {
      x(row, j) = static_cast<T>(0.1 * random.normal());
      z0(row, j) = static_cast<T>(0.1 * random.normal());
    }
  const auto reflect = [axis, width](const T* from, T* to) {
    T along = 0;
    for (std::int64_t j = 0; j < width; ++j) along += (*axis)[j] * from[j];
    for (std::int64_t j = 0; j < width; ++j) to[j] = from[j] - 2 * along * (*axis)[j];
  };
  return {.name = "different speeds",
          .rows = rows,
          .width = width,
          .value =
              [=](std::int64_t row, const T* z, T* f) {
                reflect(z, f);
                const T s = (*speed)[row];
                for (std::int64_t j = 0; j < width; ++j) f[j] = s * f[j] / (1 + std::abs(f[j])) + x(row, j);
              },
          .vjp =
              [=](std::int64_t row, const T* z, const T* u, T* product) {
                reflect(z, product);
                const T s = (*speed)[row];
                for (std::int64_t j = 0; j < width; ++j) {
                  const T one = 1 + std::abs(product[j]);
                  product[j] = s * u[j] / (one * one);
                }
                reflect(product, product);
              },
          .jvp =
              [=](std::int64_t row, const T* z, const T* u, T* product) {
                reflect(u, product);
                T along = 0;
                for (std::int64_t j = 0; j < width; ++j) along += (*axis)[j] * z[j];
                const T s = (*speed)[row];
                for (std::int64_t j = 0; j < width; ++j) {
                  const T one = 1 + std::abs(z[j] - 2 * along * (*axis)[j]);
                  product[j] *= s / (one * one);
                }
              },
          .z0 = z0};
}

// f = z / 2, whose fixed point is zero.
template <class T>
Problem<T> halving(std::int64_t rows = 3, std::int64_t width = 5) {
  Problem<T> problem{.name = "halving", .rows = rows, .width = width, .z0 = Block<T>(rows, width)};
  problem.value = [width](std::int64_t, const T* z, T* f) {
    for (std::int64_t j = 0; j < width; ++j) f[j] = z[j] / 2;
  };
  return problem;
}

// Maps without a fixed point. Their relative residuals become small far out.
template <class T>
std::vector<Problem<T>> without_fixed_point() {
  Random random(106);
  const std::int64_t rows = 4, width = 6;
  const auto c = Block<T>::random(random, rows, width), z0 = Block<T>::random(random, rows, width);
  std::vector<Problem<T>> all;
  all.push_back({.name = "z + sign(c) (1 + 0.1 tanh z)", .rows = rows, .width = width, .z0 = z0});
  all.back().value = [=](std::int64_t row, const T* z, T* f) {
    for (std::int64_t j = 0; j < width; ++j)
      f[j] = z[j] + (c(row, j) < 0 ? T(-1) : T(1)) * (1 + T(0.1) * std::tanh(z[j]));
  };
  all.push_back({.name = "z + 1 + 0.1 sin z", .rows = rows, .width = width, .z0 = z0});
  all.back().value = [=](std::int64_t, const T* z, T* f) {
    for (std::int64_t j = 0; j < width; ++j) f[j] = z[j] + 1 + T(0.1) * std::sin(z[j]);
  };
  // Eigenvalue 1 along (1, 1), exactly; b has a part there.
  Matrix W(width * width, 0.0);
  for (std::int64_t j = 2; j < width; ++j) W[j * width + j] = 0.25;
  W[0] = W[1] = W[width] = W[width + 1] = 0.5;
  Block<T> b(rows, width, 0, T(1));
  for (std::int64_t row = 0; row < rows; ++row) b(row, 0) = static_cast<T>(row + 1);
  all.push_back(affine("an inconsistent linear map with eigenvalue 1", rows, width, W, b));
  all.back().z0 = z0;
  return all;
}

// The problem, with one element NaN in one row from that row's evaluation number `from` (1 is the first) on. Counts
// evaluations, so it serves one solve.
template <class T>
Problem<T> poisoned(Problem<T> problem, std::int64_t row, int from) {
  const auto spoil = [row, from, width = problem.width, count = std::make_shared<int>(0)](std::int64_t i, T* answer) {
    if (i == row && ++*count >= from) answer[width / 2] = std::numeric_limits<T>::quiet_NaN();
  };
  problem.name += ", NaN in one row";
  problem.value = [spoil, value = problem.value](std::int64_t i, const T* z, T* f) {
    value(i, z, f);
    spoil(i, f);
  };
  for (auto* product_of : {&problem.vjp, &problem.jvp})
    if (*product_of)
      *product_of = [spoil, healthy = *product_of](std::int64_t i, const T* z, const T* u, T* product) {
        healthy(i, z, u, product);
        spoil(i, product);
      };
  return problem;
}

}  // namespace deqcore::test

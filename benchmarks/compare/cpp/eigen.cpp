// SPDX-License-Identifier: Apache-2.0
// Eigen's product on maps of the arrays.
#include <omp.h>

#include <Eigen/Core>

#include "compare/cpp/product.hpp"

namespace compare {
namespace {

class ByEigen : public Product {
 public:
  ByEigen(const Shape& shape, const float* W) : shape_(shape), W_(W) {}

  void run(const float* x, float* y) override {
    using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    Eigen::setNbThreads(shape_.threads);
    const Eigen::Map<const Matrix> X(x, shape_.rows, shape_.inputs), W(W_, shape_.outputs, shape_.inputs);
    Eigen::Map<Matrix> Y(y, shape_.rows, shape_.outputs);
    Y.noalias() = X * W.transpose();
  }

 private:
  Shape shape_;
  const float* W_;
};

const Add<ByEigen> add("Eigen");

}  // namespace
}  // namespace compare

// SPDX-License-Identifier: Apache-2.0
// deqcore's packed product, rows dealt to threads as a solve's tiles are; and the interface that Python calls.
#include <algorithm>

#include "compare/cpp/product.hpp"
#include "deqcore/deqcore.hpp"
#include "deqcore/maps/packed.hpp"

namespace compare {
namespace {

class Packed : public Product {
 public:
  Packed(const Shape& shape, const float* W)
      : shape_(shape), packed_(shape.outputs, shape.inputs, W, shape.inputs, 1) {}

  void run(const float* x, float* y) override {
    const auto [rows, outputs, inputs, threads] = shape_;
    const std::int64_t shares = std::min<std::int64_t>(threads, rows);
    const auto in = deqcore::dense_rows(x, rows, inputs);
    const auto out = deqcore::dense_rows(y, rows, outputs);
    if (shares == 1) return packed_.multiply(in, out);
    deqcore::parallel_for(threads, shares, [&](std::int64_t share) {
      const std::int64_t first = rows * share / shares, count = rows * (share + 1) / shares - first;
      packed_.multiply(in.slice(first, count), out.slice(first, count));
    });
  }

 private:
  Shape shape_;
  deqcore::PackedMatrix<float> packed_;
};

const Add<Packed> add("deqcore packed");

// cblas_sgemm of a library that Python has loaded, called without Python; with 32-bit or 64-bit integers.
template <class Int>
class Blas : public Product {
 public:
  static inline void* function = nullptr;  // that the next ones call

  Blas(const Shape& shape, const float* W) : shape_(shape), W_(W), sgemm_(reinterpret_cast<Sgemm>(function)) {}

  void run(const float* x, float* y) override {
    const auto m = static_cast<Int>(shape_.rows), n = static_cast<Int>(shape_.outputs),
               k = static_cast<Int>(shape_.inputs);
    constexpr int row_major = 101, plain = 111, transposed = 112;
    sgemm_(row_major, plain, transposed, m, n, k, 1.0f, x, k, W_, k, 0.0f, y, n);
  }

 private:
  using Sgemm = void (*)(int, int, int, Int, Int, Int, float, const float*, Int, const float*, Int, float, float*, Int);

  Shape shape_;
  const float* W_;
  Sgemm sgemm_;
};

const Add<Blas<std::int32_t>> add_blas("cblas_sgemm");
const Add<Blas<std::int64_t>> add_blas64("cblas_sgemm, 64-bit");

}  // namespace
}  // namespace compare

extern "C" {

[[gnu::visibility("default")]] void compare_use_blas(void* sgemm) {
  compare::Blas<std::int32_t>::function = compare::Blas<std::int64_t>::function = sgemm;
}

// nullptr: no such product was built in. W stays the caller's and must outlive it.
[[gnu::visibility("default")]] void* compare_new(const char* name, std::int64_t rows, std::int64_t outputs,
                                                 std::int64_t inputs, int threads, const float* W) {
  const auto found = compare::makers().find(name);
  if (found == compare::makers().end()) return nullptr;
  return found->second({rows, outputs, inputs, threads}, W).release();
}

[[gnu::visibility("default")]] void compare_run(void* product, const float* x, float* y, std::int64_t times) {
  for (std::int64_t i = 0; i < times; ++i) static_cast<compare::Product*>(product)->run(x, y);
}

[[gnu::visibility("default")]] void compare_delete(void* product) {
  delete static_cast<compare::Product*>(product);
}
}

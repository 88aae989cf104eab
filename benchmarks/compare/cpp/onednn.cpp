// SPDX-License-Identifier: Apache-2.0
// oneDNN's matmul, with W as it lies and with W reordered beforehand to what oneDNN likes best.
#include <omp.h>

#include <oneapi/dnnl/dnnl.hpp>

#include "compare/cpp/product.hpp"

namespace compare {
namespace {

template <bool Packed>
class ByOneDnn : public Product {
 public:
  ByOneDnn(const Shape& shape, const float* W) : threads_(shape.threads), engine_(dnnl::engine::kind::cpu, 0) {
    using Md = dnnl::memory::desc;
    using Tag = dnnl::memory::format_tag;
    constexpr auto f32 = dnnl::memory::data_type::f32;
    omp_set_num_threads(threads_);  // it chooses its blocks by the number of threads
    const Md x({shape.rows, shape.inputs}, f32, Tag::ab), y({shape.rows, shape.outputs}, f32, Tag::ab);
    const Md plain({shape.inputs, shape.outputs}, f32, Tag::ba), any({shape.inputs, shape.outputs}, f32, Tag::any);
    const Md& w = Packed ? any : plain;
#if DNNL_VERSION_MAJOR >= 3
    const dnnl::matmul::primitive_desc chosen(engine_, x, w, y);
#else
    const dnnl::matmul::primitive_desc chosen(dnnl::matmul::desc(x, w, y), engine_);
#endif
    stream_ = dnnl::stream(engine_);
    matmul_ = dnnl::matmul(chosen);
    dnnl::memory given(plain, engine_, const_cast<float*>(W));
    weights_ = dnnl::memory(chosen.weights_desc(), engine_);
    dnnl::reorder(given, weights_).execute(stream_, given, weights_);
    stream_.wait();
    x_ = dnnl::memory(x, engine_, nullptr);
    y_ = dnnl::memory(y, engine_, nullptr);
  }

  void run(const float* x, float* y) override {
    omp_set_num_threads(threads_);
    x_.set_data_handle(const_cast<float*>(x));
    y_.set_data_handle(y);
    matmul_.execute(stream_, {{DNNL_ARG_SRC, x_}, {DNNL_ARG_WEIGHTS, weights_}, {DNNL_ARG_DST, y_}});
    stream_.wait();
  }

 private:
  int threads_;
  dnnl::engine engine_;
  dnnl::stream stream_;
  dnnl::matmul matmul_;
  dnnl::memory weights_, x_, y_;
};

const Add<ByOneDnn<false>> add("oneDNN");
const Add<ByOneDnn<true>> add_packed("oneDNN packed");

}  // namespace
}  // namespace compare

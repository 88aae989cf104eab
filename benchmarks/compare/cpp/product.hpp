// SPDX-License-Identifier: Apache-2.0
// One library's product y = x W', ready to be repeated: x is rows x inputs, W outputs x inputs, y rows x outputs, all
// float, rows contiguous.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>

namespace compare {

struct Shape {
  std::int64_t rows, outputs, inputs;
  int threads;
};

class Product {
 public:
  virtual ~Product() = default;
  virtual void run(const float* x, float* y) = 0;
};

using Maker = std::unique_ptr<Product> (*)(const Shape&, const float* W);

// By name; each source adds its own before main().
inline std::map<std::string, Maker>& makers() {
  static std::map<std::string, Maker> all;
  return all;
}

template <class P>
struct Add {
  explicit Add(const char* name) {
    makers()[name] = [](const Shape& shape, const float* W) -> std::unique_ptr<Product> {
      return std::make_unique<P>(shape, W);
    };
  }
};

}  // namespace compare

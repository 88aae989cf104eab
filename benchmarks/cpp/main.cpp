// SPDX-License-Identifier: Apache-2.0
// deqcore_benchmarks [--quick] [kernels] [dialogue] [dense]: one JSON line per case on standard output; all groups if
// none is named.
#include <cstdio>
#include <exception>
#include <string_view>

#include "cpp/cases.hpp"

int main(int count, char** arguments) {
  bench::Plan plan;
  bool named = false, kernels = false, dialogue = false, dense = false;
  for (int i = 1; i < count; ++i) {
    const std::string_view word = arguments[i];
    if (word == "--quick") {
      plan.quick = true;
      continue;
    }
    named = true;
    kernels |= word == "kernels";
    dialogue |= word == "dialogue";
    dense |= word == "dense";
    if (word != "kernels" && word != "dialogue" && word != "dense") {
      std::fprintf(stderr, "%s given; expected --quick, kernels, dialogue or dense\n", arguments[i]);
      return 2;
    }
  }
  try {
    if (!named || kernels) bench::kernels(plan);
    if (!named || dialogue) bench::dialogue(plan);
    if (!named || dense) bench::dense(plan);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}

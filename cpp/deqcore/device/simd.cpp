// SPDX-License-Identifier: Apache-2.0
#include "deqcore/device/simd.hpp"

#include <algorithm>
#include <cstdlib>
#include <string_view>

namespace deqcore {
namespace {

SimdLevel detect() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("x86-64-v4")) return SimdLevel::v4;
  if (__builtin_cpu_supports("x86-64-v3")) return SimdLevel::v3;
#endif
  return SimdLevel::base;
}

SimdLevel lowered(SimdLevel best) {
  const char* wanted = std::getenv("DEQCORE_SIMD");
  if (!wanted) return best;
  for (SimdLevel level : {SimdLevel::base, SimdLevel::v3, SimdLevel::v4})
    if (std::string_view(wanted) == name(level)) return std::min(level, best);
  return best;
}

}  // namespace

SimdLevel simd_level() {
  static const SimdLevel level = lowered(detect());
  return level;
}

const char* name(SimdLevel level) {
  switch (level) {
    case SimdLevel::v4: return "v4";
    case SimdLevel::v3: return "v3";
    case SimdLevel::base: break;
  }
  return "base";
}

}  // namespace deqcore

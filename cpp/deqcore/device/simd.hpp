// SPDX-License-Identifier: Apache-2.0
// Vector code written once and compiled for several instruction-set levels; the level is chosen at run time.
//
//     at_simd_level([&](auto simd) __attribute__((always_inline)) {
//       using V = simd::Vector<float, simd.bytes / sizeof(float)>;  ...
//     });
//
// Everything the body calls must be always_inline, or it is compiled for the baseline.
#pragma once

#include <cstring>

namespace deqcore {

enum class SimdLevel : int {
  base = 16,
  v3 = 32,
  v4 = 64
};  // x86-64, x86-64-v3 (AVX2), x86-64-v4 (AVX-512): vector bytes

// The best level of this CPU, or a lower one named by DEQCORE_SIMD (base, v3, v4) when the process starts.
SimdLevel simd_level();

const char* name(SimdLevel level);

namespace simd {

template <class T, int Lanes>
struct VectorOf {
  using type [[gnu::vector_size(Lanes * sizeof(T))]] = T;
};
template <class T, int Lanes>
using Vector = typename VectorOf<T, Lanes>::type;

template <class V, class T>
[[gnu::always_inline]] inline V load(const T* from) {
  V v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

template <class V, class T>
[[gnu::always_inline]] inline void store(T* to, const V& v) {
  std::memcpy(to, &v, sizeof v);
}

template <int Bytes>
struct Width {
  static constexpr int bytes = Bytes;
};

#if defined(__x86_64__)
template <class Body>
[[gnu::target("arch=x86-64-v3"), gnu::flatten]] void run_v3(Body& body) {
  body(Width<32>{});
}
template <class Body>
[[gnu::target("arch=x86-64-v4"), gnu::flatten]] void run_v4(Body& body) {
  body(Width<64>{});
}
#endif

}  // namespace simd

template <class Body>
void at_simd_level(Body&& body) {
#if defined(__x86_64__)
  switch (simd_level()) {
    case SimdLevel::v4: return simd::run_v4(body);
    case SimdLevel::v3: return simd::run_v3(body);
    case SimdLevel::base: break;
  }
#endif
  body(simd::Width<16>{});
}

}  // namespace deqcore

// SPDX-License-Identifier: Apache-2.0
// The AVX-512 operations that a limit program uses, each as two of AVX2, so that it runs on machines without AVX-512.
//
//     {lo, hi}     the lower and the upper eight floats
#pragma once

#include <immintrin.h>

typedef struct {
  __m256 lo, hi;
} Halves;

#define BOTH static inline __attribute__((always_inline))
#define EACH(operation) ((Halves){operation(a.lo, b.lo), operation(a.hi, b.hi)})

BOTH __m256i lanes_of(unsigned bits) {
  const __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  return _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32((int)bits), bit), bit);
}

BOTH Halves halves_set1(float x) {
  return (Halves){_mm256_set1_ps(x), _mm256_set1_ps(x)};
}
BOTH Halves halves_setzero(void) {
  return halves_set1(0);
}
BOTH Halves halves_load(const float* p) {
  return (Halves){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}
BOTH Halves halves_add(Halves a, Halves b) {
  return EACH(_mm256_add_ps);
}
BOTH Halves halves_sub(Halves a, Halves b) {
  return EACH(_mm256_sub_ps);
}
BOTH Halves halves_mul(Halves a, Halves b) {
  return EACH(_mm256_mul_ps);
}
BOTH Halves halves_div(Halves a, Halves b) {
  return EACH(_mm256_div_ps);
}
BOTH Halves halves_min(Halves a, Halves b) {
  return EACH(_mm256_min_ps);
}
BOTH Halves halves_max(Halves a, Halves b) {
  return EACH(_mm256_max_ps);
}
BOTH Halves halves_fmadd(Halves a, Halves b, Halves c) {
  return (Halves){_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}

// Masked: lanes outside read nothing and are 0, or are not written. A full mask is the common case.
BOTH Halves masked_load(unsigned m, const float* p) {
  if (m == 0xffff) return halves_load(p);
  return (Halves){_mm256_maskload_ps(p, lanes_of(m)), _mm256_maskload_ps(p + 8, lanes_of(m >> 8))};
}
BOTH void masked_store(float* p, unsigned m, Halves a) {
  if (m == 0xffff) {
    _mm256_storeu_ps(p, a.lo);
    _mm256_storeu_ps(p + 8, a.hi);
    return;
  }
  _mm256_maskstore_ps(p, lanes_of(m), a.lo);
  _mm256_maskstore_ps(p + 8, lanes_of(m >> 8), a.hi);
}
BOTH Halves masked(unsigned m, Halves a) {
  if (m == 0xffff) return a;
  return (Halves){_mm256_and_ps(a.lo, _mm256_castsi256_ps(lanes_of(m))),
                  _mm256_and_ps(a.hi, _mm256_castsi256_ps(lanes_of(m >> 8)))};
}
BOTH float halves_sum(Halves a) {
  const __m256 x = _mm256_add_ps(a.lo, a.hi);
  __m128 y = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  y = _mm_add_ps(y, _mm_movehl_ps(y, y));
  return _mm_cvtss_f32(_mm_add_ss(y, _mm_movehdup_ps(y)));
}

#define __m512 Halves
#define _mm512_set1_ps halves_set1
#define _mm512_setzero_ps halves_setzero
#define _mm512_loadu_ps halves_load
#define _mm512_add_ps halves_add
#define _mm512_sub_ps halves_sub
#define _mm512_mul_ps halves_mul
#define _mm512_div_ps halves_div
#define _mm512_min_ps halves_min
#define _mm512_max_ps halves_max
#define _mm512_fmadd_ps halves_fmadd
#define _mm512_maskz_loadu_ps masked_load
#define _mm512_mask_storeu_ps masked_store
#define _mm512_maskz_mov_ps masked
#define _mm512_maskz_mul_ps(m, a, b) masked(m, halves_mul(a, b))
#define _mm512_maskz_sub_ps(m, a, b) masked(m, halves_sub(a, b))
#define _mm512_reduce_add_ps halves_sum

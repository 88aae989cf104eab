// SPDX-License-Identifier: Apache-2.0
// Elementwise activations a(x) and their derivatives a'(x), over a run of elements. Each element's result depends on
// that element alone, whatever its place in the run.
//
// Relative error at most 4 eps, with these exceptions: gelu and its slope 4 (1 + x^2) eps; the slopes of gelu and silu,
// which change sign, against the larger of their two terms; and where exp leaves the range of normal numbers, results
// that would be smaller end at a tiny number instead. NaN stays NaN.
#pragma once

#include <cstdint>
#include <string_view>

namespace deqcore {

enum class Activation : std::int8_t { identity, relu, tanh, sigmoid, softplus, gelu, silu, sin };

inline constexpr Activation activations[] = {Activation::identity, Activation::relu,     Activation::tanh,
                                             Activation::sigmoid,  Activation::softplus, Activation::gelu,
                                             Activation::silu,     Activation::sin};

std::string_view name(Activation activation);

// Throws bad_argument for a name that is none.
Activation activation_named(std::string_view wanted);

// x[i] <- a(x[i] + c[i])
template <class T>
void activate(Activation activation, std::int64_t n, const T* c, T* x);

// x[i] <- a'(x[i] + c[i]). At the kink of relu: 0.
template <class T>
void differentiate(Activation activation, std::int64_t n, const T* c, T* x);

}  // namespace deqcore

// SPDX-License-Identifier: Apache-2.0
// The methods, as options. Defaults live here and nowhere else.
#pragma once

#include <cstdint>
#include <variant>

namespace deqcore {

// What the columns of a history are kept in.
enum class Storage : std::int8_t {
  full,      // the state's own type
  bfloat16,  // 16 bits: the range of float with 8 significant bits, rounded to the nearest
};

// z <- z + beta (f(z) - z)
struct Picard {
  double beta = 1.0;  // weight of the new value, in (0, 2); 1 is undamped
};

// Anderson acceleration, type II: the residuals of the last steps are combined to the smallest one.
struct Anderson {
  std::int64_t history = 6;  // columns of differences, 1 to 32
  double beta = 1.0;         // weight of the new value, in (0, 2); 1 is undamped
  double ridge = 1e-12;      // regularisation, relative to each diagonal entry of the Gram matrix, >= 0
  double growth = 10.0;      // a residual above this times the row's best clears its window, > 1; infinity: never
  Storage storage = Storage::full;  // of the columns; in 16 bits the ridge is 2^-19 at least
};

// Anderson acceleration, type I, safeguarded: the last steps determine an approximate inverse Jacobian.
struct AndersonTypeI {
  std::int64_t history = 10;   // steps remembered, 1 to 32
  double beta = 0.1;           // weight of the new value in an averaged step, in (0, 1]; 1 is plain
  double powell = 0.01;        // least |gamma| of an update, below which it is mixed with what is known, in (0, 1)
  double independence = 1e-3;  // a step of which less than this share is new makes its row begin anew, in (0, 1)
  double safeguard = 1e6;      // a residual above safeguard |r_0| / (accelerated steps + 1)^(1 + decay) is followed
  double decay = 1e-6;         // by an averaged step; both > 0, safeguard infinity: never
};

// Broyden's good method with limited memory: a secant approximation of the inverse Jacobian, one per row.
struct Broyden {
  enum class Full : std::int8_t {
    restart,   // begin anew
    compress,  // drop the two smallest singular values of the sum of pairs
  };
  std::int64_t history = 10;  // pairs, 1 to 500; 3 to 32 to compress
  Full full = Full::restart;  // what happens when the memory is full
  double growth = 1000.0;     // a residual above this times the row's best makes it forget, > 1; infinity: never
};

// dz/dt = f(z) - z in pseudo-time, by an explicit pair, up to where it rests.
struct SteadyState {
  enum class Pair : std::int8_t { bogacki_shampine, dormand_prince };
  Pair pair = Pair::bogacki_shampine;
  double accuracy = 0.1;    // largest error of a step, as a share of h (f(z) - z), in (0, 0.2]
  double first_step = 1.0;  // > 0; by Euler's method 1 would be a step of Picard's iteration
};

using Method = std::variant<Picard, Anderson, AndersonTypeI, Broyden, SteadyState>;

}  // namespace deqcore

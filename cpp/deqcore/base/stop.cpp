// SPDX-License-Identifier: Apache-2.0
#include "deqcore/base/stop.hpp"

#include <cmath>
#include <type_traits>

#include "deqcore/base/error.hpp"

namespace deqcore {

template <class T>
Limits resolve(const Stop& stop) {
  constexpr double eps = std::numeric_limits<T>::epsilon();
  const double rtol = stop.rtol.value_or(std::sqrt(eps));
  require(std::isfinite(rtol) && rtol >= 4 * eps, "rtol: ", rtol, " given; expected a finite number of at least ",
          4 * eps, " (4 eps of the dtype)");
  require(std::isfinite(stop.atol) && stop.atol >= 0, "atol: ", stop.atol, " given; expected a finite number >= 0");
  require(stop.max_steps >= 1, "max_steps: ", stop.max_steps, " given; expected at least 1");
  require(stop.max_steps <= std::numeric_limits<std::int32_t>::max(), "max_steps: ", stop.max_steps,
          " given; expected at most ", std::numeric_limits<std::int32_t>::max());
  require(stop.look_every >= 1, "look_every: ", stop.look_every, " given; expected at least 1");
  return {.rtol = rtol,
          .atol = stop.atol,
          .floor = 4 * eps,
          .overflow = std::is_same_v<T, float> ? 1e4 : 1e8,
          .noise = 100 * eps,
          .relative = stop.relative};
}

template Limits resolve<float>(const Stop&);
template Limits resolve<double>(const Stop&);

}  // namespace deqcore

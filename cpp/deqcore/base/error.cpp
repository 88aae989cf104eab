// SPDX-License-Identifier: Apache-2.0
#include "deqcore/base/error.hpp"

namespace deqcore {

Error::Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}

void fail(ErrorCode code, const std::string& message) {
  throw Error(code, message);
}

}  // namespace deqcore

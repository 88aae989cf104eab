// SPDX-License-Identifier: Apache-2.0
// Misuse and device faults throw; that a row did not converge is a status in the report (report.hpp).
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace deqcore {

enum class ErrorCode { bad_argument, unsupported, out_of_memory, device, internal };

class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message);

  ErrorCode code() const { return code_; }

 private:
  ErrorCode code_;
};

// Throws. Out of line, so that a check costs its caller one branch.
[[noreturn]] void fail(ErrorCode code, const std::string& message);

// Throws bad_argument unless the condition holds. The parts, joined, name the argument, what came and what was
// expected.
template <class... Parts>
void require(bool condition, const Parts&... parts) {
  if (condition) [[likely]]
    return;
  std::ostringstream message;
  (message << ... << parts);
  fail(ErrorCode::bad_argument, message.str());
}

}  // namespace deqcore

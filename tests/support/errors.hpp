// SPDX-License-Identifier: Apache-2.0
// Misuse throws an error that names the argument.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "deqcore/base/error.hpp"

namespace deqcore::test {

// Whether the call throws bad_argument with a message that begins with "<argument>:".
template <class Call>
::testing::AssertionResult refuses(const std::string& argument, const Call& call) {
  try {
    call();
  } catch (const Error& error) {
    if (error.code() != ErrorCode::bad_argument) return ::testing::AssertionFailure() << "code: " << error.what();
    if (std::string(error.what()).rfind(argument + ":", 0) == 0) return ::testing::AssertionSuccess();
    return ::testing::AssertionFailure() << "expected an error about '" << argument << "', got '" << error.what()
                                         << "'";
  }
  return ::testing::AssertionFailure() << "no error; expected one about '" << argument << "'";
}

}  // namespace deqcore::test

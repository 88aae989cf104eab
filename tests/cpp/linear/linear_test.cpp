// SPDX-License-Identifier: Apache-2.0
#include "deqcore/linear/linear_solve.hpp"

#include <gtest/gtest.h>

#include "dialogue_checks.hpp"

namespace deqcore::test {
namespace {

const bool registered = register_dialogues<Linear>(static_cast<Queues*>(nullptr));

}  // namespace
}  // namespace deqcore::test

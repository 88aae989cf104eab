// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <limits>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "deqcore/base/arena.hpp"
#include "deqcore/base/error.hpp"
#include "deqcore/base/function_ref.hpp"
#include "deqcore/base/interrupt.hpp"
#include "deqcore/base/question.hpp"
#include "deqcore/base/report.hpp"
#include "deqcore/base/rows.hpp"
#include "deqcore/base/stop.hpp"
#include "deqcore/base/version.hpp"
#include "deqcore/device/buffer.hpp"
#include "errors.hpp"
#include "queues.hpp"

namespace deqcore::test {
namespace {

TEST(Rows, SlicesAndIndicesFollowThePitch) {
  std::vector<int> memory(30);
  const Rows<int> rows{memory.data(), 4, 5, 7};
  EXPECT_EQ(rows[2], memory.data() + 14);
  const Rows<int> slice = rows.slice(1, 2);
  EXPECT_EQ(slice.data, memory.data() + 7);
  EXPECT_EQ(slice.rows, 2);
  EXPECT_EQ(slice.width, 5);
  EXPECT_EQ(slice.pitch, 7);
  const Rows<const int> read_only = rows;
  EXPECT_EQ(read_only[3], rows[3]);
}

TEST(Rows, OverlapCountsFromTheFirstToTheLastElement) {
  std::vector<int> memory(100);
  const auto at = [&](std::int64_t offset, std::int64_t rows, std::int64_t width, std::int64_t pitch) {
    return Rows<const int>{memory.data() + offset, rows, width, pitch};
  };
  const auto a = at(20, 3, 5, 6);  // 20 .. 36
  EXPECT_TRUE(overlap(a, a));
  EXPECT_TRUE(overlap(a, at(36, 1, 1, 1)));
  EXPECT_FALSE(overlap(a, at(37, 1, 1, 1)));
  EXPECT_TRUE(overlap(a, at(16, 1, 5, 5)));
  EXPECT_FALSE(overlap(a, at(15, 1, 5, 5)));
  EXPECT_TRUE(overlap(at(0, 1, 90, 90), a));
  EXPECT_TRUE(overlap(a, at(22, 1, 1, 0)));
  EXPECT_FALSE(overlap(a, at(22, 0, 5, 5))) << "no rows";
  EXPECT_TRUE(overlap(a, at(20, 9, 5, 0))) << "a pitch of zero is one row";
}

TEST(ActiveRows, SaysWhereARowStood) {
  const std::int32_t ids[] = {2, 5}, source[] = {1, 3};
  EXPECT_EQ((ActiveRows{.ids = ids, .count = 2}.from(1)), 1);
  EXPECT_EQ((ActiveRows{.ids = ids, .count = 2, .source = source}.from(1)), 3);
}

TEST(Arena, HandsOutAlignedMemoryInOrder) {
  HostBuffer memory(1024);
  Arena arena = memory.arena();
  EXPECT_FALSE(arena.counting());
  auto* const first = arena.take<char>(1);
  auto* const second = arena.take<double>(9);
  auto* const third = arena.take<float>(16);
  EXPECT_EQ(reinterpret_cast<std::byte*>(first), static_cast<std::byte*>(memory.data()));
  EXPECT_EQ(reinterpret_cast<std::byte*>(second) - reinterpret_cast<std::byte*>(first), 64);
  EXPECT_EQ(reinterpret_cast<std::byte*>(third) - reinterpret_cast<std::byte*>(second), 128);
  EXPECT_EQ(arena.used(), 64u + 128u + 64u);
}

TEST(Arena, WithoutMemoryCountsTheSame) {
  Arena counting;
  EXPECT_TRUE(counting.counting());
  EXPECT_EQ(counting.take<char>(1), nullptr);
  const Rows<double> rows = counting.take_rows<double>(3, 5);
  EXPECT_EQ(rows.data, nullptr);
  EXPECT_EQ(rows.rows, 3);
  EXPECT_EQ(rows.width, 5);
  EXPECT_EQ(counting.used(), 64u + 128u);
}

TEST(Arena, RefusesToHandOutMoreThanItHas) {
  HostBuffer memory(128);
  Arena arena = memory.arena();
  arena.take<char>(128);
  EXPECT_TRUE(refuses("memory", [&] { arena.take<char>(1); }));
}

TEST(Arena, RefusesMemoryThatIsNullOrMisaligned) {
  HostBuffer memory(128);
  EXPECT_TRUE(refuses("memory", [] { Arena(nullptr, 10); }));
  EXPECT_TRUE(refuses("memory", [&] { Arena(static_cast<std::byte*>(memory.data()) + 8, 64); }));
}

TEST(HostBuffer, MovesAndHandsOver) {
  HostBuffer one(100);
  void* const data = one.data();
  HostBuffer two(std::move(one));
  EXPECT_EQ(two.data(), data);
  EXPECT_EQ(two.bytes(), 100u);
  HostBuffer three(0);
  EXPECT_EQ(three.data(), nullptr);
  three = std::move(two);
  EXPECT_EQ(three.data(), data);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(data) % Arena::alignment, 0u);
}

TEST(Error, CarriesItsCodeAndJoinsItsMessage) {
  EXPECT_NO_THROW(require(true, "never built"));
  try {
    require(false, "rows: ", 3, " x ", 4.5, " given");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::bad_argument);
    EXPECT_STREQ(error.what(), "rows: 3 x 4.5 given");
  }
  try {
    fail(ErrorCode::unsupported, "no");
  } catch (const std::runtime_error& error) {
    EXPECT_STREQ(error.what(), "no");
  }
}

TEST(FunctionRef, CallsWhatItRefersTo) {
  int sum = 0;
  const auto add = [&sum](int x) { return sum += x; };
  const FunctionRef<int(int)> ref(add);
  EXPECT_EQ(ref(3), 3);
  const FunctionRef<int(int)> copy = ref;
  EXPECT_EQ(copy(4), 7);
  EXPECT_EQ(sum, 7);
  EXPECT_EQ(sizeof ref, 2 * sizeof(void*));
}

TEST(FunctionRef, SeesTheStateOfAMutableCallable) {
  struct Counter {
    int count = 0;
    void operator()() { ++count; }
  } counter;
  const FunctionRef<void()> ref(counter);
  ref();
  ref();
  EXPECT_EQ(counter.count, 2);
}

TEST(Interrupt, AsksItsOwnerAtMostEveryInterval) {
  int asked = 0;
  bool answer = false;
  const auto check = [&] {
    ++asked;
    return answer;
  };
  Interrupt interrupt(check);
  interrupt.poll();
  EXPECT_EQ(asked, 0) << "too early";
  std::this_thread::sleep_for(Interrupt::interval + std::chrono::milliseconds(10));
  std::thread([&] { interrupt.poll(); }).join();
  EXPECT_EQ(asked, 0) << "on another thread polling does nothing";
  interrupt.poll();
  interrupt.poll();
  EXPECT_EQ(asked, 1);
  EXPECT_FALSE(interrupt.requested());
  answer = true;
  std::this_thread::sleep_for(Interrupt::interval + std::chrono::milliseconds(10));
  interrupt.poll();
  EXPECT_TRUE(interrupt.requested());
  answer = false;
  std::this_thread::sleep_for(Interrupt::interval + std::chrono::milliseconds(10));
  interrupt.poll();
  EXPECT_TRUE(interrupt.requested()) << "what was heard once stands";
  EXPECT_EQ(asked, 2) << "and is not asked for again";
}

TEST(Interrupt, CanBeRequestedFromAnyThread) {
  const auto never = [] { return false; };
  Interrupt interrupt(never);
  std::thread([&] { interrupt.request(); }).join();
  EXPECT_TRUE(interrupt.requested());
}

TEST(Question, IsFalseOnceDone) {
  EXPECT_FALSE(Question<float>{});
  EXPECT_TRUE((Question<float>{.kind = Ask::value}));
}

TEST(Status, HasANameOfItsOwnForEveryCode) {
  std::set<std::string_view> names;
  for (const Status status : {Status::converged, Status::approximate, Status::out_of_steps, Status::stalled,
                              Status::diverged, Status::not_finite, Status::breakdown, Status::map_failed,
                              Status::cancelled, Status::ill_conditioned, Status::running})
    EXPECT_TRUE(name(status) != "unknown" && names.insert(name(status)).second) << name(status);
  EXPECT_EQ(name(Status::out_of_steps), "out_of_steps");
  EXPECT_EQ(name(static_cast<Status>(55)), "unknown");
}

TEST(Report, SlicesEveryArray) {
  ReportBuffer buffer(6, 3);
  const Report whole = buffer.view(), part = whole.slice(4);
  EXPECT_EQ(part.status, whole.status + 4);
  EXPECT_EQ(part.steps, whole.steps + 4);
  EXPECT_EQ(part.residual, whole.residual + 4);
  EXPECT_EQ(part.scale, whole.scale + 4);
  EXPECT_EQ(part.rejected, whole.rejected + 4);
  EXPECT_EQ(part.singular, whole.singular + 4);
  EXPECT_EQ(part.trace, whole.trace + 4);
  EXPECT_EQ(part.trace_pitch, 6);
  ReportBuffer plain(6);
  EXPECT_EQ(plain.view().trace, nullptr);
  EXPECT_EQ(plain.view().slice(2).trace, nullptr);
  EXPECT_EQ(plain.status[5], Status::running);
}

template <class T>
class StopRule : public ::testing::Test {};
TYPED_TEST_SUITE(StopRule, FloatAndDouble, TypeNames);

TYPED_TEST(StopRule, ResolvesTheDefaultsOfTheType) {
  const double eps = std::numeric_limits<TypeParam>::epsilon();
  const Limits limits = resolve<TypeParam>({});
  EXPECT_DOUBLE_EQ(limits.rtol, std::sqrt(eps));
  EXPECT_EQ(limits.atol, 0);
  EXPECT_EQ(limits.floor, 4 * eps);
  EXPECT_EQ(limits.noise, 100 * eps);
  EXPECT_EQ(limits.overflow, (std::is_same_v<TypeParam, float> ? 1e4 : 1e8));
  EXPECT_EQ(limits.relative, Relative::to_image);
  EXPECT_EQ(resolve<TypeParam>({.rtol = 1e-3, .atol = 2, .relative = Relative::to_scale}).rtol, 1e-3);
}

TEST(Version, IsThatOfTheProject) {
  EXPECT_EQ(std::string(version), DEQCORE_EXPECTED_VERSION);
  EXPECT_FALSE(std::string(built_with).empty());
}

}  // namespace
}  // namespace deqcore::test

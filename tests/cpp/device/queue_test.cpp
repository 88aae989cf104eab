// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <string>
#include <vector>

#include "deqcore/device/cpu_queue.hpp"
#include "deqcore/device/map.hpp"
#include "deqcore/device/simd.hpp"
#include "errors.hpp"

namespace deqcore::test {
namespace {

TEST(CpuQueue, RefusesFewerThanOneThread) {
  EXPECT_TRUE(refuses("threads", [] { CpuQueue(0); }));
  EXPECT_TRUE(refuses("threads", [] { CpuQueue(-2); }));
  EXPECT_EQ(CpuQueue().threads(), 1);
}

TEST(CpuQueue, CutsRowsIntoBlocksThatCoverEachRowOnce) {
  for (const int threads : {1, 2, 3})
    for (const std::int64_t rows : {0, 1, 2, 5, 100})
      for (const std::int64_t bytes : {std::int64_t{1}, std::int64_t{1} << 20}) {
        const CpuQueue queue(threads);
        std::vector<std::atomic<int>> seen(static_cast<std::size_t>(rows));
        queue.for_blocks(rows, bytes, [&](std::int64_t first, std::int64_t count) {
          for (std::int64_t row = first; row < first + count; ++row) seen[row].fetch_add(1);
        });
        for (const auto& count : seen) EXPECT_EQ(count.load(), 1);
      }
}

TEST(CpuQueue, LeavesSmallWorkOnTheCaller) {
  const CpuQueue queue(2);
  int blocks = 0;
  queue.for_blocks(100, 64, [&](std::int64_t, std::int64_t) { ++blocks; });
  EXPECT_EQ(blocks, 1);
}

std::vector<std::string> announced;

TEST(CpuQueue, TellsItsObserverOfEveryKernel) {
  CpuQueue queue;
  queue.observe([](const char* kernel, std::int64_t bytes) {
    announced.push_back(std::string(kernel) + " " + std::to_string(bytes));
  });
  queue.note("First", 10);
  queue.note("Second", 20);
  EXPECT_EQ(announced, (std::vector<std::string>{"First 10", "Second 20"}));
  EXPECT_EQ(queue.counts().kernels, 2);
  EXPECT_EQ(queue.counts().bytes, 30);
}

TEST(CpuQueue, ReadsItsMailboxAndCountsTheWait) {
  CpuQueue queue;
  *queue.mailbox() = {.running = 7, .worst = 0.5};
  const Progress progress = queue.read();
  EXPECT_EQ(progress.running, 7);
  EXPECT_EQ(progress.worst, 0.5);
  EXPECT_EQ(queue.counts().waits, 1);
}

TEST(MapRef, ReturnsZeroForAMapThatReturnsNothing) {
  CpuQueue queue;
  int calls = 0;
  const auto silent = [&](CpuQueue&, const Question<float>&, Rows<float>) { ++calls; };
  auto speaking = [&](CpuQueue&, const Question<float>&, Rows<float>) { return ++calls + 40; };
  EXPECT_EQ((MapRef<CpuQueue, float>(silent)(queue, {}, {})), 0);
  EXPECT_EQ((MapRef<CpuQueue, float>(speaking)(queue, {}, {})), 42);
}

// DEQCORE_SIMD lowers the level and never raises it above what the CPU has.
TEST(Simd, LevelIsTheBestOfTheCpuOrALowerOneAskedFor) {
  SimdLevel best = SimdLevel::base;
#if defined(__x86_64__)
  if (__builtin_cpu_supports("x86-64-v3")) best = SimdLevel::v3;
  if (__builtin_cpu_supports("x86-64-v4")) best = SimdLevel::v4;
#endif
  const char* wanted = std::getenv("DEQCORE_SIMD");
  SimdLevel expected = best;
  for (const SimdLevel level : {SimdLevel::base, SimdLevel::v3, SimdLevel::v4})
    if (wanted && std::string(wanted) == name(level)) expected = std::min(level, best);
  EXPECT_STREQ(name(simd_level()), name(expected));
}

TEST(Simd, BodySeesTheLevelsVectorWidth) {
  int bytes = 0;
  at_simd_level([&](auto simd) __attribute__((always_inline)) { bytes = simd.bytes; });
  EXPECT_EQ(bytes, static_cast<int>(simd_level()));
}

}  // namespace
}  // namespace deqcore::test

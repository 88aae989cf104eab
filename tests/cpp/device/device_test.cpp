// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "counting.hpp"
#include "deqcore/device/cpu_queue.hpp"
#include "deqcore/device/map.hpp"
#include "deqcore/device/pool.hpp"
#include "deqcore/device/simd.hpp"
#include "errors.hpp"

namespace deqcore::test {
namespace {

TEST(ParallelFor, CallsEveryTaskOnce) {
  for (const int threads : {1, 2, 3, 8})
    for (const std::int64_t tasks : {0, 1, 2, 7, 1000}) {
      std::vector<std::atomic<int>> calls(static_cast<std::size_t>(tasks));
      parallel_for(threads, tasks, [&](std::int64_t i) { calls[i].fetch_add(1); });
      for (const auto& count : calls) EXPECT_EQ(count.load(), 1);
    }
}

TEST(ParallelFor, UsesNoMoreThreadsThanAsked) {
  for (const int threads : {1, 2, 3}) {
    std::mutex lock;
    std::set<std::thread::id> ids;
    parallel_for(threads, 200, [&](std::int64_t) {
      const std::lock_guard held(lock);
      ids.insert(std::this_thread::get_id());
    });
    EXPECT_LE(ids.size(), static_cast<std::size_t>(threads));
  }
}

TEST(ParallelFor, RunsTasksAtTheSameTime) {
  std::atomic<int> inside{0};
  parallel_for(2, 2, [&](std::int64_t) {
    inside.fetch_add(1);
    const auto start = std::chrono::steady_clock::now();
    while (inside.load() < 2 && std::chrono::steady_clock::now() - start < std::chrono::seconds(20))
      std::this_thread::yield();
  });
  EXPECT_EQ(inside.load(), 2);
}

TEST(ParallelFor, GivesTheExceptionOfATaskOnceAndStaysUsable) {
  for (const int threads : {1, 2, 4})
    for (int repeat = 0; repeat < 50; ++repeat) {
      std::atomic<int> ran{0};
      const auto task = [&](std::int64_t i) {
        ran.fetch_add(1);
        if (i == 3) throw std::out_of_range("three");
      };
      EXPECT_THROW(parallel_for(threads, 1000, task), std::out_of_range);
      if (threads == 1) {
        EXPECT_EQ(ran.load(), 4) << "the rest is not started";
      }
      std::atomic<int> after{0};
      parallel_for(threads, 100, [&](std::int64_t) { after.fetch_add(1); });
      EXPECT_EQ(after.load(), 100);
    }
}

TEST(ParallelFor, GivesOneExceptionWhenEveryTaskThrows) {
  for (int repeat = 0; repeat < 50; ++repeat) {
    int caught = 0;
    try {
      parallel_for(4, 100, [](std::int64_t i) { throw static_cast<int>(i); });
    } catch (int) {
      ++caught;
    }
    EXPECT_EQ(caught, 1);
  }
}

TEST(ParallelFor, InsideATaskRunsOnItsCaller) {
  std::atomic<int> inner{0};
  parallel_for(2, 4, [&](std::int64_t) {
    const auto self = std::this_thread::get_id();
    parallel_for(2, 10, [&](std::int64_t) {
      EXPECT_EQ(std::this_thread::get_id(), self);
      inner.fetch_add(1);
    });
  });
  EXPECT_EQ(inner.load(), 40);
}

TEST(ParallelFor, ManyCallersShareThePool) {
  std::vector<std::thread> callers;
  std::atomic<std::int64_t> sum{0};
  for (int caller = 0; caller < 4; ++caller)
    callers.emplace_back([&] {
      for (int repeat = 0; repeat < 500; ++repeat) parallel_for(3, 10, [&](std::int64_t i) { sum.fetch_add(i); });
    });
  for (auto& caller : callers) caller.join();
  EXPECT_EQ(sum.load(), 4 * 500 * 45);
}

TEST(ParallelFor, PollsTheInterruptWhileItWaits) {
  std::atomic<bool> stop{false};
  const auto check = [] { return true; };
  Interrupt interrupt(check);
  const auto caller = std::this_thread::get_id();
  parallel_for(
      2, 2,
      [&](std::int64_t) {
        if (std::this_thread::get_id() == caller) {  // leaves the other to a worker
          while (!stop.load()) std::this_thread::yield();
          return;
        }
        stop.store(true);
        const auto start = std::chrono::steady_clock::now();
        while (!interrupt.requested() && std::chrono::steady_clock::now() - start < std::chrono::seconds(20))
          std::this_thread::sleep_for(std::chrono::milliseconds(1));
      },
      &interrupt);
  EXPECT_TRUE(interrupt.requested());
}

TEST(ParallelFor, AllocatesNothingOnceItsWorkersRun) {
  parallel_for(3, 3, [](std::int64_t) {});
  const std::int64_t before = allocations();
  for (int repeat = 0; repeat < 100; ++repeat) parallel_for(3, 9, [](std::int64_t) {});
  EXPECT_EQ(allocations(), before);
}

// The parent's workers do not exist in a child.
TEST(ParallelFor, WorksInAForkedChild) {
  parallel_for(2, 2, [](std::int64_t) {});
  for (int repeat = 0; repeat < 3; ++repeat) {
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      alarm(30);  // a child that hangs dies
      std::atomic<int> count{0};
      parallel_for(2, 100, [&](std::int64_t) { count.fetch_add(1); });
      _exit(count.load() == 100 ? 0 : 1);
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
    std::atomic<int> count{0};
    parallel_for(2, 100, [&](std::int64_t) { count.fetch_add(1); });
    EXPECT_EQ(count.load(), 100) << "and in the parent";
  }
}

TEST(NumThreads, IsWhatWasSetUntilItIsTakenBack) {
  const int by_default = num_threads();
  EXPECT_GE(by_default, 1);
  set_num_threads(3);
  EXPECT_EQ(num_threads(), 3);
  set_num_threads(0);
  EXPECT_EQ(num_threads(), by_default);
  EXPECT_TRUE(refuses("threads", [] { set_num_threads(-1); }));
  EXPECT_TRUE(refuses("threads", [] { set_num_threads(1025); }));
  EXPECT_EQ(num_threads(), by_default);
}

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
TEST(Simd, LevelIsTheOneAskedForIfTheCpuHasIt) {
  const char* wanted = std::getenv("DEQCORE_SIMD");
  if (!wanted) GTEST_SKIP() << "runs at " << name(simd_level()) << ", the best of this CPU";
#if defined(__x86_64__)
  const bool has_v3 = __builtin_cpu_supports("x86-64-v3");
#else
  const bool has_v3 = false;
#endif
  EXPECT_STREQ(name(simd_level()), std::string(wanted) == "v3" && has_v3 ? "v3" : "base");
}

TEST(Simd, BodySeesTheLevelsVectorWidth) {
  int bytes = 0;
  at_simd_level([&](auto simd) __attribute__((always_inline)) { bytes = simd.bytes; });
  EXPECT_EQ(bytes, static_cast<int>(simd_level()));
}

}  // namespace
}  // namespace deqcore::test

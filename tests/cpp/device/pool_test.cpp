// SPDX-License-Identifier: Apache-2.0
#include "deqcore/device/pool.hpp"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <mutex>
#include <set>
#include <stdexcept>
#include <thread>
#include <vector>

#include "counting.hpp"
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

}  // namespace
}  // namespace deqcore::test

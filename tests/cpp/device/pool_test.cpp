// SPDX-License-Identifier: Apache-2.0
#include "deqcore/device/pool.hpp"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <stdexcept>
#include <thread>
#include <vector>

#include "errors.hpp"

namespace deqcore::test {
namespace {

void every_task_runs_once(int threads, std::int64_t tasks) {
  std::vector<std::atomic<int>> runs(tasks);
  parallel_for(threads, tasks, [&](std::int64_t i) { runs[i] += 1; });
  for (std::int64_t i = 0; i < tasks; ++i) ASSERT_EQ(runs[i], 1) << i;
}

TEST(Pool, RunsEveryTaskOnce) {
  for (const int threads : {1, 2, 3, 8})
    for (const std::int64_t tasks : {0, 1, 2, 7, 1000}) every_task_runs_once(threads, tasks);
}

TEST(Pool, ThrowsTheFirstExceptionAndCanBeUsedAgain) {
  for (int round = 0; round < 50; ++round) {
    std::atomic<int> runs{0};
    EXPECT_THROW(parallel_for(2, 100,
                              [&](std::int64_t i) {
                                runs += 1;
                                if (i == 3) throw std::out_of_range("three");
                              }),
                 std::out_of_range);
    EXPECT_LE(runs, 100);
    every_task_runs_once(2, 20);
  }
}

TEST(Pool, ServesCallersFromSeveralThreadsAtOnce) {
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 4; ++caller)
    callers.emplace_back([] {
      for (int round = 0; round < 200; ++round) every_task_runs_once(2, 16);
    });
  for (std::thread& caller : callers) caller.join();
}

TEST(Pool, AJobInsideAJobIsDoneByItsCaller) {
  std::atomic<int> runs{0};
  parallel_for(2, 4, [&](std::int64_t) { parallel_for(2, 5, [&](std::int64_t) { runs += 1; }); });
  EXPECT_EQ(runs, 20);
}

TEST(Pool, WorksInTheChildOfAFork) {
  every_task_runs_once(2, 20);
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);  // a child that waits for threads it does not have would wait for ever
    std::atomic<int> runs{0};
    parallel_for(2, 50, [&](std::int64_t) { runs += 1; });
    _exit(runs == 50 ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

TEST(Pool, TheNumberOfThreadsCanBeSetAndSetBack) {
  const int before = num_threads();
  set_num_threads(3);
  EXPECT_EQ(num_threads(), 3);
  set_num_threads(0);
  EXPECT_EQ(num_threads(), before);
  EXPECT_TRUE(refuses("threads", [] { set_num_threads(-1); }));
}

TEST(Interrupt, AsksItsCheckOnItsOwnThreadAndNotTooOften) {
  int asked = 0;
  const auto check = [&] { return ++asked > 1; };
  Interrupt interrupt(check);
  for (int i = 0; i < 1000; ++i) interrupt.poll();
  EXPECT_LE(asked, 1);
  std::thread([&] {
    std::this_thread::sleep_for(Interrupt::interval);
    interrupt.poll();
  }).join();
  EXPECT_LE(asked, 1) << "another thread does not ask";
  while (!interrupt.requested()) interrupt.poll();
  EXPECT_EQ(asked, 2);
}

}  // namespace
}  // namespace deqcore::test

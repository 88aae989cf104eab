// SPDX-License-Identifier: Apache-2.0
#include "deqcore/device/pool.hpp"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <semaphore>
#include <system_error>
#include <thread>

#include "deqcore/base/error.hpp"

namespace deqcore {
namespace {

constexpr int most_threads = 1024;

// Waking a thread that sleeps takes 50 to 300 microseconds, which is longer than many a solve. So a worker that waits
// for the next job spins first: for long if the last job came soon after the one before, as the caller saw it (a worker
// that wakes too late has seen neither), and else only for a moment. On a machine whose cores are busy jobs come late,
// and nobody spins.
using Clock = std::chrono::steady_clock;
constexpr Clock::duration short_wait = std::chrono::microseconds(5), long_wait = std::chrono::microseconds(200);

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

// Spins until done() or for so long. -> done()
template <class Done>
bool spin(Clock::duration so_long, const Done& done) {
  const Clock::time_point start = Clock::now();
  for (;;) {
    for (int i = 0; i < 20; ++i) {
      if (done()) return true;
      pause();
    }
    if (Clock::now() - start > so_long) return done();
  }
}

int available_cpus() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
  return static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
}

int default_threads() {
  if (const char* text = std::getenv("DEQCORE_NUM_THREADS")) {
    const long threads = std::strtol(text, nullptr, 10);
    if (threads >= 1) return static_cast<int>(std::min<long>(threads, most_threads));
  }
  return available_cpus();
}

// A worker that finds itself on the CPU of the caller that it is to help would only take turns with it, and the system
// may leave the two there for many milliseconds while other CPUs are idle: it asks to run elsewhere, once.
void leave(int cpu) {
  cpu_set_t allowed;
  if (sched_getcpu() != cpu || sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
  cpu_set_t others = allowed;
  CPU_CLR(cpu, &others);
  if (CPU_COUNT(&others) == 0) return;
  if (sched_setaffinity(0, sizeof others, &others) == 0) sched_setaffinity(0, sizeof allowed, &allowed);
}

std::atomic<int> chosen_threads{0};

struct Job {
  std::int64_t tasks;
  int threads;
  FunctionRef<void(std::int64_t)> task;
  std::atomic<std::int64_t> next{0};
  std::atomic<bool> failed{false};
  std::exception_ptr error;

  void work() {
    for (std::int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < tasks;) {
      try {
        task(i);
      } catch (...) {
        if (!failed.exchange(true)) error = std::current_exception();
        next.store(tasks, std::memory_order_relaxed);
      }
    }
  }
};

class Pool {
 public:
  // The pool is never destroyed: its threads may outlive static destruction. After a fork the child starts a new one,
  // since the parent's threads do not exist there.
  static Pool& shared() {
    static std::once_flag once;
    std::call_once(once, [] {
      instance_ = new Pool;
      pthread_atfork(nullptr, nullptr, [] { instance_ = new Pool; });
    });
    return *instance_;
  }

  void run(Job& job, Interrupt* interrupt) {
    if (!one_job_.try_acquire()) return job.work();  // another caller holds the workers, or this one, further up
    run_alone(job, interrupt);
    one_job_.release();
  }

 private:
  static constexpr std::uint32_t closed = 1u << 31;

  struct Ending {
    Clock::time_point& time;
    ~Ending() { time = Clock::now(); }
  };

  void run_alone(Job& job, Interrupt* interrupt) {
    while (workers_ < job.threads - 1 && start_worker()) {
    }
    jobs_come_soon_.store(Clock::now() - last_end_ < long_wait, std::memory_order_relaxed);
    const Ending ending{last_end_};
    caller_cpu_.store(sched_getcpu(), std::memory_order_relaxed);
    job_ = &job;
    gate_.store(0, std::memory_order_release);
    generation_.fetch_add(1, std::memory_order_release);
    generation_.notify_all();
    job.work();
    if ((gate_.fetch_or(closed, std::memory_order_acq_rel) & ~closed) == 0) return;
    if (spin(short_wait * 4, [&] { return left_.try_acquire(); })) return;
    while (!left_.try_acquire_for(Interrupt::interval))
      if (interrupt) interrupt->poll();
  }

  // False where the system gives no more threads: the job goes on with those there are.
  bool start_worker() {
    try {
      std::thread([this, id = workers_] { serve(id); }).detach();
    } catch (const std::system_error&) {
      return false;
    }
    ++workers_;
    return true;
  }

  void serve(int id) {
    for (int seen = 0;;) {
      const Clock::duration patience = jobs_come_soon_.load(std::memory_order_relaxed) ? long_wait : short_wait;
      if (!spin(patience, [&] { return generation_.load(std::memory_order_acquire) != seen; }))
        generation_.wait(seen, std::memory_order_acquire);
      leave(caller_cpu_.load(std::memory_order_relaxed));
      seen = generation_.load(std::memory_order_acquire);
      if (!enter()) continue;
      if (id < job_->threads - 1) job_->work();
      if (gate_.fetch_sub(1, std::memory_order_acq_rel) == (closed | 1)) left_.release();
    }
  }

  // A worker that comes too late for a job must not touch it: its caller may be gone.
  bool enter() {
    std::uint32_t inside = gate_.load(std::memory_order_acquire);
    while (!(inside & closed))
      if (gate_.compare_exchange_weak(inside, inside + 1, std::memory_order_acq_rel)) return true;
    return false;
  }

  static inline Pool* instance_ = nullptr;

  std::binary_semaphore one_job_{1};
  Job* job_ = nullptr;
  int workers_ = 0;
  Clock::time_point last_end_;  // of a job
  std::atomic<bool> jobs_come_soon_{false};
  std::atomic<int> caller_cpu_{-1};
  std::atomic<int> generation_{0};
  std::atomic<std::uint32_t> gate_{closed};  // workers inside the job, and whether it is closed to more
  std::binary_semaphore left_{0};            // released by the last worker that leaves a closed job
};

}  // namespace

int num_threads() {
  const int chosen = chosen_threads.load(std::memory_order_relaxed);
  if (chosen > 0) return chosen;
  static const int by_default = default_threads();
  return by_default;
}

void set_num_threads(int threads) {
  require(threads >= 0 && threads <= most_threads, "threads: ", threads, " given; expected 0 (default) to ",
          most_threads);
  chosen_threads.store(threads, std::memory_order_relaxed);
}

void parallel_for(int threads, std::int64_t tasks, FunctionRef<void(std::int64_t)> task, Interrupt* interrupt) {
  Job job{.tasks = tasks,
          .threads = static_cast<int>(std::min<std::int64_t>({threads, tasks, most_threads})),
          .task = task};
  if (job.threads > 1)
    Pool::shared().run(job, interrupt);
  else
    job.work();
  if (job.error) std::rethrow_exception(job.error);
}

}  // namespace deqcore

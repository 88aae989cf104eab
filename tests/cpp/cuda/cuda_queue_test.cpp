// SPDX-License-Identifier: Apache-2.0
// The CUDA queue on emulated streams: when work runs, when the host waits, and what is said when the device fails.
#include "deqcore/device/cuda_queue.hpp"

#include <gtest/gtest.h>

#include <string>

#include "deqcore/device/buffer.hpp"
#include "deqcore/kernels/vector.hpp"
#include "dialogue.hpp"
#include "errors.hpp"

namespace deqcore::test {
namespace {

using cuda_emulator::machine;

class CudaQueues : public ::testing::Test {
 protected:
  CudaQueues() {
    machine() = {};
    unsetenv("DEQCORE_SYNC");
  }
  ~CudaQueues() override { cuda_emulator::run_pending(nullptr); }  // memory is given back in the stream's order
};

template <class Call>
std::string device_error(const Call& call, ErrorCode code = ErrorCode::device) {
  try {
    call();
  } catch (const Error& error) {
    return error.code() == code ? error.what() : std::string("another code: ") + error.what();
  }
  return "none";
}

TEST_F(CudaQueues, SayWhyNoDeviceCanBeUsed) {
  const auto make = [] { CudaQueue(0, nullptr); };
  machine().driver = 0;
  EXPECT_EQ(device_error(make), "device: no CUDA driver on this machine");
  EXPECT_EQ(cuda_summary(), "no CUDA driver on this machine");
  EXPECT_EQ(cuda_devices(), 0);
  machine().driver = 12080;
  EXPECT_EQ(device_error(make), "device: the CUDA driver supports 12.8, this build of deqcore needs 13.0 or newer");
  machine() = {};
  machine().devices = 0;
  EXPECT_NE(device_error(make).find("cudaErrorNoDevice"), std::string::npos);
  machine().devices = 2;
  EXPECT_EQ(cuda_summary(), "2 devices, driver 13.0");
  EXPECT_TRUE(refuses("device", [] { CudaQueue(2, nullptr); }));
  EXPECT_TRUE(refuses("device", [] { CudaQueue(-1, nullptr); }));
}

TEST_F(CudaQueues, LeaveTheCallersDeviceAsItWas) {
  machine().current_device = 1;
  {
    Block<float> from(2, 3), to(2, 3);
    CudaQueue queue(0, nullptr);
    const DeviceBuffer buffer(queue, 64);
    run(queue, CopyRows<float>{.from = std::as_const(from).view(), .to = to.view()});
    queue.read();
    EXPECT_EQ(machine().current_device, 1);
  }
  EXPECT_EQ(machine().current_device, 1);
}

TEST_F(CudaQueues, GiveMemoryInTheOrderOfTheStream) {
  Block<float> from(2, 3), to(2, 3);
  CudaQueue queue(0, nullptr);
  {
    const DeviceBuffer buffer(queue, 1000);
  }
  EXPECT_EQ(cuda_emulator::pending(nullptr), 1u) << "freed behind the work before it";
  queue.read();
  machine().memory = 100;
  const auto big = [&] { DeviceBuffer(queue, 1000); };
  EXPECT_NE(device_error(big, ErrorCode::out_of_memory).find("allocating a buffer"), std::string::npos);
  machine().memory = SIZE_MAX;
  EXPECT_NE(DeviceBuffer(queue, 1000).data(), nullptr) << "and it can be used again";
  EXPECT_NO_THROW(run(queue, CopyRows<float>{.from = std::as_const(from).view(), .to = to.view()}));
  queue.read();
  DeviceBuffer one(queue, 64);
  const void* const at = one.data();
  const DeviceBuffer moved(std::move(one));
  EXPECT_EQ(moved.data(), at);
}

TEST_F(CudaQueues, NameTheKernelThatFailedAndStayFailed) {
  Block<float> from(2, 3), to(2, 3);
  CudaQueue queue(0, nullptr);
  const auto copy = [&] { run(queue, CopyRows<float>{.from = std::as_const(from).view(), .to = to.view()}); };
  machine().fail_at_launch = 2;
  EXPECT_NO_THROW(copy());
  const std::string said = device_error(copy);
  EXPECT_EQ(said, "CUDA, CopyRows: cudaErrorLaunchFailure: emulated");
  EXPECT_EQ(device_error(copy), said) << "a context that is lost stays lost";
  EXPECT_EQ(device_error([&] { queue.read(); }), said);
  cuda_emulator::run_pending(nullptr);  // the first copy, while its operands live
}

TEST_F(CudaQueues, CountKernelsBytesAndWaits) {
  Block<double> from(2, 3), to(2, 3);
  CudaQueue queue(0, nullptr);
  run(queue, CopyRows<double>{.from = std::as_const(from).view(), .to = to.view()});
  queue.read();
  EXPECT_EQ(queue.counts().kernels, 1);
  EXPECT_EQ(queue.counts().bytes, 2 * 2 * 3 * 8);
  EXPECT_EQ(queue.counts().waits, 1);
  EXPECT_EQ(machine().waits, 1);
}

// A solve whose map is work on the stream, as it is on a device: nothing runs until the host looks, and the result is
// the same to the bit.
template <class Kind, class T>
void solve_lazily(const typename Kind::Method& method) {
  using Lazy = Case<Kind, OnEmulatedCuda<T>>;
  const auto problem = different_speeds<T>();
  for (const std::int64_t look_every : {1, 4}) {
    SCOPED_TRACE(::testing::Message() << Kind::name() << ", look_every " << look_every);
    const Setting setting{.stop = {.look_every = look_every}};
    const auto expected = Solve<Lazy>(problem, setting, method).run();
    Solve<Lazy> solve(problem, setting, method);
    unsetenv("DEQCORE_SYNC");
    CudaQueue queue(0, cuda_emulator::make_stream());
    Arena arena = solve.memory.arena();
    solve.solver = Kind::template make<CudaQueue, T>(queue, solve.rows, solve.width, method, solve.stop, arena);
    machine().waits = machine().allocations = 0;
    auto question = solve.start();
    std::int64_t most_pending = 0;
    while (question) {
      cuda_emulator::enqueue(queue.stream(), [&solve, question] { solve.answer(question); });
      const Rows<const T> answer = std::as_const(solve.answers).view();
      most_pending = std::max(most_pending, static_cast<std::int64_t>(cuda_emulator::pending(queue.stream())));
      question = solve.solver->advance(answer.slice(0, question.count));
    }
    EXPECT_GT(most_pending, look_every);
    EXPECT_EQ(machine().waits, solve.solver->counts().looks);
    EXPECT_EQ(machine().waits, (expected.longest() + look_every - 1) / look_every);
    EXPECT_EQ(machine().allocations, 0);
    cuda_emulator::run_pending(queue.stream());
    EXPECT_TRUE(same_answer(expected, solve.outcome_now()));
    cuda_emulator::destroy_stream(queue.stream());
  }
}

TEST_F(CudaQueues, ASolveRunsOnTheStreamAndWaitsAtItsLooksOnly) {
  for (const auto& method : methods_of<Forward>()) {
    SCOPED_TRACE(method.name);
    solve_lazily<Forward, float>(method.method);
    solve_lazily<Forward, double>(method.method);
  }
  for (const auto& method : methods_of<Backward>()) {
    SCOPED_TRACE(method.name);
    solve_lazily<Backward, double>(method.method);
  }
}

}  // namespace
}  // namespace deqcore::test

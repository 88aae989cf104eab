// SPDX-License-Identifier: Apache-2.0
// The emulator finds what is wrong with a kernel: each fault here is planted.
#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "deqcore/device/buffer.hpp"
#include "deqcore/kernels/cuda/launch.cuh"
#include "deqcore/kernels/cuda/reduce.cuh"

#if defined(DEQCORE_ADDRESS_SANITIZER)
#define ADDRESS_SANITIZER_ON true
#else
#define ADDRESS_SANITIZER_ON false
#endif

namespace deqcore::test {
namespace {

constexpr int threads = 96;

class Emulator : public ::testing::Test {
 protected:
  Emulator() { cuda_emulator::machine() = {}; }
  ~Emulator() override { cuda_emulator::run_pending(nullptr); }  // memory is given back in the stream's order

  // Runs body() in one block, to its end.
  template <class Body>
  void run(const Body& body, int blocks = 1) {
    CudaQueue queue(0, nullptr);
    cuda::launch(queue, "Planted", blocks, threads, threads, body);
    queue.read();
  }

  template <class Body>
  std::string fault_of(const Body& body) {
    try {
      run(body);
    } catch (const std::runtime_error& error) {
      return error.what();
    }
    return "none";
  }
};

TEST_F(Emulator, RunsEveryThreadOfEveryBlockOnce) {
  std::vector<int> seen(5 * threads, 0);
  run([&seen] { seen[blockIdx.x * blockDim.x + threadIdx.x] += 1; }, 5);
  EXPECT_EQ(seen, std::vector<int>(5 * threads, 1));
}

TEST_F(Emulator, OrdersDifferBySeed) {
  std::set<std::vector<unsigned>> orders;
  for (const std::uint64_t seed : {1, 2, 3}) {
    cuda_emulator::machine().order_seed = seed;
    std::vector<unsigned> order;
    run([&order] { order.push_back(threadIdx.x); });
    orders.insert(order);
  }
  EXPECT_EQ(orders.size(), 3u);
}

TEST_F(Emulator, ReductionsSumInOneOrderWhateverTheOrderOfTheThreads) {
  std::set<double> sums;
  for (const std::uint64_t seed : {1, 2, 3}) {
    cuda_emulator::machine().order_seed = seed;
    double sum = 0;
    run([&sum] {
      double mine[1] = {1.0 / (1 + threadIdx.x)};
      cuda::block_sum(mine, cuda::shared_doubles());
      if (threadIdx.x == 5) sum = mine[0];
    });
    sums.insert(sum);
  }
  EXPECT_EQ(sums.size(), 1u);
  double expected = 0;
  for (int t = 0; t < threads; ++t) expected += 1.0 / (1 + t);
  EXPECT_NEAR(*sums.begin(), expected, 1e-14);
}

TEST_F(Emulator, AMissingBarrierGivesAWrongResultInSomeOrder) {
  int wrong = 0;
  for (const std::uint64_t seed : {1, 2, 3}) {
    cuda_emulator::machine().order_seed = seed;
    std::vector<double> seen(threads);
    run([&seen] {
      double* const shared = cuda::shared_doubles();
      shared[threadIdx.x] = threadIdx.x;
      seen[threadIdx.x] = shared[(threadIdx.x + 1) % threads];  // planted: no barrier between
    });
    for (int t = 0; t < threads; ++t) wrong += seen[t] != (t + 1) % threads;
  }
  EXPECT_GT(wrong, 0);
}

TEST_F(Emulator, ADivergentBarrierIsAnError) {
  const std::string fault = fault_of([] {
    if (threadIdx.x < 16) __syncthreads();
  });
  EXPECT_NE(fault.find("Planted: barrier at "), std::string::npos) << fault;
  EXPECT_NE(fault.find("emulator_test.cpp"), std::string::npos) << fault;
  EXPECT_NE(fault.find("reached by 16 of 96 threads"), std::string::npos) << fault;
}

TEST_F(Emulator, BarriersInDifferentPlacesAreAnError) {
  const std::string fault = fault_of([] {
    if (threadIdx.x < 16)
      __syncthreads();
    else
      __syncthreads();
  });
  EXPECT_NE(fault.find("barrier in different places"), std::string::npos) << fault;
}

TEST_F(Emulator, AnExchangeThatHalfAWarpReachesIsAnError) {
  const std::string fault = fault_of([] {
    if (threadIdx.x % 2) __shfl_xor_sync(0xffffffffu, 1.0, 1);
  });
  EXPECT_NE(fault.find("Planted: warp exchange at "), std::string::npos) << fault;
  EXPECT_NE(fault.find("reached by 16 of 32 threads"), std::string::npos) << fault;
}

TEST_F(Emulator, AnUninitialisedReadSpoilsTheResult) {
  double from_shared = 0, from_buffer = 0;
  run([&from_shared] {
    if (threadIdx.x == 0) from_shared = 1 + cuda::shared_doubles()[7];
  });
  EXPECT_TRUE(std::isnan(from_shared));
  CudaQueue queue(0, nullptr);
  const DeviceBuffer buffer(queue, 8 * sizeof(double));
  const double* const data = static_cast<const double*>(buffer.data());
  run([&from_buffer, data] {
    if (threadIdx.x == 0) from_buffer = 1 + data[3];
  });
  EXPECT_TRUE(std::isnan(from_buffer));
}

TEST_F(Emulator, AWorkThatNobodyWaitedForHasNotRun) {
  int runs = 0;
  CudaQueue queue(0, nullptr);
  cuda::launch(queue, "Late", 1, 32, 0, [&runs] { runs += 1; });
  EXPECT_EQ(runs, 0);
  EXPECT_EQ(cuda_emulator::pending(nullptr), 1u);
  queue.read();
  EXPECT_EQ(runs, 32);
}

TEST_F(Emulator, StreamsAreIndependent) {
  cudaStream_t stream = cuda_emulator::make_stream();
  int runs = 0;
  CudaQueue one(0, stream), other(0, nullptr);
  cuda::launch(one, "Late", 1, 32, 0, [&runs] { runs += 1; });
  other.read();
  EXPECT_EQ(runs, 0) << "waiting for one stream does not run another";
  one.read();
  EXPECT_EQ(runs, 32);
  cuda_emulator::destroy_stream(stream);
}

using EmulatorDeathTest = Emulator;

TEST_F(EmulatorDeathTest, StoresOutOfBoundsAreFoundByTheAddressSanitizer) {
  if (!ADDRESS_SANITIZER_ON) GTEST_SKIP() << "needs the address sanitizer";
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(run([] {
                 if (threadIdx.x == 0) cuda::shared_doubles()[threads] = 1;
               }),
               "heap-buffer-overflow");
  std::vector<float> memory(1000);
  float* const data = memory.data();
  EXPECT_DEATH(run([data] {
                 if (threadIdx.x == 0) data[1000] = 1;
               }),
               "heap-buffer-overflow");
}

}  // namespace
}  // namespace deqcore::test

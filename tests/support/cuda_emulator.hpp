// SPDX-License-Identifier: Apache-2.0
// CUDA on the host, for tests: the .cu files of this project compile with g++ against this header and run here.
//
// Each CUDA thread is a fiber. Fibers of a block run one after another in a shuffled order and change places at
// barriers and warp exchanges only, so a missing barrier gives wrong results for some order. A barrier that not all
// threads of a block reach, or that they reach in different places, is an error. Shared memory is a block of the exact
// size, filled with NaN, so that the address sanitizer finds stores beyond it and reads before it is written spoil the
// result.
//
// Streams are lazy: work runs when somebody waits for its stream, and not before. A host that reads without waiting
// sees the old memory. Not modelled: races within a warp, tensor cores, limits of shared memory, graphs, and time.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <stdexcept>
#include <string>

#define __global__
#define __device__
#define __host__
#define __launch_bounds__(...)

struct CUstream_st;
using cudaStream_t = CUstream_st*;

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInsufficientDriver = 35,
  cudaErrorNoDevice = 100,
  cudaErrorInvalidDevice = 101,
  cudaErrorLaunchFailure = 719,
};
enum { cudaHostAllocPortable = 1 };

const char* cudaGetErrorName(cudaError_t error);
const char* cudaGetErrorString(cudaError_t error);
cudaError_t cudaGetLastError();
cudaError_t cudaDriverGetVersion(int* version);
cudaError_t cudaRuntimeGetVersion(int* version);
cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaGetDevice(int* device);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaHostAlloc(void** memory, std::size_t bytes, unsigned flags);
cudaError_t cudaMallocAsync(void** memory, std::size_t bytes, cudaStream_t stream);
cudaError_t cudaFreeAsync(void* memory, cudaStream_t stream);

namespace cuda_emulator {

struct Index {
  unsigned x = 0, y = 0, z = 0;
};
extern thread_local Index thread_index, block_index, block_shape, grid_shape;

// What the machine pretends to be, and in which order fibers run.
struct Machine {
  int driver = 13000;  // 0: none
  int devices = 2;
  int current_device = 0;
  std::uint64_t order_seed = 1;
  std::size_t memory = SIZE_MAX;    // bytes that cudaMallocAsync may still give
  std::int64_t fail_at_launch = 0;  // that launch from now on fails; 0: none
  std::int64_t launches = 0, waits = 0, allocations = 0;
};
Machine& machine();

cudaStream_t make_stream();
void destroy_stream(cudaStream_t stream);
void run_pending(cudaStream_t stream);     // without counting a wait
std::size_t pending(cudaStream_t stream);  // launches that nobody has waited for
void enqueue(cudaStream_t stream, std::function<void()> work);

void launch(cudaStream_t stream, unsigned blocks, int threads, std::size_t shared_bytes, const char* kernel,
            std::function<void()> body);
void* shared_memory();

void block_barrier(const char* file, int line);
int block_barrier_or(int value, const char* file, int line);

// Lane `lane`'s 8 bytes, after all lanes of the warp have given theirs.
const std::uint64_t* exchange(std::uint64_t mine, const char* file, int line);
int lane();

template <class T>
T shuffle_xor(T value, int mask, const char* file, int line) {
  static_assert(sizeof(T) <= 8);
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  const std::uint64_t theirs = exchange(bits, file, line)[lane() ^ mask];
  std::memcpy(&value, &theirs, sizeof value);
  return value;
}

unsigned ballot(bool vote, const char* file, int line);

}  // namespace cuda_emulator

#define threadIdx cuda_emulator::thread_index
#define blockIdx cuda_emulator::block_index
#define blockDim cuda_emulator::block_shape
#define gridDim cuda_emulator::grid_shape
#define __syncthreads() cuda_emulator::block_barrier(__FILE__, __LINE__)
#define __syncthreads_or(value) cuda_emulator::block_barrier_or(value, __FILE__, __LINE__)
#define __shfl_xor_sync(mask, value, step) cuda_emulator::shuffle_xor(value, step, __FILE__, __LINE__)
#define __ballot_sync(mask, vote) cuda_emulator::ballot(vote, __FILE__, __LINE__)
#define __popc(bits) __builtin_popcount(bits)

inline long long __double_as_longlong(double x) {
  long long bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

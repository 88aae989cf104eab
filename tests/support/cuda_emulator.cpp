// SPDX-License-Identifier: Apache-2.0
#include "cuda_emulator.hpp"

#include <algorithm>
#include <cstdlib>
#include <deque>
#include <exception>
#include <memory>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

#if defined(DEQCORE_ADDRESS_SANITIZER)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define FIBERS_TELL_ASAN 1
#else
#define FIBERS_TELL_ASAN 0
#endif

#if !defined(__x86_64__)
#error "the emulator changes stacks by hand, so far for x86-64 only"
#endif

// Saves the registers that a call preserves on this stack, leaves its end in *mine, and goes on where `theirs` was
// left. (swapcontext does the same with two system calls, and under the address sanitizer by clearing the whole stack.)
extern "C" void cuda_emulator_switch(void** mine, void* theirs);
asm(R"(
  .text
  .type cuda_emulator_switch, @function
cuda_emulator_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .size cuda_emulator_switch, .-cuda_emulator_switch
)");

struct CUstream_st {
  std::deque<std::function<void()>> work;
};

namespace cuda_emulator {

thread_local Index thread_index, block_index, block_shape, grid_shape;

namespace {

constexpr int warp = 32;
constexpr std::size_t stack_bytes = 64 * 1024;

enum class At { ready, block_barrier, warp_exchange, end };

struct Fiber {
  std::unique_ptr<std::byte[]> stack{new std::byte[stack_bytes]};
  void* left_at = nullptr;  // end of its stack while another runs
  At at = At::ready;
  const char* file = nullptr;
  int line = 0;
  std::uint64_t given = 0;  // to a warp exchange, or to a barrier that combines
  void* asan_stack = nullptr;
};

class Block {
 public:
  Block(int threads, std::size_t shared_bytes, const char* kernel, const std::function<void()>& body)
      : kernel_(kernel), body_(body), count_(threads), snapshots_((threads + warp - 1) / warp) {
    while (fibers_.size() < static_cast<std::size_t>(threads)) fibers_.push_back(std::make_unique<Fiber>());
    shared_.reset(static_cast<std::byte*>(std::malloc(std::max<std::size_t>(shared_bytes, 1))));
    std::memset(shared_.get(), 0xff, std::max<std::size_t>(shared_bytes, 1));
  }

  void run(std::mt19937_64& random) {
    current_ = this;
    std::vector<int> order(count_);
    std::iota(order.begin(), order.end(), 0);
    for (int t = 0; t < count_; ++t) prepare(*fibers_[t]);
    for (;;) {
      std::shuffle(order.begin(), order.end(), random);
      bool ran = false;
      for (int t : order)
        if (fibers_[t]->at == At::ready) {
          resume(t);
          ran = true;
          if (error_) std::rethrow_exception(error_);
        }
      if (ran) continue;
      if (release_warps()) continue;
      if (release_block()) continue;
      break;
    }
    current_ = nullptr;
  }

  void wait(At at, std::uint64_t given, const char* file, int line) {
    Fiber& self = *fibers_[thread_index.x];
    self.at = at;
    self.given = given;
    self.file = file;
    self.line = line;
    leave(self, false);
  }

  const std::uint64_t* snapshot() const { return snapshots_[thread_index.x / warp].data(); }
  bool any() const { return any_; }
  void* shared() const { return shared_.get(); }

  static Block& current() {
    if (!current_) throw std::logic_error("device code outside of a kernel");
    return *current_;
  }

 private:
  static void entry() {
    Block& block = *current_;
    Fiber& self = *block.fibers_[thread_index.x];
#if FIBERS_TELL_ASAN
    __sanitizer_finish_switch_fiber(nullptr, &block.host_stack_, &block.host_stack_bytes_);
#endif
    try {
      block.body_();
    } catch (...) {
      block.error_ = std::current_exception();
    }
    self.at = At::end;
    block.leave(self, true);
  }

  // A fresh stack: six registers, where to start, and nowhere to return to.
  static void prepare(Fiber& fiber) {
#if FIBERS_TELL_ASAN
    __asan_unpoison_memory_region(fiber.stack.get(), stack_bytes);
#endif
    fiber.at = At::ready;
    const std::uintptr_t top = (reinterpret_cast<std::uintptr_t>(fiber.stack.get()) + stack_bytes) / 16 * 16;
    auto* const end = reinterpret_cast<void**>(top) - 8;
    std::fill(end, end + 8, nullptr);
    end[6] = reinterpret_cast<void*>(&Block::entry);
    fiber.left_at = end;
  }

  void resume(int t) {
    Fiber& fiber = *fibers_[t];
    thread_index.x = static_cast<unsigned>(t);
#if FIBERS_TELL_ASAN
    void* own = nullptr;
    __sanitizer_start_switch_fiber(&own, fiber.stack.get(), stack_bytes);
#endif
    cuda_emulator_switch(&host_, fiber.left_at);
#if FIBERS_TELL_ASAN
    __sanitizer_finish_switch_fiber(own, nullptr, nullptr);
#endif
  }

  void leave(Fiber& self, [[maybe_unused]] bool for_good) {
#if FIBERS_TELL_ASAN
    __sanitizer_start_switch_fiber(for_good ? nullptr : &self.asan_stack, host_stack_, host_stack_bytes_);
#endif
    cuda_emulator_switch(&self.left_at, host_);
#if FIBERS_TELL_ASAN
    __sanitizer_finish_switch_fiber(self.asan_stack, &host_stack_, &host_stack_bytes_);
#endif
  }

  // Every warp whose lanes have all come to the same exchange gets the lanes' values.
  bool release_warps() {
    bool released = false;
    for (std::size_t w = 0; w < snapshots_.size(); ++w) {
      const int first = static_cast<int>(w) * warp, last = std::min(count_, first + warp);
      int here = 0;
      for (int t = first; t < last; ++t) here += fibers_[t]->at == At::warp_exchange;
      if (here == 0) continue;
      const Fiber* one = nullptr;
      for (int t = first; t < last; ++t)
        if (fibers_[t]->at == At::warp_exchange) one = fibers_[t].get();
      for (int t = first; t < last; ++t) {
        if (fibers_[t]->at != At::warp_exchange) fault("warp exchange", one, here, last - first);
        if (fibers_[t]->line != one->line) fault("warp exchange in different places", one, here, last - first);
      }
      snapshots_[w].assign(warp, 0);
      for (int t = first; t < last; ++t) {
        snapshots_[w][t - first] = fibers_[t]->given;
        fibers_[t]->at = At::ready;
      }
      released = true;
    }
    return released;
  }

  bool release_block() {
    int here = 0;
    const Fiber* one = nullptr;
    for (int t = 0; t < count_; ++t)
      if (fibers_[t]->at == At::block_barrier) {
        ++here;
        one = fibers_[t].get();
      }
    if (here == 0) return false;
    any_ = false;
    for (int t = 0; t < count_; ++t) {
      if (fibers_[t]->at != At::block_barrier) fault("barrier", one, here, count_);
      if (fibers_[t]->line != one->line) fault("barrier in different places", one, here, count_);
      any_ = any_ || fibers_[t]->given != 0;
    }
    for (int t = 0; t < count_; ++t) fibers_[t]->at = At::ready;
    return true;
  }

  [[noreturn]] void fault(const char* what, const Fiber* one, int here, int of) const {
    throw std::runtime_error(std::string(kernel_) + ": " + what + " at " + one->file + ":" + std::to_string(one->line) +
                             " reached by " + std::to_string(here) + " of " + std::to_string(of) + " threads");
  }

  struct Free {
    void operator()(std::byte* memory) const { std::free(memory); }
  };

  static inline thread_local std::vector<std::unique_ptr<Fiber>> fibers_;  // kept from block to block
  static inline thread_local Block* current_ = nullptr;

  const char* kernel_;
  const std::function<void()>& body_;
  int count_;
  std::vector<std::vector<std::uint64_t>> snapshots_;  // by warp: what its lanes gave last
  std::unique_ptr<std::byte, Free> shared_;
  void* host_ = nullptr;  // end of its stack while a fiber runs
  const void* host_stack_ = nullptr;
  std::size_t host_stack_bytes_ = 0;
  std::exception_ptr error_;
  bool any_ = false;
};

cudaError_t last_error = cudaSuccess;
CUstream_st default_stream;
CUstream_st& stream_of(cudaStream_t stream) {
  return stream ? *stream : default_stream;
}

void drain(CUstream_st& stream) {
  while (!stream.work.empty()) {
    const std::function<void()> next = std::move(stream.work.front());
    stream.work.pop_front();
    next();
  }
}

}  // namespace

Machine& machine() {
  static Machine one;
  return one;
}

cudaStream_t make_stream() {
  return new CUstream_st;
}

void destroy_stream(cudaStream_t stream) {
  drain(*stream);
  delete stream;
}

void run_pending(cudaStream_t stream) {
  drain(stream_of(stream));
}

std::size_t pending(cudaStream_t stream) {
  return stream_of(stream).work.size();
}

void enqueue(cudaStream_t stream, std::function<void()> work) {
  stream_of(stream).work.push_back(std::move(work));
}

void launch(cudaStream_t stream, unsigned blocks, int threads, std::size_t shared_bytes, const char* kernel,
            std::function<void()> body) {
  machine().launches += 1;
  if (machine().fail_at_launch > 0 && --machine().fail_at_launch == 0) {
    last_error = cudaErrorLaunchFailure;
    return;
  }
  enqueue(stream, [=] {
    std::mt19937_64 random(machine().order_seed);
    std::vector<unsigned> order(blocks);
    std::iota(order.begin(), order.end(), 0u);
    std::shuffle(order.begin(), order.end(), random);
    for (const unsigned b : order) {
      block_index.x = b;
      block_shape = {static_cast<unsigned>(threads), 1, 1};
      grid_shape = {blocks, 1, 1};
      Block(threads, shared_bytes, kernel, body).run(random);
    }
  });
}

void* shared_memory() {
  return Block::current().shared();
}

void block_barrier(const char* file, int line) {
  Block::current().wait(At::block_barrier, 0, file, line);
}

int block_barrier_or(int value, const char* file, int line) {
  Block& block = Block::current();
  block.wait(At::block_barrier, value != 0, file, line);
  return block.any();
}

const std::uint64_t* exchange(std::uint64_t mine, const char* file, int line) {
  Block& block = Block::current();
  block.wait(At::warp_exchange, mine, file, line);
  return block.snapshot();
}

int lane() {
  return static_cast<int>(thread_index.x) % warp;
}

unsigned ballot(bool vote, const char* file, int line) {
  const std::uint64_t* votes = exchange(vote, file, line);
  unsigned bits = 0;
  for (int i = 0; i < warp; ++i) bits |= static_cast<unsigned>(votes[i] != 0) << i;
  return bits;
}

}  // namespace cuda_emulator

using cuda_emulator::machine;

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess: return "cudaSuccess";
    case cudaErrorInvalidValue: return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation: return "cudaErrorMemoryAllocation";
    case cudaErrorInsufficientDriver: return "cudaErrorInsufficientDriver";
    case cudaErrorNoDevice: return "cudaErrorNoDevice";
    case cudaErrorInvalidDevice: return "cudaErrorInvalidDevice";
    case cudaErrorLaunchFailure: return "cudaErrorLaunchFailure";
  }
  return "unknown";
}

const char* cudaGetErrorString(cudaError_t) {
  return "emulated";
}

cudaError_t cudaGetLastError() {
  return std::exchange(cuda_emulator::last_error, cudaSuccess);
}

cudaError_t cudaDriverGetVersion(int* version) {
  *version = machine().driver;
  return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int* count) {
  *count = machine().devices;
  if (machine().driver < 13000) return cudaErrorInsufficientDriver;
  return machine().devices ? cudaSuccess : cudaErrorNoDevice;
}

cudaError_t cudaGetDevice(int* device) {
  *device = machine().current_device;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= machine().devices) return cudaErrorInvalidDevice;
  machine().current_device = device;
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  machine().waits += 1;
  cuda_emulator::drain(cuda_emulator::stream_of(stream));
  return cudaSuccess;
}

cudaError_t cudaHostAlloc(void** memory, std::size_t bytes, unsigned) {
  machine().allocations += 1;
  *memory = std::malloc(bytes);
  return *memory ? cudaSuccess : cudaErrorMemoryAllocation;
}

cudaError_t cudaMallocAsync(void** memory, std::size_t bytes, cudaStream_t) {
  *memory = nullptr;
  if (bytes > machine().memory) return cuda_emulator::last_error = cudaErrorMemoryAllocation;
  *memory = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  std::memset(*memory, 0xff, bytes);
  machine().allocations += 1;
  return cudaSuccess;
}

cudaError_t cudaFreeAsync(void* memory, cudaStream_t stream) {
  cuda_emulator::enqueue(stream, [memory] { std::free(memory); });
  return cudaSuccess;
}

// Runs a grid of GPU threads on one CPU thread: one block after the other, and the threads of a block in turns, in an
// order that is drawn at random for each block and after each barrier. A thread runs until it has to wait for others.
// One that reads what another one writes without a barrier between them therefore finds it unwritten sooner or later;
// in static shared memory it finds what the block before has left there.
//
// What a GPU leaves undefined is an error here: a barrier that a thread of the block never reaches, threads that wait
// at different barriers, lanes of a warp that an operation names and that do not come.
#pragma once

#include <cuda_runtime_api.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <source_location>

namespace titer::cuda_on_cpu {

inline constexpr unsigned kWarp = 32;

struct Launch {
  dim3 blocks;
  unsigned threads;  ///< of a block
  size_t shared_bytes;
  std::source_location where;
};

/// Runs `thread` for every thread of the grid.
///
/// @return            cudaSuccess, or what a GPU of compute capability 8.0 would say about the sizes
/// @throws runtime_error  where threads wait for each other forever, or one stops; it names the launch and the places
cudaError_t run_grid(const Launch& launch, const std::function<void()>& thread);

/// The order of the threads of the next launches depends on the seed and on how many launches came in between.
void draw_order_from(uint64_t seed);

/// Shared memory of the block that runs, `shared_bytes` of it; NaN whatever it is read as until it is written.
std::byte* shared_memory();

/// The thread that runs waits for the rest of its block.
void wait_for_block(std::source_location where);

/// Copies `bytes` at once, or when the thread that runs asks for it with finish_copies(), as chance decides: a GPU
/// promises no more.
void copy_later(void* to, const void* from, size_t bytes);
void finish_copies();

/// Ends the launch with an error.
[[noreturn]] void stop(const char* reason, std::source_location where);

/// What the lanes of a warp brought, null for those that were not named.
using WarpOperands = std::array<void*, kWarp>;

/// The thread waits until all lanes in `mask` have come to the same place; the last one calls `operation`, which may
/// write to the operands.
void wait_for_warp(unsigned mask, void* operand, void (*operation)(const WarpOperands&), std::source_location where);

}  // namespace titer::cuda_on_cpu

// What CUDA calls these.
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

// Several processes ("ranks") that share one run: each holds the model, scores its part of the candidates and learns
// what the others found. Who starts and connects them is not core's business; it calls the functions that it is given.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

#include <titer/export.h>

namespace titer {

/// The place of one rank, and how it reaches the others; in Python, torch.distributed fills it.
///
/// Both functions are collective: every rank calls the same ones in the same order, with contiguous tensors on the CPU
/// of the same shape and dtype (uint8, int64, float32 or float64). What they throw ends the call that needed them.
struct Shard {
  int64_t rank = 0;   ///< of this process, 0 to world - 1; rank 0 leads
  int64_t world = 1;  ///< number of ranks; one alone needs no functions
  std::function<std::vector<at::Tensor>(const at::Tensor& own)> all_gather;  ///< the tensor of each rank, in order
  std::function<void(at::Tensor& tensor)> broadcast;                         ///< overwrites it with that of rank 0
};

/// @throws ValueError if rank or world are out of range, or a function is missing
TITER_EXPORT void check_shard(const Shard& shard);

/// Calls `work` on rank 0 alone, and returns on every rank once it is done. What it throws on rank 0 is thrown there,
/// and an error with the same message everywhere else.
TITER_EXPORT void on_rank_0(const Shard& shard, const std::function<void()>& work);

}  // namespace titer

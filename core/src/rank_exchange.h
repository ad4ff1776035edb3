// What ranks tell each other. A failure on one rank reaches all of them inside the exchange that they wait in, so that
// none waits for a rank that has given up. Without other ranks, every function just calls what it is given.
#pragma once

#include <ATen/core/Tensor.h>
#include <titer/core/shard.h>

#include <cstdint>
#include <exception>
#include <functional>
#include <string>
#include <vector>

namespace titer {

/// The bytes that `make` returns on rank 0, the only one to call it, on every rank. What it throws on rank 0 is thrown
/// there, and an error with the same message everywhere else.
std::string from_rank_0(const Shard& shard, const std::function<std::string()>& make);

/// Ids that `make` returns on rank 0, contiguous int64 on the CPU, on every rank: [N, columns].
at::Tensor ids_from_rank_0(const Shard& shard, int64_t columns, const std::function<at::Tensor()>& make);

/// The `size` numbers, zero at first, that `fill` leaves on each rank, in order of rank: [size] float64 each. Where
/// `fill` throws on some ranks, these throw the same, and the others an error that names the first of them.
std::vector<at::Tensor> from_all_ranks(const Shard& shard, int64_t size, const std::function<void(double*)>& fill);

/// Calls `work` on every rank and returns once it is done on all. Failures are those of from_all_ranks.
void on_all_ranks(const Shard& shard, const std::function<void()>& work);

/// What an error says, on one line.
std::string message_of(const std::exception_ptr& failure);

}  // namespace titer

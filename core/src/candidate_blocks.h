// Which work a set of candidates is: equal ones once, packed into blocks of a bounded number of rows. It depends on the
// candidates alone, not on who computes which block, so that losses have the same bits on any number of ranks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace titer {

/// A distinct candidate.
struct CandidateWork {
  int64_t candidate = 0;  ///< the first of its kind among those given
  int64_t first = 0;      ///< of the positions behind `before`, where its own rows begin
};

/// Candidates that are computed in one pass: `work` from `begin` to `end`.
struct CandidateBlock {
  size_t begin = 0;
  size_t end = 0;
  int64_t rows = 0;
};

struct CandidateBlocks {
  std::vector<CandidateWork> work;  ///< those that share least with the base first
  std::vector<int64_t> work_of;     ///< [B] which work each candidate is
  std::vector<CandidateBlock> blocks;
};

/// What blocks are cut by.
struct BlockLimits {
  int64_t positions = 0;   ///< rows of a candidate that shares nothing with the base
  int64_t last_first = 0;  ///< the row that predicts the first target token: computed whatever is shared
  std::optional<int64_t> batch_size = std::nullopt;  ///< most candidates of a block
};

/// @param candidates  [B, S]
/// @param base        [S]
CandidateBlocks plan_blocks(std::span<const int64_t> candidates, std::span<const int64_t> base,
                            const BlockLimits& limits);

/// The rank that computes each block: in their order, whichever has the fewest rows so far.
std::vector<int64_t> block_ranks(std::span<const CandidateBlock> blocks, int64_t world);

}  // namespace titer

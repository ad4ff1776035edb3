// The state of a token search between two steps: enough to go on bitwise as if it had never stopped.
#pragma once

#include <ATen/core/Tensor.h>
#include <titer/attacks/prompt_attack.h>

#include <filesystem>
#include <string>
#include <vector>

namespace titer {

/// A slot and its loss.
struct ScoredSlot {
  double loss = 0;
  std::vector<int64_t> ids;
};

struct SearchState {
  int64_t step = 0;                ///< steps done
  std::vector<ScoredSlot> buffer;  ///< best first; the search goes on from the first
  ScoredSlot best;                 ///< lowest loss so far
  double initial_loss = 0;
  std::string initial_completion;
  std::string stop_reason;  ///< set once the search has ended
  at::Tensor momentum;      ///< [S, d] float32, undefined before the first gradient or without momentum
  Cost cost;
  std::vector<AttackStep> trace;
};

/// What a checkpoint belongs to: it is refused for anything else.
struct SearchIdentity {
  std::string attack;
  std::string system;                                                ///< System::fingerprint
  std::string options;                                               ///< JSON of those that shape the search
  std::vector<int64_t> before_ids, slot_ids, after_ids, target_ids;  ///< the slot that the search starts from
};

/// Atomically. @throws std::system_error
void write_checkpoint(const std::filesystem::path& path, const SearchIdentity& identity, const SearchState& state);

/// @throws std::system_error if it cannot be read, std::invalid_argument if it is malformed or belongs to another
/// search
SearchState read_checkpoint(const std::filesystem::path& path, const SearchIdentity& identity);

}  // namespace titer

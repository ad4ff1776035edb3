// What all prompt attacks share: what they need, how a run is watched and interrupted, what it returns.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <titer/core/prompt.h>
#include <titer/core/run_log.h>
#include <titer/core/session.h>
#include <titer/core/shard.h>
#include <titer/export.h>

namespace titer {

/// One step of a search, as recorded.
struct AttackStep {
  int64_t step = 0;
  double loss = 0;           ///< of the slot that the step ends with, in the objective's unit
  double best_loss = 0;      ///< lowest so far
  int64_t width = 0;         ///< distinct valid candidates scored
  int64_t draws = 0;         ///< candidates drawn to find them
  std::vector<int64_t> ids;  ///< [S] the slot that the step ends with
  Cost cost;                 ///< of the whole run so far, earlier parts of a resumed one included
};

struct AttackResult {
  std::string attack;   ///< "gcg"
  std::string options;  ///< JSON object of all options
  std::string target;
  std::string text;                ///< what the attacker writes into the slot
  std::vector<int64_t> ids;        ///< its token ids in the prompt
  double initial_loss = 0;         ///< of the slot that the search started from
  double loss = 0;                 ///< of `ids`, scored again at the end
  bool success = false;            ///< greedy decoding of the final prompt starts with the target
  std::string initial_completion;  ///< the model's own answer before the attack
  std::string completion;          ///< and after it
  std::string stop_reason;         ///< "num_steps", "early_stop" or "callback"
  std::string template_hash;       ///< of the chat template; empty for plain text
  Cost cost;
  std::vector<AttackStep> trace;
};

/// A JSON object; parse_attack_result reads it back to the same bits.
TITER_EXPORT std::string to_json(const AttackResult& result);
/// @throws std::invalid_argument naming `origin` and the key that is missing or malformed
TITER_EXPORT AttackResult parse_attack_result(std::string_view json, std::string_view origin);

/// Called once per step; returning false ends the search, which then still reports its best.
using ProgressFn = std::function<bool(const AttackStep&)>;

/// How a run is watched, kept and shared. Changes nothing about what it computes.
struct AttackRun {
  ProgressFn progress;
  std::function<void()> poll;        ///< called between blocks of work; what it throws ends the run
  std::filesystem::path checkpoint;  ///< written during the run and when it is interrupted; empty for none
  bool resume = false;               ///< continue from `checkpoint` where that exists
  RunLog* log = nullptr;             ///< gets a record at the start, for every step and at the end
  /// Ranks that share the scoring: each runs the same attack on the same model and prompt, and gets the same result.
  /// Rank 0 alone calls `progress`, reads and writes `checkpoint` and `log`, and decides when to stop.
  Shard shard = {};
};

class TITER_EXPORT PromptAttack {
 public:
  virtual ~PromptAttack() = default;
  /// What the attack has to see of a system.
  virtual Access needs() const = 0;
  /// @throws ValueError if the system offers less than needs(), or an option or the checkpoint does not fit
  virtual AttackResult run(const System& system, const Prompt& prompt, const AttackRun& run = {}) const = 0;
};

}  // namespace titer

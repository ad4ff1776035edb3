// One run of an attack on several ranks.
#pragma once

#include <titer/attacks/prompt_attack.h>

namespace titer {

/// Runs the attack on rank 0, without its shard, and shares the scoring of its sessions with the others. The result of
/// rank 0, on every rank.
AttackResult run_on_ranks(const PromptAttack& attack, const System& system, const Prompt& prompt, const AttackRun& run);

}  // namespace titer

#include "search/run_on_ranks.h"

#include "led_by_rank_0.h"

namespace titer {

AttackResult run_on_ranks(const PromptAttack& attack, const System& system, const Prompt& prompt,
                          const AttackRun& run) {
  check_shard(run.shard);
  AttackRun alone = run;
  alone.shard = {};
  const auto search = [&](const System& shared) { return to_json(attack.run(shared, prompt, alone)); };
  return parse_attack_result(led_by_rank_0(run.shard, system, prompt, run.poll, search), "result of rank 0");
}

}  // namespace titer

// A search on several ranks: rank 0 alone runs it, with its files, callbacks and decisions, and the others do the share
// of the computing that its sessions ask them for. So no search needs to know of ranks, and none can drift apart.
#pragma once

#include <titer/core/prompt.h>
#include <titer/core/session.h>
#include <titer/core/shard.h>

#include <functional>
#include <string>

namespace titer {

/// Collective. Calls `search` on rank 0 with a system that answers as `system` does and whose sessions the other ranks
/// compute as well; these return when it has.
///
/// @param prompt  what `search` opens is this prompt, or it with another text in the slot
/// @param poll    called between blocks of work on ranks other than 0, and on all before a failure ends the call
/// @return        on every rank, what `search` returned
/// @throws what `search` throws on rank 0; on other ranks what they failed with, or an error with its message
std::string led_by_rank_0(const Shard& shard, const System& system, const Prompt& prompt,
                          const std::function<void()>& poll,
                          const std::function<std::string(const System& shared)>& search);

}  // namespace titer

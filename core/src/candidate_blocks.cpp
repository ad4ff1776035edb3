#include "candidate_blocks.h"

#include <algorithm>
#include <numeric>
#include <string_view>
#include <unordered_map>

namespace titer {
namespace {

// Rows of one block: enough for a GEMM to run at full speed, few enough for activations to stay in cache.
constexpr int64_t kBlockRows = 1024;

}  // namespace

CandidateBlocks plan_blocks(std::span<const int64_t> candidates, std::span<const int64_t> base,
                            const BlockLimits& limits) {
  CandidateBlocks plan;
  const size_t count = candidates.size() / base.size();
  std::vector<CandidateWork> found;
  std::unordered_map<std::string_view, int64_t> seen;
  plan.work_of.reserve(count);
  for (size_t c = 0; c < count; ++c) {
    const std::span<const int64_t> row = candidates.subspan(c * base.size(), base.size());
    const std::string_view key(reinterpret_cast<const char*>(row.data()), row.size_bytes());
    const auto [entry, is_new] = seen.try_emplace(key, static_cast<int64_t>(found.size()));
    if (is_new) {
      const int64_t changed = std::mismatch(base.begin(), base.end(), row.begin()).first - base.begin();
      found.push_back({.candidate = static_cast<int64_t>(c), .first = std::min(changed, limits.last_first)});
    }
    plan.work_of.push_back(entry->second);
  }

  std::vector<size_t> order(found.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return found[a].first < found[b].first; });
  std::vector<int64_t> place(found.size());
  for (const size_t index : order) {
    place[index] = static_cast<int64_t>(plan.work.size());
    plan.work.push_back(found[index]);
  }
  for (int64_t& work : plan.work_of) work = place[static_cast<size_t>(work)];

  for (size_t i = 0; i < plan.work.size(); ++i) {
    const int64_t rows = limits.positions - plan.work[i].first;
    if (plan.blocks.empty() || plan.blocks.back().rows + rows > kBlockRows ||
        static_cast<int64_t>(i - plan.blocks.back().begin) == limits.batch_size)
      plan.blocks.push_back({.begin = i, .end = i, .rows = 0});
    plan.blocks.back().end = i + 1;
    plan.blocks.back().rows += rows;
  }
  return plan;
}

std::vector<int64_t> block_ranks(std::span<const CandidateBlock> blocks, int64_t world) {
  std::vector<int64_t> rows(static_cast<size_t>(world)), ranks;
  for (const CandidateBlock& block : blocks) {
    const auto least = std::min_element(rows.begin(), rows.end());
    *least += block.rows;
    ranks.push_back(least - rows.begin());
  }
  return ranks;
}

}  // namespace titer

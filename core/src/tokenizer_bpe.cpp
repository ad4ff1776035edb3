#include "tokenizer_bpe.h"

#include <algorithm>
#include <bit>

namespace titer::tokenization {
namespace {

constexpr uint64_t kFree = ~uint64_t{0};

uint64_t key_of(int32_t left, int32_t right) {
  return uint64_t{static_cast<uint32_t>(left)} << 32U | static_cast<uint32_t>(right);
}

bool merges_later(const Workspace::Candidate& a, const Workspace::Candidate& b) { return a.priority > b.priority; }

}  // namespace

void MergeTable::reserve(std::size_t num_merges) {
  const std::size_t size = std::bit_ceil(2 * num_merges + 2);
  entries_.assign(size, Entry{kFree, {0, -1}});
  shift_ = 64 - std::countr_zero(size);
}

std::size_t MergeTable::slot_of(uint64_t key) const {
  const std::size_t mask = entries_.size() - 1;
  std::size_t slot = (key ^ key >> 29U) * 0x9E3779B97F4A7C15U >> static_cast<unsigned>(shift_);
  while (entries_[slot].key != key && entries_[slot].key != kFree) slot = (slot + 1) & mask;
  return slot;
}

void MergeTable::insert(int32_t left, int32_t right, Merge merge) {
  const uint64_t key = key_of(left, right);
  entries_[slot_of(key)] = {key, merge};
}

Merge MergeTable::find(int32_t left, int32_t right) const { return entries_[slot_of(key_of(left, right))].merge; }

void BpeModel::encode_piece(std::string_view piece, Workspace& workspace) const {
  std::vector<Symbol>& symbols = workspace.symbols;
  symbols.clear();
  const auto size = static_cast<uint32_t>(piece.size());
  if (!whole_pieces.empty()) {
    if (const auto found = whole_pieces.find(piece); found != whole_pieces.end()) {
      symbols.push_back({found->second, 0, size, -1, -1});
      return;
    }
  }

  bool after_unknown = false;
  for (uint32_t i = 0; i < size; ++i) {
    int32_t id = byte_ids[static_cast<unsigned char>(piece[i])];
    if (id < 0) {
      if (unknown_id < 0) continue;
      if (after_unknown && fuse_unknown) {
        symbols.back().end = i + 1;
        continue;
      }
      id = unknown_id;
    }
    after_unknown = byte_ids[static_cast<unsigned char>(piece[i])] < 0;
    const auto index = static_cast<int32_t>(symbols.size());
    symbols.push_back({id, i, i + 1, index - 1, index + 1});
  }
  if (symbols.empty()) return;
  symbols.back().next = -1;

  std::vector<Workspace::Candidate>& heap = workspace.heap;
  heap.clear();
  const auto candidate = [&](int32_t left, int32_t right) {
    const Symbol& a = symbols[static_cast<std::size_t>(left)];
    const Symbol& b = symbols[static_cast<std::size_t>(right)];
    const Merge merge = merges.find(a.id, b.id);
    if (merge.id >= 0) {
      heap.push_back({uint64_t{merge.rank} << 32U | static_cast<uint32_t>(left), a.id, b.id, merge.id});
    }
    return merge.id >= 0;
  };
  for (std::size_t i = 0; i + 1 < symbols.size(); ++i) {
    candidate(static_cast<int32_t>(i), static_cast<int32_t>(i + 1));
  }
  std::make_heap(heap.begin(), heap.end(), merges_later);

  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), merges_later);
    const Workspace::Candidate best = heap.back();
    heap.pop_back();
    const auto position = static_cast<int32_t>(best.priority & 0xFFFFFFFFU);
    Symbol& left = symbols[static_cast<std::size_t>(position)];
    // A candidate is stale once either of its symbols has been merged away. Symbols only grow, so equal ids mean that
    // the pair is still the one that was ranked.
    if (left.id != best.left || left.next < 0) continue;
    Symbol& right = symbols[static_cast<std::size_t>(left.next)];
    if (right.id != best.right) continue;

    left.id = best.merged;
    left.end = right.end;
    left.next = right.next;
    right.id = -1;
    if (left.next >= 0) symbols[static_cast<std::size_t>(left.next)].previous = position;
    if (left.previous >= 0 && candidate(left.previous, position)) {
      std::push_heap(heap.begin(), heap.end(), merges_later);
    }
    if (left.next >= 0 && candidate(position, left.next)) {
      std::push_heap(heap.begin(), heap.end(), merges_later);
    }
  }
  symbols.erase(std::remove_if(symbols.begin(), symbols.end(), [](const Symbol& s) { return s.id < 0; }),
                symbols.end());
}

}  // namespace titer::tokenization

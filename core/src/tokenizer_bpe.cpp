#include "tokenizer_bpe.h"

#include <algorithm>
#include <bit>

#include "utf8.h"

namespace titer::tokenization {
namespace {

constexpr std::size_t kShortPiece = 24;  // symbols

bool merges_later(const Workspace::Candidate& a, const Workspace::Candidate& b) { return a.priority > b.priority; }

}  // namespace

void MergeTable::reserve(std::size_t num_merges) {
  slots_.assign(std::bit_ceil(4 * num_merges + 2), kFree);
  shift_ = 64 - static_cast<unsigned>(std::countr_zero(slots_.size()));
  entries_.reserve(num_merges);
}

void MergeTable::push_back(int32_t left, int32_t right, int32_t merged) {
  slots_[slot_of(left, right)] = static_cast<uint32_t>(entries_.size());
  entries_.push_back({left, right, merged});
}

void BpeModel::encode_piece(std::string_view piece, Workspace& workspace) const {
  std::vector<Symbol>& symbols = workspace.symbols;
  symbols.clear();
  if (whole_pieces) {
    if (const int32_t whole = whole_pieces->find(piece); whole >= 0) {
      symbols.push_back({whole, 0, static_cast<uint32_t>(piece.size()), -1, -1});
      return;
    }
  }
  start(piece, symbols);
  if (symbols.size() <= kShortPiece) {
    merge_short(symbols);
  } else {
    symbols.back().next = -1;
    merge_long(symbols, workspace.heap);
  }
}

/// The symbols before any merge.
void BpeModel::start(std::string_view piece, std::vector<Symbol>& symbols) const {
  bool after_unknown = false;
  const auto add = [&](int32_t id, std::size_t begin, std::size_t end) {
    const bool unknown = id < 0;
    if (unknown) {
      if (unknown_id < 0) return;
      if (after_unknown && fuse_unknown) {
        symbols.back().end = static_cast<uint32_t>(end);
        return;
      }
      id = unknown_id;
    }
    after_unknown = unknown;
    const auto index = static_cast<int32_t>(symbols.size());
    symbols.push_back({id, static_cast<uint32_t>(begin), static_cast<uint32_t>(end), index - 1, index + 1});
  };
  const auto byte_id = [&](std::size_t i) { return byte_ids[static_cast<unsigned char>(piece[i])]; };
  if (!character_ids) {
    for (std::size_t i = 0; i < piece.size(); ++i) add(byte_id(i), i, i + 1);
    return;
  }
  for (std::size_t i = 0; i < piece.size();) {
    const CodePoint c = code_point_at(piece, i);
    const std::size_t end = i + c.bytes;
    if (const int32_t id = character_ids->find(c.value); id >= 0 || byte_id(i) < 0) {
      add(id, i, end);
    } else {
      for (std::size_t k = i; k < end; ++k) add(byte_id(k), k, k + 1);
    }
    i = end;
  }
}

/// By scanning for the lowest rank after every merge, which is faster than a heap for as few symbols as words have.
void BpeModel::merge_short(std::vector<Symbol>& symbols) const {
  std::array<Merge, kShortPiece> merge_at;  // of the symbols i and i + 1
  std::size_t size = symbols.size();
  for (std::size_t i = 0; i + 1 < size; ++i) merge_at[i] = merges.find(symbols[i].id, symbols[i + 1].id);
  while (size > 1) {
    std::size_t best = 0;
    for (std::size_t i = 1; i + 1 < size; ++i) {
      if (merge_at[i].rank < merge_at[best].rank) best = i;
    }
    if (merge_at[best].id < 0) break;
    symbols[best].id = merge_at[best].id;
    symbols[best].end = symbols[best + 1].end;
    --size;
    for (std::size_t i = best + 1; i < size; ++i) {
      symbols[i] = symbols[i + 1];
      merge_at[i - 1] = merge_at[i];
    }
    if (best > 0) merge_at[best - 1] = merges.find(symbols[best - 1].id, symbols[best].id);
    if (best + 1 < size) merge_at[best] = merges.find(symbols[best].id, symbols[best + 1].id);
  }
  symbols.resize(size);
}

/// With a heap of candidates and a linked list of symbols: O(n log n).
void BpeModel::merge_long(std::vector<Symbol>& symbols, std::vector<Workspace::Candidate>& heap) const {
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

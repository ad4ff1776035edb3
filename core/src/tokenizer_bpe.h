// Byte pair encoding of one piece (Sennrich et al., arXiv:1508.07909): starting from single bytes or characters, the
// adjacent pair with the lowest rank, leftmost first, is merged until no pair has a rank.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "character_ids.h"
#include "piece_memo.h"
#include "string_table.h"

namespace titer::tokenization {

/// What becomes of a pair of adjacent tokens.
struct Merge {
  uint32_t rank = ~uint32_t{0};
  int32_t id = -1;  ///< of the merged token; negative if the pair does not merge
};

/// Hash map (left id, right id) -> Merge with open addressing. Most pairs do not merge, so what a miss touches is kept
/// small (4 bytes per slot), and merges lie in the order of their ranks, which is that of their frequency.
class MergeTable {
 public:
  void reserve(std::size_t num_merges);
  /// Appends the merge of the next rank. A later merge of the same pair replaces an earlier one.
  void push_back(int32_t left, int32_t right, int32_t merged);

  /// A hint for the processor that push_back of the pair comes soon.
  void prefetch(int32_t left, int32_t right) const { __builtin_prefetch(&slots_[first_slot(left, right)], 1); }

  Merge find(int32_t left, int32_t right) const {
    const uint32_t rank = slots_[slot_of(left, right)];
    return rank == kFree ? Merge{} : Merge{rank, entries_[rank].merged};
  }

 private:
  static constexpr uint32_t kFree = ~uint32_t{0};

  struct Entry {
    int32_t left;
    int32_t right;
    int32_t merged;
  };

  std::size_t first_slot(int32_t left, int32_t right) const {
    const uint64_t key = uint64_t{static_cast<uint32_t>(left)} << 32U | static_cast<uint32_t>(right);
    return key * multiplier_ >> shift_;
  }

  std::size_t slot_of(int32_t left, int32_t right) const {
    const std::size_t mask = slots_.size() - 1;
    std::size_t slot = first_slot(left, right);
    while (true) {
      const uint32_t rank = slots_[slot];
      if (rank == kFree || (entries_[rank].left == left && entries_[rank].right == right)) return slot;
      slot = (slot + 1) & mask;
    }
  }

  std::vector<Entry> entries_;   // by rank
  std::vector<uint32_t> slots_;  // ranks; size a power of two
  unsigned shift_ = 0;           // 64 - log2(slots_.size())
  uint64_t multiplier_ = hash_seed() | 1U;
};

/// A token of a piece: its id and the bytes [begin, end) of the piece.
struct Symbol {
  int32_t id;
  uint32_t begin;
  uint32_t end;
  int32_t previous;  // index of the neighbour, -1 if none
  int32_t next;
};

/// What one thread needs while it encodes. Reused from call to call.
struct Workspace {
  struct Candidate {
    uint64_t priority;  // rank, then position: the smallest merges first
    int32_t left;
    int32_t right;
    int32_t merged;
  };

  std::vector<Symbol> symbols;
  std::vector<Candidate> heap;
  std::vector<int32_t> ids;
  PieceMemo memo;
};

struct BpeModel {
  /// Ids of the tokens that spell a byte, -1 if the vocabulary lacks it: in a byte-level vocabulary what every piece
  /// starts from, otherwise what stands for a character without a token (byte fallback).
  std::array<int32_t, 256> byte_ids{};
  /// Ids of the characters that a piece starts from; none in a byte-level vocabulary.
  std::optional<CharacterIds> character_ids;
  int32_t unknown_id = -1;                  ///< stands for what has no id; -1: it is dropped
  bool fuse_unknown = false;                ///< one unknown_id for a run of them
  std::optional<StringIndex> whole_pieces;  ///< tokens that a piece may be as it stands (`ignore_merges`)
  MergeTable merges;

  /// Leaves the tokens of a piece in workspace.symbols. O(n log n); the piece must be shorter than 2^31 bytes.
  void encode_piece(std::string_view piece, Workspace& workspace) const;

  /// Calls emit(ids, count) once, from the memo if the piece was seen before.
  template <class Emit>
  void encode_piece_ids(std::string_view piece, Workspace& workspace, const Emit& emit) const {
    const uint64_t hash = hash_of(piece);
    if (const PieceMemo::Ids* known = workspace.memo.find(piece, hash)) {
      emit(workspace.memo.data(*known), known->count);
      return;
    }
    encode_piece(piece, workspace);
    workspace.ids.clear();
    for (const Symbol& symbol : workspace.symbols) workspace.ids.push_back(symbol.id);
    workspace.memo.insert(piece, hash, workspace.ids);
    emit(workspace.ids.data(), workspace.ids.size());
  }

 private:
  void start(std::string_view piece, std::vector<Symbol>& symbols) const;
  void merge_short(std::vector<Symbol>& symbols) const;
  void merge_long(std::vector<Symbol>& symbols, std::vector<Workspace::Candidate>& heap) const;
};

}  // namespace titer::tokenization

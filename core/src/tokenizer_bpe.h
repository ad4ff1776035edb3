// Byte pair encoding of one piece (Sennrich et al., arXiv:1508.07909): starting from single bytes, the adjacent pair
// with the lowest rank, leftmost first, is merged until no pair has a rank.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "piece_memo.h"

namespace titer::tokenization {

struct Merge {
  uint32_t rank;
  int32_t id;  ///< of the merged token; negative if the pair does not merge
};

/// Hash map (left id, right id) -> Merge with open addressing.
class MergeTable {
 public:
  void reserve(std::size_t num_merges);
  /// A later merge of the same pair replaces an earlier one.
  void insert(int32_t left, int32_t right, Merge merge);
  Merge find(int32_t left, int32_t right) const;

 private:
  struct Entry {
    uint64_t key;
    Merge merge;
  };

  std::size_t slot_of(uint64_t key) const;

  std::vector<Entry> entries_;
  int shift_ = 63;  // 64 - log2(entries_.size())
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
  std::array<int32_t, 256> byte_ids{};  ///< id of the token that spells a byte; -1 if the vocabulary lacks it
  int32_t unknown_id = -1;              ///< stands for such bytes; -1: they are dropped
  bool fuse_unknown = false;            ///< one unknown_id for a run of them
  PieceIndex whole_pieces;              ///< pieces that are tokens as they stand (`ignore_merges`), by their bytes
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
};

}  // namespace titer::tokenization

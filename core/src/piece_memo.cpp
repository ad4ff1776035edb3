#include "piece_memo.h"

#include <cstring>

namespace titer::tokenization {
namespace {

constexpr std::size_t kFirstEntries = 1024;
constexpr std::size_t kMaxEntries = std::size_t{1} << 15U;  // 0.8 MB
constexpr std::size_t kMaxKeyBytes = 128;                   // longer pieces hardly repeat
constexpr std::size_t kMaxArena = std::size_t{1} << 20U;    // bytes of keys, and number of ids

}  // namespace

const PieceMemo::Ids* PieceMemo::find(std::string_view piece, uint64_t hash) const {
  if (entries_.empty()) return nullptr;
  const std::size_t mask = entries_.size() - 1;
  for (std::size_t slot = hash & mask;; slot = (slot + 1) & mask) {
    const Entry& entry = entries_[slot];
    if (entry.key_size == 0) return nullptr;
    if (entry.hash == hash && entry.key_size == piece.size() &&
        std::memcmp(keys_.data() + entry.key_begin, piece.data(), piece.size()) == 0) {
      return &entry.ids;
    }
  }
}

void PieceMemo::insert(std::string_view piece, uint64_t hash, const std::vector<int32_t>& ids) {
  if (piece.empty() || piece.size() > kMaxKeyBytes) return;
  make_room();
  const std::size_t mask = entries_.size() - 1;
  std::size_t slot = hash & mask;
  while (entries_[slot].key_size != 0) slot = (slot + 1) & mask;
  entries_[slot] = {hash,
                    static_cast<uint32_t>(keys_.size()),
                    static_cast<uint32_t>(piece.size()),
                    {static_cast<uint32_t>(ids_.size()), static_cast<uint32_t>(ids.size())}};
  keys_.append(piece);
  ids_.insert(ids_.end(), ids.begin(), ids.end());
  ++num_used_;
}

/// Keeps at least half of the slots free.
void PieceMemo::make_room() {
  if (entries_.empty()) entries_.resize(kFirstEntries);
  const bool full = 2 * num_used_ >= entries_.size();
  if (keys_.size() > kMaxArena || ids_.size() > kMaxArena || (full && entries_.size() >= kMaxEntries)) {
    entries_.assign(entries_.size(), Entry{});
    keys_.clear();
    ids_.clear();
    num_used_ = 0;
  } else if (full) {
    std::vector<Entry> old(2 * entries_.size());
    old.swap(entries_);
    const std::size_t mask = entries_.size() - 1;
    for (const Entry& entry : old) {
      if (entry.key_size == 0) continue;
      std::size_t slot = entry.hash & mask;
      while (entries_[slot].key_size != 0) slot = (slot + 1) & mask;
      entries_[slot] = entry;
    }
  }
}

}  // namespace titer::tokenization

// Memo of BPE: texts repeat their words, so the ids of short pieces are kept. One memo belongs to one workspace, hence
// to one thread at a time; it never grows beyond a fixed size and starts anew when it is full.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace titer::tokenization {

class PieceMemo {
 public:
  struct Ids {
    uint32_t first;
    uint32_t count;
  };

  /// Ids of a piece whose hash_of is `hash`, or null. Valid until the next insert.
  const Ids* find(std::string_view piece, uint64_t hash) const;
  const int32_t* data(const Ids& ids) const { return ids_.data() + ids.first; }

  /// Adds a piece that find() does not know, unless it is long.
  void insert(std::string_view piece, uint64_t hash, const std::vector<int32_t>& ids);

 private:
  struct Entry {
    uint64_t hash;
    uint32_t key_begin;
    uint32_t key_size;  // 0: free
    Ids ids;
  };

  void make_room();

  std::vector<Entry> entries_;  // open addressing, size a power of two
  std::size_t num_used_ = 0;
  std::string keys_;
  std::vector<int32_t> ids_;
};

}  // namespace titer::tokenization

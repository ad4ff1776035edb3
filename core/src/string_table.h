// Strings by id and ids by string: what a vocabulary of a hundred thousand tokens needs to load fast.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace titer::tokenization {

/// A number drawn once per process. Hash tables start from it, so that no file can be written to make them slow; what
/// they answer never depends on it.
uint64_t hash_seed();

uint64_t hash_of(std::string_view bytes);

/// Strings by id, in one block of memory.
class StringTable {
 public:
  void push_back(std::string_view text) {
    bytes_.append(text);
    ends_.push_back(bytes_.size());
  }
  std::string_view operator[](std::size_t i) const {
    const std::size_t begin = i == 0 ? 0 : ends_[i - 1];
    return std::string_view(bytes_).substr(begin, ends_[i] - begin);
  }
  std::size_t size() const { return ends_.size(); }

  /// Hints for the processor that operator[] and what it returns come next.
  void prefetch_place(std::size_t i) const { __builtin_prefetch(&ends_[i]); }
  void prefetch_bytes(std::size_t i) const { __builtin_prefetch(bytes_.data() + (i == 0 ? 0 : ends_[i - 1])); }

 private:
  std::string bytes_;
  std::vector<std::size_t> ends_;
};

/// Ids of some strings of a table, which must outlive the index. Hash table with open addressing.
class StringIndex {
 public:
  explicit StringIndex(const StringTable& strings) : strings_(strings) {}

  /// To be called once. Of two ids with the same string the first is known.
  /// @returns the first id whose string another one has already, -1 if there is none
  int32_t insert_all(std::span<const int32_t> ids);
  /// Id of a string, -1 if it is not known.
  int32_t find(std::string_view text) const;
  /// The same for many strings: the table is larger than the caches, and what one look-up waits for is fetched for all.
  void find_all(std::span<const std::string_view> texts, std::span<int32_t> ids) const;
  bool empty() const { return slots_.empty(); }

 private:
  struct Slot {
    int32_t id = -1;
    uint32_t tag = 0;  // upper half of the hash
  };

  /// Where the string stands, or the free slot where it belongs.
  std::size_t slot_of(std::string_view text, uint64_t hash) const;

  const StringTable& strings_;
  std::vector<Slot> slots_;  // size a power of two, at least half of them free
};

}  // namespace titer::tokenization

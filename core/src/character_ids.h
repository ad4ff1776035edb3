// Token ids of single characters: what BPE starts from when its vocabulary spells characters and not bytes. Pages of
// 256 code points, made only where the vocabulary has a character.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace titer::tokenization {

class CharacterIds {
 public:
  void insert(char32_t c, int32_t id) {
    uint16_t& page = page_of_[c / kPageSize];
    if (page == 0) {
      pages_.resize(pages_.size() + kPageSize, -1);
      page = static_cast<uint16_t>(pages_.size() / kPageSize - 1);
    }
    pages_[page * kPageSize + c % kPageSize] = id;
  }

  /// -1 if the character has no token.
  int32_t find(char32_t c) const { return pages_[page_of_[c / kPageSize] * kPageSize + c % kPageSize]; }

 private:
  static constexpr std::size_t kPageSize = 256;

  std::array<uint16_t, 0x110000 / kPageSize> page_of_{};              // 0: none
  std::vector<int32_t> pages_ = std::vector<int32_t>(kPageSize, -1);  // page 0 has no character
};

}  // namespace titer::tokenization

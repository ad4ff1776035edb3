// One byte for every code point in little memory: pages of 256 code points, equal pages stored once. Made once per
// process from ranges of a generated table; a look-up is two array accesses.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

namespace titer::tokenization {

class CodePointPages {
 public:
  static constexpr std::size_t kNumCodePoints = 0x110000;

  /// `values` holds one byte per code point.
  explicit CodePointPages(const std::vector<uint8_t>& values) {
    using Page = std::array<uint8_t, kPageSize>;
    std::map<Page, uint16_t> known;
    for (std::size_t p = 0; p < kNumPages; ++p) {
      Page page;
      for (std::size_t i = 0; i < kPageSize; ++i) page[i] = values[p * kPageSize + i];
      const auto [entry, is_new] = known.try_emplace(page, static_cast<uint16_t>(known.size()));
      if (is_new) pages_.insert(pages_.end(), page.begin(), page.end());
      page_of_[p] = entry->second;
    }
  }

  uint8_t operator[](char32_t c) const { return pages_[page_of_[c / kPageSize] * kPageSize + c % kPageSize]; }

 private:
  static constexpr std::size_t kPageSize = 256;
  static constexpr std::size_t kNumPages = kNumCodePoints / kPageSize;

  std::array<uint16_t, kNumPages> page_of_{};
  std::vector<uint8_t> pages_;
};

}  // namespace titer::tokenization

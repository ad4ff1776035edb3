// Ranges of the generated table, unfolded once into pages of 256 code points; equal pages are stored once.
#include "unicode_classes.h"

#include <array>
#include <iterator>
#include <map>
#include <vector>

namespace titer::tokenization {
namespace {

struct CodePointRange {
  char32_t first;
  char32_t last;
};

#include "unicode_tables.inc"

constexpr std::size_t kPageSize = 256;
constexpr std::size_t kNumPages = 0x110000 / kPageSize;

class ClassPages {
 public:
  ClassPages() {
    std::vector<uint8_t> classes(kNumPages * kPageSize, kOther);
    const auto mark = [&](const auto& ranges, CharacterClass bit) {
      for (const CodePointRange& range : ranges) {
        for (char32_t c = range.first; c <= range.last; ++c) classes[c] |= bit;
      }
    };
    mark(kLetters, kLetter);
    mark(kNumbers, kNumber);
    mark(kSpaces, kSpace);
    mark(kDigits, kDigit);

    using Page = std::array<uint8_t, kPageSize>;
    std::map<Page, uint16_t> known;
    for (std::size_t p = 0; p < kNumPages; ++p) {
      Page page;
      for (std::size_t i = 0; i < kPageSize; ++i) page[i] = classes[p * kPageSize + i];
      const auto [entry, is_new] = known.try_emplace(page, static_cast<uint16_t>(known.size()));
      if (is_new) pages_.insert(pages_.end(), page.begin(), page.end());
      page_of_[p] = entry->second;
    }
  }

  uint8_t operator[](char32_t c) const { return pages_[page_of_[c / kPageSize] * kPageSize + c % kPageSize]; }

 private:
  std::array<uint16_t, kNumPages> page_of_{};
  std::vector<uint8_t> pages_;
};

constexpr std::array<uint8_t, 128> ascii_classes() {
  std::array<uint8_t, 128> classes{};
  const auto mark = [&](const CodePointRange* ranges, std::size_t count, CharacterClass bit) {
    for (std::size_t r = 0; r < count; ++r) {
      for (char32_t c = ranges[r].first; c <= ranges[r].last && c < 128; ++c) {
        classes[c] = static_cast<uint8_t>(classes[c] | bit);
      }
    }
  };
  mark(kLetters, std::size(kLetters), kLetter);
  mark(kNumbers, std::size(kNumbers), kNumber);
  mark(kSpaces, std::size(kSpaces), kSpace);
  mark(kDigits, std::size(kDigits), kDigit);
  return classes;
}

constexpr std::array<uint8_t, 128> kAsciiClasses = ascii_classes();

}  // namespace

uint8_t character_class(char32_t code_point) {
  static const ClassPages pages;
  return pages[code_point];
}

Character character_at(std::string_view text, std::size_t position) {
  const auto byte = [&](std::size_t offset) { return static_cast<unsigned char>(text[position + offset]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return {kAsciiClasses[lead], 1};
  if (lead < 0xE0) return {character_class((lead & 0x1FU) << 6U | (byte(1) & 0x3FU)), 2};
  if (lead < 0xF0) {
    return {character_class((lead & 0x0FU) << 12U | (byte(1) & 0x3FU) << 6U | (byte(2) & 0x3FU)), 3};
  }
  return {
      character_class((lead & 0x07U) << 18U | (byte(1) & 0x3FU) << 12U | (byte(2) & 0x3FU) << 6U | (byte(3) & 0x3FU)),
      4};
}

}  // namespace titer::tokenization

#include "unicode_classes.h"

#include <array>
#include <iterator>
#include <vector>

#include "code_point_pages.h"
#include "utf8.h"

namespace titer::tokenization {
namespace {

struct CodePointRange {
  char32_t first;
  char32_t last;
};

#include "unicode_tables.inc"

/// Calls mark(ranges, number of ranges, bit) for every generated table.
template <class Mark>
constexpr void for_each_table(const Mark& mark) {
  mark(kLetters, std::size(kLetters), kLetter);
  mark(kNumbers, std::size(kNumbers), kNumber);
  mark(kSpaces, std::size(kSpaces), kSpace);
  mark(kDigits, std::size(kDigits), kDigit);
  mark(kMarks, std::size(kMarks), kMark);
  mark(kUppers, std::size(kUppers), kUpper);
  mark(kLowers, std::size(kLowers), kLower);
  mark(kWords, std::size(kWords), kWord);
}

std::vector<uint8_t> all_classes() {
  std::vector<uint8_t> classes(CodePointPages::kNumCodePoints, kOther);
  for_each_table([&](const CodePointRange* ranges, std::size_t count, CharacterClass bit) {
    for (std::size_t r = 0; r < count; ++r) {
      for (char32_t c = ranges[r].first; c <= ranges[r].last; ++c) classes[c] = static_cast<uint8_t>(classes[c] | bit);
    }
  });
  return classes;
}

constexpr std::array<uint8_t, 128> ascii_classes() {
  std::array<uint8_t, 128> classes{};
  for_each_table([&](const CodePointRange* ranges, std::size_t count, CharacterClass bit) {
    for (std::size_t r = 0; r < count; ++r) {
      for (char32_t c = ranges[r].first; c <= ranges[r].last && c < 128; ++c) {
        classes[c] = static_cast<uint8_t>(classes[c] | bit);
      }
    }
  });
  return classes;
}

constexpr std::array<uint8_t, 128> kAsciiClasses = ascii_classes();

}  // namespace

uint8_t character_class(char32_t code_point) {
  static const CodePointPages pages(all_classes());
  return pages[code_point];
}

Character character_at(std::string_view text, std::size_t position) {
  const auto lead = static_cast<unsigned char>(text[position]);
  if (lead < 0x80) return {kAsciiClasses[lead], 1};
  const CodePoint c = code_point_at(text, position);
  return {character_class(c.value), static_cast<uint8_t>(c.bytes)};
}

}  // namespace titer::tokenization

#include "tokenizer_split.h"

#include <algorithm>
#include <cstring>

#include "unicode_classes.h"
#include "utf8.h"

namespace titer::tokenization {
namespace {

uint8_t regex_class(Character c) { return c.classes & kRegexClasses; }

bool is_newline(char c) { return c == '\r' || c == '\n'; }

/// First position from `i` on whose character does not satisfy `belongs`, or `end`.
template <class Predicate>
std::size_t skip_while(std::string_view text, std::size_t i, std::size_t end, const Predicate& belongs) {
  while (i < end) {
    const Character c = character_at(text, i);
    if (!belongs(c)) break;
    i += c.bytes;
  }
  return i;
}

std::size_t skip_class(uint8_t wanted, std::string_view text, std::size_t i, std::size_t end) {
  return skip_while(text, i, end, [wanted](Character c) { return regex_class(c) == wanted; });
}

Piece digits_piece(bool individual, std::string_view text, std::size_t begin, std::size_t end) {
  const Character first = character_at(text, begin);
  const uint8_t digit = first.classes & kDigit;
  if (individual && digit != 0) return {begin + first.bytes, begin};
  const std::size_t stop = skip_while(text, begin, end, [digit](Character c) { return (c.classes & kDigit) == digit; });
  return {stop, stop};
}

/// Ending of a contraction after the apostrophe: s, t, re, ve, m, ll, d. `end` of the result is `i` if there is none.
Piece contraction_ending(bool ignore_case, std::string_view text, std::size_t i, std::size_t end) {
  const auto letter = [&](std::size_t position) {
    const char c = text[position];
    return ignore_case && c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  };
  if (i == end) return {i, end};
  // U+017F (long s) is the only other character that folds to one of these letters.
  if (ignore_case && text.substr(i, 2) == "\u017F") return {i + 2, i};
  const char first = letter(i);
  if (first == 's' || first == 't' || first == 'm' || first == 'd') return {i + 1, i};
  if (first != 'r' && first != 'v' && first != 'l') return {i, i};
  if (i + 1 == end) return {i, end};
  return {letter(i + 1) == (first == 'l' ? 'l' : 'e') ? i + 2 : i, i + 1};
}

/// `\s+(?!\S)|\s+` from `begin`, which is white space: all of it at the end of the text, else all but the last
/// character, which belongs to the next piece, unless it is the only one.
Piece space_piece(std::string_view text, std::size_t begin, std::size_t end) {
  std::size_t last = begin;
  std::size_t i = begin;
  while (i < end) {
    const Character c = character_at(text, i);
    if (regex_class(c) != kSpace) break;
    last = i;
    i += c.bytes;
  }
  return {i < end && last > begin ? last : i, i};
}

Piece gpt2_piece(std::string_view text, std::size_t begin, std::size_t end) {
  const Character first = character_at(text, begin);
  std::size_t i = begin + first.bytes;
  std::size_t reach = begin;
  if (text[begin] == '\'') {
    const Piece ending = contraction_ending(false, text, i, end);
    if (ending.end > i) return ending;
    reach = ending.reach;
  }
  uint8_t run = regex_class(first);
  if (text[begin] == ' ' && i < end) {  // ` ?`: one space in front of a run
    const Character second = character_at(text, i);
    run = regex_class(second);
    i += second.bytes;
  }
  if (run == kSpace) return space_piece(text, begin, end);
  const std::size_t stop = skip_class(run, text, i, end);
  return {stop, std::max(reach, stop)};
}

/// What the patterns after GPT-2's share: single or up to three numbers, symbols with what may follow them, white
/// space.
struct ModernPattern {
  int max_numbers;     // \p{N} or \p{N}{1,3}
  uint8_t word;        // classes that make up words
  bool slash_follows;  // symbols take slashes after line breaks
};

constexpr ModernPattern kLlama3Parts = {3, kLetter, false};
constexpr ModernPattern kQwen2Parts = {1, kLetter, false};
constexpr ModernPattern kQwen35Parts = {1, kLetter | kMark, false};
constexpr ModernPattern kGpt4oParts = {3, kLetter, true};
constexpr ModernPattern kTekkenParts = {1, kLetter, true};

/// `\p{N}{1,n}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+` where no word starts at `begin`.
Piece other_piece(const ModernPattern& pattern, std::string_view text, std::size_t begin, std::size_t end) {
  const Character first = character_at(text, begin);
  std::size_t i = begin + first.bytes;
  if (regex_class(first) == kNumber) {
    std::size_t reach = begin;
    for (int count = 1; count < pattern.max_numbers; ++count) {
      reach = i;
      if (i == end) break;
      const Character c = character_at(text, i);
      if (regex_class(c) != kNumber) break;
      i += c.bytes;
    }
    return {i, reach};
  }

  const auto is_symbol = [&](Character c) { return (c.classes & (kRegexClasses | pattern.word)) == 0; };
  if (is_symbol(first) || (text[begin] == ' ' && i < end && is_symbol(character_at(text, i)))) {
    i = skip_while(text, i, end, is_symbol);
    while (i < end && (is_newline(text[i]) || (pattern.slash_follows && text[i] == '/'))) ++i;
    return {i, i};
  }

  // \s*[\r\n]+ takes the white space up to its last newline.
  const std::size_t stop = skip_class(kSpace, text, begin, end);
  for (std::size_t newline = stop; newline > begin; --newline) {
    if (is_newline(text[newline - 1])) return {newline, stop};
  }
  return space_piece(text, begin, end);
}

/// `[^\r\n\p{L}\p{N}]?` may stand in front of a word.
bool may_precede_word(Character c, char first_byte) {
  return (c.classes & (kLetter | kNumber)) == 0 && !is_newline(first_byte);
}

/// The patterns of Llama 3 and Qwen: contractions first, then words of any case.
Piece llama3_piece(const ModernPattern& pattern, std::string_view text, std::size_t begin, std::size_t end) {
  const Character first = character_at(text, begin);
  const std::size_t i = begin + first.bytes;
  std::size_t reach = i;
  if (text[begin] == '\'') {
    const Piece ending = contraction_ending(true, text, i, end);
    if (ending.end > i) return ending;
    reach = ending.reach;
  }
  const auto is_word = [&](Character c) { return (c.classes & pattern.word) != 0; };
  const bool word_follows = may_precede_word(first, text[begin]) && i < end && is_word(character_at(text, i));
  if (is_word(first) || word_follows) {
    const std::size_t stop = skip_while(text, i, end, is_word);
    return {stop, std::max(reach, stop)};
  }
  const Piece piece = other_piece(pattern, text, begin, end);
  return {piece.end, std::max(reach, piece.reach)};
}

/// The patterns of GPT-4o and Tekken: a word is `U*W+`, or `U+` where no W is left, with U = upper, title, caseless
/// letters and marks, W = lower, caseless letters and marks.
Piece gpt4o_piece(const ModernPattern& pattern, bool contractions, std::string_view text, std::size_t begin,
                  std::size_t end) {
  const Character first = character_at(text, begin);
  std::size_t i = begin;
  if ((first.classes & (kLetter | kMark)) == 0 && may_precede_word(first, text[begin])) i += first.bytes;
  // Backtracking, written out: U* takes all it can. If a lower-case letter follows, W+ goes on from there. Otherwise U*
  // gives back characters up to the last one that is in W too, which W+ takes. If there is none, only U+ matches.
  std::size_t stop = i;
  std::size_t last_caseless = i;  // end of the last character that is in U and in W
  while (stop < end) {
    const Character c = character_at(text, stop);
    if ((c.classes & (kLetter | kMark)) == 0 || (c.classes & kLower) != 0) break;
    stop += c.bytes;
    if ((c.classes & kUpper) == 0) last_caseless = stop;
  }
  std::size_t reach = stop;
  std::size_t word_end = last_caseless > i ? last_caseless : stop;
  if (stop < end && (character_at(text, stop).classes & kLower) != 0) {
    word_end = skip_while(
        text, stop, end, [](Character c) { return (c.classes & (kLetter | kMark)) != 0 && (c.classes & kUpper) == 0; });
    reach = word_end;
  }
  if (word_end == i) {
    const Piece piece = other_piece(pattern, text, begin, end);
    return {piece.end, std::max(reach, piece.reach)};
  }
  if (contractions && word_end == end) return {end, end};
  if (contractions && text[word_end] == '\'') {
    const Piece ending = contraction_ending(true, text, word_end + 1, end);
    reach = std::max(reach, ending.reach);
    if (ending.end > word_end + 1) word_end = ending.end;
  }
  return {word_end, reach};
}

/// True if the pattern stands at `i`.
bool matches(std::string_view pattern, std::string_view text, std::size_t i, std::size_t end) {
  return end - i >= pattern.size() && std::memcmp(text.data() + i, pattern.data(), pattern.size()) == 0;
}

/// First match from `i` on, or `end`.
std::size_t find_match(std::string_view pattern, std::string_view text, std::size_t i, std::size_t end) {
  return std::min(text.substr(0, end).find(pattern, i), end);
}

Piece string_piece(const Splitter& splitter, std::string_view text, std::size_t begin, std::size_t end) {
  const std::string_view pattern = splitter.pattern;
  const auto piece = [&](std::size_t stop, std::size_t looked_at) {
    return Piece{stop, std::min(end, looked_at + pattern.size())};
  };
  const bool at_match = matches(pattern, text, begin, end);
  const std::size_t after = begin + pattern.size();
  if (!at_match) {
    const std::size_t stop = find_match(pattern, text, begin, end);
    const bool takes_match = splitter.rule == SplitRule::kStringWithPrevious && stop < end;
    return piece(takes_match ? stop + pattern.size() : stop, stop);
  }
  if (splitter.rule == SplitRule::kStringContiguous) {
    std::size_t stop = after;
    while (stop < end && matches(pattern, text, stop, end)) stop += pattern.size();
    return piece(stop, stop);
  }
  if (splitter.rule == SplitRule::kStringWithNext && after < end && !matches(pattern, text, after, end)) {
    const std::size_t stop = find_match(pattern, text, after, end);
    return piece(stop, stop);
  }
  return piece(after, after);
}

/// A match cuts before itself unless a character of `glue` stands there.
Piece starts_piece(const Splitter& splitter, std::string_view text, std::size_t begin, std::size_t end) {
  std::size_t i = begin + code_point_at(text, begin).bytes;
  while (true) {
    i = find_match(splitter.pattern, text, i, end);
    if (i == end) return {end, end};
    const char32_t before = code_point_at(text, previous_character(text, i)).value;
    if (!std::binary_search(splitter.glue.begin(), splitter.glue.end(), before)) {
      return {i, std::min(end, i + splitter.pattern.size())};
    }
    i += code_point_at(text, i).bytes;
  }
}

}  // namespace

Piece next_piece(const Splitter& splitter, std::string_view text, std::size_t begin, std::size_t end) {
  switch (splitter.rule) {
    case SplitRule::kIndividualDigits:
      return digits_piece(true, text, begin, end);
    case SplitRule::kDigitRuns:
      return digits_piece(false, text, begin, end);
    case SplitRule::kGpt2:
      return gpt2_piece(text, begin, end);
    case SplitRule::kLlama3:
      return llama3_piece(kLlama3Parts, text, begin, end);
    case SplitRule::kQwen2:
      return llama3_piece(kQwen2Parts, text, begin, end);
    case SplitRule::kQwen35:
      return llama3_piece(kQwen35Parts, text, begin, end);
    case SplitRule::kGpt4o:
      return gpt4o_piece(kGpt4oParts, true, text, begin, end);
    case SplitRule::kTekken:
      return gpt4o_piece(kTekkenParts, false, text, begin, end);
    case SplitRule::kStringIsolated:
    case SplitRule::kStringContiguous:
    case SplitRule::kStringWithPrevious:
    case SplitRule::kStringWithNext:
      return string_piece(splitter, text, begin, end);
    case SplitRule::kStringStarts:
      return starts_piece(splitter, text, begin, end);
    case SplitRule::kWhole:
      break;
  }
  return {end, end};
}

}  // namespace titer::tokenization

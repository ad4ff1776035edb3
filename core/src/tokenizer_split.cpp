#include "tokenizer_split.h"

#include <algorithm>

#include "unicode_classes.h"

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

std::size_t skip_newlines(std::string_view text, std::size_t i, std::size_t end) {
  while (i < end && is_newline(text[i])) ++i;
  return i;
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

Piece llama3_piece(std::string_view text, std::size_t begin, std::size_t end) {
  const Character first = character_at(text, begin);
  const uint8_t first_class = regex_class(first);
  std::size_t i = begin + first.bytes;
  std::size_t reach = begin;
  if (text[begin] == '\'') {
    const Piece ending = contraction_ending(true, text, i, end);
    if (ending.end > i) return ending;
    reach = ending.reach;
  }

  if (first_class == kLetter) {
    const std::size_t stop = skip_class(kLetter, text, i, end);
    return {stop, stop};
  }
  if (first_class == kNumber) {  // \p{N}{1,3}
    for (int count = 1; count < 3; ++count) {
      reach = i;
      if (i == end) break;
      const Character c = character_at(text, i);
      if (regex_class(c) != kNumber) break;
      i += c.bytes;
    }
    return {i, reach};
  }

  const bool has_second = i < end;
  const Character second = has_second ? character_at(text, i) : Character{};
  if (has_second && regex_class(second) == kLetter && !is_newline(text[begin])) {  // [^\r\n\p{L}\p{N}]?\p{L}+
    const std::size_t stop = skip_class(kLetter, text, i, end);
    return {stop, std::max(reach, stop)};
  }
  if (first_class == kOther || (text[begin] == ' ' && has_second && regex_class(second) == kOther)) {
    const std::size_t stop = skip_newlines(text, skip_class(kOther, text, i, end), end);
    return {stop, std::max(reach, stop)};
  }

  // \s*[\r\n]+ takes the white space up to its last newline.
  const std::size_t stop = skip_class(kSpace, text, begin, end);
  for (std::size_t newline = stop; newline > begin; --newline) {
    if (is_newline(text[newline - 1])) return {newline, stop};
  }
  return space_piece(text, begin, end);
}

}  // namespace

Piece next_piece(SplitRule rule, std::string_view text, std::size_t begin, std::size_t end) {
  switch (rule) {
    case SplitRule::kIndividualDigits:
      return digits_piece(true, text, begin, end);
    case SplitRule::kDigitRuns:
      return digits_piece(false, text, begin, end);
    case SplitRule::kGpt2:
      return gpt2_piece(text, begin, end);
    case SplitRule::kLlama3:
      return llama3_piece(text, begin, end);
    case SplitRule::kWhole:
      break;
  }
  return {end, end};
}

}  // namespace titer::tokenization

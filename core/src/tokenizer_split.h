// Pre-tokenization: cuts a text into the pieces that BPE never merges across. Hand-written equals of the Digits
// splitter, of string patterns and of the regular expressions of the known model families, in place of a backtracking
// regex engine.
//
// Every rule has the form "the piece that starts at i ends at e", where e depends only on the text from i on. The
// re-tokenisation filter rests on that and on `reach`, the last position that the decision looked at.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace titer::tokenization {

enum class SplitRule : uint8_t {
  kWhole,               ///< no cut
  kIndividualDigits,    ///< every digit alone, runs of anything else
  kDigitRuns,           ///< runs of digits, runs of anything else
  kGpt2,                ///< the rules named after models: split_patterns.h
  kLlama3,              ///< also GPT-4 (cl100k)
  kQwen2,               ///< also Qwen-3
  kQwen35,              ///< Qwen-3.5
  kGpt4o,               ///< o200k
  kTekken,              ///< Mistral's Tekken
  kStringIsolated,      ///< every match of a string alone
  kStringContiguous,    ///< runs of matches
  kStringWithPrevious,  ///< a match ends the piece before it, unless that is a match
  kStringWithNext,      ///< a match starts the piece after it, unless that is a match
  kStringStarts,        ///< a piece starts with a match, unless one of `glue` stands before it
};

struct Splitter {
  Splitter(SplitRule rule_in) : rule(rule_in) {}  // NOLINT(google-explicit-constructor): most rules are just that
  Splitter(SplitRule rule_in, std::string pattern_in) : rule(rule_in), pattern(std::move(pattern_in)) {}

  SplitRule rule;
  std::string pattern;         ///< of the rules kString...; not empty
  std::vector<char32_t> glue;  ///< of kStringStarts, sorted
};

struct Piece {
  std::size_t end;    ///< the piece is [begin, end), never empty
  std::size_t reach;  ///< largest position at which the rule looked for a character or for the end of the text
};

/// The piece that starts at `begin` if the text ends at `end`. Needs begin < end; both are character borders of valid
/// UTF-8. Time is linear in reach - begin.
Piece next_piece(const Splitter& splitter, std::string_view text, std::size_t begin, std::size_t end);

/// What happens to a section of text: each rule cuts the pieces of the one before it.
struct PreTokenizer {
  std::vector<Splitter> rules;
  bool byte_level = false;  ///< the last rule is ByteLevel's own (kGpt2 or kWhole), and the model reads bytes
  bool add_prefix_space =
      false;  ///< a piece that reaches the last rule gets a space in front unless it starts with one

  /// Calls emit(begin, end) for every piece of text[begin, end) under the rules [first, last).
  template <class Emit>
  void split(std::size_t first, std::size_t last, std::string_view text, std::size_t begin, std::size_t end,
             const Emit& emit) const {
    if (first == last) {
      emit(begin, end);
      return;
    }
    while (begin < end) {
      const std::size_t next = next_piece(rules[first], text, begin, end).end;
      split(first + 1, last, text, begin, next, emit);
      begin = next;
    }
  }
};

}  // namespace titer::tokenization

// Pre-tokenization: cuts a text into the pieces that BPE never merges across. Hand-written equals of the Digits
// splitter and of the GPT-2 and Llama-3 regular expressions, in place of a backtracking regex engine.
//
// Every rule has the form "the piece that starts at i ends at e", where e depends only on the text from i on. The
// re-tokenisation filter rests on that and on `reach`, the last position that the decision looked at.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace titer::tokenization {

enum class SplitRule : uint8_t {
  kWhole,             ///< no cut
  kIndividualDigits,  ///< every digit alone, runs of anything else
  kDigitRuns,         ///< runs of digits, runs of anything else
  kGpt2,              ///< kGpt2Pattern
  kLlama3,            ///< kLlama3Pattern
};

inline constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
inline constexpr std::string_view kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|)"
    R"(\s*[\r\n]+|\s+(?!\S)|\s+)";

struct Piece {
  std::size_t end;    ///< the piece is [begin, end), never empty
  std::size_t reach;  ///< largest position at which the rule looked for a character or for the end of the text
};

/// The piece that starts at `begin` if the text ends at `end`. Needs begin < end; both are character borders of valid
/// UTF-8. Time is linear in reach - begin.
Piece next_piece(SplitRule rule, std::string_view text, std::size_t begin, std::size_t end);

/// What happens to a stretch of text between two added tokens: each rule cuts the pieces of the one before it.
struct PreTokenizer {
  std::vector<SplitRule> rules;  ///< the last one is ByteLevel's own (kGpt2 or kWhole)
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

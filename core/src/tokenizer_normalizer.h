// What happens to text before it is cut into pieces: the normalizers NFC, NFKC, Prepend and Replace, and the part of
// the Metaspace pre-tokenizer that writes words in the way of SentencePiece (" the" as "▁the").
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "mapped_text.h"

namespace titer::tokenization {

struct NormalizerStep {
  enum class Kind : uint8_t { kNfc, kNfkc, kPrepend, kReplace };

  Kind kind;
  std::string pattern;  ///< of kReplace, not empty
  std::string content;  ///< of kPrepend and kReplace
};

/// Steps in order. Every stretch of text between added tokens with `normalized: false` goes through all of them.
struct Normalizer {
  std::vector<NormalizerStep> steps;

  bool empty() const { return steps.empty(); }

  /// @throws std::invalid_argument if the result has 2^31 bytes or more
  void apply(MappedText& text) const;

  /// Normal form of a text by itself.
  std::string of(std::string_view text) const;

  /// The change that `text` undergoes after something in the same stretch, which it does not change in turn, or false
  /// if that cannot be told from `text` alone. Concatenation of such texts commutes with the normalizer.
  bool apply_inside(std::string& text) const;

  bool prepends() const;

  /// True if what it prepends is the mark of a word's start, which stands for a space.
  bool marks_words() const;
};

/// Spaces become the replacement, which also goes in front of a text that does not start with it.
struct Metaspace {
  enum class Prepend : uint8_t { kAlways, kFirst, kNever };

  std::string replacement;
  Prepend prepend;

  /// `at_start`: the text is the start of the whole text.
  void apply(MappedText& text, bool at_start) const;

  /// The same after something in the same stretch.
  std::string inside(std::string_view text) const;

  bool prepends(bool at_start) const { return prepend == Prepend::kAlways || (prepend == Prepend::kFirst && at_start); }
};

}  // namespace titer::tokenization

// The mark that a tokenizer writes in front of a word which starts a stretch of text: SentencePiece reads "Sure" there
// as "▁Sure", as if a space came first. The tokens hold the mark and the text does not, so what tokens stand for
// depends on where they stand.
#pragma once

#include <cstdint>
#include <string_view>

namespace titer::tokenization {

struct State;

enum class WordMark : uint8_t {
  kNone,         ///< the text continues something
  kAlways,       ///< in front of any text: the normalizer Prepend
  kUnlessSpace,  ///< in front of a text that does not start with a space: Metaspace, the prefix space of ByteLevel
};

/// The mark that goes in front of a text which follows `before`, valid UTF-8.
WordMark word_mark_after(const State& state, std::string_view before);

/// The text that becomes `bytes` once it is marked. Where none does, the result is not what the tokens spell either;
/// encoding it shows that.
std::string_view without_mark(std::string_view bytes, WordMark mark);

}  // namespace titer::tokenization

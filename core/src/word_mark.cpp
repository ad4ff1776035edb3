#include "word_mark.h"

#include <cstddef>
#include <string>

#include "tokenizer_state.h"

namespace titer::tokenization {
namespace {

/// What follows the last token of `tokens` in `text`.
std::string_view last_stretch(const AddedTokens& tokens, std::string_view text) {
  std::size_t begin = 0;
  tokens.segment(text, [&](std::size_t /*begin*/, std::size_t end, int32_t id) {
    if (id >= 0) begin = end;
  });
  return text.substr(begin);
}

}  // namespace

WordMark word_mark_after(const State& state, std::string_view before) {
  const std::string_view stretch = last_stretch(state.first_added, before);
  if (stretch.empty() && state.normalizer.marks_words()) return WordMark::kAlways;
  const std::string normalized = state.normalizer.of(stretch);
  if (!last_stretch(state.second_added, normalized).empty()) return WordMark::kNone;
  const bool marks = state.metaspace ? state.metaspace->prepends(before.empty()) : state.pre_tokenizer.add_prefix_space;
  return marks ? WordMark::kUnlessSpace : WordMark::kNone;
}

std::string_view without_mark(std::string_view bytes, WordMark mark) {
  if (mark == WordMark::kNone || !bytes.starts_with(' ')) return bytes;
  const std::string_view text = bytes.substr(1);
  if (mark == WordMark::kUnlessSpace && (text.empty() || text.starts_with(' '))) return bytes;
  return text;
}

}  // namespace titer::tokenization

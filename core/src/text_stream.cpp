#include "text_stream.h"

#include <algorithm>
#include <span>
#include <utility>

#include "tokenizer_state.h"
#include "utf8.h"

namespace titer {

using tokenization::Decoder;
using tokenization::State;

TextStream::TextStream(Tokenizer tokenizer) : tokenizer_(std::move(tokenizer)) {}

std::size_t TextStream::push(int64_t id) {
  const State& state = *tokenizer_.state_;
  if (!state.has(id, tokenization::kExists) || state.has(id, tokenization::kSkipped)) return text_.size();
  const std::size_t settled = settled_;
  const std::string before = text_.substr(settled);
  if (state.decoder.only_bytes(state)) {
    push_bytes(state.bytes[static_cast<std::size_t>(id)]);
  } else {
    push_token(id);
  }
  const std::string_view after = std::string_view(text_).substr(settled);
  const auto differ = std::mismatch(before.begin(), before.end(), after.begin(), after.end());
  return settled + static_cast<std::size_t>(differ.first - before.begin());
}

void TextStream::push_bytes(std::string_view bytes) {
  bytes_.append(bytes);
  const std::size_t complete = bytes_.size() - incomplete_utf8_length(bytes_);
  text_.append(tokenization::replace_invalid_utf8(bytes_.substr(0, complete)));
  bytes_.erase(0, complete);
  settled_ = text_.size();
}

void TextStream::push_token(int64_t id) {
  const State& state = *tokenizer_.state_;
  ids_.push_back(id);
  const int byte = state.decoder.byte_of(state, id);
  std::size_t num_waiting = 0;
  if (byte >= 0) {
    bytes_.push_back(static_cast<char>(static_cast<unsigned char>(byte)));
    num_waiting = incomplete_utf8_length(bytes_);
  } else {
    bytes_.clear();
  }
  text_.resize(settled_);
  text_.append(decode(ids_.size() - num_waiting));
  if (!state.decoder.joins_parts()) {
    while (text_.ends_with("\uFFFD")) text_.resize(text_.size() - 3);
    return;
  }
  if (byte >= 0 || text_.empty()) return;  // while there is no text, the start is still to be stripped
  settled_ = text_.size();
  ids_.clear();
}

std::string TextStream::decode(std::size_t num_ids) const {
  const State& state = *tokenizer_.state_;
  const Decoder::Part part = settled_ == 0 ? Decoder::Part::kStart : Decoder::Part::kContinuation;
  return state.decoder.decode(state, std::span(ids_).first(num_ids), /*skip_special_tokens=*/true, part);
}

}  // namespace titer

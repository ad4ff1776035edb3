#include "tokenizer_decoder.h"

#include <stdexcept>
#include <string_view>
#include <utility>

#include "byte_alphabet.h"
#include "tokenizer_state.h"
#include "utf8.h"

namespace titer::tokenization {
namespace {

constexpr std::string_view kReplacementCharacter = "\uFFFD";

/// Length of the longest prefix of text[position..] that some well-formed sequence starts with; at least 1. Called
/// where no well-formed sequence starts.
std::size_t maximal_invalid_length(std::string_view text, std::size_t position) {
  const auto continues = [&](std::size_t offset, unsigned lowest, unsigned highest) {
    if (position + offset >= text.size()) return false;
    const auto byte = static_cast<unsigned char>(text[position + offset]);
    return byte >= lowest && byte <= highest;
  };
  const auto lead = static_cast<unsigned char>(text[position]);
  if (lead < 0xE0 || lead > 0xF4) return 1;  // two-byte sequences and bytes that start nothing
  const unsigned lowest = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  const unsigned highest = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  if (!continues(1, lowest, highest)) return 1;
  return lead >= 0xF0 && continues(2, 0x80, 0xBF) ? 3 : 2;
}

std::string joined(const std::vector<std::string>& tokens) {
  std::string text;
  for (const std::string& token : tokens) text.append(token);
  return text;
}

std::string joined_bytes(const std::vector<std::string>& tokens) {
  std::string bytes;
  for (const std::string& token : tokens) bytes.append(bytes_spelled_by(token).value_or(token));
  return replace_invalid_utf8(std::move(bytes));
}

std::vector<std::string> without_fallback_bytes(std::vector<std::string> tokens) {
  std::vector<std::string> out;
  std::string bytes;
  const auto flush = [&] {
    if (bytes.empty()) return;
    if (first_invalid_utf8(bytes) == bytes.size()) {
      out.push_back(bytes);
    } else {
      out.insert(out.end(), bytes.size(), std::string(kReplacementCharacter));
    }
    bytes.clear();
  };
  for (std::string& token : tokens) {
    if (const int byte = fallback_byte(token); byte >= 0) {
      bytes.push_back(static_cast<char>(static_cast<unsigned char>(byte)));
    } else {
      flush();
      out.push_back(std::move(token));
    }
  }
  flush();
  return out;
}

std::string with_replaced(std::string_view text, std::string_view pattern, std::string_view content) {
  std::string out;
  std::size_t i = 0;
  for (std::size_t found = text.find(pattern); found != std::string_view::npos; found = text.find(pattern, i)) {
    out.append(text.substr(i, found - i)).append(content);
    i = found + pattern.size();
  }
  return out.append(text.substr(i));
}

std::vector<std::string> apply(const DecoderStep& step, std::vector<std::string> tokens, Decoder::Part part) {
  switch (step.kind) {
    case DecoderStep::Kind::kByteLevel:
      return {joined_bytes(tokens)};
    case DecoderStep::Kind::kFuse:
      return {joined(tokens)};
    case DecoderStep::Kind::kByteFallback:
      return without_fallback_bytes(std::move(tokens));
    case DecoderStep::Kind::kReplace:
      for (std::string& token : tokens) token = with_replaced(token, step.pattern, step.content);
      break;
    case DecoderStep::Kind::kStrip:
      for (std::string& token : tokens) {
        std::size_t cut = 0;
        for (std::size_t n = 0; n < step.count && std::string_view(token).substr(cut).starts_with(step.content); ++n) {
          cut += step.content.size();
        }
        token.erase(0, cut);
      }
      break;
    case DecoderStep::Kind::kMetaspace: {
      const bool strips_first = step.count != 0 && part == Decoder::Part::kStart;
      for (std::size_t i = 0; i < tokens.size(); ++i) {
        tokens[i] = with_replaced(tokens[i], step.pattern, strips_first && i == 0 ? "" : " ");
      }
      break;
    }
  }
  return tokens;
}

std::string spelling_of(const Decoder& decoder, const State& state, int64_t id) {
  const auto normalized = decoder.normalized_spellings.find(static_cast<int32_t>(id));
  return normalized == decoder.normalized_spellings.end() ? std::string(state.spellings[static_cast<std::size_t>(id)])
                                                          : normalized->second;
}

}  // namespace

int fallback_byte(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token.back() != '>') return -1;
  const auto digit = [](char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
  };
  const int low = digit(token[4]);
  const int high = token[3] == '+' ? 0 : digit(token[3]);  // Rust reads numbers with a sign
  return low < 0 || high < 0 ? -1 : 16 * high + low;
}

std::string replace_invalid_utf8(std::string bytes) {
  std::size_t position = first_invalid_utf8(bytes);
  if (position == bytes.size()) return bytes;
  std::string text = bytes.substr(0, position);
  while (position < bytes.size()) {
    if (const std::size_t length = utf8_sequence_length(bytes, position); length > 0) {
      text.append(bytes, position, length);
      position += length;
    } else {
      text.append(kReplacementCharacter);
      position += maximal_invalid_length(bytes, position);
    }
  }
  return text;
}

bool Decoder::only_bytes(const State& state) const {
  return steps.size() == 1 && steps[0].kind == DecoderStep::Kind::kByteLevel && state.pre_tokenizer.byte_level &&
         normalized_spellings.empty();
}

std::string Decoder::decode(const State& state, std::span<const int64_t> ids, bool skip_special_tokens,
                            Part part) const {
  const bool bytes_are_at_hand = only_bytes(state);
  std::string bytes;
  std::vector<std::string> tokens;
  for (const int64_t id : ids) {
    if (id < 0) throw std::out_of_range("[tokenizer] token ids must not be negative, got " + std::to_string(id));
    if (!state.has(id, kExists) || (skip_special_tokens && state.has(id, kSkipped))) continue;
    if (bytes_are_at_hand) {
      bytes.append(state.bytes[static_cast<std::size_t>(id)]);
    } else {
      tokens.push_back(spelling_of(*this, state, id));
    }
  }
  if (bytes_are_at_hand) return replace_invalid_utf8(std::move(bytes));
  bool fused = false;  // to one text: what is stripped from it stood at its start
  for (const DecoderStep& step : steps) {
    if (step.kind == DecoderStep::Kind::kStrip && fused && part == Part::kContinuation) continue;
    tokens = apply(step, std::move(tokens), part);
    fused = fused || step.kind == DecoderStep::Kind::kFuse || step.kind == DecoderStep::Kind::kByteLevel;
  }
  return joined(tokens);
}

bool Decoder::joins_parts() const {
  bool fused = false;
  bool token_by_token = true;  // so far: no step has looked at a neighbour or at the place of a token
  for (const DecoderStep& step : steps) {
    switch (step.kind) {
      case DecoderStep::Kind::kByteLevel:
        return false;  // whose characters may be split in tokens of any kind
      case DecoderStep::Kind::kByteFallback:
        if (!token_by_token) return false;
        token_by_token = false;
        break;
      case DecoderStep::Kind::kMetaspace:
        token_by_token = false;
        [[fallthrough]];
      case DecoderStep::Kind::kReplace:
        if (fused) return false;
        break;
      case DecoderStep::Kind::kFuse:
        fused = true;
        token_by_token = false;
        break;
      case DecoderStep::Kind::kStrip:
        break;
    }
  }
  return true;
}

int Decoder::byte_of(const State& state, int64_t id) const {
  std::vector<std::string> token{spelling_of(*this, state, id)};
  for (const DecoderStep& step : steps) {
    if (step.kind == DecoderStep::Kind::kByteFallback) return fallback_byte(token.front());
    token = apply(step, std::move(token), Part::kContinuation);
  }
  return -1;
}

}  // namespace titer::tokenization

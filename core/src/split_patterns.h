// Regular expressions of the Split pre-tokenizer for which there is a hand-written equal, character for character as
// they stand in the files of the model families. Another pattern refuses to load: there is no regex engine here.
#pragma once

#include <optional>
#include <string_view>

#include "tokenizer_split.h"

namespace titer::tokenization {

/// GPT-2, GPT-NeoX, Phi-1 to 2, OLMo 1, StarCoder; what ByteLevel does with `use_regex`.
inline constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

/// Llama-3, GPT-4 (cl100k), Phi-4, OLMo 2, SmolLM3.
inline constexpr std::string_view kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|)"
    R"(\s*[\r\n]+|\s+(?!\S)|\s+)";

/// The same language in the words of tiktoken's GPT-4: possessive repeats give back nothing that could match.
inline constexpr std::string_view kGpt4Pattern =
    R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|)"
    R"(\s*[\r\n]|\s+(?!\S)|\s+)";

/// Qwen-2, Qwen-3: single numbers.
inline constexpr std::string_view kQwen2Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|)"
    R"(\s*[\r\n]+|\s+(?!\S)|\s+)";

/// Qwen-3.5: marks are part of words.
inline constexpr std::string_view kQwen35Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|)"
    R"(\s*[\r\n]+|\s+(?!\S)|\s+)";

/// GPT-4o (o200k), gpt-oss, Phi-4-mini, Llama-4: a change from lower to upper case cuts a word.
inline constexpr std::string_view kGpt4oPattern =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
    R"(\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

/// Mistral's Tekken: as GPT-4o, without contractions and with single numbers.
inline constexpr std::string_view kTekkenPattern =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|)"
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|)"
    R"(\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

/// The rule that is equal to a pattern.
inline std::optional<SplitRule> rule_of_pattern(std::string_view pattern) {
  if (pattern == kGpt2Pattern) return SplitRule::kGpt2;
  if (pattern == kLlama3Pattern || pattern == kGpt4Pattern) return SplitRule::kLlama3;
  if (pattern == kQwen2Pattern) return SplitRule::kQwen2;
  if (pattern == kQwen35Pattern) return SplitRule::kQwen35;
  if (pattern == kGpt4oPattern) return SplitRule::kGpt4o;
  if (pattern == kTekkenPattern) return SplitRule::kTekken;
  return std::nullopt;
}

}  // namespace titer::tokenization

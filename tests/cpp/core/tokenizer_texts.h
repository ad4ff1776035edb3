// What tests of the tokenizer share: loading small documents, and texts that are hard to cut.
#pragma once

#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "small_tokenizer.h"
#include "temporary_folder.h"
#include "titer/core/tokenizer.h"

namespace titer::testing {

inline Tokenizer load(const nlohmann::json& document) {
  return Tokenizer::from_json(document.dump(), "tokenizer.json");
}

inline std::string refusal(const nlohmann::json& document) {
  return refusal_of([&] { load(document); });
}

/// The spelled tokens of a text.
inline std::vector<std::string> tokens(const Tokenizer& tokenizer, std::string_view text,
                                       bool add_special_tokens = true) {
  std::vector<std::string> spelled;
  for (const int64_t id : tokenizer.encode(text, add_special_tokens)) spelled.push_back(tokenizer.id_to_token(id));
  return spelled;
}

/// Texts in which the borders of the rules meet.
inline std::string random_text(std::mt19937& random, int max_parts) {
  static const std::vector<std::string> parts = {
      "a",  "b",   "aa",     "the",    " the",   "t", "h",  "x", "S",  "s",     "é",  "ſ",   "東", "😀",      "'",
      "'s", "'LL", "'r",     "1",      "12",     "³", "٣",  " ", " ",  "  ",    "\n", "\r",  "\t", "\u0301", "É",
      "ǅ",  "/",   "\u00a0", "\u3000", "\u0085", "!", "!!", "-", "xx", "<|a|>", "<|", "a|>", "|>", "ing"};
  std::string text;
  for (auto left = random() % static_cast<unsigned>(max_parts); left > 0; --left)
    text += parts[random() % parts.size()];
  return text;
}

}  // namespace titer::testing

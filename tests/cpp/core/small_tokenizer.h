// A byte-level tokenizer small enough to check by hand: all bytes, a few merges, three added tokens.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "byte_alphabet.h"
#include "tokenizer_split.h"

namespace titer::testing {

inline nlohmann::json byte_level(bool add_prefix_space, bool use_regex) {
  return {
      {"type", "ByteLevel"}, {"add_prefix_space", add_prefix_space}, {"trim_offsets", true}, {"use_regex", use_regex}};
}

inline nlohmann::json digits(bool individual) { return {{"type", "Digits"}, {"individual_digits", individual}}; }

inline nlohmann::json split(std::string_view pattern) {
  return {{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}, {"invert", false}};
}

inline nlohmann::json sequence(std::vector<nlohmann::json> steps) {
  return {{"type", "Sequence"}, {"pretokenizers", std::move(steps)}};
}

/// Merges in order of rank, as spelled in a file: Ġ is a space, Ċ a newline, Ã© the bytes of é.
inline const std::vector<std::pair<std::string, std::string>>& small_merges() {
  static const std::vector<std::pair<std::string, std::string>> merges = {
      {"t", "h"},  {"th", "e"}, {"Ġ", "the"}, {"Ġ", "t"}, {"a", "a"},  {"aa", "aa"}, {"Ġ", "a"},  {"Ġ", "Ġ"},
      {"ĠĠ", "Ġ"}, {"Ċ", "Ċ"},  {"Ġ", "Ċ"},   {"'", "s"}, {"1", "2"},  {"12", "3"},  {"Ã", "©"},  {"Ã", "©a"},
      {"©", "a"},  {"i", "n"},  {"in", "g"},  {"!", "!"}, {"!!", "Ċ"}, {"<", "|"},   {"Ġ", "<|"}, {"s", "t"},
      {"r", "e"},  {"'", "re"}, {"Ċ", "Ġ"},   {"3", "4"}, {"4", "5"},
  };
  return merges;
}

/// Ids 0-255 are the bytes, then come the merged tokens in order, those of `more`, and the added tokens `<|a|>`
/// (special),
/// `<|a|><|` and "xx" (normalized).
inline nlohmann::json small_tokenizer(const nlohmann::json& pre_tokenizer, const std::vector<std::string>& more = {}) {
  nlohmann::json vocab = nlohmann::json::object();
  int next_id = 0;
  const auto add = [&](const std::string& token) {
    if (!vocab.contains(token)) vocab[token] = next_id++;
  };
  for (int byte = 0; byte < 256; ++byte) {
    add(std::string(tokenization::spelling_of(static_cast<unsigned char>(byte))));
  }
  add("©a");
  nlohmann::json merges = nlohmann::json::array();
  for (const auto& [left, right] : small_merges()) {
    merges.push_back(left + " " + right);
    add(left + right);
  }
  for (const std::string& token : more) add(token);
  nlohmann::json added = nlohmann::json::array();
  const auto add_added = [&](const char* content, bool special, bool normalized) {
    added.push_back({{"id", next_id++},
                     {"content", content},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", normalized},
                     {"special", special}});
  };
  add_added("<|a|>", true, false);
  add_added("<|a|><|", false, false);
  add_added("xx", false, true);
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", std::move(added)},
          {"normalizer", nullptr},
          {"pre_tokenizer", pre_tokenizer},
          {"post_processor", nullptr},
          {"decoder", byte_level(true, true)},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", nullptr},
            {"continuing_subword_prefix", nullptr},
            {"end_of_word_suffix", nullptr},
            {"fuse_unk", false},
            {"byte_fallback", false},
            {"ignore_merges", false},
            {"vocab", std::move(vocab)},
            {"merges", std::move(merges)}}}};
}

/// One pre-tokenizer of every supported shape, by name.
inline std::vector<std::pair<std::string, nlohmann::json>> pre_tokenizers() {
  using tokenization::kGpt2Pattern;
  using tokenization::kLlama3Pattern;
  return {
      {"gpt2", byte_level(false, true)},
      {"prefix_space", byte_level(true, true)},
      {"no_regex", byte_level(false, false)},
      {"single_digits", sequence({digits(true), byte_level(false, true)})},
      {"digit_runs", sequence({digits(false), byte_level(false, true)})},
      {"only_digits", sequence({digits(true), byte_level(false, false)})},
      {"llama3", sequence({split(kLlama3Pattern), byte_level(false, false)})},
      {"llama3_then_digits", sequence({split(kLlama3Pattern), digits(true), byte_level(false, true)})},
      {"digits_then_llama3", sequence({digits(false), digits(true), split(kLlama3Pattern), byte_level(false, false)})},
      {"gpt2_then_prefix_space", sequence({split(kGpt2Pattern), byte_level(true, true)})}};
}

}  // namespace titer::testing

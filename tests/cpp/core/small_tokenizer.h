// Tokenizers small enough to check by hand, byte-level and in the way of SentencePiece: all bytes, a few merges, three
// added tokens.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "byte_alphabet.h"
#include "split_patterns.h"

namespace titer::testing {

inline nlohmann::json byte_level(bool add_prefix_space, bool use_regex) {
  return {
      {"type", "ByteLevel"}, {"add_prefix_space", add_prefix_space}, {"trim_offsets", true}, {"use_regex", use_regex}};
}

inline nlohmann::json digits(bool individual) { return {{"type", "Digits"}, {"individual_digits", individual}}; }

inline nlohmann::json split(std::string_view pattern) {
  return {{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}, {"invert", false}};
}

inline nlohmann::json split_string(std::string_view text, std::string_view behavior) {
  return {{"type", "Split"}, {"pattern", {{"String", text}}}, {"behavior", behavior}, {"invert", false}};
}

inline nlohmann::json metaspace(std::string_view prepend_scheme, bool split) {
  return {{"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", prepend_scheme}, {"split", split}};
}

inline nlohmann::json replace(std::string_view pattern, std::string_view content) {
  return {{"type", "Replace"}, {"pattern", {{"String", pattern}}}, {"content", content}};
}

inline nlohmann::json normalizers(std::vector<nlohmann::json> steps) {
  return {{"type", "Sequence"}, {"normalizers", std::move(steps)}};
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

/// The whole document around a vocabulary: added tokens `<|a|>` (special), `<|a|><|` and "xx" (normalized) follow it.
inline nlohmann::json small_document(nlohmann::json vocab, nlohmann::json merges) {
  auto next_id = vocab.size();
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
          {"pre_tokenizer", nullptr},
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

/// Byte-level: ids 0-255 are the bytes, then come the merged tokens in order and those of `more`.
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
  nlohmann::json document = small_document(std::move(vocab), std::move(merges));
  document["pre_tokenizer"] = pre_tokenizer;
  return document;
}

/// In the way of SentencePiece: `<unk>` and the bytes `<0x00>`..., characters, and the merged tokens.
inline nlohmann::json small_characters(const nlohmann::json& normalizer, const nlohmann::json& pre_tokenizer) {
  static const std::vector<std::pair<std::string, std::string>> kMerges = {
      {"t", "h"}, {"th", "e"}, {"▁", "the"}, {"▁", "t"}, {"a", "a"}, {"aa", "aa"}, {"▁", "a"}, {"▁", "▁"}, {"▁▁", "▁▁"},
      {"i", "n"}, {"in", "g"}, {"1", "2"},   {"!", "!"}, {"!", "▁"}, {"\n", "\n"}, {"é", "a"}, {"<", "|"}};
  nlohmann::json vocab = nlohmann::json::object();
  int next_id = 0;
  const auto add = [&](const std::string& token) {
    if (!vocab.contains(token)) vocab[token] = next_id++;
  };
  add("<unk>");
  for (int byte = 0; byte < 256; ++byte) {
    constexpr std::string_view digits = "0123456789ABCDEF";
    add(std::string("<0x") + digits[static_cast<std::size_t>(byte / 16)] + digits[static_cast<std::size_t>(byte % 16)] +
        ">");
  }
  for (const char* c :
       {"▁", "t", "h", "e", "a", "i", "n", "g", "1", "2", "!", "\n", "é", "<", "|", ">", "x", "s", "\u0301"}) {
    add(c);
  }
  nlohmann::json merges = nlohmann::json::array();
  for (const auto& [left, right] : kMerges) {
    merges.push_back({left, right});
    add(left + right);
  }
  nlohmann::json document = small_document(std::move(vocab), std::move(merges));
  document["normalizer"] = normalizer;
  document["pre_tokenizer"] = pre_tokenizer;
  document["model"]["byte_fallback"] = true;
  document["model"]["unk_token"] = "<unk>";
  document["model"]["fuse_unk"] = true;
  document["decoder"] = {{"type", "Sequence"},
                         {"decoders", {replace("▁", " "), {{"type", "ByteFallback"}}, {{"type", "Fuse"}}}}};
  return document;
}

/// One pre-tokenizer of every shape that ends in ByteLevel, by name.
inline std::vector<std::pair<std::string, nlohmann::json>> pre_tokenizers() {
  using namespace tokenization;
  const auto regex = [](std::string_view pattern) { return sequence({split(pattern), byte_level(false, false)}); };
  return {
      {"qwen2", regex(kQwen2Pattern)},
      {"qwen35", regex(kQwen35Pattern)},
      {"gpt4o", regex(kGpt4oPattern)},
      {"tekken", regex(kTekkenPattern)},
      {"split_at_string", sequence({split_string("th", "MergedWithNext"), byte_level(false, true)})},
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

/// Documents of every shape that is not just a byte-level pre-tokenizer, by name.
inline std::vector<std::pair<std::string, nlohmann::json>> other_documents() {
  const nlohmann::json prepend = {{"type", "Prepend"}, {"prepend", "▁"}};
  const nlohmann::json nfc = {{"type", "NFC"}};
  const nlohmann::json nfkc = {{"type", "NFKC"}};
  const nlohmann::json spaces = replace(" ", "▁");
  nlohmann::json normalized = small_tokenizer(byte_level(false, true));
  normalized["normalizer"] = nfc;
  nlohmann::json stripping = small_characters(nullptr, metaspace("first", false));
  stripping["added_tokens"][0]["rstrip"] = true;
  stripping["added_tokens"][1]["lstrip"] = true;
  stripping["added_tokens"][2]["single_word"] = true;
  nlohmann::json unknown = small_characters(spaces, nullptr);
  unknown["model"]["byte_fallback"] = false;
  return {{"llama2", small_characters(normalizers({prepend, spaces}), nullptr)},
          {"gemma", small_characters(spaces, split_string(" ", "MergedWithPrevious"))},
          {"mistral", small_characters(nullptr, metaspace("first", false))},
          {"metaspace_always", small_characters(nullptr, metaspace("always", true))},
          {"metaspace_never", small_characters(nullptr, metaspace("never", true))},
          {"nfkc_metaspace", small_characters(nfkc, metaspace("always", false))},
          {"long_replace", small_characters(normalizers({replace("aa", "a"), spaces}), nullptr)},
          {"nfc_byte_level", std::move(normalized)},
          {"stripping", std::move(stripping)},
          {"unknown", std::move(unknown)}};
}

}  // namespace titer::testing

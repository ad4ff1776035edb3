// Reads the parts of a `tokenizer.json` that stand around the model: normalizer, pre-tokenizer, decoder,
// post-processor.
#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "tokenizer_json_checks.h"
#include "tokenizer_state.h"

namespace titer::tokenization {

class PipelineReader : private JsonChecks {
 public:
  PipelineReader(std::string_view origin, State& state) : JsonChecks(origin), state_(state) {}

  /// `object` is the whole document in all of these.
  void read_normalizer(const nlohmann::json& document);
  void read_pre_tokenizer(const nlohmann::json& document);
  void read_decoder(const nlohmann::json& document);
  /// Needs the vocabulary.
  void read_post_processor(const nlohmann::json& document);

 private:
  void add_normalizer(const nlohmann::json& object, const std::string& path);
  void add_pre_tokenizer(const nlohmann::json& object, const std::string& path);
  void add_metaspace(const nlohmann::json& object, const std::string& path);
  void add_decoder(const nlohmann::json& object, const std::string& path);
  void add_post_processor(const nlohmann::json& object, const std::string& path);
  void add_template(const nlohmann::json& object, const std::string& path);

  void check_byte_level(const nlohmann::json& object, const std::string& path) const;
  bool spaces_are_replaced() const;
  Metaspace metaspace(const nlohmann::json& object, const std::string& path) const;
  Splitter splitter(const nlohmann::json& object, const std::string& path) const;
  std::string replaced_string(const nlohmann::json& object, const std::string& path) const;
  const std::string& short_string(const nlohmann::json& object, const std::string& path, const char* key) const;
  std::string one_character(const nlohmann::json& object, const std::string& path, const char* key) const;
  void count_growth(std::size_t& growth, std::size_t factor, const std::string& path) const;

  State& state_;
  std::size_t normalizer_growth_ = 1;
  std::size_t decoder_growth_ = 1;
  bool template_seen_ = false;
};

}  // namespace titer::tokenization

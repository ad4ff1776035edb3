// The vocabulary and the merges of a `tokenizer.json`: of half a million entries each, so they are collected while the
// text is parsed, without a JSON value per entry.
#pragma once

#include <cstddef>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "json.h"
#include "string_table.h"
#include "tokenizer_json_checks.h"

namespace titer::tokenization {

class TokenizerTables : private JsonChecks {
 public:
  explicit TokenizerTables(std::string_view origin) : JsonChecks(origin) {}
  TokenizerTables(const TokenizerTables&) = delete;  // the streams and the index refer to this one
  TokenizerTables& operator=(const TokenizerTables&) = delete;

  /// What parse_json is to hand over.
  std::vector<JsonStream> streams();

  /// To be called when all is parsed and the model is known to be BPE: what was wrong with an entry is told only now,
  /// because other models have members of the same name. @throws std::invalid_argument naming the entry
  void check();

  /// `model.vocab` in the order of the file.
  std::size_t num_tokens() const { return ids_.size(); }
  std::string_view token(std::size_t i) const { return tokens_[i]; }
  int32_t id(std::size_t i) const { return ids_[i]; }
  /// Id of a token, -1 if there is none. After check().
  int32_t find(std::string_view token) const;

  /// `model.merges`.
  std::size_t num_merges() const { return merge_parts_.size() / 2; }
  std::string_view left(std::size_t i) const { return merge_parts_[2 * i]; }
  std::string_view right(std::size_t i) const { return merge_parts_[2 * i + 1]; }
  /// Where the merge stands in the file: "model.merges[7]".
  std::string place(std::size_t merge) const;

 private:
  void add_token(const std::string& token, const nlohmann::json& id);
  void add_merge(std::span<const std::string> parts);
  void add_merge(const nlohmann::json& entry);
  [[noreturn]] void fail_merge(std::size_t entry, const std::string& found) const;

  StringTable tokens_;
  std::vector<int32_t> ids_;
  StringIndex index_{tokens_};
  std::string wrong_token_;  // message about the first one that is, or empty

  StringTable merge_parts_;  // left, right, left, right...
  std::size_t num_entries_ = 0;
  std::vector<std::size_t> skipped_;  // entries that are comments
  bool pairs_ = false;                // entries are arrays of two strings
  std::string wrong_merge_;
};

}  // namespace titer::tokenization

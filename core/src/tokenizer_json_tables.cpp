#include "tokenizer_json_tables.h"

#include <nlohmann/json.hpp>
#include <numeric>
#include <stdexcept>

#include "quote.h"

namespace titer::tokenization {

using nlohmann::json;

std::vector<JsonStream> TokenizerTables::streams() {
  const auto first_problem = [](std::string& problem, const auto& add) {
    if (!problem.empty()) return;
    try {
      add();
    } catch (const std::invalid_argument& error) {
      problem = error.what();
    }
  };
  return {{"model", "vocab",
           [this, first_problem](const std::string& token, const json& id) {
             first_problem(wrong_token_, [&] { add_token(token, id); });
           }},
          {"model", "merges",
           [this, first_problem](const std::string& /*key*/, const json& entry) {
             first_problem(wrong_merge_, [&] { add_merge(entry); });
           },
           [this, first_problem](std::span<const std::string> parts) {
             first_problem(wrong_merge_, [&] { add_merge(parts); });
           }}};
}

void TokenizerTables::add_token(const std::string& token, const json& id) {
  ids_.push_back(JsonChecks::id(id, "model.vocab", token));
  tokens_.push_back(token);
}

void TokenizerTables::add_merge(std::span<const std::string> parts) {
  const std::size_t at = num_entries_++;
  if (at == 0) pairs_ = true;
  if (!pairs_ || parts.size() != 2) fail_merge(at, "an array of " + std::to_string(parts.size()));
  merge_parts_.push_back(parts[0]);
  merge_parts_.push_back(parts[1]);
}

void TokenizerTables::add_merge(const json& entry) {
  const std::size_t at = num_entries_++;
  if (at == 0) pairs_ = entry.is_array();
  if (pairs_ || !entry.is_string()) fail_merge(at, describe(entry));
  const std::string_view line = entry.get_ref<const std::string&>();
  if (line.starts_with("#version")) {
    skipped_.push_back(at);
    return;
  }
  const std::size_t space = line.find(' ');
  if (space == std::string_view::npos || line.find(' ', space + 1) != std::string_view::npos) {
    fail("'" + join("model.merges", at) + "' must be two tokens with a space between them, got " + quote(line));
  }
  merge_parts_.push_back(line.substr(0, space));
  merge_parts_.push_back(line.substr(space + 1));
}

void TokenizerTables::fail_merge(std::size_t entry, const std::string& found) const {
  fail("'" + join("model.merges", entry) + "' must be " + (pairs_ ? "an array of two strings" : "a string") +
       " as the first entry is, got " + found);
}

void TokenizerTables::check() {
  for (const std::string& problem : {wrong_token_, wrong_merge_}) {
    if (!problem.empty()) throw std::invalid_argument(problem);
  }
  std::vector<int32_t> places(num_tokens());
  std::iota(places.begin(), places.end(), 0);
  if (const int32_t repeated = index_.insert_all(places); repeated >= 0) {
    fail("'model.vocab' has " + quote(token(static_cast<std::size_t>(repeated))) + " twice");
  }
}

int32_t TokenizerTables::find(std::string_view token) const {
  const int32_t at = index_.find(token);
  return at < 0 ? -1 : ids_[static_cast<std::size_t>(at)];
}

std::string TokenizerTables::place(std::size_t merge) const {
  for (const std::size_t comment : skipped_) merge += comment <= merge ? 1 : 0;
  return join("model.merges", merge);
}

}  // namespace titer::tokenization

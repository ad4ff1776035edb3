// Fields are checked in the order in which a reader looks for a mistake: keys, then the turns, then the rest.
#include "dataset_record.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <stdexcept>
#include <utility>
#include <vector>

#include "canonical_json.h"
#include "json.h"
#include "nearest_name.h"
#include "quote.h"
#include "unicode_classes.h"

namespace titer {
namespace {

using nlohmann::json;

constexpr std::array<std::string_view, 6> kRecordKeys = {"id", "messages", "metadata", "prompt", "response", "task"};
constexpr std::array<std::string_view, 2> kMessageKeys = {"content", "role"};

bool is_blank(std::string_view text) {
  std::size_t position = 0;
  while (position < text.size()) {
    const tokenization::Character character = tokenization::character_at(text, position);
    if ((character.classes & tokenization::kSpace) == 0) return false;
    position += character.bytes;
  }
  return true;
}

/// The parsed object of a line, with errors that name its fields: "messages[2].role".
class RecordReader {
 public:
  RecordReader(const json& root, std::string_view origin) : root_(root), origin_(origin) {}

  /// All but the hash.
  Record read() {
    if (!root_.is_object()) fail(std::string("expected an object, got ") + type_of(root_));
    check_keys(root_, kRecordKeys, "");
    Record record;
    record.from_prompt = root_.contains("prompt") || root_.contains("response");
    if (record.from_prompt == root_.contains("messages")) {
      fail(std::string("expected either 'messages', or 'prompt' and 'response', got ") +
           (record.from_prompt ? "both" : "neither"));
    }
    record.messages = record.from_prompt ? prompt_and_response() : messages();
    record.id = optional_text("id");
    record.task = optional_text("task");
    if (const auto metadata = root_.find("metadata"); metadata != root_.end()) {
      if (!metadata->is_object()) fail_type("metadata", "an object", *metadata);
      record.metadata.clear();
      append_canonical_json(record.metadata, *metadata);
    }
    return record;
  }

 private:
  static std::string type_of(const json& value) {
    if (value.is_null()) return "null";
    if (value.is_boolean()) return value.get<bool>() ? "true" : "false";
    if (value.is_number()) return "a number";
    if (value.is_string()) return "a string";
    return value.is_array() ? "a list" : "an object";
  }

  [[noreturn]] void fail(const std::string& what) const { fail_record(origin_, what); }

  [[noreturn]] void fail_type(const std::string& field, const std::string& expected, const json& got) const {
    fail("'" + field + "' is " + type_of(got) + "; expected " + expected);
  }

  void check_keys(const json& object, std::span<const std::string_view> known, const std::string& prefix) const {
    for (const auto& [key, value] : object.items()) {
      if (std::find(known.begin(), known.end(), key) != known.end()) continue;
      const std::string hint = hint_for_unknown(key, known);
      const bool is_guess = hint.ends_with('?');
      fail("unknown key '" + prefix + escape_for_message(key, 64) + "'" + hint +
           (prefix.empty() && !is_guess ? "; what else there is goes into 'metadata'" : ""));
    }
  }

  /// The text of a member that must be there; `prefix` is what the object is called, with a point behind.
  const std::string& text(const json& object, const std::string& prefix, const char* key) const {
    const auto found = object.find(key);
    if (found == object.end()) fail("'" + prefix + key + "' is missing");
    if (!found->is_string()) fail_type(prefix + key, "a string", *found);
    return found->get_ref<const std::string&>();
  }

  const std::string& text_that_says_something(const json& object, const std::string& prefix, const char* key) const {
    const std::string& content = text(object, prefix, key);
    if (content.empty()) fail("'" + prefix + key + "' is empty");
    if (is_blank(content)) fail("'" + prefix + key + "' holds white space only");
    return content;
  }

  std::optional<std::string> optional_text(const char* key) const {
    if (!root_.contains(key)) return std::nullopt;
    const std::string& value = text(root_, "", key);
    if (value.empty()) fail("'" + std::string(key) + "' is empty; leave it out where there is none");
    return value;
  }

  std::vector<Message> prompt_and_response() const {
    return {{Role::kUser, text_that_says_something(root_, "", "prompt")},
            {Role::kAssistant, text_that_says_something(root_, "", "response")}};
  }

  std::vector<Message> messages() const {
    const json& list = root_.at("messages");
    if (!list.is_array()) fail_type("messages", "a list", list);
    std::vector<Message> turns;
    for (std::size_t i = 0; i < list.size(); ++i) {
      const std::string field = "messages[" + std::to_string(i) + "]";
      if (!list[i].is_object()) fail_type(field, "an object", list[i]);
      const std::string prefix = field + ".";
      check_keys(list[i], kMessageKeys, prefix);
      const Role role = role_of_turn(list[i], prefix, turns);
      // An empty system message is how one says that a template's default is not wanted.
      turns.push_back({role, role == Role::kSystem ? text(list[i], prefix, "content")
                                                   : text_that_says_something(list[i], prefix, "content")});
    }
    if (turns.empty()) fail("'messages' is empty; expected at least a user's message and an assistant's answer");
    if (turns.back().role != Role::kAssistant) {
      fail("'messages' ends with '" + std::string(role_name(turns.back().role)) + "'; expected an assistant's answer");
    }
    return turns;
  }

  Role role_of_turn(const json& message, const std::string& prefix, const std::vector<Message>& before) const {
    const std::string& name = text(message, prefix, "role");
    const auto refuse = [&](const std::string& expected) {
      fail("'" + prefix + "role' is " + quote(name, 40) + "; expected " + expected);
    };
    const bool is_first = before.empty();
    const Role turn = is_first || before.back().role != Role::kUser ? Role::kUser : Role::kAssistant;
    if (name == role_name(turn)) return turn;
    if (is_first && name == role_name(Role::kSystem)) return Role::kSystem;
    if (name == role_name(Role::kSystem)) refuse("system in the first message only");
    if (name != role_name(Role::kUser) && name != role_name(Role::kAssistant)) {
      refuse(is_first ? "system or user" : "user or assistant");
    }
    refuse(std::string(role_name(turn)) + ": user and assistant speak in turn, user first");
    return turn;
  }

  const json& root_;
  std::string_view origin_;
};

}  // namespace

std::string_view role_name(Role role) {
  constexpr std::array<std::string_view, 3> kNames = {"system", "user", "assistant"};
  return kNames.at(static_cast<std::size_t>(role));
}

void fail_record(std::string_view origin, const std::string& what) {
  throw std::invalid_argument("[dataset] " + std::string(origin) + ": " + what);
}

Record RecordParser::parse(std::string_view line, std::string_view origin) {
  if (line.find_first_not_of(" \t\r") == line.npos) fail_record(origin, "the line is blank; expected a record");
  const json root = parse_json(line, origin, {.max_bytes = kMaxRecordBytes});
  Record record = RecordReader(root, origin).read();
  canonical_.clear();
  append_canonical_json(canonical_, root);
  record.hash = hash_.update(canonical_).finish();
  return record;
}

}  // namespace titer

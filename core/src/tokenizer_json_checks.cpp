#include "tokenizer_json_checks.h"

#include <algorithm>
#include <limits>
#include <stdexcept>

#include "quote.h"

namespace titer::tokenization {

using nlohmann::json;

void JsonChecks::fail(const std::string& message) const {
  throw std::invalid_argument("[tokenizer] " + message + " (" + escape_for_message(origin_, 400) + ")");
}

void JsonChecks::refuse(const std::string& key, const json& value, std::string_view supported) const {
  fail("'" + key + "' is " + describe(value) + ", which is not supported; supported: " + std::string(supported));
}

std::string JsonChecks::describe(const json& value) {
  if (value.is_object()) return "an object";
  if (value.is_array()) return "an array of " + std::to_string(value.size());
  if (value.is_string()) return quote(value.get_ref<const std::string&>());
  return value.dump();
}

std::string JsonChecks::join(const std::string& path, std::string_view key) {
  return path.empty() ? std::string(key) : path + "." + std::string(key);
}

std::string JsonChecks::join(const std::string& path, std::size_t index) {
  return path + "[" + std::to_string(index) + "]";
}

const json* JsonChecks::find(const json& object, const std::string& key) {
  const auto found = object.find(key);
  return found == object.end() ? nullptr : &*found;
}

const json& JsonChecks::member(const json& object, const std::string& path, const char* key) const {
  if (const json* value = find(object, key)) return *value;
  fail("key '" + join(path, key) + "' is missing");
}

const json& JsonChecks::array(const json& object, const std::string& path, const char* key) const {
  const json& value = member(object, path, key);
  if (!value.is_array()) fail("'" + join(path, key) + "' must be an array, got " + describe(value));
  return value;
}

const std::string& JsonChecks::string(const json& object, const std::string& path, const char* key) const {
  const json& value = member(object, path, key);
  if (!value.is_string()) fail("'" + join(path, key) + "' must be a string, got " + describe(value));
  return value.get_ref<const std::string&>();
}

const std::string& JsonChecks::type_of(const json& object, const std::string& path) const {
  if (!object.is_object()) fail("'" + path + "' must be an object with a 'type', got " + describe(object));
  return string(object, path, "type");
}

bool JsonChecks::flag(const json& object, const std::string& path, const char* key) const {
  const json& value = member(object, path, key);
  if (!value.is_boolean()) refuse(join(path, key), value, "true, false");
  return value.get<bool>();
}

bool JsonChecks::flag_or(const json& object, const std::string& path, const char* key, bool fallback,
                         bool null_allowed) const {
  const json* value = find(object, key);
  if (value == nullptr || (null_allowed && value->is_null())) return fallback;
  return flag(object, path, key);
}

int32_t JsonChecks::id(const json& value, const std::string& path, std::string_view name) const {
  if (!value.is_number_unsigned() ||
      value.get<uint64_t>() >= static_cast<uint64_t>(std::numeric_limits<int32_t>::max())) {
    fail("'" + (name.empty() ? path : join(path, escape_for_message(name))) +
         "' must be an id from 0 to 2^31 - 2, got " + describe(value));
  }
  return value.get<int32_t>();
}

void JsonChecks::allow_keys(const json& object, const std::string& path,
                            std::initializer_list<std::string_view> known) const {
  for (const auto& [key, value] : object.items()) {
    if (std::find(known.begin(), known.end(), key) != known.end()) continue;
    std::string list;
    for (const std::string_view name : known) list.append(list.empty() ? "" : ", ").append(name);
    fail("key '" + join(path, escape_for_message(key)) + "' is not supported; supported: " + list);
  }
}

void JsonChecks::require_null(const json& object, const char* key) const {
  if (const json* value = find(object, key); value != nullptr && !value->is_null()) refuse(key, *value, "null");
}

}  // namespace titer::tokenization

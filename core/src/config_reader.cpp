#include "config_reader.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "quote.h"

namespace titer {

using nlohmann::json;

namespace {

/// A value as it stands in the file, cut where it is long.
std::string shown(const json& value) { return escape_for_message(value.dump(), 80); }

}  // namespace

void ConfigReader::fail(std::string_view key, const std::string& message) const {
  throw std::invalid_argument("[load_model] '" + prefix_ + std::string(key) + "' " + message + " (" +
                              escape_for_message(origin_, 1024) + ")");
}

bool ConfigReader::has(std::string_view key) const { return object_.contains(key); }

const json* ConfigReader::find(std::string_view key) const {
  if (key.empty()) return nullptr;
  const auto it = object_.find(key);
  return it == object_.end() || it->is_null() ? nullptr : &*it;
}

ConfigReader ConfigReader::object(std::string_view key) const {
  const json* value = find(key);
  if (value == nullptr) fail(key, "is missing");
  if (!value->is_object()) fail(key, "must be an object, got " + shown(*value));
  return {*value, origin_, prefix_ + std::string(key) + "."};
}

int64_t ConfigReader::size(std::string_view key, std::optional<int64_t> fallback, int64_t least) const {
  const json* value = find(key);
  if (value == nullptr) {
    if (fallback) return *fallback;
    fail(key, "is missing");
  }
  constexpr int64_t kLargest = int64_t{1} << 30;
  if (!value->is_number_integer() || *value < least || *value > kLargest)
    fail(key, "must be a whole number from " + std::to_string(least) + " to " + std::to_string(kLargest) + ", got " +
                  shown(*value));
  return value->get<int64_t>();
}

double ConfigReader::positive(std::string_view key, std::optional<double> fallback) const {
  const json* value = find(key);
  if (value == nullptr) {
    if (fallback) return *fallback;
    fail(key, "is missing");
  }
  if (!value->is_number() || !std::isfinite(value->get<double>()) || value->get<double>() <= 0)
    fail(key, "must be a finite number above 0, got " + shown(*value));
  return value->get<double>();
}

bool ConfigReader::flag(std::string_view key, bool fallback) const {
  const json* value = find(key);
  if (value == nullptr) return fallback;
  if (!value->is_boolean()) fail(key, "must be true or false, got " + shown(*value));
  return value->get<bool>();
}

std::string ConfigReader::text(std::string_view key, const std::string& fallback) const {
  const json* value = find(key);
  if (value == nullptr) return fallback;
  if (!value->is_string()) fail(key, "must be a string, got " + shown(*value));
  return value->get<std::string>();
}

std::vector<double> ConfigReader::positives(std::string_view key, int64_t count) const {
  const json* value = find(key);
  if (value == nullptr) fail(key, "is missing");
  const auto is_positive = [](const json& x) {
    return x.is_number() && std::isfinite(x.get<double>()) && x.get<double>() > 0;
  };
  if (!value->is_array() || static_cast<int64_t>(value->size()) != count ||
      !std::all_of(value->begin(), value->end(), is_positive))
    fail(key, "must be a list of " + std::to_string(count) + " finite numbers above 0");
  return value->get<std::vector<double>>();
}

std::vector<std::string> ConfigReader::texts(std::string_view key) const {
  const json* value = find(key);
  if (value == nullptr) return {};
  if (!value->is_array() || !std::all_of(value->begin(), value->end(), [](const json& x) { return x.is_string(); }))
    fail(key, "must be a list of strings");
  return value->get<std::vector<std::string>>();
}

std::vector<int64_t> ConfigReader::ids(std::string_view key) const {
  const json* value = find(key);
  std::vector<int64_t> out;
  if (value == nullptr) return out;
  const json list = value->is_array() ? *value : json::array({*value});
  for (const json& id : list) {
    if (!id.is_number_integer() || id < 0 || id > std::numeric_limits<int32_t>::max())
      fail(key, "must be a token id or a list of them, got " + shown(*value));
    out.push_back(id.get<int64_t>());
  }
  return out;
}

}  // namespace titer

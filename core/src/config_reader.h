// Typed reading of a JSON object's keys, with messages that name key and file.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace titer {

/// A key that is absent and one that is null read alike, except for `has`; the empty key is always absent. All
/// functions throw std::invalid_argument.
class ConfigReader {
 public:
  /// @param prefix  put before keys in messages ("rope_parameters.")
  ConfigReader(const nlohmann::json& object, std::string_view origin, std::string prefix = "")
      : object_(object), origin_(origin), prefix_(std::move(prefix)) {}

  [[noreturn]] void fail(std::string_view key, const std::string& message) const;

  bool has(std::string_view key) const;
  const nlohmann::json* find(std::string_view key) const;

  /// A reader of the object at a key; fails where it is something else.
  ConfigReader object(std::string_view key) const;

  /// A whole number from `least` to 2^30: shapes are products of two of them.
  int64_t size(std::string_view key, std::optional<int64_t> fallback = std::nullopt, int64_t least = 1) const;
  double positive(std::string_view key, std::optional<double> fallback = std::nullopt) const;
  bool flag(std::string_view key, bool fallback) const;
  std::string text(std::string_view key, const std::string& fallback) const;

  /// Exactly `count` positive numbers.
  std::vector<double> positives(std::string_view key, int64_t count) const;
  std::vector<std::string> texts(std::string_view key) const;

  /// Token ids; one alone is a list of one, and absence an empty list.
  std::vector<int64_t> ids(std::string_view key) const;

 private:
  const nlohmann::json& object_;
  std::string_view origin_;
  std::string prefix_;
};

}  // namespace titer

// Access to the members of a `tokenizer.json` that fails with the name of the key, what came and what is supported.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace titer::tokenization {

/// In all methods `path` is where `object` stands in the document ("model"), and `key` the member that is wanted.
class JsonChecks {
 protected:
  explicit JsonChecks(std::string_view origin) : origin_(origin) {}

  [[noreturn]] void fail(const std::string& message) const;
  [[noreturn]] void refuse(const std::string& key, const nlohmann::json& value, std::string_view supported) const;

  static std::string describe(const nlohmann::json& value);
  static std::string join(const std::string& path, std::string_view key);
  static std::string join(const std::string& path, std::size_t index);

  static const nlohmann::json* find(const nlohmann::json& object, const std::string& key);
  const nlohmann::json& member(const nlohmann::json& object, const std::string& path, const char* key) const;
  const nlohmann::json& array(const nlohmann::json& object, const std::string& path, const char* key) const;
  const std::string& string(const nlohmann::json& object, const std::string& path, const char* key) const;

  /// `type` of a component; a component without one has a layout that tokenizers guesses.
  const std::string& type_of(const nlohmann::json& object, const std::string& path) const;

  bool flag(const nlohmann::json& object, const std::string& path, const char* key) const;
  /// Absent means `fallback`; null too if `null_allowed`.
  bool flag_or(const nlohmann::json& object, const std::string& path, const char* key, bool fallback,
               bool null_allowed) const;

  /// A token id; `name` only completes the path in the error.
  int32_t id(const nlohmann::json& value, const std::string& path, std::string_view name = {}) const;

  void allow_keys(const nlohmann::json& object, const std::string& path,
                  std::initializer_list<std::string_view> known) const;
  void require_null(const nlohmann::json& object, const char* key) const;

 private:
  std::string_view origin_;
};

}  // namespace titer::tokenization

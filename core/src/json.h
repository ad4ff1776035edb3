// JSON for hostile input: the one way in which Titer parses JSON, whether it comes from a model folder, a checkpoint or
// a caller. Stricter than nlohmann-json's default: size, depth and memory are limited and duplicate keys are refused.
#pragma once

#include <cstddef>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string_view>

namespace titer {

struct JsonLimits {
  std::size_t max_bytes = std::size_t{256} << 20U;  ///< length of the text
  std::size_t max_depth = 64;                       ///< nested arrays and objects; the outermost one counts as 1
};

/// Parses one JSON value (RFC 8259), iteratively and in O(n log n).
///
/// Refuses text over the limits, duplicate keys, invalid UTF-8, a byte order mark, NUL bytes, lone surrogates, numbers
/// beyond the range of double, anything after the value, and documents whose values would take more than
/// 64 MiB + 16 times the text (millions of `{}`). Integers outside 64 bits become doubles.
///
/// @param origin  what to call the text in an error: a file name, usually
/// @throws std::invalid_argument naming the origin and the byte where it went wrong, counted from 1
nlohmann::json parse_json(std::string_view text, std::string_view origin, const JsonLimits& limits = {});

/// Reads and parses a file; `limits.max_bytes` applies before anything is read.
/// @throws std::system_error if the file cannot be read, std::invalid_argument as parse_json
nlohmann::json read_json_file(const std::filesystem::path& path, const JsonLimits& limits = {});

}  // namespace titer

// JSON for hostile input: the one way in which Titer parses JSON, whether it comes from a model folder, a checkpoint or
// a caller. Stricter than nlohmann-json's default: size, depth and memory are limited and duplicate keys are refused.
#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>

namespace titer {

struct JsonLimits {
  std::size_t max_bytes = std::size_t{256} << 20U;  ///< length of the text
  std::size_t max_depth = 64;                       ///< nested arrays and objects; the outermost one counts as 1
};

/// A member of an object in the outermost object whose elements are handed over one by one, in the order of the text,
/// and not kept: for documents with so many that a value for each takes too long. In the result it is left empty.
struct JsonStream {
  std::string_view parent;  ///< key in the outermost object
  std::string_view key;     ///< in `parent`
  /// Gets the key of a member, empty for an element of an array, and the value. Duplicate keys are for it to find; what
  /// it throws ends the parsing. What it keeps is not counted as memory of the document.
  std::function<void(const std::string& key, const nlohmann::json& value)> take;
  /// Where set, gets those elements of an array that are arrays of one or more strings, and `take` only the others: a
  /// JSON value for a pair of strings costs five allocations.
  std::function<void(std::span<const std::string> strings)> take_strings = {};
};

/// Parses one JSON value (RFC 8259), iteratively and in O(n log n).
///
/// Refuses text over the limits, duplicate keys, invalid UTF-8, a byte order mark, NUL bytes, lone surrogates, numbers
/// beyond the range of double, anything after the value, and documents whose values would take more than
/// 64 MiB + 16 times the text (millions of `{}`). Integers outside 64 bits become doubles.
///
/// @param origin  what to call the text in an error: a file name, usually
/// @param streams  what to hand over instead of keeping it
/// @throws std::invalid_argument naming the origin and the byte where it went wrong, counted from 1
nlohmann::json parse_json(std::string_view text, std::string_view origin, const JsonLimits& limits = {},
                          std::span<const JsonStream> streams = {});

/// Reads and parses a file; `limits.max_bytes` applies before anything is read.
/// @throws std::system_error if the file cannot be read, std::invalid_argument as parse_json
nlohmann::json read_json_file(const std::filesystem::path& path, const JsonLimits& limits = {});

}  // namespace titer

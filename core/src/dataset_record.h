// One line of a data set: what core/dataset.h says of a record is checked here.
#pragma once

#include <string>
#include <string_view>

#include "titer/core/dataset.h"
#include "titer/core/sha256.h"

namespace titer {

/// Longest line, without its break.
inline constexpr std::size_t kMaxRecordBytes = std::size_t{16} << 20U;

/// `[dataset] notes.jsonl:17: what`
/// @param origin  file and line, ready for a message
[[noreturn]] void fail_record(std::string_view origin, const std::string& what);

/// Keeps what one record after the other needs.
class RecordParser {
 public:
  /// @param line  without its line break
  /// @throws std::invalid_argument naming the origin and the field
  Record parse(std::string_view line, std::string_view origin);

 private:
  Sha256 hash_;
  std::string canonical_;
};

}  // namespace titer

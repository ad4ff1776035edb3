// Files that are either complete or absent: contents go to a temporary beside the final name, reach the disk, and are
// then renamed over it. A crash, a full disk or an exception never leaves half a result, checkpoint or adapter.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>

#include "titer/export.h"

namespace titer {

/// Streams a file into place.
///
/// The temporary is `.<name>.<pid>-<n>.tmp` in the same folder; only a killed process can leave one behind. An existing
/// file keeps its permissions, a symbolic link is followed. A device or pipe (/dev/stdout) cannot be replaced and is
/// written to directly. All members throw std::system_error with the path; after one, only destruction makes sense.
class TITER_EXPORT AtomicFileWriter {
 public:
  explicit AtomicFileWriter(const std::filesystem::path& path);
  AtomicFileWriter(const AtomicFileWriter&) = delete;
  AtomicFileWriter& operator=(const AtomicFileWriter&) = delete;
  /// Removes the temporary unless commit() has succeeded.
  ~AtomicFileWriter();

  void write(std::string_view bytes);
  void write(const void* data, std::size_t bytes);

  /// Makes the contents durable and gives them their name. Nothing can be written afterwards.
  void commit();

 private:
  [[noreturn]] void fail(int error) const;

  std::filesystem::path path_;
  std::filesystem::path temporary_;  // empty if there is nothing to rename or remove
  int descriptor_ = -1;
};

/// Replaces the file by `contents`, completely or not at all.
TITER_EXPORT void write_file_atomically(const std::filesystem::path& path, std::string_view contents);

/// The whole of a regular file.
/// @throws std::system_error if it cannot be read, std::invalid_argument if it is larger than `max_bytes` or not a
///     regular file
TITER_EXPORT std::string read_file(const std::filesystem::path& path, std::size_t max_bytes);

}  // namespace titer

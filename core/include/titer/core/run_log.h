// The record of a run: JSON lines that are only ever appended, one record per line and per write, so that whatever
// kills the process, everything recorded before stays readable.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string_view>

#include "titer/export.h"

namespace titer {

/// An append-only log with one writer.
///
/// Opening creates the file or continues it. A killed machine can leave a torn last line: if that line is a whole JSON
/// object that lacks only its newline, it is completed; otherwise it is cut off and torn_bytes() tells how much that
/// was. Complete lines are neither changed nor parsed. The file is locked while it is open, because a second writer
/// would repair lines that the first is writing.
///
/// A record is in the kernel's hands when append() returns and survives the death of the process; sync() makes it
/// survive the machine's. Not thread-safe.
class TITER_EXPORT RunLog {
 public:
  /// @throws std::system_error if the file cannot be opened, read or written, or (EWOULDBLOCK) has a writer already;
  ///     std::invalid_argument if it is not a regular file or its last line, lacking a newline, is not even the start
  ///     of a record
  explicit RunLog(std::filesystem::path path);
  RunLog(const RunLog&) = delete;
  RunLog& operator=(const RunLog&) = delete;
  ~RunLog();

  /// Appends one record and its newline. If that fails, the log is as it was before.
  ///
  /// @param record  one JSON object as text, from '{' to '}', at most 16 MiB, without line breaks
  /// @throws std::invalid_argument if it is not; std::system_error if it cannot be written (full disk)
  void append(std::string_view record);

  /// Waits until everything appended is on the disk.
  void sync();

  const std::filesystem::path& path() const { return path_; }

  /// Bytes of a torn last line that opening cut off; 0 for a clean log.
  std::uint64_t torn_bytes() const { return torn_bytes_; }

 private:
  [[noreturn]] void fail(int error) const;
  void repair_last_line();

  std::filesystem::path path_;
  int descriptor_ = -1;
  std::uint64_t size_ = 0;
  std::uint64_t torn_bytes_ = 0;
};

}  // namespace titer

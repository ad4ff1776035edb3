// A regular file that is read at positions. pread, unlike a mapping, survives a file that another process cuts short.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string_view>

#include "file_descriptor.h"

namespace titer {

class RegularFile {
 public:
  /// @param where  starts the message about something that is no file: "dataset"
  /// @throws std::system_error if it cannot be opened; std::invalid_argument if it is a device, pipe or socket
  RegularFile(const std::filesystem::path& path, std::string_view where);

  /// Fills `buffer` from `offset` on and returns how much of it there was: less only at the end of the file.
  /// @throws std::system_error
  std::size_t read_at(std::uint64_t offset, std::span<char> buffer) const;

  const std::filesystem::path& path() const { return path_; }

 private:
  [[noreturn]] void fail(int error) const;

  std::filesystem::path path_;
  FileDescriptor descriptor_;
};

}  // namespace titer

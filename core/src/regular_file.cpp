// POSIX calls, and their errors with the name of the file.
#include "regular_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <stdexcept>
#include <string>
#include <system_error>

#include "quote.h"

namespace titer {

// Without O_NONBLOCK, opening a pipe would wait for its writer.
RegularFile::RegularFile(const std::filesystem::path& path, std::string_view where)
    : path_(path), descriptor_(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {
  if (!descriptor_) fail(errno);
  struct stat status {};
  if (fstat(descriptor_.get(), &status) != 0) fail(errno);
  if (S_ISDIR(status.st_mode)) fail(EISDIR);
  if (!S_ISREG(status.st_mode)) {
    throw std::invalid_argument("[" + std::string(where) + "] expected a regular file, got a device, pipe or socket (" +
                                escape_for_message(path_.string(), 1024) + ")");
  }
}

std::size_t RegularFile::read_at(std::uint64_t offset, std::span<char> buffer) const {
  std::size_t filled = 0;
  while (filled < buffer.size()) {
    const ssize_t count =
        pread(descriptor_.get(), buffer.data() + filled, buffer.size() - filled, static_cast<off_t>(offset + filled));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail(errno);
    if (count == 0) break;
    filled += static_cast<std::size_t>(count);
  }
  return filled;
}

void RegularFile::fail(int error) const {
  throw std::system_error(error, std::generic_category(), escape_for_message(path_.string(), 1024));
}

}  // namespace titer

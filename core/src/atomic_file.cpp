// POSIX calls behind AtomicFileWriter and read_file; see the header for the guarantees.
#include "titer/core/atomic_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <stdexcept>
#include <system_error>
#include <utility>

#include "file_descriptor.h"
#include "quote.h"

namespace titer {
namespace {

[[noreturn]] void throw_system_error(int error, const std::filesystem::path& path) {
  throw std::system_error(error, std::generic_category(), escape_for_message(path.string(), 1024));
}

/// A name beside `path` that no other writer of this process or a living other one uses.
std::filesystem::path temporary_beside(const std::filesystem::path& path) {
  static std::atomic<unsigned> counter{0};
  // File names end at 255 bytes; the rest of the name only helps people to see where a left-over came from.
  const std::string name = path.filename().string().substr(0, 200);
  return path.parent_path() / ("." + name + "." + std::to_string(getpid()) + "-" + std::to_string(counter++) + ".tmp");
}

/// Durability of the rename itself. Some file systems cannot sync folders and say EINVAL.
void sync_folder(const std::filesystem::path& folder) {
  const FileDescriptor descriptor(open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!descriptor) return;  // a folder may be writable and not readable
  if (fsync(descriptor.get()) != 0 && errno != EINVAL && errno != ENOTSUP) throw_system_error(errno, folder);
}

}  // namespace

AtomicFileWriter::AtomicFileWriter(const std::filesystem::path& path) : path_(path) {
  std::error_code ignored;
  if (std::filesystem::is_symlink(path_, ignored)) {
    auto target = std::filesystem::canonical(path_, ignored);
    if (!target.empty()) path_ = std::move(target);
  }
  struct stat existing {};
  const bool exists = stat(path_.c_str(), &existing) == 0;
  if (exists && S_ISDIR(existing.st_mode)) fail(EISDIR);
  if (exists && !S_ISREG(existing.st_mode)) {
    descriptor_ = open(path_.c_str(), O_WRONLY | O_CLOEXEC);
    if (descriptor_ < 0) fail(errno);
    return;
  }
  const mode_t mode = exists ? existing.st_mode & 0777U : 0666U;
  do {
    temporary_ = temporary_beside(path_);
    descriptor_ = open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
  } while (descriptor_ < 0 && errno == EEXIST);
  if (descriptor_ < 0) {
    temporary_.clear();
    fail(errno);
  }
  if (exists) fchmod(descriptor_, mode);  // the umask may have cut what the old file allowed; best effort
}

AtomicFileWriter::~AtomicFileWriter() {
  if (descriptor_ >= 0) close(descriptor_);
  if (!temporary_.empty()) unlink(temporary_.c_str());
}

void AtomicFileWriter::write(std::string_view bytes) { write(bytes.data(), bytes.size()); }

void AtomicFileWriter::write(const void* data, std::size_t bytes) {
  if (descriptor_ < 0) throw std::logic_error("[AtomicFileWriter] write() after commit()");
  const char* position = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t written = ::write(descriptor_, position, bytes);
    if (written < 0) {
      if (errno == EINTR) continue;
      fail(errno);
    }
    position += written;
    bytes -= static_cast<std::size_t>(written);
  }
}

void AtomicFileWriter::commit() {
  if (descriptor_ < 0) throw std::logic_error("[AtomicFileWriter] commit() after commit()");
  if (!temporary_.empty() && fsync(descriptor_) != 0) fail(errno);
  // Network file systems report a full disk at close; the descriptor is gone either way.
  if (close(std::exchange(descriptor_, -1)) != 0 && errno != EINTR) fail(errno);
  if (temporary_.empty()) return;
  if (rename(temporary_.c_str(), path_.c_str()) != 0) fail(errno);
  temporary_.clear();
  sync_folder(path_.parent_path());
}

void AtomicFileWriter::fail(int error) const { throw_system_error(error, path_); }

void write_file_atomically(const std::filesystem::path& path, std::string_view contents) {
  AtomicFileWriter writer(path);
  writer.write(contents);
  writer.commit();
}

std::string read_file(const std::filesystem::path& path, std::size_t max_bytes) {
  // Without O_NONBLOCK, opening a pipe would wait for its writer.
  const FileDescriptor descriptor(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!descriptor) throw_system_error(errno, path);
  struct stat status {};
  if (fstat(descriptor.get(), &status) != 0) throw_system_error(errno, path);
  if (S_ISDIR(status.st_mode)) throw_system_error(EISDIR, path);
  const auto refuse = [&](const std::string& what) {
    throw std::invalid_argument("[read_file] " + what + " (" + escape_for_message(path.string(), 1024) + ")");
  };
  if (!S_ISREG(status.st_mode)) refuse("expected a regular file, got a device, pipe or socket");
  const auto size = static_cast<std::size_t>(status.st_size);
  if (size > max_bytes) {
    refuse("file has " + std::to_string(size) + " bytes, the limit is " + std::to_string(max_bytes));
  }
  std::string contents(size, '\0');
  std::size_t filled = 0;
  while (filled < contents.size()) {
    const ssize_t count = read(descriptor.get(), contents.data() + filled, contents.size() - filled);
    if (count < 0) {
      if (errno == EINTR) continue;
      throw_system_error(errno, path);
    }
    if (count == 0) break;  // the file shrank since fstat
    filled += static_cast<std::size_t>(count);
  }
  contents.resize(filled);
  return contents;
}

}  // namespace titer

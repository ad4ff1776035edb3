// Appending, and repairing what an interrupted append left; see the header for the guarantees.
#include "titer/core/run_log.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>

#include "file_descriptor.h"
#include "json.h"
#include "quote.h"

namespace titer {
namespace {

constexpr std::size_t kMaxRecordBytes = std::size_t{16} << 20U;

bool is_json_object(std::string_view text) {
  try {
    return parse_json(text, "last line").is_object();
  } catch (const std::invalid_argument&) {
    return false;
  }
}

}  // namespace

RunLog::RunLog(std::filesystem::path path) : path_(std::move(path)) {
  FileDescriptor descriptor(open(path_.c_str(), O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0666));
  if (!descriptor) fail(errno);
  struct stat status {};
  if (fstat(descriptor.get(), &status) != 0) fail(errno);
  if (!S_ISREG(status.st_mode)) {
    throw std::invalid_argument("[run_log] expected a regular file (" + escape_for_message(path_.string(), 1024) + ")");
  }
  // Not every network file system has locks; there the caller keeps writers apart.
  if (flock(descriptor.get(), LOCK_EX | LOCK_NB) != 0 && errno != ENOLCK && errno != EOPNOTSUPP) fail(errno);
  if (fstat(descriptor.get(), &status) != 0) fail(errno);
  size_ = static_cast<std::uint64_t>(status.st_size);
  descriptor_ = descriptor.get();
  repair_last_line();
  descriptor.release();
}

RunLog::~RunLog() {
  if (descriptor_ >= 0) close(descriptor_);
}

void RunLog::repair_last_line() {
  // Read backwards until the newline before the last line.
  std::string tail;
  std::uint64_t position = size_;
  std::size_t newline = std::string::npos;
  while (position > 0 && newline == std::string::npos) {
    if (tail.size() > kMaxRecordBytes) {
      throw std::invalid_argument("[run_log] the last 16 MiB hold no line break; this is not a run log (" +
                                  escape_for_message(path_.string(), 1024) + ")");
    }
    const std::size_t step = std::min<std::uint64_t>(position, std::max<std::size_t>(4096, tail.size()));
    std::string block(step, '\0');
    std::size_t filled = 0;
    while (filled < step) {
      const ssize_t count =
          pread(descriptor_, block.data() + filled, step - filled, static_cast<off_t>(position - step + filled));
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) fail(errno);
      if (count == 0) fail(EIO);  // shrank under the lock
      filled += static_cast<std::size_t>(count);
    }
    position -= step;
    newline = block.rfind('\n');
    tail.insert(0, block);
  }
  if (newline != std::string::npos) tail.erase(0, newline + 1);
  if (tail.empty()) return;

  // A torn record starts like one; after a power cut it may be zeros. Anything else is not ours to cut.
  if (tail.front() != '{' && tail.front() != '\0') {
    throw std::invalid_argument("[run_log] the last line is no JSON object; this is not a run log (" +
                                escape_for_message(path_.string(), 1024) + ")");
  }
  if (is_json_object(tail)) {
    if (write(descriptor_, "\n", 1) != 1) fail(errno);
    size_ += 1;
  } else {
    if (ftruncate(descriptor_, static_cast<off_t>(size_ - tail.size())) != 0) fail(errno);
    size_ -= tail.size();
    torn_bytes_ = tail.size();
  }
}

void RunLog::append(std::string_view record) {
  const auto refuse = [&](const std::string& what) {
    throw std::invalid_argument("[run_log] " + what + " (" + escape_for_message(path_.string(), 1024) + ")");
  };
  if (record.find_first_of("\r\n") != std::string_view::npos) refuse("a record must be one line, got a line break");
  if (!record.starts_with('{') || !parse_json(record, "run log record", {.max_bytes = kMaxRecordBytes}).is_object()) {
    refuse("a record must be a JSON object, got " + quote(record, 40));
  }
  std::string line(record);
  line += '\n';
  // One call writes all of it, unless the disk is nearly full; then the rest finds out what is wrong.
  std::size_t written = 0;
  while (written < line.size()) {
    const ssize_t count = write(descriptor_, line.data() + written, line.size() - written);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) {
      const int error = errno;
      if (written > 0 && ftruncate(descriptor_, static_cast<off_t>(size_)) != 0) fail(errno);
      fail(error);
    }
    written += static_cast<std::size_t>(count);
  }
  size_ += line.size();
}

void RunLog::sync() {
  if (fsync(descriptor_) != 0) fail(errno);
}

void RunLog::fail(int error) const {
  throw std::system_error(error, std::generic_category(), escape_for_message(path_.string(), 1024));
}

}  // namespace titer

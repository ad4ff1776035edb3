// Any bytes: a data set is refused with std::invalid_argument that names the file, or each of its records can be read,
// has turns that end with an answer, and is written canonically as it was hashed.
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>

#include "canonical_json.h"
#include "json.h"
#include "titer/core/dataset.h"
#include "utf8.h"

namespace {

std::string canonical(std::string_view text) {
  std::string written;
  titer::append_canonical_json(written, titer::parse_json(text, "fuzz"));
  return written;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const int descriptor = memfd_create("fuzz", 0);
  static const std::string path = "/proc/self/fd/" + std::to_string(descriptor);
  if (ftruncate(descriptor, 0) != 0 || pwrite(descriptor, data, size, 0) != static_cast<ssize_t>(size)) std::abort();

  const std::string_view contents(reinterpret_cast<const char*>(data), size);
  try {
    const titer::Dataset dataset(path);
    if (dataset.size() != dataset.hashes().size()) std::abort();
    std::size_t begin = 0;
    for (std::size_t i = 0; i < dataset.size(); ++i) {
      const titer::Record record = dataset.record(i);
      if (record.messages.back().role != titer::Role::kAssistant || record.hash != dataset.hashes()[i]) std::abort();
      if (record.metadata != canonical(record.metadata)) std::abort();
      const std::string_view line = contents.substr(begin, contents.find('\n', begin) - begin);
      begin += line.size() + 1;
      const std::string written = canonical(line);
      if (written != canonical(written) || titer::sha256(written) != record.hash) std::abort();
    }
    if (begin < size) std::abort();
  } catch (const std::invalid_argument& error) {
    const std::string_view message = error.what();
    if (titer::first_invalid_utf8(message) != message.size() || message.find(path) == message.npos) std::abort();
  }
  return 0;
}

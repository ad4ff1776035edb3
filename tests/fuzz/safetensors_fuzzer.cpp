// Any bytes: a file is refused with std::invalid_argument, or all its tensors lie inside it and cover its data once.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>
#include <stdexcept>
#include <string_view>
#include <vector>

#include "titer/core/safetensors.h"
#include "utf8.h"

namespace {

void check(const std::uint8_t* data, std::size_t size) {
  const std::shared_ptr<const void> storage(data, [](const void*) {});
  const auto contents = std::as_bytes(std::span(data, size));
  try {
    const titer::SafetensorsFile file(storage, contents, "fuzz");
    std::size_t covered = 0;
    for (const auto& tensor : file.tensors()) {
      covered += tensor.data.size();
      if (tensor.data.data() < contents.data() || tensor.data.data() + tensor.data.size() > contents.data() + size) {
        std::abort();
      }
      if (file.find(tensor.name) != &tensor) std::abort();
    }
    std::uint64_t header_bytes = 0;
    std::memcpy(&header_bytes, data, sizeof header_bytes);
    if (covered + header_bytes + sizeof header_bytes != size) std::abort();
  } catch (const std::invalid_argument& error) {
    const std::string_view message = error.what();
    if (titer::first_invalid_utf8(message) != message.size()) std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  check(data, size);
  // The same bytes with the header length filled in: first a byte that says how much of the rest is data. Random
  // changes of the header would otherwise nearly always fail at its length.
  if (size == 0 || data[0] > size - 1) return 0;
  const std::uint64_t header_bytes = size - 1 - data[0];
  std::vector<std::uint8_t> file(sizeof header_bytes + size - 1);
  std::memcpy(file.data(), &header_bytes, sizeof header_bytes);
  if (size > 1) std::memcpy(file.data() + sizeof header_bytes, data + 1, size - 1);
  check(file.data(), file.size());
  return 0;
}

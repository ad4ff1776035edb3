// The writer. Tensors are streamed: memory use does not depend on their size.
#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <utility>

#include "quote.h"
#include "stored_layout.h"
#include "titer/core/atomic_file.h"
#include "titer/core/safetensors.h"

namespace titer {
namespace {

void check_text(const std::string& text, std::string_view what, const std::filesystem::path& path) {
  if (first_invalid_utf8(text) != text.size()) {
    throw std::invalid_argument("[safetensors] " + std::string(what) + " " + quote(text) + " is not valid UTF-8 (" +
                                escape_for_message(path.string(), 1024) + ")");
  }
}

}  // namespace

void write_safetensors(const std::filesystem::path& path, std::span<const StoredTensor> tensors,
                       const SafetensorsMetadata& metadata) {
  std::vector<const StoredTensor*> order;
  for (const StoredTensor& tensor : tensors) {
    const auto refuse = [&](const std::string& what) {
      throw std::invalid_argument("[safetensors] tensor " + quote(tensor.name) + ": " + what + " (" +
                                  escape_for_message(path.string(), 1024) + ")");
    };
    check_text(tensor.name, "tensor name", path);
    if (tensor.name.empty() || tensor.name == "__metadata__") refuse("this name is not allowed");
    const auto bytes = stored_bytes(tensor.dtype, tensor.shape);
    if (!bytes) refuse("shape has a negative size or more than 2^63 bytes");
    if (*bytes != tensor.data.size()) {
      refuse("dtype x shape is " + std::to_string(*bytes) + " bytes, data has " + std::to_string(tensor.data.size()));
    }
    order.push_back(&tensor);
  }
  std::sort(order.begin(), order.end(), [](const StoredTensor* a, const StoredTensor* b) {
    const std::size_t a_bytes = dtype_bytes(a->dtype);
    const std::size_t b_bytes = dtype_bytes(b->dtype);
    return a_bytes != b_bytes ? a_bytes > b_bytes : a->name < b->name;
  });

  auto header = nlohmann::ordered_json::object();
  if (!metadata.empty()) {
    for (const auto& [key, value] : metadata) {
      check_text(key, "metadata key", path);
      check_text(value, "metadata value", path);
    }
    header["__metadata__"] = metadata;
  }
  // ordered_json looks a key up by walking over all of them, so a duplicate check through it would be O(n^2).
  std::vector<std::string_view> names;
  for (const StoredTensor* tensor : order) names.push_back(tensor->name);
  std::sort(names.begin(), names.end());
  if (const auto twice = std::adjacent_find(names.begin(), names.end()); twice != names.end()) {
    throw std::invalid_argument("[safetensors] tensor " + quote(*twice) + " is given twice (" +
                                escape_for_message(path.string(), 1024) + ")");
  }
  auto& members = header.get_ref<nlohmann::ordered_json::object_t&>();
  std::uint64_t offset = 0;
  for (const StoredTensor* tensor : order) {
    const std::uint64_t end = offset + tensor->data.size();
    auto entry = nlohmann::ordered_json::object();
    entry["dtype"] = dtype_name(tensor->dtype);
    entry["shape"] = tensor->shape;
    entry["data_offsets"] = {offset, end};
    members.push_back({tensor->name, std::move(entry)});
    offset = end;
  }

  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');  // so that the data is aligned where the file is
  const std::uint64_t header_bytes = text.size();
  char length[sizeof header_bytes];
  std::memcpy(length, &header_bytes, sizeof header_bytes);

  AtomicFileWriter writer(path);
  writer.write(length, sizeof length);
  writer.write(text);
  for (const StoredTensor* tensor : order) writer.write(tensor->data.data(), tensor->data.size());
  writer.commit();
}

}  // namespace titer

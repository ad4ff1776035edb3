// The reader: maps a file, parses its header and checks every offset before anyone sees a pointer.
#include "titer/core/safetensors.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <limits>
#include <optional>
#include <stdexcept>
#include <system_error>
#include <utility>

#include "file_descriptor.h"
#include "json.h"
#include "quote.h"
#include "stored_layout.h"
#include "titer/core/folder_file.h"

namespace titer {

static_assert(std::endian::native == std::endian::little, "safetensors data is used in place and is little-endian");

namespace {

using nlohmann::json;

constexpr std::size_t kMaxHeaderBytes = 100'000'000;  // the limit of the reference implementation
constexpr std::size_t kMaxIndexBytes = kMaxHeaderBytes;

[[noreturn]] void fail(std::string_view origin, const std::string& what) {
  throw std::invalid_argument("[safetensors] " + what + " (" + escape_for_message(origin, 1024) + ")");
}

/// What a file that is not safetensors may be instead, by its first bytes; empty if they are unknown.
std::string what_it_looks_like(std::span<const std::byte> contents) {
  constexpr std::pair<std::string_view, std::string_view> kStarts[] = {
      {"PK\x03\x04", "a zip archive, as torch.save writes it"},
      {"\x80\x02", "a pickle"},
      {"\x80\x03", "a pickle"},
      {"\x80\x04", "a pickle"},
      {"\x80\x05", "a pickle"},
      {"GGUF", "a GGUF file"},
      {"\x89HDF\r\n", "an HDF5 file"},
      {"\x93NUMPY", "a NumPy array"},
      {"\x1f\x8b", "a gzip archive"},
      {"\x28\xb5\x2f\xfd", "a Zstandard archive"},
      {"\x7f"
       "ELF",
       "a program"},
      {"version https://git-lfs", "a Git LFS pointer, in whose place the file has to be downloaded"},
      {"<", "a web page"},
      {"{", "JSON"},
  };
  const std::string_view start(reinterpret_cast<const char*>(contents.data()), contents.size());
  for (const auto& [bytes, kind] : kStarts) {
    if (start.starts_with(bytes)) return "; it looks like " + std::string(kind);
  }
  return "";
}

/// Maps a whole regular file; the pointer unmaps it.
std::shared_ptr<const void> map_file(const std::filesystem::path& path, std::size_t& bytes) {
  const auto throw_errno = [&] {
    throw std::system_error(errno, std::generic_category(), escape_for_message(path.string(), 1024));
  };
  const FileDescriptor descriptor(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!descriptor) throw_errno();
  struct stat status {};
  if (fstat(descriptor.get(), &status) != 0) throw_errno();
  if (S_ISDIR(status.st_mode)) {
    errno = EISDIR;
    throw_errno();
  }
  if (!S_ISREG(status.st_mode)) fail(path.string(), "expected a regular file");
  bytes = static_cast<std::size_t>(status.st_size);
  if (bytes == 0) fail(path.string(), "file is empty");
  void* address = mmap(nullptr, bytes, PROT_READ, MAP_PRIVATE, descriptor.get(), 0);
  if (address == MAP_FAILED) throw_errno();
  return {address, [bytes](const void* mapped) { munmap(const_cast<void*>(mapped), bytes); }};
}

/// A JSON integer in [0, 2^63).
std::optional<std::int64_t> as_size(const json& value) {
  if (value.is_number_unsigned()) {
    const auto number = value.get<std::uint64_t>();
    if (number <= static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
      return static_cast<std::int64_t>(number);
    }
  }
  return std::nullopt;
}

/// A tensor's entry in the header, with the range of its data relative to the end of the header.
struct HeaderEntry {
  StoredTensor tensor;
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
};

HeaderEntry parse_entry(const std::string& name, const json& value, std::string_view origin) {
  const auto refuse = [&](const std::string& what) { fail(origin, "tensor " + quote(name) + ": " + what); };
  if (!value.is_object() || value.size() != 3 || !value.contains("dtype") || !value.contains("shape") ||
      !value.contains("data_offsets")) {
    refuse("expected an object with exactly dtype, shape and data_offsets");
  }
  HeaderEntry entry;
  entry.tensor.name = name;

  const json& dtype = value["dtype"];
  if (!dtype.is_string()) refuse("dtype must be a text");
  const auto& dtype_text = dtype.get_ref<const std::string&>();
  const auto known = dtype_from_name(dtype_text);
  if (!known) refuse("dtype " + quote(dtype_text, 40) + " is not supported");
  entry.tensor.dtype = *known;

  const json& shape = value["shape"];
  if (!shape.is_array()) refuse("shape must be a list of sizes");
  for (const json& element : shape) {
    const auto size = as_size(element);
    if (!size) refuse("shape must be a list of non-negative 64-bit integers");
    entry.tensor.shape.push_back(*size);
  }

  const json& offsets = value["data_offsets"];
  if (!offsets.is_array() || offsets.size() != 2) refuse("data_offsets must be two integers");
  const auto begin = as_size(offsets[0]);
  const auto end = as_size(offsets[1]);
  if (!begin || !end || *begin > *end) refuse("data_offsets must be two non-negative integers, the first not larger");
  entry.begin = static_cast<std::uint64_t>(*begin);
  entry.end = static_cast<std::uint64_t>(*end);

  const auto bytes = stored_bytes(entry.tensor.dtype, entry.tensor.shape);
  if (!bytes) refuse("dtype x shape exceeds 2^63 bytes");
  if (*bytes != entry.end - entry.begin) {
    refuse("dtype x shape is " + std::to_string(*bytes) + " bytes, data_offsets give " +
           std::to_string(entry.end - entry.begin));
  }
  return entry;
}

const StoredTensor* find_by_name(const std::vector<StoredTensor>& tensors, std::string_view name) {
  const auto found =
      std::lower_bound(tensors.begin(), tensors.end(), name,
                       [](const StoredTensor& tensor, std::string_view key) { return tensor.name < key; });
  return found != tensors.end() && found->name == name ? &*found : nullptr;
}

}  // namespace

bool StoredTensor::is_aligned() const {
  return reinterpret_cast<std::uintptr_t>(data.data()) % dtype_bytes(dtype) == 0;
}

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path) : origin_(path.string()) {
  std::size_t bytes = 0;
  const auto mapping = map_file(path, bytes);
  parse(mapping, {static_cast<const std::byte*>(mapping.get()), bytes});
}

SafetensorsFile::SafetensorsFile(std::shared_ptr<const void> storage, std::span<const std::byte> contents,
                                 std::string origin)
    : origin_(std::move(origin)) {
  parse(storage, contents);
}

void SafetensorsFile::parse(const std::shared_ptr<const void>& storage, std::span<const std::byte> contents) {
  const std::string looks = what_it_looks_like(contents);
  const std::string file_bytes = "the file has " + std::to_string(contents.size());
  if (contents.size() < sizeof(std::uint64_t)) {
    fail(origin_, "expected at least 8 bytes, " + file_bytes + "; it is truncated or not safetensors" + looks);
  }
  std::uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, contents.data(), sizeof header_bytes);
  contents = contents.subspan(sizeof header_bytes);
  const std::string header_says = "header says " + std::to_string(header_bytes) + " bytes, ";
  if (header_bytes > contents.size()) {
    fail(origin_, header_says + file_bytes + "; it is truncated or not safetensors" + looks);
  }
  if (header_bytes > kMaxHeaderBytes) {
    fail(origin_, header_says + "the limit is " + std::to_string(kMaxHeaderBytes) + looks);
  }
  const std::string_view text(reinterpret_cast<const char*>(contents.data()), header_bytes);
  const auto data = contents.subspan(header_bytes);
  if (!text.starts_with('{')) fail(origin_, "header must start with '{'");
  const json header = parse_json(text, origin_, {.max_bytes = kMaxHeaderBytes, .max_depth = 4});

  std::vector<HeaderEntry> entries;
  for (const auto& [name, value] : header.items()) {
    if (name == "__metadata__") {
      if (!value.is_object()) fail(origin_, "__metadata__ must be an object of texts");
      for (const auto& [key, text_value] : value.items()) {
        if (!text_value.is_string()) fail(origin_, "__metadata__ " + quote(key) + " must be a text");
        metadata_.emplace(key, text_value.get<std::string>());
      }
    } else {
      entries.push_back(parse_entry(name, value, origin_));
    }
  }

  // In order of offset each tensor must begin where the one before ended.
  std::sort(entries.begin(), entries.end(), [](const HeaderEntry& a, const HeaderEntry& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  std::uint64_t expected_begin = 0;
  for (HeaderEntry& entry : entries) {
    const auto refuse = [&](const std::string& what) {
      fail(origin_, "tensor " + quote(entry.tensor.name) + ": " + what);
    };
    if (entry.begin != expected_begin) {
      refuse("data begins at " + std::to_string(entry.begin) + ", expected " + std::to_string(expected_begin) +
             (entry.begin < expected_begin ? "; tensors overlap" : "; there is a hole before it"));
    }
    if (entry.end > data.size()) {
      refuse("data ends at " + std::to_string(entry.end) + ", " + std::to_string(data.size()) +
             " bytes follow the header; the file is truncated");
    }
    expected_begin = entry.end;
    entry.tensor.data = data.subspan(entry.begin, entry.end - entry.begin);
    entry.tensor.storage = storage;
    tensors_.push_back(std::move(entry.tensor));
  }
  if (expected_begin != data.size()) {
    fail(origin_, std::to_string(data.size() - expected_begin) + " bytes follow the last tensor; expected none");
  }
  std::sort(tensors_.begin(), tensors_.end(),
            [](const StoredTensor& a, const StoredTensor& b) { return a.name < b.name; });
}

const StoredTensor* SafetensorsFile::find(std::string_view name) const { return find_by_name(tensors_, name); }

SafetensorsFolder::SafetensorsFolder(const std::filesystem::path& folder) : folder_(folder) {
  constexpr const char* kSingle = "model.safetensors";
  constexpr const char* kIndex = "model.safetensors.index.json";
  if (!std::filesystem::is_directory(folder_)) {
    const int error = std::filesystem::exists(folder_) ? ENOTDIR : ENOENT;
    throw std::system_error(error, std::generic_category(), escape_for_message(folder_.string(), 1024));
  }
  if (has_entry(folder_, kSingle)) {
    tensors_ = SafetensorsFile(folder_file(folder_, kSingle)).tensors();
  } else if (has_entry(folder_, kIndex)) {
    open_shards(folder_file(folder_, kIndex));
  } else {
    const bool has_pickle =
        has_entry(folder_, "pytorch_model.bin") || has_entry(folder_, "pytorch_model.bin.index.json");
    fail(folder_.string(), std::string("expected ") + kSingle + " or " + kIndex + ", the folder has neither" +
                               (has_pickle ? "; pickle files are not read, convert them to safetensors" : ""));
  }
}

void SafetensorsFolder::open_shards(const std::filesystem::path& index_path) {
  const std::string origin = index_path.string();
  const json index = read_json_file(index_path, {.max_bytes = kMaxIndexBytes, .max_depth = 16});
  const auto weight_map = index.is_object() ? index.find("weight_map") : index.end();
  if (weight_map == index.end() || !weight_map->is_object()) fail(origin, "expected an object 'weight_map'");

  std::map<std::string, const SafetensorsFile*> shards;
  std::map<std::filesystem::path, SafetensorsFile> files;  // many links to one large file must not each cost its header
  for (const auto& [name, value] : weight_map->items()) {
    if (!value.is_string()) fail(origin, "weight_map " + quote(name) + " must be the name of a file");
    const auto& shard_name = value.get_ref<const std::string&>();
    const auto [shard, is_new] = shards.try_emplace(shard_name, nullptr);
    if (is_new) {
      const auto path = folder_file(folder_, shard_name);
      const auto target = std::filesystem::canonical(path);
      auto file = files.find(target);
      if (file == files.end()) file = files.emplace(target, SafetensorsFile(path)).first;
      shard->second = &file->second;
    }
    const StoredTensor* tensor = shard->second->find(name);
    if (tensor == nullptr) {
      fail(origin, "tensor " + quote(name) + " is not in the shard " + quote(shard_name) + " that the index names");
    }
    tensors_.push_back(*tensor);  // the map iterates in order of name
  }
}

const StoredTensor* SafetensorsFolder::find(std::string_view name) const { return find_by_name(tensors_, name); }

const StoredTensor& SafetensorsFolder::tensor(std::string_view name) const {
  const StoredTensor* found = find(name);
  if (found == nullptr) fail(folder_.string(), "there is no tensor " + quote(name));
  return *found;
}

}  // namespace titer

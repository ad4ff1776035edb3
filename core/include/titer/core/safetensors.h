// safetensors files, the only weight format that Titer opens: mapped into memory and read in place, written atomically.
// Format: 8 bytes little-endian header length N, N bytes of JSON {name: {dtype, shape, data_offsets}}, then the data,
// row-major and little-endian, without holes (https://github.com/huggingface/safetensors).
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "titer/export.h"

namespace titer {

/// Element types of the format whose elements fill whole bytes.
enum class StoredDtype {
  kBool,
  kU8,
  kI8,
  kF8E4M3,
  kF8E5M2,
  kI16,
  kU16,
  kF16,
  kBF16,
  kI32,
  kU32,
  kF32,
  kI64,
  kU64,
  kF64
};

/// The format's name: "BF16".
TITER_EXPORT std::string_view dtype_name(StoredDtype dtype);
/// Bytes of one element.
TITER_EXPORT std::size_t dtype_bytes(StoredDtype dtype);

/// One tensor in a file, or to be written into one.
struct TITER_EXPORT StoredTensor {
  std::string name;
  StoredDtype dtype = StoredDtype::kF32;
  std::vector<std::int64_t> shape;
  std::span<const std::byte> data;
  /// Keeps `data` mapped; may outlive the file object. Unused by the writer.
  std::shared_ptr<const void> storage;

  /// Whether `data` may be read through a pointer to the element type. Files written before the format asked for
  /// alignment may hold tensors that must be copied first.
  bool is_aligned() const;
};

using SafetensorsMetadata = std::map<std::string, std::string>;

/// One file, mapped read-only. Opening reads the header only. A file must not be truncated while it is mapped: the
/// kernel answers later reads with SIGBUS.
class TITER_EXPORT SafetensorsFile {
 public:
  /// @throws std::system_error if the file cannot be opened; std::invalid_argument if it is not exactly what the format
  ///     allows: header over 100 MB or not inside the file, malformed or duplicate entries, unknown dtype, size that
  ///     differs from dtype x shape, overlapping tensors, holes, bytes after the last tensor
  explicit SafetensorsFile(const std::filesystem::path& path);

  /// The same for a file that is in memory already; `storage` owns `contents`.
  SafetensorsFile(std::shared_ptr<const void> storage, std::span<const std::byte> contents, std::string origin);

  /// Sorted by name.
  const std::vector<StoredTensor>& tensors() const { return tensors_; }
  /// nullptr if there is none of that name.
  const StoredTensor* find(std::string_view name) const;
  /// The header's `__metadata__`, empty if absent.
  const SafetensorsMetadata& metadata() const { return metadata_; }

 private:
  void parse(const std::shared_ptr<const void>& storage, std::span<const std::byte> contents);

  std::string origin_;
  std::vector<StoredTensor> tensors_;
  SafetensorsMetadata metadata_;
};

/// The weights of a Hugging Face model folder: `model.safetensors`, or the shards that `model.safetensors.index.json`
/// names.
///
/// The index is not trusted: shards must be plain file names inside the folder. A symbolic link may not leave the
/// folder, except into `../../blobs` of a Hugging Face cache, whose `snapshots/<revision>` folders consist of such
/// links.
class TITER_EXPORT SafetensorsFolder {
 public:
  /// @throws std::system_error, std::invalid_argument as SafetensorsFile; also if the folder has neither file, or a
  ///     tensor is missing from the shard that the index names
  explicit SafetensorsFolder(const std::filesystem::path& folder);

  /// Sorted by name. Tensors of a shard that the index does not list are not here.
  const std::vector<StoredTensor>& tensors() const { return tensors_; }
  /// nullptr if there is none of that name.
  const StoredTensor* find(std::string_view name) const;
  /// @throws std::invalid_argument naming the tensor and the folder
  const StoredTensor& tensor(std::string_view name) const;

 private:
  void open_shards(const std::filesystem::path& index_path);

  std::filesystem::path folder_;
  std::vector<StoredTensor> tensors_;
};

/// Writes a file, atomically. Tensors are laid out by element size, largest first, then by name, which aligns all data;
/// equal input gives equal bytes.
/// @throws std::invalid_argument if a name is empty, given twice, `__metadata__` or not UTF-8, or if data differs in
/// size
///     from dtype x shape; std::system_error as AtomicFileWriter
TITER_EXPORT void write_safetensors(const std::filesystem::path& path, std::span<const StoredTensor> tensors,
                                    const SafetensorsMetadata& metadata = {});

}  // namespace titer

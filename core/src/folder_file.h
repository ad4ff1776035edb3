// Files that a model folder's own JSON names: the name is hostile input and must not lead out of the folder.
#pragma once

#include <filesystem>
#include <string_view>

namespace titer {

/// Path of the file `name` directly inside `folder`.
///
/// Refuses separators, "..", absolute and empty names, NUL bytes, and symbolic links that leave the folder, except into
/// `../../blobs` where the folder is `snapshots/<revision>` of a Hugging Face cache.
///
/// @throws std::invalid_argument naming both; std::system_error if the file does not exist
std::filesystem::path folder_file(const std::filesystem::path& folder, std::string_view name);

}  // namespace titer

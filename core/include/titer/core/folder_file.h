// The files of a model folder. The folder is hostile input, and so are the names in its own JSON: nothing is read
// through a link that leads out of it, from a pipe or a device, or beyond a stated size.
#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "titer/export.h"

namespace titer {

/// Path of the file `name` directly inside `folder`.
///
/// Refuses separators, "..", absolute and empty names, NUL bytes, and symbolic links that leave the folder, except into
/// `../../blobs` where the folder is `snapshots/<revision>` of a Hugging Face cache.
///
/// @throws std::invalid_argument naming both; std::system_error if the file does not exist
TITER_EXPORT std::filesystem::path folder_file(const std::filesystem::path& folder, std::string_view name);

/// Whether the folder has an entry of that name: a link that leads nowhere is one, so that it is not taken for absence.
TITER_EXPORT bool has_entry(const std::filesystem::path& folder, std::string_view name);

/// The whole of such a file, or nothing if the folder has no entry of that name.
///
/// @throws as folder_file; std::system_error if it cannot be read, std::invalid_argument if it is larger than
///     `max_bytes` or not a regular file
TITER_EXPORT std::optional<std::string> read_folder_file(const std::filesystem::path& folder, std::string_view name,
                                                         std::size_t max_bytes);

/// The same for a JSON object, written anew: what other parsers read in it is what was checked here. Duplicate keys,
/// deep nesting, lone surrogates, NaN and the like are refused.
///
/// @param max_bytes  of what is returned
/// @param without    JSON pointers to large parts that the caller does not need; they become null
/// @throws as read_folder_file; std::invalid_argument if it is malformed
TITER_EXPORT std::optional<std::string> read_folder_json(const std::filesystem::path& folder, std::string_view name,
                                                         std::size_t max_bytes,
                                                         const std::vector<std::string>& without = {});

}  // namespace titer

// Checks the name as text first, then where it leads.
#include "titer/core/folder_file.h"

#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <system_error>

#include "json.h"
#include "quote.h"
#include "titer/core/atomic_file.h"

namespace titer {

namespace fs = std::filesystem;

fs::path folder_file(const fs::path& folder, std::string_view name) {
  const auto refuse = [&](const std::string& what) {
    throw std::invalid_argument("[model folder] " + what + " (" + escape_for_message(folder.string(), 1024) + ")");
  };
  if (name.empty() || name == "." || name == ".." || name.find_first_of(std::string_view("/\\\0", 3)) != name.npos) {
    refuse("expected the plain name of a file in this folder, got " + quote(name));
  }
  const fs::path path = folder / name;
  std::error_code error;
  const fs::path target = fs::canonical(path, error);
  if (error) {
    throw std::system_error(error.value(), std::generic_category(), escape_for_message(path.string(), 1024));
  }
  const fs::path root = fs::canonical(folder, error);
  if (error) {
    throw std::system_error(error.value(), std::generic_category(), escape_for_message(folder.string(), 1024));
  }
  if (target.parent_path() == root) return path;

  const fs::path snapshots = root.parent_path();
  if (snapshots.filename() == "snapshots" && target.parent_path() == snapshots.parent_path() / "blobs") return path;

  // A link to a file deeper inside the folder.
  const fs::path relative = target.lexically_relative(root);
  if (relative.empty() || *relative.begin() == "..") {
    refuse("file " + quote(name) + " is a symbolic link that leaves the folder");
  }
  return path;
}

bool has_entry(const fs::path& folder, std::string_view name) {
  std::error_code ignored;
  return fs::symlink_status(folder / name, ignored).type() != fs::file_type::not_found;
}

std::optional<std::string> read_folder_file(const fs::path& folder, std::string_view name, std::size_t max_bytes) {
  if (!has_entry(folder, name)) return std::nullopt;
  return read_file(folder_file(folder, name), max_bytes);
}

std::optional<std::string> read_folder_json(const fs::path& folder, std::string_view name, std::size_t max_bytes,
                                            const std::vector<std::string>& without) {
  const JsonLimits limits;
  const std::optional<std::string> text = read_folder_file(folder, name, limits.max_bytes);
  if (!text) return std::nullopt;
  const std::string origin = (folder / name).string();
  const auto refuse = [&](const std::string& what) {
    throw std::invalid_argument("[json] " + what + " (" + escape_for_message(origin, 1024) + ")");
  };
  nlohmann::json root = parse_json(*text, origin, limits);
  if (!root.is_object()) refuse("expected an object");
  for (const std::string& part : without) {
    if (const nlohmann::json::json_pointer pointer(part); root.contains(pointer)) root[pointer] = nullptr;
  }
  std::string written = root.dump();
  if (written.size() > max_bytes) {
    refuse("the object has " + std::to_string(written.size()) + " bytes, the limit is " + std::to_string(max_bytes));
  }
  return written;
}

}  // namespace titer

// Checks the name as text first, then where it leads.
#include "folder_file.h"

#include <stdexcept>
#include <string>
#include <system_error>

#include "quote.h"

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

}  // namespace titer

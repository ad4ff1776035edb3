// Configuration files: a YAML mapping of option names to scalars or lists of texts, each remembered with its line, so
// that set_options() can say "gcg.yaml:12". Built with TITER_YAML only.
#pragma once

#include <filesystem>
#include <string_view>
#include <vector>

#include "titer/core/options.h"
#include "titer/export.h"

namespace titer {

/// Reads the assignments of a YAML text, in the order of the text.
///
/// Plain scalars follow the YAML 1.2 core schema: true/false, integers (decimal, 0o, 0x), floats, null; everything
/// else, `yes` and `on` included, and everything quoted is text. A text without any key (all commented out) assigns
/// nothing.
///
/// Refused, with file and line: a root that is not a mapping, nested mappings and lists, list items that are not texts,
/// keys that are not plain texts, a key given twice, anchors, aliases, tags, a second document, integers outside 64
/// bits, invalid UTF-8 and control characters, more than 256 KiB.
///
/// @param origin  what to call the text in errors and assignments: the file name
/// @throws std::invalid_argument
TITER_EXPORT std::vector<OptionAssignment> parse_yaml_options(std::string_view text, std::string_view origin);

/// Reads a file. @throws std::system_error if it cannot be read, std::invalid_argument as parse_yaml_options
TITER_EXPORT std::vector<OptionAssignment> read_yaml_options(const std::filesystem::path& path);

}  // namespace titer

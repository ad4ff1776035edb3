// One text for each JSON value, so that equal values have equal hashes.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace titer {

/// Appends what Python's json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False) writes, in UTF-8:
///   - keys in the order of their bytes, which is that of their code points; no spaces
///   - in strings only what must be escaped is: \" \\ \b \f \n \r \t, other control characters below U+0020 as \u001f
///   - integers as they are; doubles by the fewest digits that read back to them, with a point (1.0), as 1e-05 or 1e+16
///     if below 1e-4 or from 1e16 on
/// It is not RFC 8785, which makes a double of every number and orders keys by UTF-16.
void append_canonical_json(std::string& text, const nlohmann::json& value);

}  // namespace titer

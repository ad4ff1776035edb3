// Training records from a JSON lines file: checked line by line when the file is opened, then read one at a time, and
// named by hashes, so that a result can say exactly which records in which order made it.
//
// Each line is one JSON object, at most 16 MiB long, with these keys and no others:
//   messages  list of {"role": "system" | "user" | "assistant", "content": string}: a system message or none, then user
//             and assistant in turn, the last one the assistant's
//   prompt, response  two strings instead of `messages`: plain text and how it goes on, or one user and one assistant
//             turn where there is a chat template
//   id        string that no other record of the file has; optional
//   task      string; optional
//   metadata  object; optional
// Answers and what users say hold more than white space, id and task at least one character. The file is UTF-8 without
// a byte order mark; lines end in \n or \r\n, the last one may end with the file. A blank line is an error, so that
// record i always stands on line i + 1.
//
// A record's hash is the SHA-256 of its canonical JSON: what Python's
//   json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
// writes, in UTF-8. Order of keys and spaces do not change it; 1 and 1.0 differ, and an integer outside
// [-2^63, 2^64) counts as the double nearest to it.
//
// The Merkle root is the tree hash of RFC 6962, section 2.1, over the records' hashes h in the order of the file: a
// leaf is SHA-256(0x00 || h), a node SHA-256(0x01 || left || right); on every level neighbours are paired from the
// left, and one that is left over moves up as it is.
#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "titer/core/sha256.h"
#include "titer/export.h"

namespace titer {

enum class Role { kSystem, kUser, kAssistant };

/// "system", "user" or "assistant".
TITER_EXPORT std::string_view role_name(Role role);

struct TITER_EXPORT Message {
  Role role = Role::kUser;
  std::string content;
};

struct TITER_EXPORT Record {
  std::optional<std::string> id;
  std::vector<Message> messages;  ///< those of the file, or prompt and response as user and assistant
  bool from_prompt = false;       ///< whether the file has prompt and response
  std::optional<std::string> task;
  std::string metadata = "{}";  ///< canonical JSON of the object, an empty one if the file has none
  Sha256Digest hash;
};

/// An open file of records. Keeps 40 bytes for each of them, not the records. Immutable, cheap to copy; any thread may
/// read from it.
class TITER_EXPORT Dataset {
 public:
  /// Reads the whole file once and checks every record.
  ///
  /// @param after_block  called after each MiB or so that was read; what it throws ends the reading
  /// @throws std::system_error if the file cannot be read; std::invalid_argument if it is not a regular file, has no
  ///     records, or one is not as described above: the message names file, line and field
  explicit Dataset(const std::filesystem::path& path, const std::function<void()>& after_block = {});

  /// Number of records, at least 1.
  std::size_t size() const;

  /// Reads one record. The file stays open, so it may be renamed, replaced or removed; what may not change is its
  /// content.
  /// @throws std::out_of_range if there are not that many; std::invalid_argument if the record is no longer the one
  ///     that was hashed; std::system_error if it cannot be read
  Record record(std::size_t index) const;

  /// Of every record, in the order of the file.
  std::span<const Sha256Digest> hashes() const;
  const Sha256Digest& merkle_root() const;
  const std::filesystem::path& path() const;

 private:
  struct State;
  std::shared_ptr<const State> state_;
};

}  // namespace titer

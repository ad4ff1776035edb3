// Opening walks over the lines once and keeps where each starts and what it hashes to.
#include "titer/core/dataset.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "dataset_record.h"
#include "merkle_root.h"
#include "quote.h"
#include "regular_file.h"

namespace titer {
namespace {

constexpr std::size_t kBlockBytes = std::size_t{1} << 20U;

/// Which line an id stands on, by the hash of the id: texts of any length would not fit into memory.
struct IdOfLine {
  Sha256Digest id;
  std::uint64_t line;
  auto operator<=>(const IdOfLine&) const = default;
};

}  // namespace

struct Dataset::State {
  explicit State(const std::filesystem::path& path) : file(path, "dataset") {}

  RegularFile file;
  std::vector<std::uint64_t> offsets{0};  // of every line, and of the end of the last one
  std::vector<Sha256Digest> hashes;
  Sha256Digest root;

  /// "notes.jsonl:17"
  std::string origin(std::uint64_t line) const {
    return escape_for_message(file.path().string(), 1024) + ":" + std::to_string(line);
  }

  void index(const std::function<void()>& after_block);
  void check_ids(std::vector<IdOfLine> ids) const;
  Record record(std::size_t index) const;
};

void Dataset::State::index(const std::function<void()>& after_block) {
  RecordParser parser;
  Sha256 id_hash;
  std::vector<IdOfLine> ids;
  const auto add = [&](std::string_view line, std::size_t break_bytes) {
    const std::uint64_t number = offsets.size();
    if (line.size() > kMaxRecordBytes) {
      fail_record(origin(number), "the line has more than " + std::to_string(kMaxRecordBytes) + " bytes");
    }
    Record record;
    try {
      record = parser.parse(line, origin(number));
    } catch (const std::invalid_argument& error) {
      if (break_bytes > 0) throw;
      throw std::invalid_argument(std::string(error.what()) + "; the file ends without a line break, is it cut short?");
    }
    if (record.id) ids.push_back({id_hash.update(*record.id).finish(), number});
    hashes.push_back(record.hash);
    offsets.push_back(offsets.back() + line.size() + break_bytes);
  };

  std::string rest;  // the start of a line whose break has not come yet
  std::vector<char> block(kBlockBytes);
  for (std::uint64_t position = 0;;) {
    const std::size_t count = file.read_at(position, block);
    position += count;
    std::string_view unread(block.data(), count);
    for (auto end = unread.find('\n'); end != unread.npos; end = unread.find('\n')) {
      if (rest.empty()) {
        add(unread.substr(0, end), 1);
      } else {
        add(rest.append(unread.substr(0, end)), 1);
        rest.clear();
      }
      unread.remove_prefix(end + 1);
    }
    rest.append(unread);
    // One block more may lie in `rest`, no matter how long the line is.
    if (count < block.size() || rest.size() > kMaxRecordBytes) break;
    if (after_block) after_block();
  }
  if (!rest.empty()) add(rest, 0);
  if (hashes.empty()) {
    throw std::invalid_argument("[dataset] the file holds no records (" +
                                escape_for_message(file.path().string(), 1024) + ")");
  }
  offsets.shrink_to_fit();
  hashes.shrink_to_fit();
  check_ids(std::move(ids));
  root = titer::merkle_root(hashes);
}

void Dataset::State::check_ids(std::vector<IdOfLine> ids) const {
  std::sort(ids.begin(), ids.end());
  const IdOfLine* first_again = nullptr;
  for (std::size_t i = 1; i < ids.size(); ++i) {
    if (ids[i].id != ids[i - 1].id) continue;
    if (first_again == nullptr || ids[i].line < first_again->line) first_again = &ids[i];
  }
  if (first_again == nullptr) return;
  const std::string id = record(first_again->line - 1).id.value();
  fail_record(origin(first_again->line), "'id' is " + quote(id) + ", and so it is on line " +
                                             std::to_string((first_again - 1)->line) + "; expected a different one");
}

Record Dataset::State::record(std::size_t index) const {
  std::string line(offsets[index + 1] - offsets[index], '\0');
  line.resize(file.read_at(offsets[index], line));
  if (line.ends_with('\n')) line.pop_back();
  const std::string where = origin(index + 1);
  try {
    Record found = RecordParser().parse(line, where);
    if (found.hash == hashes[index]) return found;
  } catch (const std::invalid_argument&) {
    // What is wrong with the new content matters less than that there is one.
  }
  fail_record(where, "the record is not the one that was there when the file was opened; open it again");
}

Dataset::Dataset(const std::filesystem::path& path, const std::function<void()>& after_block) {
  const auto state = std::make_shared<State>(path);
  state->index(after_block);
  state_ = state;
}

std::size_t Dataset::size() const { return state_->hashes.size(); }

Record Dataset::record(std::size_t index) const {
  if (index >= size()) {
    throw std::out_of_range("[dataset] expected an index below " + std::to_string(size()) + ", got " +
                            std::to_string(index) + " (" + escape_for_message(path().string(), 1024) + ")");
  }
  return state_->record(index);
}

std::span<const Sha256Digest> Dataset::hashes() const { return state_->hashes; }
const Sha256Digest& Dataset::merkle_root() const { return state_->root; }
const std::filesystem::path& Dataset::path() const { return state_->file.path(); }

}  // namespace titer

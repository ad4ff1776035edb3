#include "tokenizer_state.h"

#include <limits>
#include <new>
#include <stdexcept>
#include <utility>

#include "utf8.h"

namespace titer::tokenization {
namespace {

constexpr std::size_t kKeptSymbols = std::size_t{1} << 14U;  // a longer piece does not pin its memory for ever

}  // namespace

std::unique_ptr<Workspace> WorkspacePool::take() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!idle_.empty()) {
      std::unique_ptr<Workspace> workspace = std::move(idle_.back());
      idle_.pop_back();
      return workspace;
    }
  }
  return std::make_unique<Workspace>();
}

void WorkspacePool::give_back(std::unique_ptr<Workspace> workspace) noexcept {
  if (workspace->symbols.capacity() > kKeptSymbols) {
    workspace->symbols = {};
    workspace->heap = {};
    workspace->ids = {};
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  try {
    idle_.push_back(std::move(workspace));
  } catch (const std::bad_alloc&) {  // then it is simply not kept
  }
}

void State::check_text(std::string_view text) {
  if (text.size() > static_cast<std::size_t>(std::numeric_limits<int32_t>::max())) {
    throw std::invalid_argument("[tokenizer] text must be shorter than 2^31 bytes, got " + std::to_string(text.size()));
  }
  if (const std::size_t position = first_invalid_utf8(text); position < text.size()) {
    throw std::invalid_argument("[tokenizer] text must be valid UTF-8, got an invalid sequence at byte " +
                                std::to_string(position));
  }
}

void State::encode(std::string_view text, Workspace& workspace, std::vector<int64_t>& ids) const {
  for_each_section(
      text, false, [&](int32_t id, std::size_t /*begin*/, std::size_t /*end*/) { ids.push_back(id); },
      [&](const Section& section) { encode_section(section.text, workspace, ids); });
}

void State::encode_section(std::string_view text, Workspace& workspace, std::vector<int64_t>& ids) const {
  for_each_piece(text, [&](std::string_view piece, std::size_t /*begin*/, std::size_t /*num_added*/) {
    model.encode_piece_ids(piece, workspace, [&](const int32_t* piece_ids, std::size_t count) {
      ids.insert(ids.end(), piece_ids, piece_ids + count);
    });
  });
}

}  // namespace titer::tokenization

// The public face of the tokenizer: loading, encoding and decoding on top of the shared state.
#include "titer/core/tokenizer.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "json.h"
#include "titer/core/atomic_file.h"
#include "tokenizer_json.h"
#include "tokenizer_state.h"
#include "word_mark.h"

namespace titer {
Tokenizer::Tokenizer(std::shared_ptr<const tokenization::State> state) : state_(std::move(state)) {}

Tokenizer Tokenizer::from_file(const std::filesystem::path& path) {
  return Tokenizer(tokenization::read_state(read_file(path, JsonLimits{}.max_bytes), path.string()));
}

Tokenizer Tokenizer::from_json(std::string_view text, std::string_view origin) {
  return Tokenizer(tokenization::read_state(text, origin));
}

std::vector<int64_t> Tokenizer::encode(std::string_view text, bool add_special_tokens) const {
  tokenization::State::check_text(text);
  std::vector<int64_t> ids;
  if (add_special_tokens) ids = state_->ids_before;
  const tokenization::WorkspacePool::Lease workspace(state_->workspaces);
  state_->encode(text, *workspace, ids);
  if (add_special_tokens) ids.insert(ids.end(), state_->ids_after.begin(), state_->ids_after.end());
  return ids;
}

Encoding Tokenizer::encode_with_offsets(std::string_view text, bool add_special_tokens) const {
  tokenization::State::check_text(text);
  Encoding encoding;
  const auto add = [&](int64_t id, std::size_t begin, std::size_t end) {
    encoding.ids.push_back(id);
    encoding.offsets.push_back({static_cast<int64_t>(begin), static_cast<int64_t>(end)});
  };
  if (add_special_tokens) {
    for (const int64_t id : state_->ids_before) add(id, 0, 0);
  }
  const tokenization::WorkspacePool::Lease lease(state_->workspaces);
  tokenization::Workspace& workspace = *lease;
  state_->for_each_section(text, true, add, [&](const tokenization::Section& section) {
    state_->for_each_piece(section.text, [&](std::string_view piece, std::size_t begin, std::size_t num_added) {
      state_->model.encode_piece(piece, workspace);
      const auto position = [&](std::size_t i) { return section.position(begin + i - std::min(i, num_added)); };
      for (const tokenization::Symbol& symbol : workspace.symbols) {
        add(symbol.id, position(symbol.begin), position(symbol.end));
      }
    });
  });
  if (add_special_tokens) {
    for (const int64_t id : state_->ids_after) add(id, text.size(), text.size());
  }
  return encoding;
}

std::string Tokenizer::decode(std::span<const int64_t> ids, bool skip_special_tokens) const {
  return state_->decoder.decode(*state_, ids, skip_special_tokens);
}

std::string Tokenizer::bytes_of(std::span<const int64_t> ids) const {
  std::string bytes;
  for (const int64_t id : ids) {
    if (id < 0) throw std::out_of_range("[tokenizer] token ids must not be negative, got " + std::to_string(id));
    if (has_token(id)) bytes.append(state_->bytes[static_cast<std::size_t>(id)]);
  }
  return bytes;
}

bool Tokenizer::marks_word_after(std::string_view before) const {
  tokenization::State::check_text(before);
  return tokenization::word_mark_after(*state_, before) != tokenization::WordMark::kNone;
}

std::string Tokenizer::text_after(std::string_view before, std::span<const int64_t> ids,
                                  bool skip_special_tokens) const {
  tokenization::State::check_text(before);
  std::vector<int64_t> kept;
  for (const int64_t id : ids) {
    if (!skip_special_tokens || !state_->has(id, tokenization::kSkipped)) kept.push_back(id);
  }
  const std::string bytes = bytes_of(kept);
  return tokenization::replace_invalid_utf8(
      std::string(tokenization::without_mark(bytes, tokenization::word_mark_after(*state_, before))));
}

std::optional<int64_t> Tokenizer::token_to_id(std::string_view token) const {
  const int32_t id = state_->id_of.find(token);
  return id < 0 ? std::nullopt : std::optional<int64_t>(id);
}

std::string Tokenizer::id_to_token(int64_t id) const {
  if (!has_token(id)) {
    throw std::out_of_range("[tokenizer] no token has the id " + std::to_string(id) + "; ids are below " +
                            std::to_string(vocab_size()));
  }
  return std::string(state_->spellings[static_cast<std::size_t>(id)]);
}

int64_t Tokenizer::vocab_size() const { return static_cast<int64_t>(state_->flags.size()); }

bool Tokenizer::has_token(int64_t id) const { return state_->has(id, tokenization::kExists); }

bool Tokenizer::is_added_token(int64_t id) const { return state_->has(id, tokenization::kAdded); }

bool Tokenizer::is_special_token(int64_t id) const { return state_->has(id, tokenization::kSpecial); }

}  // namespace titer

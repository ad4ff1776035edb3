// Everything a loaded tokenizer knows. Immutable after loading, shared by all copies of a Tokenizer, except for the
// pool of workspaces, which is locked.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "added_tokens.h"
#include "mapped_text.h"
#include "string_table.h"
#include "tokenizer_bpe.h"
#include "tokenizer_decoder.h"
#include "tokenizer_normalizer.h"
#include "tokenizer_split.h"

namespace titer::tokenization {

/// Workspaces wait here between calls, so that their memos stay warm and no call allocates twice. There are never more
/// than calls were running at the same time.
class WorkspacePool {
 public:
  class Lease {
   public:
    explicit Lease(WorkspacePool& pool) : pool_(pool), workspace_(pool.take()) {}
    ~Lease() { pool_.give_back(std::move(workspace_)); }
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    Workspace& operator*() const { return *workspace_; }

   private:
    WorkspacePool& pool_;
    std::unique_ptr<Workspace> workspace_;
  };

 private:
  std::unique_ptr<Workspace> take();
  void give_back(std::unique_ptr<Workspace> workspace) noexcept;

  std::mutex mutex_;
  std::vector<std::unique_ptr<Workspace>> idle_;
};

enum TokenFlag : uint8_t {
  kExists = 1,
  kAdded = 2,
  kSpecial = 4,
  kSkipped = 8,  ///< decode leaves it out when it is asked to skip special tokens
};

struct State {
  StringTable spellings;       ///< by id, as in the file; empty for holes
  StringTable bytes;           ///< by id, the text that the token stands for, possibly not valid UTF-8 on its own
  std::vector<uint8_t> flags;  ///< by id, bits of TokenFlag
  StringIndex id_of{spellings};

  AddedTokens first_added;   ///< with `normalized: false`: cut out of the text
  AddedTokens second_added;  ///< with `normalized: true`: cut out of what is left, after the normalizer
  Normalizer normalizer;
  std::optional<Metaspace> metaspace;
  PreTokenizer pre_tokenizer;
  BpeModel model;
  Decoder decoder;
  std::vector<int64_t> ids_before;  ///< what the post-processor puts around a text
  std::vector<int64_t> ids_after;

  mutable WorkspacePool workspaces;

  State() = default;
  State(const State&) = delete;  // id_of and the model refer to spellings and bytes
  State& operator=(const State&) = delete;

  bool has(int64_t id, uint8_t flag) const {
    return id >= 0 && static_cast<std::size_t>(id) < flags.size() && (flags[static_cast<std::size_t>(id)] & flag) != 0;
  }

  /// Throws std::invalid_argument with the position unless `text` is valid UTF-8 shorter than 2^31 bytes.
  static void check_text(std::string_view text);

  /// Appends the ids of the whole text, which check_text has accepted, without the template.
  void encode(std::string_view text, Workspace& workspace, std::vector<int64_t>& ids) const;

  /// Appends the ids of a section.
  void encode_section(std::string_view text, Workspace& workspace, std::vector<int64_t>& ids) const;

  /// Calls emit_token(id, begin, end) for every added token and emit_section(section) for every stretch of text between
  /// them, from left to right, none of them empty. Positions are those of the text; `tracked`: sections know theirs.
  template <class EmitToken, class EmitSection>
  void for_each_section(std::string_view text, bool tracked, const EmitToken& emit_token,
                        const EmitSection& emit_section) const {
    first_added.segment(text, [&](std::size_t begin, std::size_t end, int32_t id) {
      if (id >= 0) {
        emit_token(id, begin, end);
      } else if (normalizer.empty()) {
        cut_stretch(Section{text.substr(begin, end - begin), nullptr, begin}, begin == 0, tracked, emit_token,
                    emit_section);
      } else {
        MappedText normalized(tracked);
        normalized.assign(text.substr(begin, end - begin), begin);
        normalizer.apply(normalized);
        cut_stretch(Section{normalized.text(), normalized.positions(), begin}, begin == 0, tracked, emit_token,
                    emit_section);
      }
    });
  }

  /// The same for a normalized stretch of text without the tokens of first_added. `at_start`: the text starts with it.
  template <class EmitToken, class EmitSection>
  void cut_stretch(const Section& stretch, bool at_start, bool tracked, const EmitToken& emit_token,
                   const EmitSection& emit_section) const {
    second_added.segment(stretch.text, [&](std::size_t begin, std::size_t end, int32_t id) {
      if (id >= 0) {
        emit_token(id, stretch.position(begin), stretch.position(end));
        return;
      }
      const Section section{stretch.text.substr(begin, end - begin),
                            stretch.positions == nullptr ? nullptr : stretch.positions + begin, stretch.origin + begin};
      if (!metaspace) {
        emit_section(section);
        return;
      }
      MappedText spaced(tracked);
      spaced.assign(section);
      metaspace->apply(spaced, at_start && begin == 0);
      emit_section(Section{spaced.text(), spaced.positions(), 0});
    });
  }

  /// Calls emit(piece, begin, num_added) for every piece of a section. `piece` is valid during the call; after
  /// num_added bytes (a prefix space) it continues as the section from `begin` on.
  template <class Emit>
  void for_each_piece(std::string_view text, const Emit& emit) const {
    const std::size_t num_rules = pre_tokenizer.rules.size();
    if (!pre_tokenizer.add_prefix_space) {
      pre_tokenizer.split(0, num_rules, text, 0, text.size(), [&](std::size_t from, std::size_t to) {
        emit(text.substr(from, to - from), from, std::size_t{0});
      });
      return;
    }
    std::string spaced;
    pre_tokenizer.split(0, num_rules - 1, text, 0, text.size(), [&](std::size_t from, std::size_t to) {
      const std::size_t prefix = text[from] == ' ' ? 0 : 1;
      spaced.assign(prefix, ' ');
      spaced.append(text, from, to - from);
      pre_tokenizer.split(num_rules - 1, num_rules, spaced, 0, spaced.size(), [&](std::size_t first, std::size_t last) {
        const std::size_t num_added = first < prefix ? prefix : 0;
        emit(std::string_view(spaced).substr(first, last - first), from + first + num_added - prefix, num_added);
      });
    });
  }
};

}  // namespace titer::tokenization

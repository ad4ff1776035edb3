// A prompt with one slot that an attacker writes, cut into the token spans before | slot | after | target.
//
// The spans are cut from the tokenized whole, never tokenized one by one: text that merges across a border would
// otherwise give ids that the model never sees. Whether a candidate is valid is judged the same way.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <titer/core/retokenization_filter.h>
#include <titer/core/tokenizer.h>
#include <titer/export.h>

namespace titer {

/// Gives the text that the model reads, up to where it answers, for a slot text: a rendered chat template, usually.
using RenderFn = std::function<std::string(std::string_view slot_text)>;

/// Twenty tokens in most tokenizers; the start of nanoGCG.
inline constexpr std::string_view kDefaultSlotText = "x x x x x x x x x x x x x x x x x x x x";

/// Immutable and cheap to copy.
class TITER_EXPORT Prompt {
 public:
  /// A plain text, without a chat template. Tokens that the tokenizer puts before every text (BOS) are kept.
  ///
  /// @param text      holds `slot` exactly once
  /// @param target    what the model should answer
  /// @param initial   text that stands in the slot at first; its number of tokens is the slot length
  /// @throws std::invalid_argument if the slot is missing or repeated, target or slot are empty, or a border between
  ///         the spans falls inside a token
  static Prompt from_text(const Tokenizer& tokenizer, std::string_view text, std::string_view target,
                          std::string_view slot = "{slot}", std::string_view initial = kDefaultSlotText);

  /// A rendered chat. `render` is kept and called again to judge the final text, because templates may trim.
  ///
  /// @param template_hash  identifies the chat template in results; empty where there is none
  static Prompt from_render(const Tokenizer& tokenizer, RenderFn render, std::string_view target,
                            std::string_view initial = kDefaultSlotText, std::string_view template_hash = "");

  /// The same prompt with another text in the slot, and so perhaps another slot length.
  Prompt with_slot(std::string_view initial) const;

  const std::vector<int64_t>& before_ids() const;  ///< P ids, BOS included where there is one
  const std::vector<int64_t>& slot_ids() const;    ///< S ids of the initial text
  const std::vector<int64_t>& after_ids() const;   ///< A ids between slot and answer
  const std::vector<int64_t>& target_ids() const;  ///< T ids

  /// P + S + A + T.
  int64_t length() const;

  const std::string& target_text() const;
  const std::string& template_hash() const;
  const Tokenizer& tokenizer() const;

  /// True iff these S ids come back from the text that they spell, rendered and tokenized in context.
  bool valid(std::span<const int64_t> slot_ids) const;

  /// The text that an attacker writes for these ids. Differs from their decoding where the prompt's own white space
  /// before the slot is part of the slot's first token.
  std::string slot_text(std::span<const int64_t> slot_ids) const;

  /// The text that these ids say as an answer to the prompt with this slot text, without special tokens: what is
  /// compared with the target. Differs from their decoding where that drops a space which an answer inside a text does
  /// have.
  std::string answer_text(std::string_view slot_text, std::span<const int64_t> ids) const;

  /// The model's input for a slot text: rendered, then tokenized as a whole, up to where the model answers.
  std::vector<int64_t> encode(std::string_view slot_text) const;

 private:
  struct State;
  explicit Prompt(std::shared_ptr<const State> state);
  static Prompt cut(const Tokenizer& tokenizer, RenderFn render, std::string_view target, std::string_view initial,
                    std::string_view template_hash, std::vector<int64_t> leading_ids);

  std::shared_ptr<const State> state_;
};

}  // namespace titer

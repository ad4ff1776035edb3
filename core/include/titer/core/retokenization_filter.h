// Decides whether token ids found by a search survive the way through text: a prompt attack optimises ids, but a victim
// receives text and tokenizes it again, in context. Ids that do not come back are worthless to an attacker.
//
// Only a window around the slot is re-tokenized. Why that gives the same answer as the whole prompt is shown in
// retokenization_filter.cpp; `whole_prompt_valid` is the plain definition.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <titer/core/tokenizer.h>
#include <titer/export.h>

namespace titer {

/// Immutable; copies share one state; `valid` may be called from many threads at once.
class TITER_EXPORT RetokenizationFilter {
 public:
  /// @param before_text  text before the slot; may contain added tokens such as `<|im_start|>`
  /// @param after_text   text after the slot
  /// @param before_ids   ids before the slot, without tokens that the text does not contain (a leading BOS)
  /// @param after_ids    ids after the slot
  /// @throws std::invalid_argument if a text is not valid UTF-8
  RetokenizationFilter(Tokenizer tokenizer, std::string_view before_text, std::string_view after_text,
                       std::span<const int64_t> before_ids, std::span<const int64_t> after_ids);

  /// The text that is written for these ids: what they spell, without a mark that the tokenizer itself puts in front of
  /// the slot ("▁" at the start of a text). Invalid UTF-8 becomes U+FFFD. @throws std::out_of_range if an id is
  /// negative
  std::string text_of(std::span<const int64_t> slot_ids) const;

  /// True iff all of
  ///   - the text of `slot_ids` is valid UTF-8 on its own,
  ///   - in before_text + text + after_text no added token overlaps the text of the slot,
  ///   - encoding that text without special tokens gives before_ids + slot_ids + after_ids.
  ///
  /// @throws std::out_of_range if an id is negative
  bool valid(std::span<const int64_t> slot_ids) const;

  /// The same answer from the definition, by encoding the whole prompt: for tests and set-ups without a local window.
  bool whole_prompt_valid(std::span<const int64_t> slot_ids) const;

  /// False if `valid` has to encode the whole prompt: ByteLevel adds a prefix space, added tokens look at the text
  /// around them, the normalizer replaces or removes strings of several characters, a mark that goes in front of a text
  /// falls on the slot, or the given ids differ from those of the texts far from the slot.
  bool is_local() const;

 private:
  struct Plan;
  std::shared_ptr<const Plan> plan_;
};

}  // namespace titer

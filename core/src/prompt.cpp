#include <titer/core/prompt.h>

#include <algorithm>
#include <iterator>
#include <stdexcept>

#include "quote.h"
#include "unicode_classes.h"
#include "utf8.h"

namespace titer {

struct Prompt::State {
  Tokenizer tokenizer;
  RenderFn render;
  std::string target_text;
  std::string template_hash;
  std::vector<int64_t> leading_ids;  // put before every text by the tokenizer's post-processor
  std::vector<int64_t> before_ids, slot_ids, after_ids, target_ids;
  std::string own_space;        // white space of the prompt that is part of the slot's first token
  bool target_is_plain = true;  // holds no special tokens
  bool trims_front = false;     // the template strips white space at this end of the slot
  bool trims_back = false;
  RetokenizationFilter filter;
};

namespace {

// Stands in for the slot while its place is looked for. Private-use characters: no template or user writes them.
constexpr std::string_view kPlaceholder = "\xEE\x80\x80slot\xEE\x80\x81";

/// White space as templates strip it: that of Python's str.strip.
bool is_space(std::string_view text, size_t at) {
  const auto byte = static_cast<unsigned char>(text[at]);
  return (tokenization::character_at(text, at).classes & tokenization::kSpace) != 0 || (byte >= 0x1C && byte <= 0x1F);
}

bool all_space(std::string_view text) {
  for (size_t i = 0; i < text.size(); i += tokenization::character_at(text, i).bytes)
    if (!is_space(text, i)) return false;
  return true;
}

[[noreturn]] void fail(const std::string& message) { throw std::invalid_argument("[prompt] " + message); }

size_t count(std::string_view text, std::string_view part) {
  size_t found = 0;
  for (size_t at = text.find(part); at != std::string_view::npos; at = text.find(part, at + part.size())) ++found;
  return found;
}

/// True if the template changes white space at an end of the slot.
bool trims(const RenderFn& render, const std::string& before, const std::string& after, bool front) {
  for (const std::string space : {" ", "\n", "\t"}) {
    const std::string slot = front ? space + "x" : "x" + space;
    if (render(slot) != before + slot + after) return true;
  }
  return false;
}

std::vector<int64_t> leading_tokens(const Tokenizer& tokenizer) {
  const std::vector<int64_t> with = tokenizer.encode("x", true);
  const std::vector<int64_t> without = tokenizer.encode("x", false);
  const auto at = std::search(with.begin(), with.end(), without.begin(), without.end());
  return {with.begin(), at};
}

std::string concatenate(std::string_view a, std::string_view b) { return std::string(a) + std::string(b); }

std::vector<int64_t> concatenate(std::span<const int64_t> a, std::span<const int64_t> b) {
  std::vector<int64_t> out(a.begin(), a.end());
  out.insert(out.end(), b.begin(), b.end());
  return out;
}

}  // namespace

Prompt::Prompt(std::shared_ptr<const State> state) : state_(std::move(state)) {}

Prompt Prompt::from_text(const Tokenizer& tokenizer, std::string_view text, std::string_view target,
                         std::string_view slot, std::string_view initial) {
  if (slot.empty()) fail("the slot marker must not be empty");
  if (const size_t found = count(text, slot); found != 1)
    fail("the text must hold " + std::string(slot) + " exactly once, found it " + std::to_string(found) + " times");
  const size_t at = text.find(slot);
  RenderFn render = [before = std::string(text.substr(0, at)), after = std::string(text.substr(at + slot.size()))](
                        std::string_view slot_text) { return before + std::string(slot_text) + after; };
  return cut(tokenizer, std::move(render), target, initial, "", leading_tokens(tokenizer));
}

Prompt Prompt::from_render(const Tokenizer& tokenizer, RenderFn render, std::string_view target,
                           std::string_view initial, std::string_view template_hash) {
  return cut(tokenizer, std::move(render), target, initial, template_hash, {});
}

Prompt Prompt::with_slot(std::string_view initial) const {
  return cut(state_->tokenizer, state_->render, state_->target_text, initial, state_->template_hash,
             state_->leading_ids);
}

Prompt Prompt::cut(const Tokenizer& tokenizer, RenderFn render, std::string_view target, std::string_view initial,
                   std::string_view template_hash, std::vector<int64_t> leading_ids) {
  if (target.empty()) fail("the target is empty; give the text that the model should answer");
  if (initial.empty()) fail("the slot needs an initial text; its number of tokens is the length of the slot");

  const std::string frame = render(kPlaceholder);
  if (const size_t found = count(frame, kPlaceholder); found != 1)
    fail("the rendered prompt must hold the slot exactly once, found it " + std::to_string(found) + " times");
  const size_t slot_begin = frame.find(kPlaceholder);
  std::string before = frame.substr(0, slot_begin);
  const std::string after = frame.substr(slot_begin + kPlaceholder.size());
  const std::string prompt = render(initial);
  if (prompt != before + std::string(initial) + after)
    fail("the chat template changes the initial slot text " + quote(initial) +
         "; give one without white space at its ends");

  const std::string whole = prompt + std::string(target);
  const size_t slot_end = slot_begin + initial.size();
  const Encoding encoding = tokenizer.encode_with_offsets(whole, /*add_special_tokens=*/false);
  /// The first token of the text from `byte` on, or the one that reaches over it. A mark, which covers nothing, belongs
  /// to the word that it marks.
  const auto first_from = [&](size_t byte) {
    const auto begin = encoding.offsets.begin();
    const auto at = static_cast<int64_t>(byte);
    const auto found =
        std::partition_point(begin, encoding.offsets.end(), [&](const ByteRange& range) { return range.end <= at; });
    const bool marked = found != begin && std::prev(found)->begin == at &&
                        tokenizer.marks_word_after(std::string_view(whole).substr(0, byte));
    return static_cast<size_t>(found - begin) - (marked ? 1 : 0);
  };
  const auto require_border = [&](size_t token, size_t byte, const char* what) {
    if (token < encoding.ids.size() && encoding.offsets[token].begin != static_cast<int64_t>(byte))
      fail(std::string(what) + " merges with the text before it into the token " +
           quote(tokenizer.bytes_of(std::span(&encoding.ids[token], 1))) +
           "; separate them, for example by a space or a line break");
  };

  const size_t slot_token = first_from(slot_begin);
  const int64_t slot_token_begin = encoding.offsets.at(slot_token).begin;
  std::string own_space = before.substr(static_cast<size_t>(slot_token_begin));
  if (!all_space(own_space)) require_border(slot_token, slot_begin, "the slot");
  before.resize(static_cast<size_t>(slot_token_begin));
  const size_t after_token = first_from(slot_end);
  require_border(after_token, slot_end, after.empty() ? "the target" : "the text after the slot");
  const size_t target_token = first_from(prompt.size());
  require_border(target_token, prompt.size(), "the target");

  const auto ids = std::span(encoding.ids);
  const std::span<const int64_t> target_ids = ids.subspan(target_token);
  if (const std::string back = tokenizer.text_after(prompt, target_ids); back != target)
    fail("the target " + quote(target) + " does not survive tokenization, it comes back as " + quote(back));
  const std::span<const int64_t> before_ids = ids.first(slot_token);
  const std::span<const int64_t> after_ids = ids.subspan(after_token, target_token - after_token);

  const bool trims_front = trims(render, before + own_space, after, true);
  const bool trims_back = trims(render, before + own_space, after, false);
  RetokenizationFilter filter(tokenizer, before, concatenate(after, target), before_ids,
                              concatenate(after_ids, target_ids));
  Prompt prompt_with_slot(std::make_shared<const State>(State{
      .tokenizer = tokenizer,
      .render = std::move(render),
      .target_text = std::string(target),
      .template_hash = std::string(template_hash),
      .leading_ids = leading_ids,
      .before_ids = concatenate(leading_ids, before_ids),
      .slot_ids = {ids.begin() + static_cast<std::ptrdiff_t>(slot_token),
                   ids.begin() + static_cast<std::ptrdiff_t>(after_token)},
      .after_ids = {after_ids.begin(), after_ids.end()},
      .target_ids = {target_ids.begin(), target_ids.end()},
      .own_space = std::move(own_space),
      .target_is_plain = tokenizer.text_after(prompt, target_ids, /*skip_special_tokens=*/true) == target,
      .trims_front = trims_front,
      .trims_back = trims_back,
      .filter = std::move(filter),
  }));
  if (!prompt_with_slot.valid(prompt_with_slot.slot_ids()))
    fail("the initial slot text " + quote(initial) +
         " does not survive rendering and tokenization; it must hold no special tokens");
  return prompt_with_slot;
}

const std::vector<int64_t>& Prompt::before_ids() const { return state_->before_ids; }
const std::vector<int64_t>& Prompt::slot_ids() const { return state_->slot_ids; }
const std::vector<int64_t>& Prompt::after_ids() const { return state_->after_ids; }
const std::vector<int64_t>& Prompt::target_ids() const { return state_->target_ids; }
const std::string& Prompt::target_text() const { return state_->target_text; }
const std::string& Prompt::template_hash() const { return state_->template_hash; }
const Tokenizer& Prompt::tokenizer() const { return state_->tokenizer; }

int64_t Prompt::length() const {
  return static_cast<int64_t>(before_ids().size() + slot_ids().size() + after_ids().size() + target_ids().size());
}

bool Prompt::valid(std::span<const int64_t> slot_ids) const {
  const std::string text = state_->filter.text_of(slot_ids);
  if (!text.starts_with(state_->own_space)) return false;
  const std::string_view written = std::string_view(text).substr(state_->own_space.size());
  if (state_->trims_front && (written.empty() || is_space(written, 0))) return false;
  if (state_->trims_back && (written.empty() || is_space(written, previous_character(written, written.size()))))
    return false;
  return state_->filter.valid(slot_ids);
}

std::string Prompt::slot_text(std::span<const int64_t> slot_ids) const {
  std::string text = state_->filter.text_of(slot_ids);
  return text.starts_with(state_->own_space) ? text.substr(state_->own_space.size()) : text;
}

std::string Prompt::answer_text(std::string_view slot_text, std::span<const int64_t> ids) const {
  return state_->tokenizer.text_after(state_->render(slot_text), ids, state_->target_is_plain);
}

std::vector<int64_t> Prompt::encode(std::string_view slot_text) const {
  return concatenate(state_->leading_ids, state_->tokenizer.encode(state_->render(slot_text), false));
}

}  // namespace titer

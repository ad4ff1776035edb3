// Why a window is enough. Let T = before + slot + after, a and b the borders of the slot in T, and L the length of the
// longest added token.
//
// 1. Added tokens are found left to right: from a position i the next match is the leftmost, then the longest, one that
//    starts at or after i. It depends on nothing left of i. A match that starts at or before a - L ends at or before a,
//    so up to there T has the matches of `before` alone; call i* the position from which the search then goes on. The
//    search in before[i*..] + slot + after[..L - 1) therefore sees every match of T that starts before b. If one of
//    them overlaps the slot, the slot is invalid. If none does, T has exactly the matches of `before` and those of
//    `after`: at no position was there a match in T that is not inside one of the two.
//
// 2. So the slot lies in one stretch X + slot + Y without added tokens, where X is the end of `before` and Y the start
//    of `after`, and what surrounds the stretch has the ids that it has in `before` and `after` alone.
//
// 3. The normalizer takes X + slot + Y to N(X) + n(slot) + n(Y), where n is N without what it puts in front, if every
//    step works on single characters, or is NFC or NFKC and both slot and Y start with a character that such a form
//    cuts before (unicode_normalization.h), and if X takes what is put in front, that is, if N(X) is not empty. The
//    second search, for tokens with `normalized: true`, is in that text, and points 1 and 2 hold for it as well. So
//    does this one for Metaspace in the stretch that the second search leaves. X, slot and Y are the results from here
//    on. A slot that starts otherwise is checked by encoding the whole prompt.
//
// 4. The stretch is cut into pieces by rules of the form "the piece that starts at i ends at e", where e depends only
// on
//    the text in [i, reach] (tokenizer_split.h). If all rules but the first are applied inside the pieces of the first,
//    the borders of the first rule are i -> e(i), started at 0. As long as reach stays inside X, they do not depend on
//    slot and Y; the last border p that is reached in this way is fixed, and so are the ids left of it.
//
// 5. Leading Digits rules cut the text into runs whose end is the same from every position inside the run. Hence the
//    borders of the first rule R that is not Digits, inside those runs, still have the form i -> e(i): e(i) is R's
//    answer for a text that ends where the run ends. R decides from [i, reach]; whether the run extends beyond reach is
//    decided by characters in [i, reach] as well. So 4. holds with R in place of the first rule.
//
// 6. From p on the pieces of T are computed until one ends at b + y, where y is a border of Y cut alone. Both go on
// from
//    there with the same text, hence with the same pieces and ids. T has the right ids iff the ids from p to b + y are
//    those that the caller gave for this part and the ids of Y from y on are the end of the caller's.
//
// 7. The window ends a little way into Y. A piece whose reach stays inside the window is a piece of T. If one reaches
//    the end of the window, the check is repeated with all of Y.
//
// A prefix space of ByteLevel makes the first piece of a run special, which breaks 5., and added tokens that look at
// the text around them break 1.; then the whole prompt is encoded.
#include "titer/core/retokenization_filter.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "tokenizer_state.h"
#include "utf8.h"
#include "word_mark.h"

namespace titer {

using tokenization::AddedTokens;
using tokenization::MappedText;
using tokenization::Piece;
using tokenization::PreTokenizer;
using tokenization::Section;
using tokenization::SplitRule;
using tokenization::Splitter;
using tokenization::State;
using tokenization::WordMark;
using tokenization::Workspace;
using tokenization::WorkspacePool;

namespace {

constexpr std::size_t kWindowBytes = 64;  // how far the first attempt looks into the text after the slot

/// Search for added tokens around the slot: point 1 of the proof.
struct OverlapSearch {
  const AddedTokens* matcher = nullptr;
  std::size_t begin = 0;        // i*, in `before`
  std::size_t end = 0;          // in `after`
  std::size_t last_match = 0;   // end of the last match in `before`
  std::size_t first_match = 0;  // start of the first match in `after`

  OverlapSearch(const AddedTokens& tokens, std::string_view before, std::string_view after) : matcher(&tokens) {
    const std::size_t longest = tokens.longest();
    begin = before.size() + 1 > longest ? before.size() + 1 - longest : 0;
    for (std::size_t i = 0; i < before.size();) {
      const AddedTokens::Match match = tokens.find(before, i, before.size());
      if (match.id < 0) break;
      if (match.begin + longest <= before.size()) begin = std::max(begin, match.end);
      last_match = match.end;
      i = match.end;
    }
    begin = std::min(begin, before.size());
    end = std::min(after.size(), std::max(longest, std::size_t{1}) - 1);
    first_match = tokens.find(after, 0, after.size()).begin;
  }

  /// Does a match overlap the slot in before + slot + after?
  bool overlaps(std::string_view before, std::string_view slot, std::string_view after) const {
    if (matcher->empty()) return false;
    std::string text(before.substr(begin));
    const std::size_t slot_begin = text.size();
    const std::size_t slot_end = slot_begin + slot.size();
    text.append(slot).append(after.substr(0, end));
    const std::size_t to = text.size();
    for (std::size_t from = 0;;) {
      const AddedTokens::Match match = matcher->find(text, from, to);
      if (match.id < 0 || match.begin >= slot_end) return false;
      if (match.end > slot_begin) return true;
      from = match.end;
    }
  }
};

/// Borders i -> e(i) of the first rule that is not Digits: point 5.
class Cutter {
 public:
  Cutter(const PreTokenizer& pre_tokenizer, std::string_view text, std::size_t end)
      : rules_(pre_tokenizer.rules), text_(text), end_(end) {
    while (num_leading_ + 1 < rules_.size() && is_digits(rules_[num_leading_])) ++num_leading_;
  }

  /// Piece that starts at `begin`; to be called from left to right.
  Piece next(std::size_t begin) {
    if (begin >= run_end_) {
      run_end_ = end_;
      for (std::size_t i = 0; i < num_leading_; ++i) run_end_ = next_piece(rules_[i], text_, begin, run_end_).end;
    }
    return next_piece(rules_[num_leading_], text_, begin, run_end_);
  }

  /// Index of the first rule that cuts these pieces further.
  std::size_t next_rule() const { return num_leading_ + 1; }

 private:
  static bool is_digits(const Splitter& splitter) {
    return splitter.rule == SplitRule::kIndividualDigits || splitter.rule == SplitRule::kDigitRuns;
  }

  const std::vector<Splitter>& rules_;
  std::string_view text_;
  std::size_t end_;
  std::size_t num_leading_ = 0;
  std::size_t run_end_ = 0;
};

/// Calls emit(ids, count) for the ids of text[begin, end), a piece of a Cutter.
template <class Emit>
void encode_cut(const State& state, const Cutter& cutter, std::string_view text, std::size_t begin, std::size_t end,
                Workspace& workspace, const Emit& emit) {
  state.pre_tokenizer.split(cutter.next_rule(), state.pre_tokenizer.rules.size(), text, begin, end,
                            [&](std::size_t from, std::size_t to) {
                              state.model.encode_piece_ids(text.substr(from, to - from), workspace, emit);
                            });
}

}  // namespace

struct RetokenizationFilter::Plan {
  Plan(Tokenizer tokenizer_in, std::string_view before_in, std::string_view after_in,
       std::span<const int64_t> before_ids_in, std::span<const int64_t> after_ids_in)
      : tokenizer(std::move(tokenizer_in)),
        state(*tokenizer.state_),
        before(before_in),
        after(after_in),
        before_ids(before_ids_in.begin(), before_ids_in.end()),
        after_ids(after_ids_in.begin(), after_ids_in.end()),
        first(state.first_added, before, after),
        mark(word_mark_after(state, before)) {
    is_local = !state.pre_tokenizer.add_prefix_space && !state.first_added.looks_around() &&
               !state.second_added.looks_around() && rewrite_sides() && find_window();
  }

  std::string bytes_in_place(std::span<const int64_t> slot_ids) const;
  bool rewrite_sides();
  bool find_window();
  std::optional<bool> check(std::span<const int64_t> slot_ids, std::string_view slot, Workspace& workspace) const;
  std::optional<bool> check_window(std::span<const int64_t> slot_ids, std::string_view slot, std::size_t end_in_y,
                                   Workspace& workspace) const;

  const Tokenizer tokenizer;
  const State& state;
  const std::string before;
  const std::string after;
  const std::vector<int64_t> before_ids;
  const std::vector<int64_t> after_ids;

  const OverlapSearch first;
  const WordMark mark;  // in front of the slot
  bool is_local = false;
  std::string normalized_before;        // the last stretch of `before`, as the normalizer leaves it
  std::string normalized_after;         // the first stretch of `after`
  std::optional<OverlapSearch> second;  // in these
  std::string x;                        // X and Y as the rules see them
  std::string y;
  std::size_t begin = 0;                // p: where re-tokenization starts, in X
  std::vector<int64_t> ids_from_begin;  // of before_ids: the ids right of p
  /// By position in Y: if Y alone has a border there and its ids from there on are the end of what after_ids has for
  /// Y, the number of ids before that end; otherwise -1.
  std::vector<int64_t> num_ids_before;
  std::size_t num_ids_in_y = 0;  // of after_ids
};

/// What is written for these ids, valid UTF-8 or not.
std::string RetokenizationFilter::Plan::bytes_in_place(std::span<const int64_t> slot_ids) const {
  return std::string(without_mark(tokenizer.bytes_of(slot_ids), mark));
}

/// Point 3 for what stands around the slot. False if it does not hold.
bool RetokenizationFilter::Plan::rewrite_sides() {
  normalized_before = state.normalizer.of(std::string_view(before).substr(first.last_match));
  normalized_after = after.substr(0, first.first_match);
  if (!state.normalizer.apply_inside(normalized_after)) return false;
  if (state.normalizer.prepends() && normalized_before.empty()) return false;

  second.emplace(state.second_added, normalized_before, normalized_after);
  x = normalized_before.substr(second->last_match);
  y = normalized_after.substr(0, second->first_match);
  if (!state.metaspace) return true;
  const bool at_start = first.last_match == 0 && second->last_match == 0;
  if (state.metaspace->prepends(at_start) && x.empty()) return false;
  MappedText spaced(false);
  spaced.assign(x, 0);
  state.metaspace->apply(spaced, at_start);
  x = spaced.text();
  y = state.metaspace->inside(y);
  return true;
}

/// Points 2, 4 and the part of 6 that does not depend on the slot. False if the given ids are not those of the texts.
bool RetokenizationFilter::Plan::find_window() {
  const WorkspacePool::Lease lease(state.workspaces);
  Workspace& workspace = *lease;
  std::vector<int64_t> ids;
  const auto append = [&](const int32_t* piece_ids, std::size_t count) {
    ids.insert(ids.end(), piece_ids, piece_ids + count);
  };
  const auto append_stretch = [&](std::string_view stretch, bool at_start) {
    state.cut_stretch(
        Section{stretch, nullptr, 0}, at_start, false,
        [&](int32_t id, std::size_t /*begin*/, std::size_t /*end*/) { ids.push_back(id); },
        [&](const Section& section) { state.encode_section(section.text, workspace, ids); });
  };

  state.encode(std::string_view(before).substr(0, first.last_match), workspace, ids);
  append_stretch(std::string_view(normalized_before).substr(0, second->last_match), first.last_match == 0);
  Cutter x_cutter(state.pre_tokenizer, x, x.size());
  while (begin < x.size()) {
    const Piece piece = x_cutter.next(begin);
    if (piece.reach >= x.size()) break;
    encode_cut(state, x_cutter, x, begin, piece.end, workspace, append);
    begin = piece.end;
  }
  if (ids.size() > before_ids.size() || !std::equal(ids.begin(), ids.end(), before_ids.begin())) return false;
  ids_from_begin.assign(before_ids.begin() + static_cast<std::ptrdiff_t>(ids.size()), before_ids.end());

  ids.clear();
  append_stretch(std::string_view(normalized_after).substr(second->first_match), false);
  state.encode(std::string_view(after).substr(first.first_match), workspace, ids);
  if (ids.size() > after_ids.size() || !std::equal(ids.rbegin(), ids.rend(), after_ids.rbegin())) return false;
  num_ids_in_y = after_ids.size() - ids.size();

  ids.clear();
  std::vector<std::pair<std::size_t, std::size_t>> borders;  // position in Y, number of ids left of it
  Cutter y_cutter(state.pre_tokenizer, y, y.size());
  for (std::size_t i = 0; i < y.size();) {
    borders.emplace_back(i, ids.size());
    const std::size_t next = y_cutter.next(i).end;
    encode_cut(state, y_cutter, y, i, next, workspace, append);
    i = next;
  }
  num_ids_before.assign(y.size() + 1, -1);
  num_ids_before[y.size()] = static_cast<int64_t>(num_ids_in_y);
  std::size_t ids_end = ids.size();
  std::size_t wanted_end = num_ids_in_y;
  for (auto border = borders.rbegin(); border != borders.rend(); ++border) {
    while (ids_end > border->second && wanted_end > 0 && ids[ids_end - 1] == after_ids[wanted_end - 1]) {
      --ids_end;
      --wanted_end;
    }
    if (ids_end > border->second) break;
    num_ids_before[border->first] = static_cast<int64_t>(wanted_end);
  }
  return true;
}

/// Nothing if the whole prompt has to be encoded.
std::optional<bool> RetokenizationFilter::Plan::check(std::span<const int64_t> slot_ids, std::string_view slot,
                                                      Workspace& workspace) const {
  if (first.overlaps(before, slot, after)) return false;
  std::string rewritten(slot);
  if (!state.normalizer.apply_inside(rewritten)) return std::nullopt;
  if (second->overlaps(normalized_before, rewritten, normalized_after)) return false;
  if (state.metaspace) rewritten = state.metaspace->inside(rewritten);

  std::size_t end_in_y = std::min(kWindowBytes, y.size());
  while (end_in_y < y.size() && utf8_sequence_length(y, end_in_y) == 0) ++end_in_y;
  const std::optional<bool> answer = check_window(slot_ids, rewritten, end_in_y, workspace);
  return answer ? answer : check_window(slot_ids, rewritten, y.size(), workspace);
}

/// Points 6 and 7 with a window that ends at `end_in_y`. Nothing if a piece reaches the end of the window.
std::optional<bool> RetokenizationFilter::Plan::check_window(std::span<const int64_t> slot_ids, std::string_view slot,
                                                             std::size_t end_in_y, Workspace& workspace) const {
  std::string window = x.substr(begin);
  window.append(slot);
  const std::size_t slot_end = window.size();
  window.append(y, 0, end_in_y);

  const std::size_t num_before = ids_from_begin.size();
  const std::size_t num_slot = num_before + slot_ids.size();
  const auto wanted = [&](std::size_t i) {
    if (i < num_before) return ids_from_begin[i];
    return i < num_slot ? slot_ids[i - num_before] : after_ids[i - num_slot];
  };
  const std::size_t num_wanted = num_slot + num_ids_in_y;
  const std::size_t end = window.size();
  Cutter cutter(state.pre_tokenizer, window, end);
  std::size_t num_ids = 0;
  bool equal = true;
  for (std::size_t i = 0;;) {
    if (i >= slot_end && num_ids_before[i - slot_end] >= 0) {
      return num_ids == num_slot + static_cast<std::size_t>(num_ids_before[i - slot_end]);
    }
    const Piece piece = i < end ? cutter.next(i) : Piece{end, end};
    if (piece.reach >= end && end_in_y < y.size()) return std::nullopt;
    encode_cut(state, cutter, window, i, piece.end, workspace, [&](const int32_t* ids, std::size_t count) {
      for (std::size_t k = 0; k < count; ++k, ++num_ids) {
        equal = equal && num_ids < num_wanted && ids[k] == wanted(num_ids);
      }
    });
    if (!equal) return false;
    i = piece.end;
  }
}

RetokenizationFilter::RetokenizationFilter(Tokenizer tokenizer, std::string_view before_text,
                                           std::string_view after_text, std::span<const int64_t> before_ids,
                                           std::span<const int64_t> after_ids) {
  State::check_text(before_text);
  State::check_text(after_text);
  plan_ = std::make_shared<const Plan>(std::move(tokenizer), before_text, after_text, before_ids, after_ids);
}

bool RetokenizationFilter::is_local() const { return plan_->is_local; }

std::string RetokenizationFilter::text_of(std::span<const int64_t> slot_ids) const {
  return tokenization::replace_invalid_utf8(plan_->bytes_in_place(slot_ids));
}

bool RetokenizationFilter::valid(std::span<const int64_t> slot_ids) const {
  const Plan& plan = *plan_;
  if (!plan.is_local) return whole_prompt_valid(slot_ids);
  const std::string slot = plan.bytes_in_place(slot_ids);
  if (first_invalid_utf8(slot) < slot.size()) return false;
  const WorkspacePool::Lease workspace(plan.state.workspaces);
  const std::optional<bool> answer = plan.check(slot_ids, slot, *workspace);
  return answer ? *answer : whole_prompt_valid(slot_ids);
}

bool RetokenizationFilter::whole_prompt_valid(std::span<const int64_t> slot_ids) const {
  const Plan& plan = *plan_;
  const std::string slot = plan.bytes_in_place(slot_ids);
  if (first_invalid_utf8(slot) < slot.size()) return false;
  const std::string text = plan.before + slot + plan.after;
  const std::size_t slot_begin = plan.before.size();
  const std::size_t slot_end = slot_begin + slot.size();

  const WorkspacePool::Lease workspace(plan.state.workspaces);
  std::vector<int64_t> ids;
  bool overlap = false;
  plan.state.for_each_section(
      text, true,
      [&](int32_t id, std::size_t begin, std::size_t end) {
        overlap = overlap || (begin < slot_end && end > slot_begin);
        ids.push_back(id);
      },
      [&](const Section& section) { plan.state.encode_section(section.text, *workspace, ids); });
  if (overlap) return false;

  std::vector<int64_t> wanted = plan.before_ids;
  wanted.insert(wanted.end(), slot_ids.begin(), slot_ids.end());
  wanted.insert(wanted.end(), plan.after_ids.begin(), plan.after_ids.end());
  return ids == wanted;
}

}  // namespace titer

// Why a window is enough. Let T = before + slot + after, a and b the borders of the slot in T, and L the length of the
// longest added token.
//
// 1. Added tokens are found left to right: from a position i the next match is the leftmost, then the longest, one that
//    starts at or after i. It depends on nothing left of i. A match that starts at or before a - L ends at or before a,
//    so up to there T has the matches of `before` alone; call i* the position from which the search then goes on. The
//    search in before[i*..] + slot + after[..L - 1) therefore sees every match of T that starts before b. If one of
//    them overlaps the slot, the slot is invalid. If none does, T has exactly the matches of `before` and those of
//    `after`: at no position was there a match in T that is not inside one of the two. The same holds for the second
//    search, for tokens with `normalized: true`, inside the stretch around the slot that the first one leaves.
//
// 2. So the slot lies in one stretch X + slot + Y without added tokens, where X is the end of `before` and Y the start
// of
//    `after`, and what surrounds the stretch has the ids that it has in `before` and `after` alone.
//
// 3. The stretch is cut into pieces by rules of the form "the piece that starts at i ends at e", where e depends only
// on
//    the text in [i, reach] (tokenizer_split.h). If all rules but the first are applied inside the pieces of the first,
//    the borders of the first rule are i -> e(i), started at 0. As long as reach stays inside X, they do not depend on
//    slot and Y; the last border p that is reached in this way is fixed, and so are the ids left of it.
//
// 4. Leading Digits rules cut the text into runs whose end is the same from every position inside the run. Hence the
//    borders of the first rule R that is not Digits, inside those runs, still have the form i -> e(i): e(i) is R's
//    answer for a text that ends where the run ends. R decides from [i, reach]; whether the run extends beyond reach is
//    decided by characters in [i, reach] as well. So 3. holds with R in place of the first rule.
//
// 5. From p on the pieces of T are computed until one ends at b + y, where y is a border of Y cut alone. Both go on
// from
//    there with the same text, hence with the same pieces and ids. T has the right ids iff the ids from p to b + y are
//    those that the caller gave for this part and the ids of Y from y on are the end of the caller's.
//
// 6. The window ends a little way into Y. A piece whose reach stays inside the window is a piece of T. If one reaches
//    the end of the window, the check is repeated with all of Y.
//
// An added prefix space makes the first piece of a run special, which breaks 4.; then the whole prompt is encoded.
#include "titer/core/retokenization_filter.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "tokenizer_state.h"
#include "utf8.h"

namespace titer {

using tokenization::AddedTokenMatcher;
using tokenization::Piece;
using tokenization::PreTokenizer;
using tokenization::SplitRule;
using tokenization::State;
using tokenization::Workspace;
using tokenization::WorkspacePool;

namespace {

constexpr std::size_t kWindowBytes = 64;  // how far the first attempt looks into the text after the slot

/// Search for added tokens around the slot: point 1 of the proof.
struct OverlapSearch {
  const AddedTokenMatcher* matcher = nullptr;
  std::size_t begin = 0;        // i*, in `before`
  std::size_t end = 0;          // in `after`
  std::size_t last_match = 0;   // end of the last match in `before`
  std::size_t first_match = 0;  // start of the first match in `after`

  /// The search inside before[first..] and after[..last).
  OverlapSearch(const AddedTokenMatcher& tokens, std::string_view before, std::size_t first, std::string_view after,
                std::size_t last)
      : matcher(&tokens), last_match(first) {
    const std::size_t longest = tokens.longest();
    begin = std::max(first, before.size() + 1 > longest ? before.size() + 1 - longest : 0);
    for (std::size_t i = first; i < before.size();) {
      const AddedTokenMatcher::Match match = tokens.find(before, i, before.size());
      if (match.id < 0) break;
      if (match.begin + longest <= before.size()) begin = std::max(begin, match.end);
      last_match = match.end;
      i = match.end;
    }
    begin = std::min(begin, before.size());
    end = std::min(last, std::max(longest, std::size_t{1}) - 1);
    first_match = tokens.find(after, 0, last).begin;
  }

  /// Does a match overlap [slot_begin, slot_end) in text[from, to)?
  bool overlaps(std::string_view text, std::size_t from, std::size_t to, std::size_t slot_begin,
                std::size_t slot_end) const {
    while (true) {
      const AddedTokenMatcher::Match match = matcher->find(text, from, to);
      if (match.id < 0 || match.begin >= slot_end) return false;
      if (match.end > slot_begin) return true;
      from = match.end;
    }
  }
};

/// Borders i -> e(i) of the first rule that is not Digits: point 4.
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
  static bool is_digits(SplitRule rule) {
    return rule == SplitRule::kIndividualDigits || rule == SplitRule::kDigitRuns;
  }

  const std::vector<SplitRule>& rules_;
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
        first(state.added_tokens.first, before, 0, after, after.size()),
        second(state.added_tokens.second, before, first.last_match, after, first.first_match) {
    is_local = !state.pre_tokenizer.add_prefix_space && find_window();
  }

  bool find_window();
  std::optional<bool> check_window(std::span<const int64_t> slot_ids, std::string_view slot, std::size_t end_in_y,
                                   Workspace& workspace) const;

  const Tokenizer tokenizer;
  const State& state;
  const std::string before;
  const std::string after;
  const std::vector<int64_t> before_ids;
  const std::vector<int64_t> after_ids;

  const OverlapSearch first;
  const OverlapSearch second;
  bool is_local = false;
  std::size_t begin = 0;                // p: where re-tokenization starts, in `before`
  std::size_t stretch_end = 0;          // length of Y
  std::vector<int64_t> ids_from_begin;  // of before_ids: the ids right of p
  /// By position y in Y: if Y alone has a border there and its ids from there on are the end of what after_ids has for
  /// Y, the number of ids before that end; otherwise -1.
  std::vector<int64_t> num_ids_before;
  std::size_t num_ids_in_y = 0;  // of after_ids
};

/// Points 2, 3 and the part of 5 that does not depend on the slot. False if the given ids are not those of the texts.
bool RetokenizationFilter::Plan::find_window() {
  const WorkspacePool::Lease lease(state.workspaces);
  Workspace& workspace = *lease;
  std::vector<int64_t> ids;
  const auto append = [&](const int32_t* piece_ids, std::size_t count) {
    ids.insert(ids.end(), piece_ids, piece_ids + count);
  };

  const std::size_t stretch_begin = second.last_match;
  state.encode(std::string_view(before).substr(0, stretch_begin), workspace, ids);
  Cutter before_cutter(state.pre_tokenizer, before, before.size());
  begin = stretch_begin;
  while (begin < before.size()) {
    const Piece piece = before_cutter.next(begin);
    if (piece.reach >= before.size()) break;
    encode_cut(state, before_cutter, before, begin, piece.end, workspace, append);
    begin = piece.end;
  }
  if (ids.size() > before_ids.size() || !std::equal(ids.begin(), ids.end(), before_ids.begin())) return false;
  ids_from_begin.assign(before_ids.begin() + static_cast<std::ptrdiff_t>(ids.size()), before_ids.end());

  stretch_end = second.first_match;
  ids.clear();
  state.encode(std::string_view(after).substr(stretch_end), workspace, ids);
  if (ids.size() > after_ids.size() || !std::equal(ids.rbegin(), ids.rend(), after_ids.rbegin())) return false;
  num_ids_in_y = after_ids.size() - ids.size();

  ids.clear();
  std::vector<std::pair<std::size_t, std::size_t>> borders;  // position in Y, number of ids left of it
  Cutter after_cutter(state.pre_tokenizer, after, stretch_end);
  for (std::size_t y = 0; y < stretch_end;) {
    borders.emplace_back(y, ids.size());
    const std::size_t next = after_cutter.next(y).end;
    encode_cut(state, after_cutter, after, y, next, workspace, append);
    y = next;
  }
  num_ids_before.assign(stretch_end + 1, -1);
  num_ids_before[stretch_end] = static_cast<int64_t>(num_ids_in_y);
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

/// Points 1, 5 and 6 with a window that ends at `end_in_y`. Nothing if a piece reaches the end of the window.
std::optional<bool> RetokenizationFilter::Plan::check_window(std::span<const int64_t> slot_ids, std::string_view slot,
                                                             std::size_t end_in_y, Workspace& workspace) const {
  const std::size_t window_begin = std::min({first.begin, second.begin, begin});
  const std::size_t window_end = std::max({first.end, second.end, end_in_y});
  std::string window;
  window.reserve(before.size() - window_begin + slot.size() + window_end);
  window.append(before, window_begin).append(slot).append(after, 0, window_end);
  const std::size_t slot_begin = before.size() - window_begin;
  const std::size_t slot_end = slot_begin + slot.size();
  for (const OverlapSearch* search : {&first, &second}) {
    if (search->overlaps(window, search->begin - window_begin, slot_end + search->end, slot_begin, slot_end)) {
      return false;
    }
  }

  const std::size_t num_before = ids_from_begin.size();
  const std::size_t num_slot = num_before + slot_ids.size();
  const auto wanted = [&](std::size_t i) {
    if (i < num_before) return ids_from_begin[i];
    return i < num_slot ? slot_ids[i - num_before] : after_ids[i - num_slot];
  };
  const std::size_t num_wanted = num_slot + num_ids_in_y;
  const std::size_t end = slot_end + end_in_y;
  Cutter cutter(state.pre_tokenizer, window, end);
  std::size_t num_ids = 0;
  bool equal = true;
  for (std::size_t i = begin - window_begin;;) {
    if (i >= slot_end && num_ids_before[i - slot_end] >= 0) {
      return num_ids == num_slot + static_cast<std::size_t>(num_ids_before[i - slot_end]);
    }
    const Piece piece = i < end ? cutter.next(i) : Piece{end, end};
    if (piece.reach >= end && end_in_y < stretch_end) return std::nullopt;
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

bool RetokenizationFilter::valid(std::span<const int64_t> slot_ids) const {
  const Plan& plan = *plan_;
  if (!plan.is_local) return whole_prompt_valid(slot_ids);
  const std::string slot = plan.tokenizer.bytes_of(slot_ids);
  if (first_invalid_utf8(slot) < slot.size()) return false;

  const WorkspacePool::Lease workspace(plan.state.workspaces);
  std::size_t end_in_y = std::min(kWindowBytes, plan.stretch_end);
  while (end_in_y < plan.stretch_end && utf8_sequence_length(plan.after, end_in_y) == 0) ++end_in_y;
  const std::optional<bool> answer = plan.check_window(slot_ids, slot, end_in_y, *workspace);
  return answer ? *answer : *plan.check_window(slot_ids, slot, plan.stretch_end, *workspace);
}

bool RetokenizationFilter::whole_prompt_valid(std::span<const int64_t> slot_ids) const {
  const Plan& plan = *plan_;
  const std::string slot = plan.tokenizer.bytes_of(slot_ids);
  if (first_invalid_utf8(slot) < slot.size()) return false;
  const std::string text = plan.before + slot + plan.after;
  const std::size_t slot_begin = plan.before.size();
  const std::size_t slot_end = slot_begin + slot.size();

  bool overlap = false;
  plan.state.added_tokens.segment(text, 0, text.size(), [&](std::size_t begin, std::size_t end, int32_t id) {
    overlap = overlap || (id >= 0 && begin < slot_end && end > slot_begin);
  });
  if (overlap) return false;

  std::vector<int64_t> wanted = plan.before_ids;
  wanted.insert(wanted.end(), slot_ids.begin(), slot_ids.end());
  wanted.insert(wanted.end(), plan.after_ids.begin(), plan.after_ids.end());
  return plan.tokenizer.encode(text, false) == wanted;
}

}  // namespace titer

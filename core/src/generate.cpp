#include <titer/core/generate.h>

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <array>
#include <map>
#include <utility>

#include "attention.h"
#include "decoder.h"
#include "embedding.h"
#include "fnv1a.h"
#include "generation_attention.h"
#include "pass_guard.h"
#include "stop_strings.h"
#include "text_stream.h"
#include "token_choice.h"

namespace titer {
namespace {

// Rows of prompts that are read together, as many as a block of candidates has; a longer prompt is read alone.
constexpr size_t kBlockRows = 1024;

/// What slot `from` holds, in slot `to`.
void move_slot(const KvCache& cache, size_t from, size_t to) {
  if (from == to) return;
  for (const at::Tensor& x : {cache.k, cache.v})
    x.select(1, static_cast<int64_t>(to)).copy_(x.select(1, static_cast<int64_t>(from)));
}

/// One stream of draws per prompt, made of its ids, so that it gets the same text in any batch; a prompt that comes
/// several times gets a stream each time.
std::vector<uint64_t> draw_streams(const std::vector<std::vector<int64_t>>& prompts) {
  std::vector<uint64_t> out;
  std::map<std::vector<int64_t>, uint64_t> times;
  for (const std::vector<int64_t>& prompt : prompts) {
    uint64_t hash = kFnv1aStart;
    for (const int64_t id : prompt) hash = fnv1a(hash, static_cast<uint64_t>(id));
    out.push_back(hash + times[prompt]++);
  }
  return out;
}

/// Whether the sequence that a row's next token makes is the first one that longrope rotates by its other factors: its
/// keys must then be made again, as in transformers.
bool crosses_longrope(const ModelConfig& config, int64_t length) {
  return std::any_of(config.ropes.begin(), config.ropes.end(), [&](const RopeConfig& rope) {
    return rope.type == RopeConfig::Type::kLongRope && length == rope.original_max_position_embeddings;
  });
}

/// What check_options, which looks at one option at a time, does not see.
void check_together(const GenerateOptions& options) {
  TORCH_CHECK_VALUE(options.min_new_tokens <= options.max_new_tokens, "[generate] min_new_tokens must be at most ",
                    options.max_new_tokens, ", which is max_new_tokens, got ", options.min_new_tokens);
  for (const std::string& text : options.stop)
    TORCH_CHECK_VALUE(!text.empty(), "[generate] stop must hold texts that are not empty");
}

/// A prompt and what has been answered so far.
class Answer {
 public:
  /// @param room  for new tokens in the model's context
  Answer(const std::vector<int64_t>& prompt, uint64_t stream, int64_t room, const Tokenizer& tokenizer,
         const GenerateOptions& options)
      : prompt_(prompt), stream_(stream), room_(room), tokenizer_(tokenizer), options_(options) {
    if (!options.stop.empty()) text_.emplace(tokenizer);
  }

  Draw next_draw() const {
    return {.stream = stream_, .position = length(), .may_end = written() >= options_.min_new_tokens};
  }

  /// Takes the next token; false when that ends the answer.
  bool append(int64_t id, double log_prob, const std::vector<int64_t>& eos_token_ids) {
    result_.ids.push_back(id);
    result_.log_probs.push_back(log_prob);
    if (text_) {
      const size_t unchanged = text_->push(id);
      const bool counts = written() > options_.min_new_tokens;
      if (const auto match = counts ? find_stop_string(text_->text(), unchanged, options_.stop) : std::nullopt) {
        result_.finish_reason = FinishReason::kStopString;
        result_.stop_string = options_.stop[match->index];
        result_.text = text_->text().substr(0, match->begin);
        return false;
      }
    }
    if (std::count(eos_token_ids.begin(), eos_token_ids.end(), id) > 0) {
      result_.finish_reason = FinishReason::kStopToken;
    } else if (written() >= options_.max_new_tokens) {
      result_.finish_reason = FinishReason::kLength;
    } else if (written() >= room_) {
      result_.finish_reason = FinishReason::kContext;
    } else {
      return true;
    }
    result_.text = tokenizer_.decode(result_.ids, /*skip_special_tokens=*/true);
    return false;
  }

  /// Ids of the prompt and of the answer but for its last token, which is still to be read.
  std::vector<int64_t> read_ids() const {
    std::vector<int64_t> ids = prompt_;
    ids.insert(ids.end(), result_.ids.begin(), result_.ids.end() - 1);
    return ids;
  }

  /// Of the prompt and of the answer so far.
  int64_t length() const { return static_cast<int64_t>(prompt_.size()) + written(); }

  Generation take() { return std::move(result_); }

 private:
  int64_t written() const { return static_cast<int64_t>(result_.ids.size()); }

  const std::vector<int64_t>& prompt_;
  uint64_t stream_;
  int64_t room_;
  const Tokenizer& tokenizer_;
  const GenerateOptions& options_;
  std::optional<TextStream> text_;  // where there are stop strings
  Generation result_;
};

}  // namespace

std::string_view finish_reason_name(FinishReason reason) {
  constexpr std::array<std::string_view, 4> kNames = {"stop_token", "stop_string", "length", "context"};
  return kNames.at(static_cast<size_t>(reason));
}

std::vector<Generation> generate(const CausalLM& model, const Tokenizer& tokenizer,
                                 const std::vector<std::vector<int64_t>>& prompts, const GenerateOptions& options,
                                 const std::function<void()>& poll) {
  const PassGuard guard(/*gradients=*/false);
  check_options(options, "generate");
  check_together(options);
  const ModelConfig& config = model.config();
  const auto long_options = model.weights().embedding.options().dtype(at::kLong);
  TokenChoice choice(model, options);

  constexpr int64_t kUnlimited = int64_t{1} << 30;
  const std::vector<uint64_t> streams = draw_streams(prompts);
  int64_t capacity = 0;
  std::vector<Answer> answers;
  for (size_t i = 0; i < prompts.size(); ++i) {
    TORCH_CHECK_VALUE(!prompts[i].empty(), "[generate] prompt ", i, " is empty");
    const auto length = static_cast<int64_t>(prompts[i].size());
    check_length(config, length, "generate");
    check_ids(config, at::tensor(prompts[i], at::kLong), "generate");
    const int64_t room = max_length(config).value_or(kUnlimited) - length + 1;  // the last one needs no position
    capacity = std::max(capacity, length + std::min(room, options.max_new_tokens));
    answers.emplace_back(prompts[i], streams[i], room, tokenizer, options);
  }
  if (prompts.empty()) return {};
  KvCache cache(model, static_cast<int64_t>(prompts.size()), capacity);
  // Slot b of the cache serves answer active[b], which has lengths[b] positions there; finished ones leave.
  std::vector<size_t> active;
  std::vector<int64_t> lengths, tokens;

  Workspace workspace;
  // Final hidden states [n, d] behind each of n sequences, whose keys and values fill slots of the cache from `slot`
  // on. Each is longer than what is read by `unread`.
  const auto fill = [&](int64_t slot, const std::vector<std::vector<int64_t>>& sequences, int64_t unread) {
    std::vector<int64_t> ids, rows, seq_lens;
    std::vector<at::Tensor> positions;
    for (const std::vector<int64_t>& sequence : sequences) {
      ids.insert(ids.end(), sequence.begin(), sequence.end());
      rows.push_back(static_cast<int64_t>(sequence.size()));
      positions.push_back(at::arange(rows.back(), long_options));
      seq_lens.push_back(rows.back() + unread);
    }
    PromptsAttention attention(config, cache, slot, rows, workspace);
    const at::Tensor x = embed(model, at::tensor(ids, at::kLong).to(model.device()), at::cat(positions));
    return decode(model, x, make_packed_rotaries(config, positions, seq_lens, model.dtype()), attention, &workspace);
  };

  for (size_t i = 0; i < prompts.size();) {
    if (poll) poll();
    std::vector<std::vector<int64_t>> block;
    std::vector<Draw> draws;
    size_t rows = 0;
    for (size_t next = i; next < prompts.size() && (block.empty() || rows + prompts[next].size() <= kBlockRows);
         ++next) {
      block.push_back(prompts[next]);
      draws.push_back(answers[next].next_draw());
      rows += prompts[next].size();
    }
    // An answer may end with its first token: the slots of a block are its own until all of it is read.
    const at::Tensor hidden = fill(static_cast<int64_t>(active.size()), block, /*unread=*/0);
    check_hidden_finite(hidden);
    const ChosenTokens first = choice.choose(hidden, draws);
    const size_t begin = active.size();
    for (size_t b = 0; b < block.size(); ++b, ++i) {
      if (!answers[i].append(first.ids[b], first.log_probs[b], config.eos_token_ids)) continue;
      move_slot(cache, begin + b, active.size());
      active.push_back(i);
      lengths.push_back(static_cast<int64_t>(block[b].size()));
      tokens.push_back(first.ids[b]);
    }
  }

  while (!active.empty()) {
    if (poll) poll();
    std::vector<Draw> draws;
    std::vector<int64_t> seq_lens;  // with the token that is read now
    for (size_t b = 0; b < active.size(); ++b) {
      const Answer& answer = answers[active[b]];
      seq_lens.push_back(lengths[b] + 1);
      draws.push_back(answer.next_draw());
      if (crosses_longrope(config, lengths[b])) fill(static_cast<int64_t>(b), {answer.read_ids()}, /*unread=*/1);
    }
    StepAttention attention(config, cache, lengths, workspace);
    const at::Tensor positions = at::tensor(lengths, at::kLong).to(model.device());
    const at::Tensor x = embed(model, at::tensor(tokens, at::kLong).to(model.device()), positions);
    const at::Tensor hidden = decode(
        model, x, make_packed_rotaries(config, positions.split(1), seq_lens, model.dtype()), attention, &workspace);
    check_hidden_finite(hidden);
    const ChosenTokens next = choice.choose(hidden, draws);

    size_t kept = 0;
    for (size_t b = 0; b < active.size(); ++b) {
      if (!answers[active[b]].append(next.ids[b], next.log_probs[b], config.eos_token_ids)) continue;
      move_slot(cache, b, kept);
      active[kept] = active[b];
      lengths[kept] = lengths[b] + 1;
      tokens[kept] = next.ids[b];
      ++kept;
    }
    active.resize(kept);
    lengths.resize(kept);
    tokens.resize(kept);
  }
  std::vector<Generation> results;
  results.reserve(answers.size());
  for (Answer& answer : answers) results.push_back(answer.take());
  return results;
}

}  // namespace titer

#include <titer/core/generate.h>

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tensor.h>
#include <titer/core/philox.h>

#include <algorithm>
#include <array>
#include <limits>
#include <map>
#include <numeric>

#include "attention.h"
#include "decoder.h"
#include "embedding.h"
#include "fnv1a.h"
#include "pass_guard.h"

namespace titer {
namespace {

/// One new row per sequence; sequence b has lengths[b] cached positions.
class StepAttention final : public LayerAttention {
 public:
  StepAttention(const ModelConfig& config, const KvCache& cache, const std::vector<int64_t>& lengths)
      : config_(config), cache_(cache), lengths_(lengths) {
    const auto batch = static_cast<int64_t>(lengths.size());
    longest_ = *std::max_element(lengths.begin(), lengths.end()) + 1;
    for (const LayerConfig& layer : config.layers) {
      at::Tensor& mask = masks_[layer.sliding_window.has_value()];
      if (mask.defined()) continue;
      const at::Tensor key = at::arange(longest_, cache.k.options().dtype(at::kLong)).unsqueeze(0);
      const at::Tensor query = at::tensor(lengths, at::kLong).to(cache.k.device()).unsqueeze(1);
      at::Tensor hidden = key.gt(query);
      if (layer.sliding_window) hidden.logical_or_(key.le(query - *layer.sliding_window));
      mask = additive_mask(hidden.view({batch, 1, 1, longest_}), cache.k.options());
    }
  }

  at::Tensor attend(int64_t layer, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) override {
    const auto batch = static_cast<int64_t>(lengths_.size());
    at::Tensor keys = cache_.k.select(0, layer);
    at::Tensor values = cache_.v.select(0, layer);
    for (int64_t b = 0; b < batch; ++b) {
      const int64_t position = lengths_[static_cast<size_t>(b)];
      keys.select(0, b).select(1, position).copy_(k.select(0, b));
      values.select(0, b).select(1, position).copy_(v.select(0, b));
    }
    // The query heads that share a key head are rows of one small matrix: nothing is expanded.
    const LayerConfig& shape = config_.layers[static_cast<size_t>(layer)];
    const at::Tensor out =
        attention(q, keys.narrow(0, 0, batch).narrow(2, 0, longest_), values.narrow(0, 0, batch).narrow(2, 0, longest_),
                  masks_[shape.sliding_window.has_value()], shape.attention_scale, config_.attention_soft_cap);
    return out.reshape({batch, -1});
  }

 private:
  const ModelConfig& config_;
  const KvCache& cache_;
  const std::vector<int64_t>& lengths_;
  int64_t longest_ = 0;
  std::array<at::Tensor, 2> masks_;  // of layers without and with a sliding window
};

/// First index of the largest value, or a draw from softmax(logits / temperature).
int64_t choose(const at::Tensor& logits, const GenerateOptions& options, uint64_t stream, int64_t position) {
  const at::Tensor row = logits.to(at::kCPU, at::kDouble).contiguous();
  const double* values = row.const_data_ptr<double>();
  const int64_t size = row.numel();
  if (options.temperature == 0.0) return std::max_element(values, values + size) - values;
  const at::Tensor probabilities = at::softmax((row - row.max()) / options.temperature, 0);
  const double* p = probabilities.const_data_ptr<double>();
  Philox random(static_cast<uint64_t>(options.seed), RandomPurpose::kGeneration, static_cast<uint32_t>(position),
                stream);
  const double draw = random.uniform() * std::accumulate(p, p + size, 0.0);
  double sum = 0.0;
  int64_t last_possible = 0;
  for (int64_t i = 0; i < size; ++i) {
    if (p[i] > 0) last_possible = i;
    sum += p[i];
    if (draw < sum) return i;
  }
  return last_possible;
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

}  // namespace

std::vector<std::vector<int64_t>> generate(const CausalLM& model, const std::vector<std::vector<int64_t>>& prompts,
                                           const GenerateOptions& options, const std::function<void()>& poll) {
  const PassGuard guard(/*gradients=*/false);
  check_options(options, "generate");
  const ModelConfig& config = model.config();
  const auto long_options = model.weights().embedding.options().dtype(at::kLong);

  constexpr int64_t kUnlimited = int64_t{1} << 30;
  int64_t capacity = 0;
  std::vector<int64_t> room;  // for new tokens; the last one needs no position
  for (size_t i = 0; i < prompts.size(); ++i) {
    TORCH_CHECK_VALUE(!prompts[i].empty(), "[generate] prompt ", i, " is empty");
    const auto length = static_cast<int64_t>(prompts[i].size());
    check_length(config, length, "generate");
    check_ids(config, at::tensor(prompts[i], at::kLong), "generate");
    const int64_t free = max_length(config).value_or(kUnlimited) - length;
    room.push_back(free < options.max_new_tokens ? free + 1 : options.max_new_tokens);
    capacity = std::max(capacity, length + room.back());
  }
  const std::vector<uint64_t> streams = draw_streams(prompts);

  std::vector<std::vector<int64_t>> answers(prompts.size());
  // Slot b of the cache serves prompt active[b], which has lengths[b] positions there; finished prompts leave.
  std::vector<int64_t> active, lengths, tokens;
  if (prompts.empty()) return answers;
  KvCache cache(model, static_cast<int64_t>(prompts.size()), capacity);

  /// Takes the next token of a prompt; false when that ends it.
  const auto advance = [&](int64_t prompt, const at::Tensor& logits, int64_t position, int64_t& token) {
    std::vector<int64_t>& answer = answers[static_cast<size_t>(prompt)];
    token = choose(logits, options, streams[static_cast<size_t>(prompt)], position);
    answer.push_back(token);
    return std::count(config.eos_token_ids.begin(), config.eos_token_ids.end(), token) == 0 &&
           static_cast<int64_t>(answer.size()) < room[static_cast<size_t>(prompt)];
  };

  /// Final hidden states [n, d] of ids, whose keys and values fill a slot of the cache from its start.
  const auto fill = [&](int64_t slot, const std::vector<int64_t>& ids, int64_t seq_len) {
    const auto length = static_cast<int64_t>(ids.size());
    KvCache own;
    own.k = cache.k.narrow(1, slot, 1);
    own.v = cache.v.narrow(1, slot, 1);
    SequenceAttention attention(config, &own, /*batch=*/1, /*cached=*/0, /*store=*/length);
    const at::Tensor positions = at::arange(length, long_options);
    const at::Tensor x = embed(model, at::tensor(ids, at::kLong).to(model.device()), positions);
    return decode(model, x, make_rotaries(config, positions, seq_len, model.dtype()), attention, nullptr);
  };

  for (size_t i = 0; i < prompts.size(); ++i) {
    if (poll) poll();
    const auto length = static_cast<int64_t>(prompts[i].size());
    const at::Tensor hidden = fill(static_cast<int64_t>(active.size()), prompts[i], length).narrow(0, length - 1, 1);
    check_hidden_finite(hidden);
    int64_t token = 0;
    if (!advance(static_cast<int64_t>(i), logits(model, hidden)[0], length, token)) continue;
    active.push_back(static_cast<int64_t>(i));
    lengths.push_back(length);
    tokens.push_back(token);
  }

  Workspace workspace;
  while (!active.empty()) {
    if (poll) poll();
    for (size_t b = 0; b < active.size(); ++b) {
      if (!crosses_longrope(config, lengths[b])) continue;
      std::vector<int64_t> read = prompts[static_cast<size_t>(active[b])];
      const std::vector<int64_t>& written = answers[static_cast<size_t>(active[b])];
      read.insert(read.end(), written.begin(), written.end() - 1);
      fill(static_cast<int64_t>(b), read, lengths[b] + 1);
    }
    StepAttention attention(config, cache, lengths);
    const at::Tensor positions = at::tensor(lengths, at::kLong).to(model.device());
    const at::Tensor x = embed(model, at::tensor(tokens, at::kLong).to(model.device()), positions);
    const at::Tensor hidden =
        decode(model, x, make_step_rotaries(config, positions, model.dtype()), attention, &workspace);
    check_hidden_finite(hidden);
    const at::Tensor step_logits = logits(model, hidden);

    size_t kept = 0;
    for (size_t b = 0; b < active.size(); ++b) {
      int64_t token = 0;
      if (!advance(active[b], step_logits[static_cast<int64_t>(b)], lengths[b] + 1, token)) continue;
      if (kept != b) {
        cache.k.select(1, static_cast<int64_t>(kept)).copy_(cache.k.select(1, static_cast<int64_t>(b)));
        cache.v.select(1, static_cast<int64_t>(kept)).copy_(cache.v.select(1, static_cast<int64_t>(b)));
      }
      active[kept] = active[b];
      lengths[kept] = lengths[b] + 1;
      tokens[kept] = token;
      ++kept;
    }
    active.resize(kept);
    lengths.resize(kept);
    tokens.resize(kept);
  }
  return answers;
}

}  // namespace titer

#include <titer/core/generate.h>

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <titer/core/philox.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "attention.h"
#include "decoder.h"
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
    const at::Tensor key = at::arange(longest_, cache.k.options().dtype(at::kLong)).unsqueeze(0);
    const at::Tensor query = at::tensor(lengths, at::kLong).to(cache.k.device()).unsqueeze(1);
    at::Tensor hidden = key.gt(query);
    if (config.sliding_window) hidden.logical_or_(key.le(query - *config.sliding_window));
    mask_ = at::zeros({batch, 1, 1, longest_}, cache.k.options())
                .masked_fill_(hidden.view({batch, 1, 1, longest_}), -std::numeric_limits<double>::infinity());
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
    const at::Tensor out = at::scaled_dot_product_attention(
        q, keys.narrow(0, 0, batch).narrow(2, 0, longest_), values.narrow(0, 0, batch).narrow(2, 0, longest_), mask_,
        /*dropout_p=*/0.0, /*is_causal=*/false, 1.0 / std::sqrt(static_cast<double>(config_.head_dim)));
    return out.reshape({batch, -1});
  }

 private:
  const ModelConfig& config_;
  const KvCache& cache_;
  const std::vector<int64_t>& lengths_;
  int64_t longest_ = 0;
  at::Tensor mask_;
};

/// First index of the largest value, or a draw from softmax(logits / temperature).
int64_t choose(const at::Tensor& logits, const GenerateOptions& options, int64_t prompt, int64_t position) {
  const at::Tensor row = logits.to(at::kCPU, at::kDouble).contiguous();
  const double* values = row.const_data_ptr<double>();
  const int64_t size = row.numel();
  if (options.temperature == 0.0) return std::max_element(values, values + size) - values;
  const at::Tensor probabilities = at::softmax(row / options.temperature, 0);
  const double* p = probabilities.const_data_ptr<double>();
  Philox random(static_cast<uint64_t>(options.seed), RandomPurpose::kGeneration, static_cast<uint32_t>(position),
                static_cast<uint64_t>(prompt));
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

}  // namespace

std::vector<std::vector<int64_t>> generate(const CausalLM& model, const std::vector<std::vector<int64_t>>& prompts,
                                           const GenerateOptions& options, const std::function<void()>& poll) {
  const PassGuard guard(/*gradients=*/false);
  check_options(options, "generate");
  const ModelConfig& config = model.config();
  const ModelWeights& weights = model.weights();
  const auto long_options = weights.embedding.options().dtype(at::kLong);

  int64_t longest = 0;
  for (size_t i = 0; i < prompts.size(); ++i) {
    TORCH_CHECK_VALUE(!prompts[i].empty(), "[generate] prompt ", i, " is empty");
    const auto length = static_cast<int64_t>(prompts[i].size());
    check_length(config, length + options.max_new_tokens, "generate");
    check_ids(config, at::tensor(prompts[i], at::kLong), "generate");
    longest = std::max(longest, length);
  }

  std::vector<std::vector<int64_t>> answers(prompts.size());
  // Slot b of the cache serves prompt active[b], which has lengths[b] positions there; finished prompts leave.
  std::vector<int64_t> active, lengths, tokens;
  if (prompts.empty()) return answers;
  KvCache cache(model, static_cast<int64_t>(prompts.size()), longest + options.max_new_tokens);

  /// Takes the next token of a prompt; false when that ends it.
  const auto advance = [&](int64_t prompt, const at::Tensor& logits, int64_t position, int64_t& token) {
    std::vector<int64_t>& answer = answers[static_cast<size_t>(prompt)];
    token = choose(logits, options, prompt, position);
    answer.push_back(token);
    return std::count(config.eos_token_ids.begin(), config.eos_token_ids.end(), token) == 0 &&
           static_cast<int64_t>(answer.size()) < options.max_new_tokens;
  };

  for (size_t i = 0; i < prompts.size(); ++i) {
    if (poll) poll();
    const auto length = static_cast<int64_t>(prompts[i].size());
    const auto slot = static_cast<int64_t>(active.size());
    KvCache own;
    own.k = cache.k.narrow(1, slot, 1);
    own.v = cache.v.narrow(1, slot, 1);
    SequenceAttention attention(config, &own, /*batch=*/1, /*cached=*/0, /*store=*/length);
    const at::Tensor x = weights.embedding.index_select(0, at::tensor(prompts[i], at::kLong).to(model.device()));
    const Rotary rotary = make_rotary(config, at::arange(length, long_options), length, model.dtype());
    const at::Tensor hidden = decode(model, x, rotary, attention, nullptr).narrow(0, length - 1, 1);
    check_hidden_finite(hidden);
    int64_t token = 0;
    if (!advance(static_cast<int64_t>(i), at::linear(hidden, weights.lm_head)[0], length, token)) continue;
    active.push_back(static_cast<int64_t>(i));
    lengths.push_back(length);
    tokens.push_back(token);
  }

  Workspace workspace;
  while (!active.empty()) {
    if (poll) poll();
    StepAttention attention(config, cache, lengths);
    const at::Tensor x = weights.embedding.index_select(0, at::tensor(tokens, at::kLong).to(model.device()));
    const at::Tensor positions = at::tensor(lengths, at::kLong).to(model.device());
    const at::Tensor hidden =
        decode(model, x, make_step_rotary(config, positions, model.dtype()), attention, &workspace);
    check_hidden_finite(hidden);
    const at::Tensor logits = at::linear(hidden, weights.lm_head);

    size_t kept = 0;
    for (size_t b = 0; b < active.size(); ++b) {
      int64_t token = 0;
      if (!advance(active[b], logits[static_cast<int64_t>(b)], lengths[b] + 1, token)) continue;
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

#include <ATen/ops/zeros.h>

#include "padded_attention.h"
#include "shared_prefix_attention.h"

namespace titer {
namespace {

constexpr int64_t kScoreBytes = int64_t{16} << 20;  // of one batch, unless a single continuation needs more

/// Calls function(batch) for all continuations, a few at a time.
template <typename Function>
void for_each_batch(const SharedPrefixInputs& inputs, const Function& function) {
  const int64_t score_bytes = inputs.q.size(1) * inputs.q.size(2) * static_cast<int64_t>(sizeof(float));
  PaddedBatch batch;
  for (const Continuation& c : continuations(inputs.layout)) {
    if (batch.size() > 0 && batch.scores_with(c.rows, c.queries, c.visible) * score_bytes > kScoreBytes) {
      function(batch);
      batch = PaddedBatch();
    }
    batch.add(c.rows, c.queries, c.visible, c.first_row, c.first_query);
  }
  if (batch.size() > 0) function(batch);
}

}  // namespace

void shared_prefix_attention_composed(const SharedPrefixInputs& inputs, const at::Tensor& out) {
  for_each_batch(inputs, [&](const PaddedBatch& batch) { PaddedAttention(batch, inputs).attend(out); });
}

SharedPrefixGrads shared_prefix_attention_backward_composed(const at::Tensor& grad, const SharedPrefixInputs& inputs,
                                                            std::array<bool, 5> output_mask) {
  const at::ScalarType dtype = inputs.q.scalar_type(), wide = dtype == at::kDouble ? at::kDouble : at::kFloat;
  const auto zeros = [&](size_t i, const at::Tensor& x) {
    return output_mask.at(i) ? at::zeros(x.sizes(), x.options().dtype(wide)) : at::Tensor();
  };
  const SharedPrefixGrads sums{zeros(0, inputs.q), zeros(1, inputs.k), zeros(2, inputs.v), zeros(3, inputs.prefix_k),
                               zeros(4, inputs.prefix_v)};
  for_each_batch(inputs, [&](const PaddedBatch& batch) { PaddedAttention(batch, inputs).add_gradients(grad, sums); });
  const auto rounded = [&](const at::Tensor& sum) { return sum.defined() ? sum.to(dtype) : sum; };
  const auto& [q, k, v, prefix_k, prefix_v] = sums;
  return {rounded(q), rounded(k), rounded(v), rounded(prefix_k), rounded(prefix_v)};
}

}  // namespace titer

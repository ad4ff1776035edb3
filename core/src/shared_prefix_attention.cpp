#include "shared_prefix_attention.h"

#include <ATen/ops/tensor.h>
#include <titer/kernels/shared_prefix_attention.h>

namespace titer {

SharedPrefixAttention::SharedPrefixAttention(const ModelConfig& config, const KvCache& prefix,
                                             const std::vector<PackedCandidate>& candidates, int64_t outputs,
                                             Workspace& workspace)
    : config_(config), prefix_(prefix), outputs_(outputs), workspace_(workspace) {
  std::vector<int64_t> rows, visible, wanted;
  int64_t end = 0;
  double pairs = 0;  // of a query and a key, per head, in all layers
  for (const PackedCandidate& c : candidates) {
    rows.push_back(c.rows);
    visible.push_back(c.visible);
    end += c.rows;
    for (int64_t i = end - outputs; i < end; ++i) wanted.push_back(i);
    const int64_t queries = (config.num_layers - 1) * c.rows + outputs;
    pairs += static_cast<double>(queries) * static_cast<double>(c.visible + c.rows);
  }
  rows_ = at::tensor(rows, at::kLong);
  visible_ = at::tensor(visible, at::kLong);
  output_rows_ = at::tensor(wanted, at::kLong).to(prefix.k.device());
  flops_ = 4.0 * pairs * static_cast<double>(config.num_heads * config.head_dim);
}

at::Tensor SharedPrefixAttention::attend(int64_t layer, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  const LayerConfig& shape = config_.layers[static_cast<size_t>(layer)];
  const bool last = layer + 1 == config_.num_layers;
  const auto prefix = [&](const at::Tensor& x) { return x.select(0, layer).squeeze(0).transpose(0, 1); };
  const at::Tensor out = workspace_.take("attention", q.sizes(), q.options());
  ops::shared_prefix_attention_out(out, q, k, v, prefix(prefix_.k), prefix(prefix_.v),
                                   {rows_, visible_, last ? std::make_optional(outputs_) : std::nullopt,
                                    shape.sliding_window, shape.attention_scale, config_.attention_soft_cap});
  return out.view({q.size(0), -1});
}

}  // namespace titer

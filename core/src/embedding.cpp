#include "embedding.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/tanh.h>
#include <titer/kernels/linear.h>

namespace titer {

at::Tensor place(const Network& network, const at::Tensor& rows, const at::Tensor& positions) {
  const double scale = network.config.embedding_scale;
  const at::Tensor& learned = network.weights.positions;
  // The factor is rounded to the model's dtype first, as in transformers.
  const at::Tensor scaled = scale == 1.0 ? rows : rows * at::scalar_tensor(scale, rows.options().requires_grad(false));
  return learned.defined() ? scaled + learned.index_select(0, positions) : scaled;
}

at::Tensor embed(const Network& network, const at::Tensor& ids, const at::Tensor& positions) {
  return place(network, network.weights.embedding.index_select(0, ids), positions);
}

at::Tensor logits(const Network& network, const at::Tensor& hidden) {
  const at::Tensor& head = network.weights.lm_head;
  const at::Tensor out =
      hidden.requires_grad() ? at::linear(hidden, head) : ops::linear(hidden, head, std::nullopt, std::nullopt);
  return network.config.logit_soft_cap ? soft_cap(out, *network.config.logit_soft_cap) : out;
}

at::Tensor soft_cap(const at::Tensor& x, double cap) { return at::tanh(x / cap) * cap; }

}  // namespace titer

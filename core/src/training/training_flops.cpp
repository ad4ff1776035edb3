#include "training/training_flops.h"

#include "decoder.h"

namespace titer {

double training_flops(const CausalLM& model, const TrainingBatch& batch, bool all_weights) {
  const ModelConfig& config = model.config();
  const int64_t rows = batch.ids.size(0), wanted = batch.wanted.defined() ? batch.wanted.size(0) : rows;
  // A weight's product goes forward once, and back once for its input and once for itself.
  const double linear = decode_linear_flops(model, rows, wanted) * (all_weights ? 3 : 2);
  double pairs = 0;  // of a query and a key, in all layers; what a product computes, masked or not
  for (const int64_t length : batch.lengths)
    pairs += static_cast<double>(((config.num_layers - 1) * length + batch.queries.value_or(length)) * length);
  // Two products forward, four back: of probabilities, values, queries and keys; and the scores once more.
  const double attention = 3.5 * 4 * pairs * static_cast<double>(config.num_heads * config.head_dim);
  // Forward, with it the gradient of its input; for that of its weight, logits once more and another product.
  const double head =
      2.0 * static_cast<double>(batch.targets.size(0) * config.hidden_size * config.vocab_size) * (all_weights ? 4 : 2);
  return linear + attention + head;
}

}  // namespace titer

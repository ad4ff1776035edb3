#include "pass_guard.h"

#include <c10/util/Exception.h>

#include <algorithm>

namespace titer {

void check_ids(const ModelConfig& config, const at::Tensor& ids, std::string_view where) {
  TORCH_CHECK_TYPE(ids.scalar_type() == at::kLong, "[", where, "] token ids must be int64, got ", ids.scalar_type());
  const at::Tensor flat = ids.reshape({-1});
  const at::Tensor outside = flat.lt(0).logical_or_(flat.ge(config.vocab_size));
  if (flat.numel() == 0 || !outside.any().item<bool>()) return;
  const int64_t culprit = flat.masked_select(outside)[0].item<int64_t>();
  TORCH_CHECK_INDEX(false, "[", where, "] token id ", culprit, " is outside the vocabulary of ", config.vocab_size);
}

std::optional<int64_t> max_length(const ModelConfig& config) {
  const auto is_dynamic = [](const RopeConfig& rope) { return rope.type == RopeConfig::Type::kDynamic; };
  if (std::any_of(config.ropes.begin(), config.ropes.end(), is_dynamic)) return std::nullopt;
  return config.max_position_embeddings;
}

void check_length(const ModelConfig& config, int64_t length, std::string_view where) {
  const std::optional<int64_t> limit = max_length(config);
  TORCH_CHECK_VALUE(!limit || length <= *limit, "[", where, "] the sequence has ", length,
                    " tokens, the model takes at most ", limit.value_or(0));
}

}  // namespace titer

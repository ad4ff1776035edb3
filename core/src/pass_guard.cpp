#include "pass_guard.h"

#include <c10/util/Exception.h>

namespace titer {

void check_ids(const ModelConfig& config, const at::Tensor& ids, std::string_view where) {
  TORCH_CHECK_TYPE(ids.scalar_type() == at::kLong, "[", where, "] token ids must be int64, got ", ids.scalar_type());
  const at::Tensor flat = ids.reshape({-1});
  const at::Tensor outside = flat.lt(0).logical_or_(flat.ge(config.vocab_size));
  if (flat.numel() == 0 || !outside.any().item<bool>()) return;
  const int64_t culprit = flat.masked_select(outside)[0].item<int64_t>();
  TORCH_CHECK_INDEX(false, "[", where, "] token id ", culprit, " is outside the vocabulary of ", config.vocab_size);
}

void check_length(const ModelConfig& config, int64_t length, std::string_view where) {
  TORCH_CHECK_VALUE(length <= config.max_position_embeddings ||
                        config.rope.type == RopeConfig::Type::kDynamic,  // grows past what it was trained with
                    "[", where, "] the sequence has ", length, " tokens, the model takes at most ",
                    config.max_position_embeddings);
}

}  // namespace titer

// What every entry into the model does first, whatever mode its caller is in, and the checks that all entries share.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/DispatchKeySet.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include <optional>
#include <string_view>

#include <titer/core/model_config.h>

namespace titer {

/// Leaves inference mode, disables autocast, and sets gradient mode, until the end of the scope.
class PassGuard {
 public:
  explicit PassGuard(bool gradients) : inference_mode_(false), grad_mode_(gradients), no_autocast_(kAutocastKeys) {}

 private:
  static inline const c10::DispatchKeySet kAutocastKeys = c10::autocast_dispatch_keyset;
  c10::InferenceMode inference_mode_;
  at::AutoGradMode grad_mode_;
  c10::impl::ExcludeDispatchKeyGuard no_autocast_;
};

/// Throws TypeError unless ids are int64, IndexError naming the first id outside the vocabulary.
void check_ids(const ModelConfig& config, const at::Tensor& ids, std::string_view where);

/// Longest sequence in tokens; none where dynamic scaling lets sequences grow past what the model was trained with.
std::optional<int64_t> max_length(const ModelConfig& config);

/// Throws ValueError if a sequence is longer than that.
void check_length(const ModelConfig& config, int64_t length, std::string_view where);

}  // namespace titer

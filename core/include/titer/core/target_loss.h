// How far a model is from answering with the target: the objectives that searches minimise.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

#include <titer/export.h>

namespace titer {

struct TargetObjective {
  enum class Kind {
    kCrossEntropy,   ///< mean negative log-likelihood of the target tokens, nats
    kMellowmax,      ///< mellowmax of the negated target logits (Asadi & Littman, arXiv 1612.05628), as in nanoGCG
    kCarliniWagner,  ///< mean of max(best other logit - target logit, -margin) (arXiv 1608.04644, section V)
  };
  Kind kind = Kind::kCrossEntropy;
  double mellowmax_alpha = 1.0;  ///< above 0
  double cw_margin = 1e-3;       ///< at least 0

  bool operator==(const TargetObjective&) const = default;
};

struct TargetLoss {
  at::Tensor loss;   ///< [B] float32, follows gradients of `hidden`
  at::Tensor match;  ///< [B] bool
};

/// Losses of B answers from the hidden states that predict their T target tokens, without forming logits [B, T, V].
///
/// @param hidden      [B * T, d], row b * T + t predicts target token t of answer b
/// @param lm_head     [V, d]
/// @param target_ids  [T] int64
/// @param soft_cap    logits x become cap * tanh(x / cap); such logits are formed, a few rows at a time
TITER_EXPORT TargetLoss target_loss(const at::Tensor& hidden, const at::Tensor& lm_head, const at::Tensor& target_ids,
                                    const TargetObjective& objective, std::optional<double> soft_cap = std::nullopt);

}  // namespace titer

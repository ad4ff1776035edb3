// Checks that every session of a model makes on what it is given.
#pragma once

#include <ATen/core/Tensor.h>

#include <titer/core/causal_lm.h>
#include <titer/core/prompt.h>
#include <titer/core/session.h>

namespace titer {

/// Throws ValueError if the prompt does not fit the context, IndexError if an id is outside the model's vocabulary.
void check_prompt(const ModelConfig& config, const Prompt& prompt, const SessionOptions& options);

/// Contiguous [S] or [B, S] int64 ids on the CPU. Throws ValueError unless the last dimension is the slot length.
at::Tensor check_slot_ids(const ModelConfig& config, const Prompt& prompt, const at::Tensor& ids);
at::Tensor check_candidates(const ModelConfig& config, const Prompt& prompt, const at::Tensor& candidates);

/// Throws ValueError unless the objective's numbers are in range.
void check_objective(const TargetObjective& objective);

}  // namespace titer

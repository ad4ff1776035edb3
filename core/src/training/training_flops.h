// Floating-point operations of a pass forward and back.
#pragma once

#include <titer/core/causal_lm.h>

#include "training/training_batch.h"

namespace titer {

/// 2 per multiply-add, of the products: linear layers, attention, head. Without those of adapters.
///
/// @param all_weights  whether weights have gradients, too
double training_flops(const CausalLM& model, const TrainingBatch& batch, bool all_weights);

}  // namespace titer

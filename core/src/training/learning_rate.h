// Learning rates of a run's steps.
#pragma once

#include <titer/core/finetune_options.h>

#include <cstdint>

namespace titer {

/// What the largest rate is multiplied by in a step: as in transformers, step / warmup_steps during warm-up, then 1,
/// and from decay_start on a line or half a cosine from 1 to final_lr_ratio.
///
/// @param step  from 0, below num_steps
double learning_rate_factor(const FinetuneOptions& options, int64_t step, int64_t num_steps);

}  // namespace titer

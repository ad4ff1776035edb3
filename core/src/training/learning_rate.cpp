#include "training/learning_rate.h"

#include <algorithm>
#include <cmath>

namespace titer {

double learning_rate_factor(const FinetuneOptions& options, int64_t step, int64_t num_steps) {
  if (step < options.warmup_steps) return static_cast<double>(step) / static_cast<double>(options.warmup_steps);
  if (options.lr_schedule == FinetuneOptions::Schedule::kConstant) return 1;
  const double begin =
      std::max(static_cast<double>(options.warmup_steps), options.decay_start * static_cast<double>(num_steps));
  const double done = (static_cast<double>(step) - begin) / std::max(1.0, static_cast<double>(num_steps) - begin);
  const double gone = std::clamp(done, 0.0, 1.0);
  const double left =
      options.lr_schedule == FinetuneOptions::Schedule::kLinear ? 1 - gone : (1 + std::cos(M_PI * gone)) / 2;
  return options.final_lr_ratio + (1 - options.final_lr_ratio) * left;
}

}  // namespace titer

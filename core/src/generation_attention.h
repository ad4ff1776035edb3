// Attention of generation: prompts that are read into the slots of a cache, and the step that adds a token to each.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "attention.h"
#include "decoder.h"
#include "workspace.h"

namespace titer {

/// Whole prompts packed one behind the other. Their keys and values fill consecutive slots of a cache from its start;
/// the last row of each is wanted.
class PromptsAttention final : public LayerAttention {
 public:
  PromptsAttention(const ModelConfig& config, const KvCache& cache, int64_t first_slot,
                   const std::vector<int64_t>& lengths, Workspace& workspace);

  at::Tensor output_rows() const override { return last_rows_; }
  at::Tensor attend(int64_t layer, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) override;

 private:
  const ModelConfig& config_;
  const KvCache& cache_;
  at::Tensor lengths_, nothing_, last_rows_;
  at::Tensor new_rows_;  // of a layer's cache
  Workspace& workspace_;
};

/// One new row per sequence; sequence b has lengths[b] cached positions in slot b.
class StepAttention final : public LayerAttention {
 public:
  StepAttention(const ModelConfig& config, const KvCache& cache, const std::vector<int64_t>& lengths,
                Workspace& workspace);

  at::Tensor attend(int64_t layer, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) override;

 private:
  const ModelConfig& config_;
  const KvCache& cache_;
  at::Tensor lengths_, nothing_, first_rows_;  // of the sequences in the cache's slots, row by row
  at::Tensor new_rows_;
  Workspace& workspace_;
};

}  // namespace titer

// Attention of packed candidates: each sees a part of one shared prefix and its own rows.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "attention.h"
#include "decoder.h"
#include "workspace.h"

namespace titer {

/// A candidate of a block, packed behind the ones before it.
struct PackedCandidate {
  int64_t rows = 0;     ///< of its own
  int64_t visible = 0;  ///< positions of the prefix that it sees
};

/// The last `outputs` rows of every candidate are wanted.
class SharedPrefixAttention final : public LayerAttention {
 public:
  SharedPrefixAttention(const ModelConfig& config, const KvCache& prefix,
                        const std::vector<PackedCandidate>& candidates, int64_t outputs, Workspace& workspace);

  at::Tensor attend(int64_t layer, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) override;
  at::Tensor output_rows() const override { return output_rows_; }

  /// Floating-point operations of one pass through all layers.
  double flops() const { return flops_; }

 private:
  const ModelConfig& config_;
  const KvCache& prefix_;
  int64_t outputs_;
  Workspace& workspace_;
  at::Tensor rows_, visible_;  // of the candidates
  at::Tensor output_rows_;
  double flops_ = 0;
};

}  // namespace titer

// Attention of packed candidates: each sees a part of one shared prefix and its own rows.
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <optional>
#include <tuple>
#include <vector>

#include "attention.h"
#include "decoder.h"
#include "workspace.h"

namespace titer {

/// Candidates of a block with the same first changed position: packed one after the other, `rows` rows each.
struct CandidateGroup {
  int64_t candidates = 0;
  int64_t rows = 0;     ///< own rows of each candidate
  int64_t visible = 0;  ///< positions of the prefix that they see
};

/// Rows are packed by candidate, candidates by group. The last `outputs` rows of every candidate are wanted.
class SharedPrefixAttention final : public LayerAttention {
 public:
  SharedPrefixAttention(const ModelConfig& config, const KvCache& prefix, const std::vector<CandidateGroup>& groups,
                        int64_t outputs, Workspace& workspace);

  at::Tensor attend(int64_t layer, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) override;
  at::Tensor output_rows() const override { return output_rows_; }

  /// Floating-point operations of one pass through all layers.
  double flops() const;

 private:
  void attend_group(const CandidateGroup& group, int64_t layer, const at::Tensor& q, const at::Tensor& k,
                    const at::Tensor& v, at::Tensor out);
  const at::Tensor& own_mask(const CandidateGroup& group, int64_t query_rows, std::optional<int64_t> window,
                             const at::TensorOptions& options);

  const ModelConfig& config_;
  const KvCache& prefix_;
  std::vector<CandidateGroup> groups_;
  int64_t outputs_;
  Workspace& workspace_;
  at::Tensor output_rows_;
  std::map<std::tuple<int64_t, int64_t, int64_t>, at::Tensor> own_masks_;  // by (own rows, query rows, window or 0)
};

}  // namespace titer

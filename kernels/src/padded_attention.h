// shared_prefix_attention of consecutive continuations, padded to the longest of each part, as products of torch
// tensors in float32 (float64 for float64), and its gradients: the definition on any device.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "shared_prefix_attention.h"

namespace titer {

/// Which continuations, and how long.
struct PaddedBatch {
  std::vector<int64_t> rows, queries, visible, first_row, first_query;
  int64_t max_rows = 0, max_queries = 0, max_visible = 0;

  int64_t size() const { return static_cast<int64_t>(rows.size()); }

  /// Of one head, were a continuation added.
  int64_t scores_with(int64_t own, int64_t wanted, int64_t seen) const {
    return (size() + 1) * std::max(max_queries, wanted) * (std::max(max_visible, seen) + std::max(max_rows, own));
  }

  void add(int64_t own, int64_t wanted, int64_t seen, int64_t row, int64_t query) {
    rows.push_back(own);
    queries.push_back(wanted);
    visible.push_back(seen);
    first_row.push_back(row);
    first_query.push_back(query);
    max_rows = std::max(max_rows, own);
    max_queries = std::max(max_queries, wanted);
    max_visible = std::max(max_visible, seen);
  }
};

class PaddedAttention {
 public:
  PaddedAttention(const PaddedBatch& batch, const SharedPrefixInputs& inputs);

  /// Writes the batch's rows of `out`.
  void attend(const at::Tensor& out);

  /// Adds the gradients for the batch's rows of `grad` [M, Hkv, G, hd] to sums of the inputs' shapes in the wide type,
  /// where they are defined.
  void add_gradients(const at::Tensor& grad, const SharedPrefixGrads& sums);

 private:
  at::Tensor column(const std::vector<int64_t>& values) const;  // [count, 1]
  at::Tensor places(int64_t length) const;                      // [1, length]
  at::Tensor padded(const at::Tensor& x, const at::Tensor& index) const;
  at::Tensor by_query(const at::Tensor& x) const;
  at::Tensor by_row(const at::Tensor& x) const;
  at::Tensor seen(const at::Tensor& x) const;
  at::Tensor to_prefix(const at::Tensor& x) const;
  at::Tensor from_prefix(const at::Tensor& x) const;
  at::Tensor products(const at::Tensor& left, const at::Tensor& of_prefix, const at::Tensor& own) const;
  at::Tensor hidden_keys() const;
  void find_weights();

  const PaddedBatch& batch_;
  const SharedPrefixInputs& in_;
  int64_t count_, heads_, group_, head_dim_;
  at::ScalarType wide_;
  at::Tensor rows_, queries_, visible_;  // [count, 1]
  at::Tensor row_index_, query_index_;   // [count, longest], in k and q; the last one repeated
  at::Tensor is_row_, is_query_;         // [count, longest], false for what is repeated
  at::Tensor weights_;                   // [count, Hkv, queries, keys], of the prefix first
  at::Tensor slope_;                     // of the soft cap at the scores, where there is one
};

}  // namespace titer

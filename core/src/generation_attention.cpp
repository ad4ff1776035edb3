#include "generation_attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cumsum.h>
#include <ATen/ops/index_copy.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros_like.h>
#include <titer/kernels/shared_prefix_attention.h>

#include <cstring>

namespace titer {
namespace {

/// Rows [N, Hkv, hd] become the rows `index` [N] of a layer's cache [slots * capacity, Hkv, hd].
void store(const at::Tensor& rows, const at::Tensor& index, const at::Tensor& cache) {
  if (!cache.is_cpu()) {
    cache.index_copy_(0, index, rows);
    return;
  }
  // Of the few rows of a step, starting torch's kernel takes longer than the copy.
  TORCH_INTERNAL_ASSERT(rows.scalar_type() == cache.scalar_type() && cache.is_contiguous() &&
                        rows.size(0) == index.size(0) && rows.sizes().slice(1) == cache.sizes().slice(1));
  const at::Tensor dense = rows.contiguous();
  const int64_t bytes = dense.size(1) * dense.size(2) * dense.element_size();  // of a row
  const auto* const from = static_cast<const char*>(dense.const_data_ptr());
  auto* const to = static_cast<char*>(cache.mutable_data_ptr());
  const int64_t* const places = index.const_data_ptr<int64_t>();
  for (int64_t r = 0; r < dense.size(0); ++r) {
    TORCH_INTERNAL_ASSERT(places[r] >= 0 && places[r] < cache.size(0));
    std::memcpy(to + places[r] * bytes, from + r * bytes, static_cast<size_t>(bytes));
  }
}

/// Where rows of consecutive slots lie in a layer's cache, lengths[i] of slot first_slot + i.
at::Tensor rows_of_slots(int64_t first_slot, const std::vector<int64_t>& lengths, int64_t capacity) {
  std::vector<at::Tensor> parts;
  for (const int64_t length : lengths) {
    const int64_t first = first_slot++ * capacity;
    parts.push_back(at::arange(first, first + length, at::kLong));
  }
  return at::cat(parts);
}

}  // namespace

PromptsAttention::PromptsAttention(const ModelConfig& config, const KvCache& cache, int64_t first_slot,
                                   const std::vector<int64_t>& lengths, Workspace& workspace)
    : config_(config),
      cache_(cache),
      lengths_(at::tensor(lengths, at::kLong)),
      nothing_(at::zeros_like(lengths_)),
      last_rows_((lengths_.cumsum(0) - 1).to(cache.k.device())),
      new_rows_(rows_of_slots(first_slot, lengths, cache.capacity()).to(cache.k.device())),
      workspace_(workspace) {}

at::Tensor PromptsAttention::attend(int64_t layer, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  const at::Tensor keys = cache_.k.select(0, layer).flatten(0, 1), values = cache_.v.select(0, layer).flatten(0, 1);
  store(k, new_rows_, keys);
  store(v, new_rows_, values);
  const LayerConfig& shape = config_.layers[static_cast<size_t>(layer)];
  const bool last = layer + 1 == config_.num_layers;
  const at::Tensor no_prefix = keys.narrow(0, 0, 0).transpose(0, 1);
  const at::Tensor out = workspace_.take("attention", q.sizes(), q.options());
  ops::shared_prefix_attention_out(out, q, k, v, no_prefix, no_prefix,
                                   {lengths_, nothing_, last ? std::make_optional<int64_t>(1) : std::nullopt,
                                    shape.sliding_window, shape.attention_scale, config_.attention_soft_cap});
  return out.view({q.size(0), -1});
}

StepAttention::StepAttention(const ModelConfig& config, const KvCache& cache, const std::vector<int64_t>& lengths,
                             Workspace& workspace)
    : config_(config),
      cache_(cache),
      lengths_(at::tensor(lengths, at::kLong) + 1),
      nothing_(at::zeros_like(lengths_)),
      first_rows_(at::arange(lengths_.size(0), lengths_.options()) * cache.capacity()),
      new_rows_((first_rows_ + lengths_ - 1).to(cache.k.device())),
      workspace_(workspace) {}

at::Tensor StepAttention::attend(int64_t layer, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  const at::Tensor keys = cache_.k.select(0, layer).flatten(0, 1), values = cache_.v.select(0, layer).flatten(0, 1);
  store(k, new_rows_, keys);
  store(v, new_rows_, values);
  const LayerConfig& shape = config_.layers[static_cast<size_t>(layer)];
  const at::Tensor no_prefix = keys.narrow(0, 0, 0).transpose(0, 1);
  const at::Tensor out = workspace_.take("attention", q.sizes(), q.options());
  ops::shared_prefix_attention_out(out, q, keys, values, no_prefix, no_prefix,
                                   {lengths_, nothing_, /*queries=*/1, shape.sliding_window, shape.attention_scale,
                                    config_.attention_soft_cap, first_rows_});
  return out.view({q.size(0), -1});
}

}  // namespace titer

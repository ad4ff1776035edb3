#include "reference/shared_prefix_attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/einsum.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tanh.h>

#include <limits>
#include <vector>

namespace titer::reference {

at::Tensor shared_prefix_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                   const at::Tensor& prefix_k, const at::Tensor& prefix_v,
                                   const ops::SharedPrefixLayout& layout) {
  const at::ScalarType wide = q.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  std::vector<at::Tensor> results{q.narrow(0, 0, 0)};
  int64_t row = 0, query = 0;
  for (int64_t c = 0; c < layout.rows.size(0); ++c) {
    const auto rows = layout.rows[c].item<int64_t>(), visible = layout.visible[c].item<int64_t>();
    if (layout.first_row) row = (*layout.first_row)[c].item<int64_t>();
    const int64_t queries = layout.queries.value_or(rows), length = visible + rows;
    const auto seen = [&](const at::Tensor& prefix, const at::Tensor& own) {  // [Hkv, length, hd]
      return at::cat({prefix.narrow(1, 0, visible), own.narrow(0, row, rows).transpose(0, 1)}, 1).to(wide);
    };
    at::Tensor scores =
        at::einsum("qhgd,hkd->hgqk", {q.narrow(0, query, queries).to(wide), seen(prefix_k, k)}) * layout.scale;
    if (layout.soft_cap) scores = at::tanh(scores / *layout.soft_cap) * *layout.soft_cap;
    const at::Tensor key = at::arange(length, layout.rows.options()).to(q.device());
    const at::Tensor position = key.narrow(0, length - queries, queries).unsqueeze(1);
    at::Tensor hidden = key.gt(position);
    if (layout.window) hidden = hidden.logical_or(key.le(position - *layout.window));
    const at::Tensor weights = at::softmax(scores.masked_fill(hidden, -std::numeric_limits<double>::infinity()), -1);
    results.push_back(at::einsum("hgqk,hkd->qhgd", {weights, seen(prefix_v, v)}).to(q.scalar_type()));
    row += rows;
    query += queries;
  }
  return at::cat(results);
}

}  // namespace titer::reference

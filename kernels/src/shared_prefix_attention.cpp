// Schemas, argument checks, meta kernel and C++ entries of shared_prefix_attention.
#include "shared_prefix_attention.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <c10/core/DeviceGuard.h>
#include <torch/library.h>

#include "tensor_checks.h"

namespace titer {
namespace {

using Int = std::optional<int64_t>;
using Optional = std::optional<at::Tensor>;
using Signature = at::Tensor(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& prefix_k,
                             const at::Tensor& prefix_v, const at::Tensor& rows, const at::Tensor& visible, Int queries,
                             Int window, double scale, std::optional<double> soft_cap, const Optional& first_row);
using OutSignature = at::Tensor&(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                 const at::Tensor& prefix_k, const at::Tensor& prefix_v, const at::Tensor& rows,
                                 const at::Tensor& visible, Int queries, Int window, double scale,
                                 std::optional<double> soft_cap, const Optional& first_row, at::Tensor& out);

using BackwardSignature = SharedPrefixGrads(const at::Tensor& grad, const at::Tensor& q, const at::Tensor& k,
                                            const at::Tensor& v, const at::Tensor& prefix_k, const at::Tensor& prefix_v,
                                            const at::Tensor& rows, const at::Tensor& visible, Int queries, Int window,
                                            double scale, std::optional<double> soft_cap, const Optional& first_row,
                                            std::array<bool, 5> output_mask);

constexpr const char* kName = "shared_prefix_attention";

/// Lengths without values go with tensors without values.
void check_lengths(const at::Tensor& lengths, const char* name, bool is_meta) {
  TORCH_CHECK_TYPE(lengths.scalar_type() == at::kLong, "[shared_prefix_attention] ", name, " must be int64, got ",
                   lengths.scalar_type());
  TORCH_CHECK_VALUE(
      lengths.dim() == 1 && (lengths.is_cpu() || (is_meta && lengths.is_meta())) && lengths.is_contiguous(),
      "[shared_prefix_attention] ", name, " must be a contiguous vector on the CPU, got shape ", lengths.sizes(),
      " on ", lengths.device());
}

void check_layout(const SharedPrefixInputs& inputs) {
  const auto& layout = inputs.layout;
  const bool is_meta = inputs.q.is_meta();
  check_lengths(layout.rows, "rows", is_meta);
  check_lengths(layout.visible, "visible", is_meta);
  TORCH_CHECK_VALUE(layout.rows.sizes() == layout.visible.sizes(),
                    "[shared_prefix_attention] rows and visible must have one length, got ", layout.rows.sizes(),
                    " and ", layout.visible.sizes());
  if (layout.first_row) {
    check_lengths(*layout.first_row, "first_row", is_meta);
    TORCH_CHECK_VALUE(layout.first_row->sizes() == layout.rows.sizes(),
                      "[shared_prefix_attention] first_row must have the length of rows, ", layout.rows.sizes(),
                      ", got ", layout.first_row->sizes());
  }
  TORCH_CHECK_VALUE(!layout.window || *layout.window >= 1, "[shared_prefix_attention] window must be at least 1, got ",
                    *layout.window);
  TORCH_CHECK_VALUE(!layout.soft_cap || *layout.soft_cap > 0,
                    "[shared_prefix_attention] soft_cap must be above 0, got ", *layout.soft_cap);
  if (layout.rows.is_meta() || layout.visible.is_meta()) return;
  if (layout.first_row && layout.first_row->is_meta()) return;
  const int64_t count = layout.rows.size(0), prefix = inputs.prefix_k.size(1);
  const int64_t* const rows = layout.rows.const_data_ptr<int64_t>();
  const int64_t* const visible = layout.visible.const_data_ptr<int64_t>();
  const int64_t* const first_row = layout.first_row ? layout.first_row->const_data_ptr<int64_t>() : nullptr;
  int64_t total = 0, wanted = 0;
  for (int64_t c = 0; c < count; ++c) {
    TORCH_CHECK_VALUE(rows[c] >= 1 && rows[c] <= inputs.k.size(0), "[shared_prefix_attention] rows[", c,
                      "] must be in [1, ", inputs.k.size(0), "], got ", rows[c]);
    TORCH_CHECK_VALUE(visible[c] >= 0 && visible[c] <= prefix, "[shared_prefix_attention] visible[", c,
                      "] must be in [0, ", prefix, "], the length of the prefix, got ", visible[c]);
    const int64_t most = inputs.k.size(0) - rows[c];
    TORCH_CHECK_VALUE(first_row == nullptr || (first_row[c] >= 0 && first_row[c] <= most),
                      "[shared_prefix_attention] first_row[", c, "] must be in [0, ", most,
                      "], so that its rows lie in k, got ", first_row[c]);
    const int64_t queries = layout.queries.value_or(rows[c]);
    TORCH_CHECK_VALUE(queries >= 1 && queries <= rows[c], "[shared_prefix_attention] queries must be in [1, ", rows[c],
                      "], the rows of continuation ", c, ", got ", queries);
    total += rows[c];
    wanted += queries;
  }
  TORCH_CHECK_VALUE(first_row != nullptr || total == inputs.k.size(0),
                    "[shared_prefix_attention] rows must add up to the rows of k, ", inputs.k.size(0), ", got ", total);
  TORCH_CHECK_VALUE(wanted == inputs.q.size(0), "[shared_prefix_attention] q must have ", wanted,
                    " rows, the queries of all continuations, got ", inputs.q.size(0));
}

void check_inputs(const SharedPrefixInputs& inputs) {
  const auto& [q, k, v, prefix_k, prefix_v, layout] = inputs;
  const Argument queries{q, "q"}, keys{k, "k"}, values{v, "v"}, old_keys{prefix_k, "prefix_k"},
      old_values{prefix_v, "prefix_v"};
  TORCH_CHECK_VALUE(q.layout() == at::kStrided && q.dim() == 4 && q.size(1) >= 1 && q.size(2) >= 1 && q.size(3) >= 1,
                    "[shared_prefix_attention] q must be dense, [M, Hkv, G, hd], got shape ", q.sizes());
  check_dtype(kName, queries);
  const auto check_part = [&](const Argument& x, int64_t heads_dim, const char* shape) {
    const at::Tensor& t = x.tensor;
    TORCH_CHECK_VALUE(
        t.layout() == at::kStrided && t.dim() == 3 && t.size(heads_dim) == q.size(1) && t.size(2) == q.size(3),
        "[shared_prefix_attention] ", x.name, " must have shape ", shape, " with Hkv ", q.size(1), " and hd ",
        q.size(3), " as q has, got ", t.sizes());
    TORCH_CHECK_TYPE(t.scalar_type() == q.scalar_type(), "[shared_prefix_attention] ", x.name,
                     " must have the dtype of q, ", q.scalar_type(), ", got ", t.scalar_type());
    TORCH_CHECK_VALUE(t.device() == q.device(), "[shared_prefix_attention] ", x.name, " must be on ", q.device(),
                      " like q, got ", t.device());
  };
  check_part(keys, 1, "[N, Hkv, hd]");
  check_part(old_keys, 0, "[Hkv, P, hd]");
  check_like(kName, values, keys);
  check_like(kName, old_values, old_keys);
  check_layout(inputs);
}

at::Tensor& call_out(const SharedPrefixInputs& inputs, at::Tensor& out) {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("titer::shared_prefix_attention", "out").typed<OutSignature>();
  const auto& layout = inputs.layout;
  return op.call(inputs.q, inputs.k, inputs.v, inputs.prefix_k, inputs.prefix_v, layout.rows, layout.visible,
                 layout.queries, layout.window, layout.scale, layout.soft_cap, layout.first_row, out);
}

/// On any backend.
at::Tensor into_new(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& prefix_k,
                    const at::Tensor& prefix_v, const at::Tensor& rows, const at::Tensor& visible, Int queries,
                    Int window, double scale, std::optional<double> soft_cap, const Optional& first_row) {
  at::Tensor out = at::empty(q.sizes(), q.options());
  const at::Tensor dense_q = with_dense_rows(q), dense_k = with_dense_rows(k), dense_v = with_dense_rows(v);
  const at::Tensor keys = with_dense_rows(prefix_k), values = with_dense_rows(prefix_v);
  return call_out(
      {dense_q, dense_k, dense_v, keys, values, {rows, visible, queries, window, scale, soft_cap, first_row}}, out);
}

at::Tensor& out_meta(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& prefix_k,
                     const at::Tensor& prefix_v, const at::Tensor& rows, const at::Tensor& visible, Int queries,
                     Int window, double scale, std::optional<double> soft_cap, const Optional& first_row,
                     at::Tensor& out) {
  check_shared_prefix_attention(
      {q, k, v, prefix_k, prefix_v, {rows, visible, queries, window, scale, soft_cap, first_row}}, out);
  return out;
}

/// On any backend without a kernel for it; what takes the time are products.
SharedPrefixGrads backward(const at::Tensor& grad, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           const at::Tensor& prefix_k, const at::Tensor& prefix_v, const at::Tensor& rows,
                           const at::Tensor& visible, Int queries, Int window, double scale,
                           std::optional<double> soft_cap, const Optional& first_row, std::array<bool, 5> output_mask) {
  const SharedPrefixInputs inputs{q,        k,        v,
                                  prefix_k, prefix_v, {rows, visible, queries, window, scale, soft_cap, first_row}};
  check_shared_prefix_attention_backward(grad, inputs);
  const c10::OptionalDeviceGuard guard(q.device());
  return shared_prefix_attention_backward_composed(grad, inputs, output_mask);
}

SharedPrefixGrads backward_meta(const at::Tensor& grad, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                const at::Tensor& prefix_k, const at::Tensor& prefix_v, const at::Tensor& rows,
                                const at::Tensor& visible, Int queries, Int window, double scale,
                                std::optional<double> soft_cap, const Optional& first_row,
                                std::array<bool, 5> output_mask) {
  check_shared_prefix_attention_backward(
      grad, {q, k, v, prefix_k, prefix_v, {rows, visible, queries, window, scale, soft_cap, first_row}});
  const auto like = [&](size_t i, const at::Tensor& x) {
    return output_mask.at(i) ? at::empty(x.sizes(), x.options()) : at::Tensor();
  };
  return {like(0, q), like(1, k), like(2, v), like(3, prefix_k), like(4, prefix_v)};
}

}  // namespace

void check_shared_prefix_attention(const SharedPrefixInputs& inputs, const at::Tensor& out) {
  check_inputs(inputs);
  const auto& [q, k, v, prefix_k, prefix_v, layout] = inputs;
  const Argument queries{q, "q"}, keys{k, "k"}, values{v, "v"}, old_keys{prefix_k, "prefix_k"},
      old_values{prefix_v, "prefix_v"}, result{out, "out"};
  check_like(kName, result, queries);
  check_dense_rows(kName, {queries, keys, values, old_keys, old_values, result});
  check_disjoint(kName, result, {queries, keys, values, old_keys, old_values});
}

void check_shared_prefix_attention_backward(const at::Tensor& grad, const SharedPrefixInputs& inputs) {
  check_inputs(inputs);
  check_like(kName, {grad, "grad"}, {inputs.q, "q"});
}

std::vector<Continuation> continuations(const ops::SharedPrefixLayout& layout) {
  const int64_t* const rows = layout.rows.const_data_ptr<int64_t>();
  const int64_t* const visible = layout.visible.const_data_ptr<int64_t>();
  std::vector<Continuation> out;
  int64_t row = 0, query = 0;
  for (int64_t c = 0; c < layout.rows.size(0); ++c) {
    if (layout.first_row) row = layout.first_row->const_data_ptr<int64_t>()[c];
    out.push_back({rows[c], layout.queries.value_or(rows[c]), visible[c], row, query});
    row += out.back().rows;
    query += out.back().queries;
  }
  return out;
}

at::Tensor shared_prefix_attention_values(const SharedPrefixInputs& inputs) {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("titer::shared_prefix_attention", "").typed<Signature>();
  const auto& layout = inputs.layout;
  return op.call(inputs.q, inputs.k, inputs.v, inputs.prefix_k, inputs.prefix_v, layout.rows, layout.visible,
                 layout.queries, layout.window, layout.scale, layout.soft_cap, layout.first_row);
}

SharedPrefixGrads shared_prefix_attention_backward(const at::Tensor& grad, const SharedPrefixInputs& inputs,
                                                   std::array<bool, 5> output_mask) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("titer::shared_prefix_attention_backward", "")
                             .typed<BackwardSignature>();
  const auto& layout = inputs.layout;
  return op.call(grad, inputs.q, inputs.k, inputs.v, inputs.prefix_k, inputs.prefix_v, layout.rows, layout.visible,
                 layout.queries, layout.window, layout.scale, layout.soft_cap, layout.first_row, output_mask);
}

namespace ops {

at::Tensor shared_prefix_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                   const at::Tensor& prefix_k, const at::Tensor& prefix_v,
                                   const SharedPrefixLayout& layout) {
  return shared_prefix_attention_values({q, k, v, prefix_k, prefix_v, layout});
}

at::Tensor shared_prefix_attention_out(const at::Tensor& out, const at::Tensor& q, const at::Tensor& k,
                                       const at::Tensor& v, const at::Tensor& prefix_k, const at::Tensor& prefix_v,
                                       const SharedPrefixLayout& layout) {
  at::Tensor written = out;
  call_out({q, k, v, prefix_k, prefix_v, layout}, written);
  return written;
}

}  // namespace ops
}  // namespace titer

TORCH_LIBRARY_FRAGMENT(titer, m) {
  m.def(
      "shared_prefix_attention(Tensor q, Tensor k, Tensor v, Tensor prefix_k, Tensor prefix_v, Tensor rows, "
      "Tensor visible, int? queries, int? window, float scale, float? soft_cap, "
      "Tensor? first_row=None) -> Tensor");
  m.def(
      "shared_prefix_attention.out(Tensor q, Tensor k, Tensor v, Tensor prefix_k, Tensor prefix_v, Tensor rows, "
      "Tensor visible, int? queries, int? window, float scale, float? soft_cap, "
      "Tensor? first_row=None, *, Tensor(a!) out) -> Tensor(a!)");
  m.def(
      "shared_prefix_attention_backward(Tensor grad, Tensor q, Tensor k, Tensor v, Tensor prefix_k, Tensor prefix_v, "
      "Tensor rows, Tensor visible, int? queries, int? window, float scale, float? soft_cap, Tensor? first_row, "
      "bool[5] output_mask) -> (Tensor grad_q, Tensor grad_k, Tensor grad_v, Tensor grad_prefix_k, "
      "Tensor grad_prefix_v)");
}

TORCH_LIBRARY_IMPL(titer, CompositeExplicitAutograd, m) {
  m.impl("shared_prefix_attention", titer::into_new);
  m.impl("shared_prefix_attention_backward", titer::backward);
}

TORCH_LIBRARY_IMPL(titer, Meta, m) {
  m.impl("shared_prefix_attention.out", titer::out_meta);
  m.impl("shared_prefix_attention_backward", titer::backward_meta);
}

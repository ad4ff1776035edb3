#include "tensor_checks.h"

#include <ATen/MemoryOverlap.h>
#include <c10/util/Exception.h>

namespace titer {
namespace {

void check_not_expanded(const char* op, const Argument& out) {
  TORCH_CHECK_VALUE(at::has_internal_overlap(out.tensor) != at::MemOverlap::Yes, "[", op, "] ", out.name,
                    " must not be an expanded tensor, got strides ", out.tensor.strides());
}

}  // namespace

bool has_dense_rows(const at::Tensor& t) { return t.dim() == 0 || t.stride(-1) == 1 || t.size(-1) <= 1; }

at::Tensor with_dense_rows(const at::Tensor& t) { return has_dense_rows(t) ? t : t.contiguous(); }

void check_dtype(const char* op, const Argument& x) {
  const at::ScalarType dtype = x.tensor.scalar_type();
  TORCH_CHECK_TYPE(dtype == at::kFloat || dtype == at::kBFloat16 || dtype == at::kHalf || dtype == at::kDouble, "[", op,
                   "] ", x.name, " must be float32, bfloat16, float16 or float64, got ", dtype);
}

void check_like(const char* op, const Argument& x, const Argument& other) {
  const at::Tensor &t = x.tensor, &o = other.tensor;
  TORCH_CHECK_VALUE(t.layout() == at::kStrided && t.sizes() == o.sizes(), "[", op, "] ", x.name,
                    " must have the shape of ", other.name, ", ", o.sizes(), ", got ", t.sizes());
  TORCH_CHECK_TYPE(t.scalar_type() == o.scalar_type(), "[", op, "] ", x.name, " must have the dtype of ", other.name,
                   ", ", o.scalar_type(), ", got ", t.scalar_type());
  TORCH_CHECK_VALUE(t.device() == o.device(), "[", op, "] ", x.name, " must be on ", o.device(), " like ", other.name,
                    ", got ", t.device());
}

void check_dense_rows(const char* op, std::initializer_list<Argument> arguments) {
  for (const Argument& x : arguments)
    TORCH_CHECK_VALUE(has_dense_rows(x.tensor), "[", op, "] ", x.name,
                      " must be contiguous in its last dimension, got strides ", x.tensor.strides());
}

void check_writable(const char* op, const at::Tensor& out, std::initializer_list<Argument> inputs) {
  if (out.is_meta()) return;
  check_not_expanded(op, {out, "out"});
  for (const Argument& x : inputs)
    TORCH_CHECK_VALUE(at::get_overlap_status(x.tensor, out) != at::MemOverlapStatus::Partial, "[", op, "] out must be ",
                      x.name, " itself or not overlap it");
}

void check_disjoint(const char* op, const Argument& out, std::initializer_list<Argument> inputs) {
  if (out.tensor.is_meta() || out.tensor.numel() == 0) return;
  check_not_expanded(op, out);
  for (const Argument& x : inputs) {
    const at::MemOverlapStatus status = at::get_overlap_status(x.tensor, out.tensor);
    TORCH_CHECK_VALUE(status != at::MemOverlapStatus::Partial && status != at::MemOverlapStatus::Full, "[", op, "] ",
                      out.name, " must not overlap ", x.name);
  }
}

}  // namespace titer

#include "workspace.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/index_select.h>
#include <c10/util/accumulate.h>

#include <bit>

namespace titer {

at::Tensor Workspace::take(std::string_view purpose, at::IntArrayRef shape, const at::TensorOptions& options) {
  const int64_t numel = c10::multiply_integers(shape);
  at::Tensor& buffer = buffers_[purpose];
  if (!buffer.defined() || buffer.numel() < numel) {
    buffer = at::Tensor();  // freed before its successor is allocated
    // Pages that nobody writes cost nothing, a hole in the heap for every slightly larger block does.
    buffer = at::empty({static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(numel)))}, options);
  }
  return buffer.narrow(0, 0, numel).view(shape);
}

at::Tensor Workspace::select_rows(std::string_view purpose, const at::Tensor& table, const at::Tensor& rows) {
  at::Tensor out = take(purpose, {rows.size(0), table.size(1)}, table.options());
  return at::index_select_out(out, table, 0, rows);
}

}  // namespace titer

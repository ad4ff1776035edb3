// Buffers that a long loop allocates once: large temporaries are otherwise page-faulted afresh at every call.
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <string_view>

namespace titer {

/// Storage by purpose. What `take` returns holds garbage, is valid until the same purpose is taken again, and must not
/// be used where a gradient is wanted. One thread at a time.
class Workspace {
 public:
  at::Tensor take(std::string_view purpose, at::IntArrayRef shape, const at::TensorOptions& options);

  /// Rows [N] int64 of a table [M, d], looked up into what `take` gives.
  at::Tensor select_rows(std::string_view purpose, const at::Tensor& table, const at::Tensor& rows);

 private:
  std::map<std::string_view, at::Tensor> buffers_;  // purposes are string literals
};

}  // namespace titer

#include "reference/batched_lora.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/linear.h>

#include <vector>

namespace titer::reference {

at::Tensor batched_lora(const at::Tensor& base, const at::Tensor& x, const ops::LoraBank& bank) {
  std::vector<at::Tensor> parts;
  int64_t row = 0;
  for (int64_t k = 0; k < bank.rows.size(0); ++k) {
    const int64_t count = bank.rows[k].item<int64_t>();
    const at::Tensor projected = at::linear(x.narrow(0, row, count).to(bank.a.scalar_type()), bank.a[k]);
    const at::Tensor update = at::linear(projected, bank.b[k]) * bank.scale[static_cast<size_t>(k)];
    parts.push_back((base.narrow(0, row, count) + update).to(base.scalar_type()));
    row += count;
  }
  return at::cat(parts);
}

}  // namespace titer::reference

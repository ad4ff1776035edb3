#include "reference/token_gradient_topk.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/sort.h>

#include <limits>

namespace titer::reference {

ops::TokenGradientTopk token_gradient_topk(const at::Tensor& gradient, const at::Tensor& embedding,
                                           const at::Tensor& allowed, int64_t k) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  const at::Tensor products = at::mm(gradient, embedding.t());
  const at::Tensor broken = at::isfinite(products).logical_not().logical_and(allowed).any(1, /*keepdim=*/true);
  const at::Tensor scores = products.masked_fill(allowed.logical_not(), kInfinity);
  const auto [sorted, order] = at::sort(scores, /*stable=*/true, /*dim=*/1, /*descending=*/false);
  const at::Tensor best = sorted.narrow(1, 0, k);
  return {order.narrow(1, 0, k).masked_fill(best.eq(kInfinity).logical_or(broken), -1),
          best.masked_fill(broken, std::numeric_limits<double>::quiet_NaN())};
}

}  // namespace titer::reference

#include <titer/core/lora_adapter.h>
#include <titer/core/weights_sha256.h>

#include <ATen/ops/mm.h>
#include <c10/util/Exception.h>

#include <cmath>

#include "linear_modules.h"
#include "pass_guard.h"

namespace titer {
namespace {

at::Tensor merged(const at::Tensor& weight, const LoraAdapter::Factors& factors, double scale, bool transposed) {
  const at::ScalarType wide = weight.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const auto to_wide = [&](const at::Tensor& x) { return x.to(weight.device(), wide); };
  const at::Tensor product = at::mm(to_wide(factors.b), to_wide(factors.a));
  return to_wide(weight).add(transposed ? product.t() : product, scale).to(weight.scalar_type());
}

}  // namespace

double lora_scale(double alpha, int64_t rank, bool use_rslora) {
  const auto r = static_cast<double>(rank);
  return alpha / (use_rslora ? std::sqrt(r) : r);
}

std::shared_ptr<const CausalLM> merge(const CausalLM& base, const LoraAdapter& adapter) {
  const PassGuard guard(/*gradients=*/false);
  if (!adapter.base.empty()) {
    const std::string own = weights_sha256(base);
    TORCH_CHECK_VALUE(adapter.base == own, "[lora] the adapter was trained on weights of SHA-256 ",
                      adapter.base.substr(0, 12), "..., this model's is ", own.substr(0, 12),
                      "...; load its own base in the same dtype, or clear the adapter's base to merge it all the same");
  }
  std::map<std::string, at::Tensor> weights(base.parameters().begin(), base.parameters().end());
  std::map<std::string, LinearModule> known;
  for (LinearModule& module : linear_modules(base.config())) known.emplace(module.name, std::move(module));
  const double scale = lora_scale(adapter.alpha, adapter.rank, adapter.use_rslora);
  for (const auto& [name, factors] : adapter.modules) {
    const auto module = known.find(name);
    TORCH_CHECK_VALUE(module != known.end(), "[lora] the adapter has '", name, "', which is no linear layer of this ",
                      base.config().family, " model");
    const std::vector<int64_t> a{adapter.rank, module->second.in_features},
        b{module->second.out_features, adapter.rank};
    TORCH_CHECK_VALUE(factors.a.sizes() == a && factors.b.sizes() == b, "[lora] '", name,
                      "' must have factors of shape ", a, " and ", b, ", got ", factors.a.sizes(), " and ",
                      factors.b.sizes());
    at::Tensor& weight = weights.at(name + ".weight");
    weight = merged(weight, factors, scale, module->second.transposed);
  }
  return std::make_shared<const CausalLM>(base.config(), [&](const std::string& name) {
    const auto found = weights.find(name);
    return found == weights.end() ? at::Tensor() : found->second;
  });
}

}  // namespace titer

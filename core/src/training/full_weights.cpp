#include "training/full_weights.h"

#include <set>

#include "linear_modules.h"
#include "training/training_flops.h"
#include "weight_reader.h"

namespace titer {
namespace {

ParameterKind kind_of(const std::string& name, const at::Tensor& tensor, const std::set<std::string>& matrices) {
  if (tensor.dim() < 2) return ParameterKind::kVector;
  return matrices.contains(name) ? ParameterKind::kMatrix : ParameterKind::kEmbedding;
}

}  // namespace

FullWeights::FullWeights(const CausalLM& model) : model_(model) {
  std::set<std::string> matrices;
  for (const LinearModule& module : linear_modules(model.config())) matrices.insert(module.name + ".weight");
  std::vector<ParameterShape> shapes;
  for (const auto& [name, tensor] : model.parameters())
    shapes.push_back({name, tensor.sizes().vec(), kind_of(name, tensor, matrices)});
  parameters_ = std::make_unique<RunParameters>(/*num_runs=*/1, std::move(shapes), parameter_options(model));
  for (const auto& [name, tensor] : model.parameters()) (*parameters_)[name][0].copy_(tensor);
}

WeightSource FullWeights::source(bool copies) const {
  std::set<std::string> known;
  for (const auto& [name, tensor] : model_.parameters()) known.insert(name);
  return [this, copies, known](const std::string& name) {
    if (!known.contains(name)) return at::Tensor();
    const at::Tensor values = copies ? (*parameters_)[name] : parameters_->leaf(name, /*first_run=*/0, /*count=*/1);
    return values.select(0, 0).to(model_.dtype(), /*non_blocking=*/false, copies);
  };
}

ModelWeights FullWeights::weights(const TrainingBatch&) const {
  std::vector<std::pair<std::string, at::Tensor>> taken;
  return read_weights(model_.config(), source(/*copies=*/false), taken);
}

double FullWeights::flops(const TrainingBatch& batch) const {
  return training_flops(model_, batch, /*all_weights=*/true);
}

void FullWeights::write_result(int64_t, FinetuneResult& result) const {
  result.model = std::make_shared<const CausalLM>(model_.config(), source(/*copies=*/true));
}

}  // namespace titer

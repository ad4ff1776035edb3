#include "training/adapter_bank.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>
#include <titer/core/philox.h>
#include <titer/core/weights_sha256.h>
#include <titer/kernels/batched_lora.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "training/training_flops.h"

namespace titer {
namespace {

/// As torch's kaiming_uniform_ with a of sqrt(5), which PEFT uses.
at::Tensor first_factor(int64_t rank, int64_t in_features, uint64_t seed, size_t module) {
  const at::Tensor out = at::empty({rank, in_features}, at::kFloat);
  const double bound = 1 / std::sqrt(static_cast<double>(in_features));
  Philox random(seed, RandomPurpose::kParameterInitialisation, /*step=*/0, /*item=*/module);
  float* const value = out.mutable_data_ptr<float>();
  for (int64_t i = 0; i < out.numel(); ++i) value[i] = static_cast<float>((2 * random.uniform() - 1) * bound);
  return out;
}

/// Dropout of every run that has any: some numbers become zero, the others larger. Draws belong to a row of a sequence,
/// so that they do not depend on which rows are computed.
at::Tensor dropped(const at::Tensor& x, const TrainingBatch& batch, const std::vector<FinetuneOptions>& runs,
                   size_t module) {
  const bool is_wanted = x.size(0) != batch.ids.size(0);
  const at::Tensor factors = at::empty(x.sizes(), at::kFloat);
  float* factor = factors.mutable_data_ptr<float>();
  for (size_t i = 0; i < batch.items.size(); ++i) {
    const BatchItem& item = batch.items[i];
    const FinetuneOptions& run = runs[static_cast<size_t>(item.run)];
    const auto kept = static_cast<float>(1 / (1 - run.lora_dropout));
    for (int64_t row = is_wanted ? batch.lengths[i] - *batch.queries : 0; row < batch.lengths[i]; ++row) {
      const uint64_t draw = static_cast<uint64_t>(item.item) << 40U | module << 20U | static_cast<uint64_t>(row);
      if (run.lora_dropout == 0) {
        factor = std::fill_n(factor, x.size(1), 1.0F);
        continue;
      }
      Philox random(static_cast<uint64_t>(run.seed), RandomPurpose::kDropout, static_cast<uint32_t>(item.step), draw);
      for (int64_t j = 0; j < x.size(1); ++j) *factor++ = random.uniform() < run.lora_dropout ? 0.0F : kept;
    }
  }
  return x * factors.to(x.device(), x.scalar_type());
}

}  // namespace

/// The adapters of a batch's runs on one product of a layer.
class AdapterBank::Product final : public LinearAdapter {
 public:
  /// @param b  [runs of the batch, rows of the product, r]
  Product(const AdapterBank& bank, const TrainingBatch& batch, size_t module, at::Tensor a, at::Tensor b)
      : bank_(bank), batch_(batch), module_(module), a_(std::move(a)), b_(std::move(b)) {}

  at::Tensor add_to(const at::Tensor& y, const at::Tensor& x) const override {
    const auto drops = [](const FinetuneOptions& run) { return run.lora_dropout > 0; };
    const at::Tensor read =
        std::any_of(bank_.runs_.begin(), bank_.runs_.end(), drops) ? dropped(x, batch_, bank_.runs_, module_) : x;
    const auto scale = bank_.scale_.begin() + batch_.first_run;
    return ops::batched_lora_(y, read, {a_, b_, batch_.rows_of_runs(x.size(0)), {scale, scale + batch_.num_runs()}});
  }

 private:
  const AdapterBank& bank_;
  const TrainingBatch& batch_;
  size_t module_;
  at::Tensor a_, b_;
};

AdapterBank::AdapterBank(const CausalLM& model, const std::vector<FinetuneOptions>& runs)
    : model_(model),
      runs_(runs),
      modules_(linear_modules(model.config(), runs.front().target_modules, "[lora]")),
      base_(weights_sha256(model)) {
  const int64_t rank = runs.front().lora_rank;
  std::vector<ParameterShape> shapes;
  for (const LinearModule& module : modules_) {
    shapes.push_back({a_of(module), {rank, module.in_features}});
    shapes.push_back({b_of(module), {module.out_features, rank}});
  }
  const auto num_runs = static_cast<int64_t>(runs_.size());
  parameters_ = std::make_unique<RunParameters>(num_runs, std::move(shapes), parameter_options(model));
  for (const FinetuneOptions& run : runs_) {
    TORCH_INTERNAL_ASSERT(run.lora_rank == rank && run.target_modules == runs.front().target_modules);
    const auto k = static_cast<int64_t>(scale_.size());
    scale_.push_back(lora_scale(run.lora_alpha, rank, run.use_rslora));
    for (size_t m = 0; m < modules_.size(); ++m)
      (*parameters_)[a_of(modules_[m])][k].copy_(
          first_factor(rank, modules_[m].in_features, static_cast<uint64_t>(run.seed), m));
  }
}

ModelWeights AdapterBank::weights(const TrainingBatch& batch) const {
  ModelWeights out = model_.weights();
  for (size_t m = 0; m < modules_.size(); ++m) {
    LayerWeights& layer = out.layers[static_cast<size_t>(modules_[m].layer)];
    const at::Tensor a = parameters_->leaf(a_of(modules_[m]), batch.first_run, batch.num_runs());
    const at::Tensor b = parameters_->leaf(b_of(modules_[m]), batch.first_run, batch.num_runs());
    for (const auto& [product, first_row, rows] : modules_[m].parts) {
      const at::Tensor of_part = rows == modules_[m].out_features ? b : b.narrow(1, first_row, rows);
      (layer.*product).adapter = std::make_shared<Product>(*this, batch, m, a, of_part);
    }
  }
  return out;
}

double AdapterBank::flops(const TrainingBatch& batch) const {
  double products = 0;
  for (const LinearModule& module : modules_) {
    for (const LinearModule::Part& part : module.parts) {
      const bool reads_all = part.product == &LayerWeights::k || part.product == &LayerWeights::v ||
                             part.product == &LayerWeights::qkv || module.layer + 1 < model_.config().num_layers;
      const int64_t rows = reads_all || !batch.wanted.defined() ? batch.ids.size(0) : batch.wanted.size(0);
      products += static_cast<double>(rows * runs_.front().lora_rank * (module.in_features + part.rows));
    }
  }
  // Each factor's product once forward, and back once for its input and once for itself.
  return training_flops(model_, batch, /*all_weights=*/false) + 3 * 2 * products;
}

void AdapterBank::write_result(int64_t run, FinetuneResult& result) const {
  const FinetuneOptions& options = runs_[static_cast<size_t>(run)];
  LoraAdapter out;
  out.rank = options.lora_rank;
  out.alpha = options.lora_alpha;
  out.dropout = options.lora_dropout;
  out.use_rslora = options.use_rslora;
  std::set<std::string> targets;
  for (const LinearModule& module : modules_) {
    targets.insert(module.name.substr(module.name.rfind('.') + 1));
    const auto copy = [&](const std::string& name) {
      return (*parameters_)[name][run].to(at::kCPU, at::kFloat, /*non_blocking=*/false, /*copy=*/true);
    };
    out.modules[module.name] = {copy(a_of(module)), copy(b_of(module))};
  }
  out.target_modules.assign(targets.begin(), targets.end());
  out.base = base_;
  result.adapter = std::move(out);
}

}  // namespace titer

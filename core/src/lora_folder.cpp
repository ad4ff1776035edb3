// Adapters as PEFT keeps them: adapter_config.json and adapter_model.safetensors.
#include <ATen/ops/from_blob.h>
#include <ATen/ops/isfinite.h>
#include <c10/util/Exception.h>
#include <titer/core/atomic_file.h>
#include <titer/core/folder_file.h>
#include <titer/core/lora_adapter.h>
#include <titer/core/safetensors.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>
#include <span>

#include "pass_guard.h"
#include "stored_tensor.h"

namespace titer {
namespace {

using nlohmann::json;

constexpr std::string_view kConfigFile = "adapter_config.json", kWeightsFile = "adapter_model.safetensors";
constexpr std::string_view kPrefix = "base_model.model.", kA = ".lora_A.weight", kB = ".lora_B.weight";
constexpr std::string_view kBase = "titer.base", kTemplate = "titer.chat_template";
constexpr size_t kMaxConfigBytes = size_t{1} << 20;

// Keys that this code reads, and those that say nothing of what a trained adapter computes. All others must be null,
// false or empty: what PEFT may add one day is then refused instead of left out.
// Where init_lora_weights has one of these names, factors begin otherwise, but the base stays as it is.
constexpr std::array<std::string_view, 3> kPlainInitialisations{"eva", "gaussian", "orthogonal"};
constexpr std::array<std::string_view, 7> kRead{"init_lora_weights", "peft_type", "r", "lora_alpha", "bias",
                                                "lora_dropout",      "use_rslora"};
constexpr std::array<std::string_view, 20> kIgnored{
    "auto_mapping",    "base_model_name_or_path", "corda_config",   "ensure_weight_tying",
    "eva_config",      "exclude_modules",         "fan_in_fan_out", "inference_mode",
    "layers_pattern",  "layers_to_transform",     "loftq_config",   "lora_ga_config",
    "megatron_config", "megatron_core",           "peft_version",   "qalora_group_size",
    "revision",        "target_modules",          "task_type",      "runtime_config"};

template <typename Keys>
bool contains(const Keys& keys, std::string_view key) {
  return std::find(keys.begin(), keys.end(), key) != keys.end();
}

bool says_nothing(const json& value) {
  return value.is_null() || value == false || ((value.is_object() || value.is_array()) && value.empty());
}

class ConfigReader {
 public:
  explicit ConfigReader(const std::filesystem::path& folder) : path_((folder / kConfigFile).string()) {
    const std::optional<std::string> text = read_folder_json(folder, kConfigFile, kMaxConfigBytes);
    TORCH_CHECK_VALUE(text.has_value(), "[lora] expected the folder of an adapter, with ", kConfigFile, " (",
                      folder.string(), ")");
    config_ = json::parse(*text);
  }

  LoraAdapter read() const {
    require("peft_type", "LORA");
    require("bias", "none");
    const json start = config_.value("init_lora_weights", json(true));
    check(start.is_boolean() || (start.is_string() && contains(kPlainInitialisations, start.get<std::string>())),
          "init_lora_weights", "is " + start.dump().substr(0, 80) + ", which changes the base, too");
    for (const auto& [key, value] : config_.items())
      check(contains(kRead, key) || contains(kIgnored, key) || says_nothing(value), key,
            "is " + value.dump().substr(0, 80) + ", which is not supported: only plain LoRA is");
    LoraAdapter out;
    const json& r = at("r");
    check(r.is_number_integer() && r.get<int64_t>() >= 1, "r", "must be a whole number from 1");
    out.rank = r.get<int64_t>();
    out.alpha = number("lora_alpha");
    check(out.alpha > 0 && std::isfinite(out.alpha), "lora_alpha", "must be above 0");
    out.dropout = config_.contains("lora_dropout") ? number("lora_dropout") : 0;
    out.use_rslora = config_.value("use_rslora", json(false)) == true;
    return out;
  }

 private:
  const json& at(const std::string& key) const {
    check(config_.contains(key), key, "is missing");
    return config_.at(key);
  }
  double number(const std::string& key) const {
    const json& value = at(key);
    check(value.is_number(), key, "must be a number, got " + value.dump().substr(0, 80));
    return value.get<double>();
  }
  void require(const std::string& key, const std::string& expected) const {
    const json& value = at(key);
    check(value == expected, key, "is " + value.dump().substr(0, 80) + ", expected " + json(expected).dump());
  }
  void check(bool condition, const std::string& key, const std::string& what) const {
    TORCH_CHECK_VALUE(condition, "[lora] '", key, "' ", what, " (", path_, ")");
  }

  std::string path_;
  json config_;
};

void read_factors(const SafetensorsFile& file, const std::string& path, LoraAdapter& adapter) {
  for (const StoredTensor& stored : file.tensors()) {
    const std::string_view name = stored.name;
    const bool is_a = name.ends_with(kA), is_b = name.ends_with(kB);
    TORCH_CHECK_VALUE(name.starts_with(kPrefix) && (is_a || is_b), "[lora] tensor '", name,
                      "' is no factor of a linear layer; only plain LoRA is supported (", path, ")");
    const std::string module(name.substr(kPrefix.size(), name.size() - kPrefix.size() - kA.size()));
    const at::Tensor tensor = tensor_in_file(stored, "lora").to(at::kFloat, /*non_blocking=*/false, /*copy=*/true);
    TORCH_CHECK_VALUE(tensor.dim() == 2 && tensor.size(is_a ? 0 : 1) == adapter.rank, "[lora] tensor '", name,
                      "' has shape ", tensor.sizes(), ", which does not have the rank ", adapter.rank, " (", path, ")");
    TORCH_CHECK_VALUE(at::isfinite(tensor).all().item<bool>(), "[lora] tensor '", name, "' holds an infinity or NaN (",
                      path, ")");
    LoraAdapter::Factors& factors = adapter.modules[module];
    (is_a ? factors.a : factors.b) = tensor;
  }
  TORCH_CHECK_VALUE(!adapter.modules.empty(), "[lora] the file holds no adapter (", path, ")");
  std::set<std::string> targets;
  for (const auto& [module, factors] : adapter.modules) {
    TORCH_CHECK_VALUE(factors.a.defined() && factors.b.defined(), "[lora] '", module, "' lacks lora_",
                      factors.a.defined() ? "B" : "A", " (", path, ")");
    targets.insert(module.substr(module.rfind('.') + 1));
  }
  adapter.target_modules.assign(targets.begin(), targets.end());
}

}  // namespace

void save_lora_adapter(const LoraAdapter& adapter, const std::filesystem::path& folder, const std::string& base_name) {
  std::vector<at::Tensor> keep;
  std::vector<StoredTensor> tensors;
  const auto add = [&](const std::string& name, const at::Tensor& factor) {
    keep.push_back(factor.detach().to(at::kCPU, at::kFloat).contiguous());
    tensors.push_back(stored_tensor(name, keep.back()));
  };
  for (const auto& [module, factors] : adapter.modules) {
    add(std::string(kPrefix) + module + std::string(kA), factors.a);
    add(std::string(kPrefix) + module + std::string(kB), factors.b);
  }
  const json config{{"peft_type", "LORA"},
                    {"task_type", "CAUSAL_LM"},
                    {"base_model_name_or_path", base_name.empty() ? json() : json(base_name)},
                    {"r", adapter.rank},
                    {"lora_alpha", adapter.alpha},
                    {"lora_dropout", adapter.dropout},
                    {"use_rslora", adapter.use_rslora},
                    {"target_modules", adapter.target_modules},
                    {"bias", "none"},
                    {"inference_mode", true}};
  std::filesystem::create_directories(folder);
  write_safetensors(
      folder / kWeightsFile, tensors,
      {{"format", "pt"}, {std::string(kBase), adapter.base}, {std::string(kTemplate), adapter.template_hash}});
  write_file_atomically(folder / kConfigFile, config.dump(2) + "\n");
}

LoraAdapter load_lora_adapter(const std::filesystem::path& folder) {
  const PassGuard guard(/*gradients=*/false);
  LoraAdapter out = ConfigReader(folder).read();
  const std::filesystem::path path = folder_file(folder, kWeightsFile);
  const SafetensorsFile file(path);
  read_factors(file, path.string(), out);
  const auto stated = [&](std::string_view key) {
    const auto found = file.metadata().find(std::string(key));
    return found == file.metadata().end() ? std::string() : found->second;
  };
  out.base = stated(kBase);
  out.template_hash = stated(kTemplate);
  return out;
}

}  // namespace titer

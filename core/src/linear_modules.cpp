#include "linear_modules.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <set>

#include "weight_layout.h"

namespace titer {
namespace {

bool names(std::string_view target, std::string_view module) {
  if (!module.ends_with(target)) return false;
  return module.size() == target.size() || module[module.size() - target.size() - 1] == '.';
}

/// The names within a layer, each once.
std::string known_targets(const std::vector<LinearModule>& modules) {
  std::string out;
  std::set<std::string> seen;
  for (const LinearModule& module : modules) {
    const std::string last = module.name.substr(module.name.rfind('.') + 1);
    if (seen.insert(last).second) out += (out.empty() ? "" : ", ") + last;
  }
  return out;
}

}  // namespace

std::vector<LinearModule> linear_modules(const ModelConfig& config) {
  const WeightLayout& layout = weight_layout(config.family);
  const int64_t d = config.hidden_size, f = config.intermediate_size;
  const int64_t heads = config.num_heads * config.head_dim, kv_heads = config.num_kv_heads * config.head_dim;
  std::vector<LinearModule> out;
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    const std::string prefix = std::string(layout.base) + std::string(layout.layers) + std::to_string(layer) + ".";
    const auto add = [&](std::string_view name, int64_t in_features, std::vector<LinearModule::Part> parts) {
      int64_t rows = 0;
      for (const LinearModule::Part& part : parts) rows += part.rows;
      out.push_back({prefix + std::string(name), layer, rows, in_features, layout.transposed, std::move(parts)});
    };
    switch (layout.qkv_layout) {
      case WeightLayout::Qkv::kSeparate:
        add(layout.q, d, {{&LayerWeights::q, 0, heads}});
        add(layout.k, d, {{&LayerWeights::k, 0, kv_heads}});
        add(layout.v, d, {{&LayerWeights::v, 0, kv_heads}});
        break;
      case WeightLayout::Qkv::kStacked:
        add(layout.qkv, d,
            {{&LayerWeights::q, 0, heads},
             {&LayerWeights::k, heads, kv_heads},
             {&LayerWeights::v, heads + kv_heads, kv_heads}});
        break;
      case WeightLayout::Qkv::kByHead:
        add(layout.qkv, d, {{&LayerWeights::qkv, 0, 3 * heads}});
        break;
    }
    add(layout.o, heads, {{&LayerWeights::o, 0, d}});
    if (!layout.gate_up.empty()) {
      add(layout.gate_up, d, {{&LayerWeights::gate, 0, f}, {&LayerWeights::up, f, f}});
    } else {
      if (config.gated_mlp) add(layout.gate, d, {{&LayerWeights::gate, 0, f}});
      add(layout.up, d, {{&LayerWeights::up, 0, f}});
    }
    add(layout.down, f, {{&LayerWeights::down, 0, d}});
  }
  return out;
}

std::vector<LinearModule> linear_modules(const ModelConfig& config, const std::vector<std::string>& targets,
                                         const std::string& where) {
  std::vector<LinearModule> all = linear_modules(config);
  if (targets.empty()) return all;
  for (const std::string& target : targets) {
    const bool found = std::any_of(all.begin(), all.end(), [&](const auto& m) { return names(target, m.name); });
    TORCH_CHECK_VALUE(found, where, ": target_modules: '", target, "' names no linear layer of this ", config.family,
                      " model; its layers have ", known_targets(all));
  }
  std::erase_if(all, [&](const LinearModule& module) {
    return std::none_of(targets.begin(), targets.end(), [&](const auto& t) { return names(t, module.name); });
  });
  return all;
}

}  // namespace titer

#include "weight_reader.h"

#include <c10/util/Exception.h>

#include "weight_layout.h"

namespace titer {
namespace {

/// Takes parameters from a source by their names, checks them, and cuts what is fused into views.
class WeightReader {
 public:
  WeightReader(const ModelConfig& config, const WeightSource& source,
               std::vector<std::pair<std::string, at::Tensor>>& parameters)
      : config_(config),
        layout_(weight_layout(config.family)),
        source_(source),
        parameters_(parameters),
        base_(layout_.base) {}

  ModelWeights read() {
    ModelWeights out;
    const int64_t d = config_.hidden_size;
    out.embedding = embedding();
    if (!layout_.positions.empty())
      out.positions = take(name(layout_.positions) + ".weight", {config_.max_position_embeddings, d});
    for (int64_t i = 0; i < config_.num_layers; ++i)
      out.layers.push_back(read_layer(name(layout_.layers) + std::to_string(i) + "."));
    out.final_norm = norm(name(layout_.final_norm), d);
    out.lm_head = config_.tie_word_embeddings ? out.embedding : lm_head();
    return out;
  }

 private:
  /// Files of a bare transformer, without the head that the class around it adds, leave the first part of names out.
  at::Tensor embedding() {
    const std::string bare = std::string(layout_.embedding) + ".weight";
    at::Tensor tensor = source_(name(bare));
    if (!tensor.defined()) {
      tensor = source_(bare);
      if (tensor.defined()) base_ = "";
    }
    return keep(name(bare), tensor, {config_.vocab_size, config_.hidden_size});
  }

  /// transformers 5 gives every family's head one name in memory, whatever it is called in files.
  at::Tensor lm_head() {
    const std::string stored = std::string(layout_.lm_head) + ".weight";
    const at::Tensor tensor = source_(stored);
    const at::Tensor head = tensor.defined() ? tensor : source_("lm_head.weight");
    return keep(stored, head, {config_.vocab_size, config_.hidden_size});
  }

  std::string name(std::string_view part) const { return std::string(base_) + std::string(part); }

  LayerWeights read_layer(const std::string& prefix) {
    const auto in_layer = [&](std::string_view part) { return prefix + std::string(part); };
    const auto norm_if_any = [&](std::string_view part, int64_t width) {
      return part.empty() ? NormWeights{} : norm(in_layer(part), width);
    };
    const int64_t d = config_.hidden_size;
    const int64_t f = config_.intermediate_size;
    const int64_t heads = config_.num_heads * config_.head_dim;
    const int64_t kv_heads = config_.num_kv_heads * config_.head_dim;

    LayerWeights out;
    out.attention_norm = norm_if_any(layout_.attention_norm, d);
    switch (layout_.qkv_layout) {
      case WeightLayout::Qkv::kSeparate:
        out.q = linear(in_layer(layout_.q), heads, d, config_.qkv_bias);
        out.k = linear(in_layer(layout_.k), kv_heads, d, config_.qkv_bias);
        out.v = linear(in_layer(layout_.v), kv_heads, d, config_.qkv_bias);
        break;
      case WeightLayout::Qkv::kStacked: {
        const LinearWeights qkv = linear(in_layer(layout_.qkv), heads + 2 * kv_heads, d, config_.qkv_bias);
        out.q = rows(qkv, 0, heads);
        out.k = rows(qkv, heads, kv_heads);
        out.v = rows(qkv, heads + kv_heads, kv_heads);
        break;
      }
      case WeightLayout::Qkv::kByHead:
        out.qkv = linear(in_layer(layout_.qkv), 3 * heads, d, config_.qkv_bias);
        break;
    }
    if (config_.qk_norm != QkNorm::kNone) {
      const bool by_head = config_.qk_norm == QkNorm::kHead;
      out.q_norm = norm(in_layer(layout_.q_norm), by_head ? config_.head_dim : heads);
      out.k_norm = norm(in_layer(layout_.k_norm), by_head ? config_.head_dim : kv_heads);
    }
    out.o = linear(in_layer(layout_.o), d, heads, config_.output_bias);
    out.post_attention_norm = norm_if_any(layout_.post_attention_norm, d);
    out.mlp_norm = norm_if_any(layout_.mlp_norm, d);
    if (!layout_.gate_up.empty()) {
      const LinearWeights both = linear(in_layer(layout_.gate_up), 2 * f, d, config_.mlp_bias);
      out.gate = rows(both, 0, f);
      out.up = rows(both, f, f);
    } else {
      if (config_.gated_mlp) out.gate = linear(in_layer(layout_.gate), f, d, config_.mlp_bias);
      out.up = linear(in_layer(layout_.up), f, d, config_.mlp_bias);
    }
    out.down = linear(in_layer(layout_.down), d, f, config_.mlp_bias);
    out.post_mlp_norm = norm_if_any(layout_.post_mlp_norm, d);
    return out;
  }

  NormWeights norm(const std::string& name, int64_t width) {
    return {take(name + ".weight", {width}),
            config_.norm == Norm::kLayer ? take(name + ".bias", {width}) : at::Tensor()};
  }

  LinearWeights linear(const std::string& name, int64_t out, int64_t in, bool bias) {
    const at::Tensor weight =
        layout_.transposed ? take(name + ".weight", {in, out}).t() : take(name + ".weight", {out, in});
    return {weight, bias ? take(name + ".bias", {out}) : at::Tensor()};
  }

  static LinearWeights rows(const LinearWeights& w, int64_t first, int64_t count) {
    return {w.weight.narrow(0, first, count), w.bias.defined() ? w.bias.narrow(0, first, count) : at::Tensor()};
  }

  at::Tensor take(const std::string& name, at::IntArrayRef shape) { return keep(name, source_(name), shape); }

  at::Tensor keep(const std::string& name, const at::Tensor& tensor, at::IntArrayRef shape) {
    TORCH_CHECK_VALUE(tensor.defined(), "[load_model] weight '", name, "' is missing");
    TORCH_CHECK_VALUE(tensor.sizes() == shape, "[load_model] weight '", name, "' must have shape ", shape, ", got ",
                      tensor.sizes());
    TORCH_CHECK_VALUE(at::isFloatingType(tensor.scalar_type()) && tensor.layout() == at::kStrided,
                      "[load_model] weight '", name, "' must be a dense floating-point tensor, got ",
                      tensor.toString());
    TORCH_CHECK_VALUE(!tensor.is_inference(), "[load_model] weight '", name,
                      "' was made under inference mode, which autograd cannot use; clone it outside");
    if (!parameters_.empty()) {
      const auto& [first_name, first] = parameters_.front();
      TORCH_CHECK_VALUE(tensor.scalar_type() == first.scalar_type() && tensor.device() == first.device(),
                        "[load_model] all weights must share one dtype and device: '", name, "' is ",
                        tensor.scalar_type(), " on ", tensor.device(), ", '", first_name, "' is ", first.scalar_type(),
                        " on ", first.device());
    }
    parameters_.emplace_back(name, tensor);
    return tensor;
  }

  const ModelConfig& config_;
  const WeightLayout& layout_;
  const WeightSource& source_;
  std::vector<std::pair<std::string, at::Tensor>>& parameters_;
  std::string_view base_;
};

}  // namespace

ModelWeights read_weights(const ModelConfig& config, const WeightSource& source,
                          std::vector<std::pair<std::string, at::Tensor>>& parameters) {
  return WeightReader(config, source, parameters).read();
}

}  // namespace titer

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <titer/core/model_config.h>

#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>

namespace titer {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;

json sizes(const std::string& family) {
  if (family == "gpt2")
    return {{"model_type", family}, {"vocab_size", 320}, {"n_embd", 32}, {"n_layer", 2}, {"n_head", 4}};
  return {{"model_type", family},    {"vocab_size", 320},        {"hidden_size", 32},       {"intermediate_size", 64},
          {"num_hidden_layers", 12}, {"num_attention_heads", 4}, {"num_key_value_heads", 2}};
}

ModelConfig read(const std::string& family, const json& changes = json::object()) {
  json config = sizes(family);
  config.update(changes);
  return parse_model_config(config.dump(), "config.json");
}

void expect_refused(const std::string& family, const json& changes, const std::string& message) {
  EXPECT_THAT([&] { read(family, changes); }, ThrowsMessage<std::invalid_argument>(HasSubstr(message))) << changes;
}

std::vector<int64_t> windows(const ModelConfig& config) {
  std::vector<int64_t> out;
  for (const LayerConfig& layer : config.layers) out.push_back(layer.sliding_window.value_or(0));
  return out;
}

TEST(ModelConfig, what_files_leave_unsaid_is_what_transformers_assumes) {
  EXPECT_EQ(read("mistral").layers[11].sliding_window, 4096);
  EXPECT_EQ(read("mistral", {{"sliding_window", nullptr}}).layers[11].sliding_window, std::nullopt);
  EXPECT_EQ(read("qwen3").head_dim, 128);
  EXPECT_EQ(read("gemma2").logit_soft_cap, 30.0);
  EXPECT_EQ(read("gemma2", {{"final_logit_softcapping", nullptr}}).logit_soft_cap, std::nullopt);
  EXPECT_TRUE(read("gemma2").tie_word_embeddings);
  EXPECT_EQ(read("gpt2").intermediate_size, 128);
  EXPECT_EQ(read("gpt2").max_position_embeddings, 1024);
  EXPECT_TRUE(read("gpt2").ropes.empty());
  EXPECT_EQ(read("gpt_neox", {{"num_attention_heads", 2}}).ropes[0].rotary_dim, 4);
  EXPECT_EQ(read("gpt_neox").num_kv_heads, 4);
  EXPECT_TRUE(read("gpt_neox").parallel_residual);
}

TEST(ModelConfig, sliding_windows_follow_the_rule_of_the_family_or_the_list) {
  EXPECT_THAT(windows(read("gemma3_text")),
              ElementsAre(4096, 4096, 4096, 4096, 4096, 0, 4096, 4096, 4096, 4096, 4096, 0));
  EXPECT_THAT(windows(read("gemma3_text", {{"num_hidden_layers", 3}, {"sliding_window_pattern", 2}})),
              ElementsAre(4096, 0, 4096));
  EXPECT_THAT(windows(read("gemma2", {{"num_hidden_layers", 3}, {"sliding_window_pattern", 3}})),
              ElementsAre(4096, 0, 4096));  // a key that this family does not read
  const json upper{{"num_hidden_layers", 3}, {"use_sliding_window", true}, {"max_window_layers", 2}};
  EXPECT_THAT(windows(read("qwen2", upper)), ElementsAre(0, 0, 4096));
  EXPECT_THAT(windows(read("qwen2", {{"num_hidden_layers", 3}, {"max_window_layers", 0}})), ElementsAre(0, 0, 0));
  const json listed{{"num_hidden_layers", 2}, {"layer_types", {"full_attention", "sliding_attention"}}};
  EXPECT_THAT(windows(read("gemma2", listed)), ElementsAre(0, 4096));
}

TEST(ModelConfig, layers_with_a_window_rotate_by_a_base_of_their_own_in_gemma3) {
  const ModelConfig old = read(
      "gemma3_text",
      {{"rope_theta", 5e5}, {"rope_local_base_freq", 2e4}, {"rope_scaling", {{"rope_type", "linear"}, {"factor", 8}}}});
  const json parameters{{"full_attention", {{"rope_type", "linear"}, {"rope_theta", 5e5}, {"factor", 8}}},
                        {"sliding_attention", {{"rope_type", "default"}, {"rope_theta", 2e4}}}};
  for (const ModelConfig& config : {old, read("gemma3_text", {{"rope_parameters", parameters}})}) {
    ASSERT_EQ(config.ropes.size(), 2);
    EXPECT_EQ(config.ropes[0].theta, 5e5);
    EXPECT_EQ(config.ropes[0].type, RopeConfig::Type::kLinear);
    EXPECT_EQ(config.ropes[1].theta, 2e4);
    EXPECT_EQ(config.ropes[1].type, RopeConfig::Type::kDefault);
    EXPECT_EQ(config.layers[4].rope, 1);
    EXPECT_EQ(config.layers[5].rope, 0);
  }
}

TEST(ModelConfig, what_is_not_supported_is_refused_by_key) {
  expect_refused("mamba", json::object(),
                 "'model_type' is 'mamba', which is not supported; supported: llama, mistral, qwen2");
  expect_refused("llama", {{"layer_types", json::array()}, {"num_hidden_layers", 20000}},
                 "'num_hidden_layers' is 20000");
  expect_refused("llama", {{"num_hidden_layers", 1}, {"layer_types", {"sliding_attention"}}}, "'layer_types' asks for");
  expect_refused("qwen3", {{"layer_types", {"full_attention"}}}, "an entry for each of the 12 layers, got 1");
  expect_refused("qwen3", {{"layer_types", {"linear_attention"}}}, "'layer_types' holds 'linear_attention'");
  expect_refused("gemma3_text", {{"use_bidirectional_attention", true}}, "'use_bidirectional_attention' is true");
  expect_refused("gemma3_text", {{"attn_logit_softcapping", 50.0}}, "'attn_logit_softcapping' is set");
  expect_refused("gpt2", {{"add_cross_attention", true}}, "'add_cross_attention' is true");
  expect_refused("gpt2", {{"activation_function", "relu"}}, "'activation_function' is 'relu'");
  expect_refused("phi3",
                 {{"rope_scaling", {{"type", "longrope"}, {"short_factor", {1}}, {"long_factor", {1, 1, 1, 1}}}}},
                 "'rope_scaling.short_factor' must be a list of 4 finite numbers above 0");
  expect_refused("phi3", {{"rope_parameters", {{"partial_rotary_factor", 0.4}}}},
                 "'rope_parameters.partial_rotary_factor'");
  expect_refused("llama", {{"partial_rotary_factor", 0.5}}, "'partial_rotary_factor' must be 1 for this family");
  expect_refused("llama", {{"hidden_act", std::string(1000, 'x')}}, "'hidden_act' is");
}

}  // namespace
}  // namespace titer

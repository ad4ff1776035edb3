// A config.json: it is read into a configuration whose sizes a loader can rely on, or refused with a message that is
// valid UTF-8 and names the file.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <stdexcept>
#include <string_view>

#include "titer/core/model_config.h"
#include "utf8.h"

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

void check_promises(const titer::ModelConfig& config) {
  constexpr int64_t kLargest = int64_t{1} << 30;
  for (const int64_t size : {config.vocab_size, config.hidden_size, config.intermediate_size, config.num_layers,
                             config.num_heads, config.num_kv_heads, config.head_dim, config.max_position_embeddings})
    require(size >= 1);
  require(config.vocab_size <= kLargest && config.hidden_size <= kLargest && config.head_dim <= kLargest);
  require(config.num_heads % config.num_kv_heads == 0);
  require(config.layers.size() == static_cast<std::size_t>(config.num_layers));
  for (const titer::LayerConfig& layer : config.layers) {
    require(config.ropes.empty() || layer.rope < config.ropes.size());
    require(!layer.sliding_window || *layer.sliding_window >= 1);
  }
  for (const titer::RopeConfig& rope : config.ropes) {
    require(rope.rotary_dim >= 2 && rope.rotary_dim % 2 == 0 && rope.rotary_dim <= config.head_dim);
    if (rope.type != titer::RopeConfig::Type::kLongRope) continue;
    require(rope.short_factors.size() == static_cast<std::size_t>(rope.rotary_dim / 2));
    require(rope.long_factors.size() == rope.short_factors.size());
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    check_promises(titer::parse_model_config({reinterpret_cast<const char*>(data), size}, "fuzz.json"));
  } catch (const std::invalid_argument& error) {
    const std::string_view message = error.what();
    require(titer::first_invalid_utf8(message) == message.size() && message.find("fuzz.json") != message.npos);
  }
  return 0;
}

// Shapes, masks and layouts of token_gradient_topk: one table for values and speed.
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <cstdint>
#include <ostream>
#include <string>
#include <vector>

namespace titer::test {

enum class TopkLayout {
  kContiguous,
  kTransposedGradient,  ///< gradient is a view with stride 1 along the positions
  kPaddedEmbedding,     ///< rows of the embedding are longer than d, by an even number
  kOddStrideEmbedding,  ///< by an odd number
  kStridedMask,         ///< every second entry of a longer one
};

enum class TopkMask {
  kAll,
  kHalf,        ///< a random half
  kFew,         ///< fewer than k
  kNone,        ///< of the tokens
  kWholeTiles,  ///< none of the tokens 128 to 383
};

struct TopkCase {
  std::string name;
  int64_t positions, d, vocab, k;
  TopkMask mask = TopkMask::kHalf;
  TopkLayout layout = TopkLayout::kContiguous;
};

inline std::ostream& operator<<(std::ostream& out, const TopkCase& c) { return out << c.name; }

struct TopkInputs {
  at::Tensor gradient, embedding, allowed;
};

inline std::vector<TopkCase> topk_cases() {
  return {
      {"no_position", 0, 8, 50, 4},
      {"one_position", 1, 8, 50, 4},
      {"one_token", 3, 8, 1, 1, TopkMask::kAll},
      {"width_one", 3, 1, 200, 7},
      {"width_odd", 5, 37, 300, 20},
      {"best_only", 20, 16, 1000, 1},
      {"vocab_of_one_tile", 20, 16, 128, 30},
      {"vocab_one_above_a_tile", 20, 16, 129, 30},
      {"vocab_not_a_multiple", 17, 48, 2999, 100},
      {"every_token", 6, 12, 700, 700, TopkMask::kAll},
      {"every_allowed_token", 6, 12, 700, 700},
      {"fewer_than_k", 6, 12, 700, 50, TopkMask::kFew},
      {"none_allowed", 6, 12, 700, 50, TopkMask::kNone},
      {"tiles_without_an_allowed_token", 6, 12, 700, 50, TopkMask::kWholeTiles},
      {"positions_of_one_block", 64, 24, 515, 40},
      {"positions_of_several_groups", 1100, 16, 300, 9},
      {"tiles_of_the_gpu", 3, 8, 70000, 300},
      {"transposed_gradient", 10, 30, 500, 40, TopkMask::kHalf, TopkLayout::kTransposedGradient},
      {"padded_embedding", 10, 30, 500, 40, TopkMask::kHalf, TopkLayout::kPaddedEmbedding},
      {"odd_stride_embedding", 10, 30, 500, 40, TopkMask::kHalf, TopkLayout::kOddStrideEmbedding},
      {"strided_mask", 10, 30, 500, 40, TopkMask::kHalf, TopkLayout::kStridedMask},
  };
}

/// Slot and vocabulary of SmolLM2-135M and of Gemma 3 270M.
inline std::vector<TopkCase> topk_speed_cases() {
  return {{"smollm2", 20, 576, 49152, 256}, {"gemma3", 20, 640, 262144, 256}};
}

inline at::Tensor topk_mask(const TopkCase& c) {
  switch (c.mask) {
    case TopkMask::kAll:
      return at::ones({c.vocab}, at::kBool);
    case TopkMask::kNone:
      return at::zeros({c.vocab}, at::kBool);
    case TopkMask::kFew:
      return at::rand({c.vocab}) < static_cast<double>(c.k) / 3 / static_cast<double>(c.vocab);
    case TopkMask::kWholeTiles: {
      const at::Tensor mask = at::ones({c.vocab}, at::kBool);
      mask.narrow(0, 128, 256).fill_(false);
      return mask;
    }
    default:
      return at::rand({c.vocab}) < 0.5;
  }
}

inline TopkInputs with_layout(const TopkInputs& inputs, TopkLayout layout) {
  const auto& [gradient, embedding, allowed] = inputs;
  const auto padded = [&](int64_t before, int64_t after) {
    const int64_t d = embedding.size(1);
    return at::empty({embedding.size(0), before + d + after}, embedding.options())
        .fill_(7)
        .narrow(1, before, d)
        .copy_(embedding);
  };
  switch (layout) {
    case TopkLayout::kTransposedGradient:
      return {gradient.t().contiguous().t(), embedding, allowed};
    case TopkLayout::kPaddedEmbedding:
      return {gradient, padded(2, 4), allowed};
    case TopkLayout::kOddStrideEmbedding:
      return {gradient, padded(3, 2), allowed};
    case TopkLayout::kStridedMask:
      return {gradient, embedding,
              at::ones({2 * allowed.size(0)}, allowed.options()).slice(0, 0, 2 * allowed.size(0), 2).copy_(allowed)};
    default:
      return inputs;
  }
}

/// Random inputs, the same at every call; scores have standard deviation 1.
inline TopkInputs topk_inputs(const TopkCase& c, at::ScalarType dtype, at::Device device = at::kCPU) {
  at::manual_seed(29);
  const auto random = [&](int64_t rows, double scale) {
    return at::randn({rows, c.d}, at::TensorOptions().dtype(dtype == at::kDouble ? at::kDouble : at::kFloat))
        .mul_(scale)
        .to(device, dtype);
  };
  const at::Tensor gradient = random(c.positions, 1);
  const at::Tensor embedding = random(c.vocab, 1 / std::sqrt(static_cast<double>(c.d)));
  return with_layout({gradient, embedding, topk_mask(c).to(device)}, c.layout);
}

/// The same with small integers: sums are exact in every dtype, and many scores are equal.
inline TopkInputs integer_topk_inputs(const TopkCase& c, at::ScalarType dtype, at::Device device = at::kCPU) {
  at::manual_seed(31);
  const auto random = [&](int64_t rows) { return at::randint(-2, 3, {rows, c.d}, at::kDouble).to(device, dtype); };
  const at::Tensor gradient = random(c.positions), embedding = random(c.vocab);
  return with_layout({gradient, embedding, topk_mask(c).to(device)}, c.layout);
}

}  // namespace titer::test

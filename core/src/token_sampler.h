// Draws a token from a distribution that top-k and then top-p have cut, in time linear in the vocabulary: nothing is
// sorted. Top-p is nucleus sampling (Holtzman et al. 2020, arXiv:1904.09751, section 3.1).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace titer {

/// Tokens that may be drawn: those heavier than `cut` and, of those exactly as heavy, the `num_at_cut` of lowest id.
struct KeptTokens {
  double cut = 0.0;
  std::size_t num_at_cut = 0;

  friend bool operator==(const KeptTokens&, const KeptTokens&) = default;
};

/// Keeps a buffer between calls: one thread at a time.
class TokenSampler {
 public:
  /// @param top_k  keeps the k heaviest tokens and all that are as heavy as the last of them, as transformers does; 0
  ///               keeps all
  /// @param top_p  of what top-k leaves, keeps the fewest tokens, from the heaviest on, that have this share of its
  ///               weight; of equally heavy ones those of lowest id. In (0, 1]; 1 keeps all
  TokenSampler(int64_t top_k, double top_p) : top_k_(top_k), top_p_(top_p) {}

  /// @param weights  [V], at least one; probabilities up to a factor: finite, not negative, not all 0
  KeptTokens kept(std::span<const double> weights);

  /// The token on which `uniform`, in [0, 1), falls when the kept ones share the unit interval in the order of their
  /// ids. A token of weight 0 is never drawn.
  int64_t draw(std::span<const double> weights, double uniform);

 private:
  int64_t top_k_;
  double top_p_;
  std::vector<double> buffer_;
};

}  // namespace titer

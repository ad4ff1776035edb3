#include "token_sampler.h"

#include <algorithm>
#include <functional>
#include <numeric>

namespace titer {
namespace {

/// The lightest weight of the fewest heaviest ones of [begin, end) that reach `wanted` together, and how many of its
/// kind they hold. Halves the range that the last of them lies in, at an expected cost that halves, too. Reorders.
KeptTokens lightest_of_share(std::span<double> weights, double wanted) {
  double heavier = 0.0;  // of all that were found to belong to the share
  std::size_t begin = 0;
  std::size_t end = weights.size();
  const auto at = [&](std::size_t i) { return weights.begin() + static_cast<std::ptrdiff_t>(i); };
  while (end - begin > 1) {
    const std::size_t middle = begin + (end - begin) / 2;
    std::nth_element(at(begin), at(middle), at(end), std::greater<>());
    const double upper = std::accumulate(at(begin), at(middle), heavier);
    if (upper >= wanted) {
      end = middle;
    } else {
      heavier = upper;
      begin = middle;
    }
  }
  const double cut = weights[begin];
  const auto num_at_cut = std::count(weights.begin(), at(begin + 1), cut);  // heavier ones of the share stand before it
  return {cut, static_cast<std::size_t>(num_at_cut)};
}

}  // namespace

KeptTokens TokenSampler::kept(std::span<const double> weights) {
  const bool cut_by_number = top_k_ > 0 && static_cast<std::size_t>(top_k_) < weights.size();
  if (!cut_by_number && top_p_ >= 1.0) return {0.0, weights.size()};
  buffer_.assign(weights.begin(), weights.end());
  std::size_t num_left = buffer_.size();
  if (cut_by_number) {
    const auto last = buffer_.begin() + (top_k_ - 1);
    std::nth_element(buffer_.begin(), last, buffer_.end(), std::greater<>());
    const double cut = *last;
    const auto behind = std::partition(last, buffer_.end(), [cut](double weight) { return weight == cut; });
    if (top_p_ >= 1.0) return {cut, weights.size()};
    num_left = static_cast<std::size_t>(behind - buffer_.begin());
  }
  const std::span<double> left(buffer_.data(), num_left);
  return lightest_of_share(left, top_p_ * std::accumulate(left.begin(), left.end(), 0.0));
}

int64_t TokenSampler::draw(std::span<const double> weights, double uniform) {
  const KeptTokens kept_tokens = kept(weights);
  const auto walk = [&](auto&& take) {
    std::size_t num_at_cut = 0;
    for (std::size_t id = 0; id < weights.size(); ++id) {
      if (weights[id] < kept_tokens.cut) continue;
      if (weights[id] == kept_tokens.cut && num_at_cut++ >= kept_tokens.num_at_cut) continue;
      if (!take(id)) return;
    }
  };
  double total = 0.0;
  walk([&](std::size_t id) {
    total += weights[id];
    return true;
  });
  double sum = 0.0;
  std::size_t drawn = 0;
  walk([&](std::size_t id) {
    sum += weights[id];
    if (weights[id] > 0.0) drawn = id;  // also where rounding leaves the draw beyond the last one
    return sum <= uniform * total;
  });
  return static_cast<int64_t>(drawn);
}

}  // namespace titer

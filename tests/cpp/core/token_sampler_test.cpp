#include "token_sampler.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

namespace titer {
namespace {

using Weights = std::vector<double>;

/// Whether each token may be drawn, by sorting.
std::vector<bool> kept_by_definition(const Weights& weights, int64_t top_k, double top_p) {
  std::vector<std::size_t> order(weights.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return weights[a] > weights[b]; });
  std::size_t num_left = order.size();
  if (top_k > 0 && static_cast<std::size_t>(top_k) < num_left) {
    num_left = static_cast<std::size_t>(top_k);
    while (num_left < order.size() && weights[order[num_left]] == weights[order[num_left - 1]]) ++num_left;
  }
  double total = 0.0;
  for (std::size_t i = 0; i < num_left; ++i) total += weights[order[i]];
  std::vector<bool> kept(weights.size());
  double sum = 0.0;
  for (std::size_t i = 0; i < num_left && (top_p >= 1.0 || sum < top_p * total); ++i) {
    kept[order[i]] = true;
    sum += weights[order[i]];
  }
  return kept;
}

std::vector<bool> kept(TokenSampler& sampler, const Weights& weights) {
  const KeptTokens tokens = sampler.kept(weights);
  std::vector<bool> out;
  std::size_t num_at_cut = 0;
  for (const double weight : weights) {
    out.push_back(weight > tokens.cut || (weight == tokens.cut && num_at_cut++ < tokens.num_at_cut));
  }
  return out;
}

TEST(TokenSampler, top_k_keeps_all_that_are_as_heavy_as_the_last) {
  TokenSampler sampler(2, 1.0);
  EXPECT_EQ(kept(sampler, {1, 3, 2, 2, 0, 2}), (std::vector<bool>{false, true, true, true, false, true}));
  EXPECT_EQ(kept(sampler, {3, 1, 2}), (std::vector<bool>{true, false, true}));
  EXPECT_EQ(kept(sampler, {5}), (std::vector<bool>{true}));
}

TEST(TokenSampler, top_p_keeps_the_fewest_that_reach_the_share_and_of_equals_the_first) {
  EXPECT_EQ(TokenSampler(0, 0.5).kept(Weights{1, 1, 1, 1}), (KeptTokens{1.0, 2}));
  EXPECT_EQ(TokenSampler(0, 0.51).kept(Weights{1, 1, 1, 1}), (KeptTokens{1.0, 3}));
  EXPECT_EQ(TokenSampler(0, 0.75).kept(Weights{1, 4, 2, 1}), (KeptTokens{2.0, 1})) << "they reach it exactly";
  EXPECT_EQ(TokenSampler(0, 0.8).kept(Weights{1, 4, 2, 1}), (KeptTokens{1.0, 1}));
  EXPECT_EQ(TokenSampler(0, 1e-300).kept(Weights{1, 2, 2}), (KeptTokens{2.0, 1})) << "one at least";
}

TEST(TokenSampler, top_p_is_of_what_top_k_leaves) {
  TokenSampler sampler(2, 0.6);
  EXPECT_EQ(kept(sampler, {1, 6, 4, 9}), (std::vector<bool>{false, false, false, true})) << "9 of 15";
  EXPECT_EQ(kept(sampler, {1, 6, 4, 8}), (std::vector<bool>{false, true, false, true})) << "8 of 14";
}

TEST(TokenSampler, what_is_kept_is_what_sorting_keeps) {
  std::mt19937 random(2);
  for (int round = 0; round < 20000; ++round) {
    const auto size = 1 + random() % (round % 10 == 0 ? 2000 : 12);
    const auto levels = 1 + random() % 20;  // few ones make ties; sums of integers are exact
    Weights weights(size);
    for (double& weight : weights) weight = static_cast<double>(random() % levels);
    weights[random() % size] = 20.0;
    const auto top_k = static_cast<int64_t>(random() % (size + 2));
    const double top_p = random() % 3 == 0 ? 1.0 : static_cast<double>(1 + random() % 16) / 16;
    TokenSampler sampler(top_k, top_p);
    ASSERT_EQ(kept(sampler, weights), kept_by_definition(weights, top_k, top_p))
        << ::testing::PrintToString(weights) << " " << top_k << " " << top_p;
  }
}

TEST(TokenSampler, kept_tokens_share_the_unit_interval_in_the_order_of_their_ids) {
  const Weights weights = {1, 0, 2, 4, 1, 8};
  const auto draws = [&](TokenSampler sampler) {
    std::vector<int64_t> out;
    for (int i = 0; i < 16; ++i) out.push_back(sampler.draw(weights, i / 16.0));
    return out;
  };
  EXPECT_THAT(draws(TokenSampler(0, 1.0)), ::testing::ElementsAre(0, 2, 2, 3, 3, 3, 3, 4, 5, 5, 5, 5, 5, 5, 5, 5));
  EXPECT_THAT(draws(TokenSampler(2, 1.0)), ::testing::ElementsAre(3, 3, 3, 3, 3, 3, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5));
  EXPECT_THAT(draws(TokenSampler(0, 0.5)), ::testing::Each(5));
  EXPECT_THAT(draws(TokenSampler(100, 1.0)), draws(TokenSampler(0, 1.0)));
}

TEST(TokenSampler, a_token_of_weight_0_is_never_drawn) {
  for (const double uniform : {0.0, 0.5, std::nextafter(1.0, 0.0)}) {
    EXPECT_EQ(TokenSampler(0, 1.0).draw(Weights{0, 0, 1e-300, 0}, uniform), 2);
    EXPECT_EQ(TokenSampler(0, 1.0).draw(Weights{0, 5e-324, 0}, uniform), 1) << "where the product is rounded up";
    EXPECT_EQ(TokenSampler(3, 1.0).draw(Weights{0, 0, 1e-300, 0}, uniform), 2);
    EXPECT_EQ(TokenSampler(0, 0.9).draw(Weights{0, 0, 1, 0}, uniform), 2);
  }
}

}  // namespace
}  // namespace titer

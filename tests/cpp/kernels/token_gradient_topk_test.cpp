#include <ATen/Parallel.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/gather.h>
#include <ATen/ops/isnan.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/tensor.h>
#include <c10/core/InferenceMode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <titer/kernels/token_gradient_topk.h>
#include <torch/csrc/autograd/autograd.h>

#include <limits>

#include "backends.h"
#include "reference/token_gradient_topk.h"
#include "token_gradient_topk_cases.h"

namespace titer::test {
namespace {

using ops::token_gradient_topk;
using ops::TokenGradientTopk;

constexpr at::ScalarType kTypes[] = {at::kFloat, at::kDouble, at::kBFloat16, at::kHalf};
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

at::Tensor to_double(const at::Tensor& x) { return x.to(at::kDouble); }
double largest(const at::Tensor& x) { return x.numel() == 0 ? 0 : x.abs().max().item<double>(); }

class TokenGradientTopkTest : public testing::TestWithParam<TopkCase> {};

void expect_exact_scores_give_the_tokens_of_reference(const TopkCase& c, at::Device device) {
  for (const at::ScalarType dtype : kTypes) {
    const auto [gradient, embedding, allowed] = integer_topk_inputs(c, dtype, device);
    const TokenGradientTopk actual = token_gradient_topk(gradient, embedding, allowed, c.k);
    const TokenGradientTopk expected =
        reference::token_gradient_topk(to_double(gradient), to_double(embedding), allowed, c.k);
    EXPECT_TRUE(at::equal(actual.ids, expected.ids)) << dtype;
    EXPECT_EQ(actual.scores.scalar_type(), dtype == at::kDouble ? at::kDouble : at::kFloat);
    EXPECT_TRUE(at::equal(to_double(actual.scores), expected.scores)) << dtype;
  }
}

TEST_P(TokenGradientTopkTest, exact_scores_give_the_tokens_of_reference) {
  for (const at::Device device : devices()) expect_exact_scores_give_the_tokens_of_reference(GetParam(), device);
}

TEST_P(TokenGradientTopkTest, every_instruction_set_gives_the_tokens_of_reference) {
  for (const int64_t target : instruction_sets()) {
    SCOPED_TRACE(hwy::TargetName(target));
    const ForcedInstructionSet forced(target);
    expect_exact_scores_give_the_tokens_of_reference(GetParam(), at::kCPU);
  }
}

// Scores that differ by less than their rounding may change places.
TEST_P(TokenGradientTopkTest, scores_equal_reference_in_float64) {
  const TopkCase& c = GetParam();
  for (const at::Device device : devices()) {
    for (const at::ScalarType dtype : kTypes) {
      const auto [gradient, embedding, allowed] = topk_inputs(c, dtype, device);
      const TokenGradientTopk actual = token_gradient_topk(gradient, embedding, allowed, c.k);
      const at::Tensor all = at::mm(to_double(gradient), to_double(embedding).t());
      const TokenGradientTopk expected =
          reference::token_gradient_topk(to_double(gradient), to_double(embedding), allowed, c.k);
      const double bound = dtype == at::kDouble ? 1e-13 : 2e-6;
      const at::Tensor none = expected.ids.lt(0);
      EXPECT_TRUE(at::equal(actual.ids.lt(0), none));
      EXPECT_TRUE(at::equal(actual.scores.eq(kInfinity), none));
      const at::Tensor own = at::gather(all, 1, actual.ids.clamp_min(0));
      EXPECT_LE(largest((to_double(actual.scores) - own).masked_fill(none, 0)), bound) << dtype;
      EXPECT_LE(largest((own - expected.scores).masked_fill(none, 0)), 2 * bound) << dtype;
      EXPECT_TRUE(
          allowed.index_select(0, actual.ids.flatten().clamp_min(0)).view_as(none).logical_or(none).all().item<bool>());
      const at::Tensor by_id = std::get<0>(at::sort(actual.ids, 1));
      if (c.k > 1) {
        EXPECT_FALSE(
            (by_id.slice(1, 1).eq(by_id.slice(1, 0, c.k - 1)).logical_and(by_id.slice(1, 1).ge(0))).any().item<bool>());
        EXPECT_TRUE(actual.scores.slice(1, 1).ge(actual.scores.slice(1, 0, c.k - 1)).all().item<bool>());
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, TokenGradientTopkTest, testing::ValuesIn(topk_cases()),
                         [](const auto& info) { return info.param.name; });

TEST(TokenGradientTopk, equal_scores_take_the_lowest_token) {
  for (const at::Device device : devices()) {
    for (const at::ScalarType dtype : kTypes) {
      const auto options = at::TensorOptions(device).dtype(dtype);
      const at::Tensor gradient = at::ones({2, 2}, options), embedding = at::zeros({3000, 2}, options);
      embedding[1500].fill_(-1);
      embedding[2999].fill_(-1);
      embedding.narrow(0, 0, 10).select(1, 0).fill_(-0.0);
      const at::Tensor allowed = at::ones({3000}, options.dtype(at::kBool));
      allowed[1].fill_(false);
      const TokenGradientTopk best = token_gradient_topk(gradient, embedding, allowed, 6);
      const at::Tensor expected = at::tensor({1500, 2999, 0, 2, 3, 4}, options.dtype(at::kLong));
      EXPECT_TRUE(at::equal(best.ids, expected.expand({2, 6}))) << dtype;
    }
  }
}

TEST(TokenGradientTopk, a_row_with_a_broken_score_is_broken_and_no_other) {
  for (const at::Device device : devices()) {
    for (const at::ScalarType dtype : kTypes) {
      for (const double broken : {kNaN, kInfinity, -kInfinity}) {
        for (const int64_t place : {0, 77, 128, 1999}) {
          const auto options = at::TensorOptions(device).dtype(dtype);
          const at::Tensor gradient = at::zeros({3, 2}, options), embedding = at::zeros({2000, 2}, options);
          gradient.select(1, 0).fill_(1);
          gradient[1][0].fill_(broken);
          embedding[place][0].fill_(2);
          const at::Tensor allowed = at::zeros({2000}, options.dtype(at::kBool));
          allowed[place].fill_(true);
          const TokenGradientTopk best = token_gradient_topk(gradient, embedding, allowed, 2);
          EXPECT_TRUE(at::equal(best.ids, at::tensor({place, int64_t{-1}, int64_t{-1}, int64_t{-1}, place, int64_t{-1}},
                                                     best.ids.options())
                                              .view({3, 2})))
              << dtype << " " << broken << " " << place;
          EXPECT_TRUE(at::isnan(best.scores[1]).all().item<bool>());
          EXPECT_EQ(best.scores[0][0].item<double>(), 2);
          EXPECT_EQ(best.scores[0][1].item<double>(), kInfinity);
        }
      }
    }
  }
}

TEST(TokenGradientTopk, rows_of_tokens_that_are_not_allowed_may_hold_anything) {
  for (const at::Device device : devices()) {
    for (const at::ScalarType dtype : kTypes) {
      const TopkCase c{"garbage", 5, 16, 400, 30};
      const auto [gradient, embedding, allowed] = topk_inputs(c, dtype, device);
      const TokenGradientTopk expected = token_gradient_topk(gradient, embedding, allowed, c.k);
      const at::Tensor garbage = embedding.masked_fill(allowed.logical_not().unsqueeze(1), kNaN);
      const TokenGradientTopk actual = token_gradient_topk(gradient, garbage, allowed, c.k);
      EXPECT_TRUE(at::equal(actual.ids, expected.ids));
      EXPECT_TRUE(at::equal(actual.scores, expected.scores));
    }
  }
}

TEST(TokenGradientTopk, does_not_depend_on_the_number_of_threads) {
  const int threads = at::get_num_threads();
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    for (const int64_t k : {40, 5000}) {
      const TopkCase c{"threads", 30, 64, 20000, k};
      const auto [gradient, embedding, allowed] = topk_inputs(c, dtype);
      at::set_num_threads(1);
      const TokenGradientTopk one = token_gradient_topk(gradient, embedding, allowed, k);
      at::set_num_threads(3);
      const TokenGradientTopk three = token_gradient_topk(gradient, embedding, allowed, k);
      at::set_num_threads(threads);
      EXPECT_TRUE(at::equal(one.ids, three.ids));
      EXPECT_TRUE(at::equal(one.scores, three.scores));
    }
  }
}

// A new threshold comes only after 2 k tokens: descending scores make every token one of the best so far.
TEST(TokenGradientTopk, scores_that_fall_along_the_vocabulary) {
  const int64_t vocab = 5000, k = 3;
  const at::Tensor embedding = -at::ones({vocab, 1}).cumsum(0);
  const TokenGradientTopk best = token_gradient_topk(at::ones({2, 1}), embedding, at::ones({vocab}, at::kBool), k);
  EXPECT_TRUE(at::equal(best.ids[1], at::tensor({vocab - 1, vocab - 2, vocab - 3}, at::kLong)));
}

TEST(TokenGradientTopk, has_no_derivative_and_says_so) {
  const auto [gradient, embedding, allowed] = topk_inputs({"small", 3, 8, 50, 4}, at::kFloat);
  const at::Tensor x = gradient.clone().requires_grad_();
  const TokenGradientTopk best = token_gradient_topk(x, embedding, allowed, 4);
  EXPECT_THAT([&] { torch::autograd::grad({best.scores.sum()}, {x}); },
              testing::ThrowsMessage<c10::Error>(
                  testing::HasSubstr("derivative for titer::token_gradient_topk is not implemented")));
}

TEST(TokenGradientTopk, runs_in_inference_mode) {
  const auto [gradient, embedding, allowed] = topk_inputs({"small", 3, 8, 50, 4}, at::kFloat);
  const TokenGradientTopk expected = token_gradient_topk(gradient, embedding, allowed, 4);
  const c10::InferenceMode guard;
  EXPECT_TRUE(at::equal(token_gradient_topk(gradient, embedding, allowed, 4).ids, expected.ids));
}

TEST(TokenGradientTopk, meta_tensors_give_shapes_and_dtypes) {
  const auto meta = [](at::IntArrayRef shape, at::ScalarType dtype) {
    return at::empty(shape, at::TensorOptions(at::kMeta).dtype(dtype));
  };
  const TokenGradientTopk best =
      token_gradient_topk(meta({5, 8}, at::kBFloat16), meta({30, 8}, at::kBFloat16), meta({30}, at::kBool), 7);
  EXPECT_TRUE(best.ids.is_meta());
  EXPECT_EQ(best.ids.sizes(), at::IntArrayRef({5, 7}));
  EXPECT_EQ(best.ids.scalar_type(), at::kLong);
  EXPECT_EQ(best.scores.sizes(), at::IntArrayRef({5, 7}));
  EXPECT_EQ(best.scores.scalar_type(), at::kFloat);
}

template <typename Error>
void expect_refused(const at::Tensor& gradient, const at::Tensor& embedding, const at::Tensor& allowed, int64_t k,
                    const std::string& message) {
  EXPECT_THAT([&] { token_gradient_topk(gradient, embedding, allowed, k); },
              testing::ThrowsMessage<Error>(testing::HasSubstr("[token_gradient_topk] " + message)));
}

TEST(TokenGradientTopk, bad_arguments_are_named) {
  const at::Tensor gradient = at::ones({3, 4}), embedding = at::ones({10, 4}), allowed = at::ones({10}, at::kBool);
  expect_refused<c10::ValueError>(gradient[0], embedding, allowed, 2, "gradient must be a dense matrix [S, d]");
  expect_refused<c10::ValueError>(at::ones({3, 0}), at::ones({10, 0}), allowed, 2, "gradient must be a dense matrix");
  expect_refused<c10::TypeError>(gradient.to(at::kInt), embedding.to(at::kInt), allowed, 2,
                                 "gradient must be float32, bfloat16, float16 or float64, got Int");
  expect_refused<c10::ValueError>(gradient, at::ones({10, 5}), allowed, 2,
                                  "embedding must be a dense matrix [V, 4], as wide as gradient, got shape [10, 5]");
  expect_refused<c10::TypeError>(gradient, embedding.to(at::kBFloat16), allowed, 2,
                                 "embedding must have the dtype of gradient, Float, got BFloat16");
  expect_refused<c10::ValueError>(gradient, at::ones({0, 4}), at::ones({0}, at::kBool), 1,
                                  "embedding must have between 1 and 2^31 - 1 rows, got 0");
  expect_refused<c10::ValueError>(gradient, at::ones({4, 10}).t(), allowed, 2, "embedding must have contiguous rows");
  expect_refused<c10::TypeError>(gradient, embedding, at::ones({10}, at::kLong), 2, "allowed must be bool, got Long");
  expect_refused<c10::ValueError>(gradient, embedding, at::ones({9}, at::kBool), 2, "allowed must have shape [10]");
  expect_refused<c10::ValueError>(gradient, embedding.to(at::kMeta), allowed, 2,
                                  "embedding must be on cpu like gradient, got meta");
  expect_refused<c10::ValueError>(gradient, embedding, allowed.to(at::kMeta), 2,
                                  "allowed must be on cpu like gradient, got meta");
  expect_refused<c10::ValueError>(gradient, embedding, allowed, 0, "k must be in [1, 10]");
  expect_refused<c10::ValueError>(gradient, embedding, allowed, 11, "k must be in [1, 10]");
}

}  // namespace
}  // namespace titer::test

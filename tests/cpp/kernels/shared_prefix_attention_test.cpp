#include <ATen/Parallel.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn_like.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/InferenceMode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <titer/kernels/shared_prefix_attention.h>
#include <torch/csrc/autograd/autograd.h>

#include "backends.h"
#include "gradcheck.h"
#include "reference/shared_prefix_attention.h"
#include "rounding.h"
#include "shared_prefix_attention_cases.h"

namespace titer::test {
namespace {

constexpr at::ScalarType kTypes[] = {at::kFloat, at::kDouble, at::kBFloat16, at::kHalf};

at::Tensor to_double(const at::Tensor& x) { return x.detach().to(at::kDouble); }

at::Tensor expected_from(const SharedPrefixTensors& t, bool magnitude = false) {
  const auto value = [&](const at::Tensor& x) { return magnitude ? to_double(x).abs() : to_double(x); };
  return reference::shared_prefix_attention(to_double(t.q), to_double(t.k), value(t.v), to_double(t.prefix_k),
                                            value(t.prefix_v), t.layout);
}

/// Scores are sums of head_dim products of numbers up to 4; their roundings count relatively in what is a weighted sum
/// of values. Probabilities of 16 bits may be rounded.
double error_of(const at::Tensor& actual, const SharedPrefixTensors& t) {
  const double scores = 16.0 * 0.7 * static_cast<double>(t.q.size(3));
  const at::ScalarType dtype = t.q.scalar_type();
  const double rounded = at::isReducedFloatingType(dtype) ? 1.01 * unit_roundoff(dtype) / unit_roundoff(at::kFloat) : 0;
  return rounding_error(actual, expected_from(t), expected_from(t, /*magnitude=*/true), 32 + scores + rounded);
}

at::Tensor run(const SharedPrefixTensors& t) {
  return ops::shared_prefix_attention_out(t.out, t.q, t.k, t.v, t.prefix_k, t.prefix_v, t.layout);
}

class SharedPrefixAttentionTest : public testing::TestWithParam<SharedPrefixCase> {};

void expect_values_equal_reference(const SharedPrefixCase& c, at::Device device) {
  for (const at::ScalarType dtype : kTypes) {
    const SharedPrefixTensors t = shared_prefix_tensors(c, dtype, device);
    EXPECT_TRUE(run(t).is_same(t.out));
    EXPECT_LE(error_of(t.out, t), 1) << dtype;
    const at::Tensor fresh = ops::shared_prefix_attention(t.q, t.k, t.v, t.prefix_k, t.prefix_v, t.layout);
    EXPECT_TRUE(fresh.is_contiguous());
    EXPECT_TRUE(at::equal(fresh, t.out)) << dtype;
  }
}

TEST_P(SharedPrefixAttentionTest, values_equal_reference_in_float64) {
  for (const at::Device device : devices()) expect_values_equal_reference(GetParam(), device);
}

TEST_P(SharedPrefixAttentionTest, every_instruction_set_equals_reference_in_float64) {
  for (const int64_t target : instruction_sets()) {
    SCOPED_TRACE(hwy::TargetName(target));
    const ForcedInstructionSet forced(target);
    expect_values_equal_reference(GetParam(), at::kCPU);
  }
}

Tensors inputs_of(const SharedPrefixTensors& t) { return {t.q, t.k, t.v, t.prefix_k, t.prefix_v}; }

template <typename Op>
Tensors gradients(const Op& op, const SharedPrefixTensors& t, const at::Tensor& incoming, at::ScalarType dtype) {
  Tensors leaves;
  for (const at::Tensor& x : inputs_of(t)) leaves.push_back(x.detach().to(dtype).requires_grad_());
  const at::Tensor out = op(leaves[0], leaves[1], leaves[2], leaves[3], leaves[4], t.layout);
  return torch::autograd::grad({out}, leaves, {incoming.to(dtype)}, std::nullopt, /*create_graph=*/false,
                               /*allow_unused=*/true);  // by a reference that has nothing to do
}

// Gradients of 16-bit inputs start from values rounded to 16 bits; those of float32 show what the backward pass does.
TEST_P(SharedPrefixAttentionTest, gradients_equal_reference_in_float64) {
  for (const at::Device device : devices()) {
    for (const at::ScalarType dtype : kTypes) {
      const SharedPrefixTensors t = shared_prefix_tensors(GetParam(), dtype, device);
      const at::Tensor incoming = at::randn_like(t.q);
      const Tensors actual = gradients(ops::shared_prefix_attention, t, incoming, dtype);
      const Tensors expected = gradients(reference::shared_prefix_attention, t, incoming, at::kDouble);
      const double bound = dtype == at::kDouble ? 1e-13 : dtype == at::kFloat ? 2e-5 : 1e-2;
      for (size_t i = 0; i < actual.size(); ++i) {
        EXPECT_EQ(actual[i].scalar_type(), dtype);
        if (actual[i].numel() == 0) continue;
        const at::Tensor right = expected[i].defined() ? expected[i] : at::zeros_like(to_double(actual[i]));
        const double largest = right.abs().max().item<double>();
        EXPECT_LE((to_double(actual[i]) - right).abs().max().item<double>(), bound * std::max(1.0, largest))
            << dtype << " of input " << i;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, SharedPrefixAttentionTest, testing::ValuesIn(shared_prefix_cases()),
                         [](const auto& info) { return info.param.name; });

TEST(SharedPrefixAttention, does_not_depend_on_the_number_of_threads) {
  const int threads = at::get_num_threads();
  for (const SharedPrefixCase& c : shared_prefix_speed_cases()) {
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      const SharedPrefixTensors t = shared_prefix_tensors(c, dtype);
      at::set_num_threads(1);
      const at::Tensor one = run(t).clone();
      at::set_num_threads(3);
      EXPECT_TRUE(at::equal(run(t), one));
      at::set_num_threads(threads);
    }
  }
}

TEST(SharedPrefixAttention, broken_values_reach_the_one_query_that_sees_them) {
  const SharedPrefixCase c{"broken", {5, 4}, {6, 3}, 8, 2, 2, 16, 1, {}, {}};
  for (const at::ScalarType dtype : {at::kFloat, at::kDouble, at::kBFloat16, at::kHalf}) {
    for (const int64_t target : instruction_sets()) {
      const ForcedInstructionSet forced(target);
      for (const bool in_values : {false, true}) {
        const SharedPrefixTensors tensors = shared_prefix_tensors(c, dtype);
        (in_values ? tensors.v : tensors.k)[2].fill_(std::numeric_limits<double>::quiet_NaN());
        const at::Tensor broken = run(tensors).isfinite().logical_not().flatten(1);
        EXPECT_TRUE(broken[0].all().item<bool>()) << dtype;
        // A product of a tile may meet values that a query does not see with weights of zero.
        if (!in_values) {
          EXPECT_FALSE(broken[1].any().item<bool>()) << dtype;
        }
      }
    }
  }
}

TEST(SharedPrefixAttention, broken_values_reach_what_sees_them) {
  const SharedPrefixCase c{"broken", {5, 4}, {6, 3}, 8, 2, 2, 16, {}, {}, {}};
  for (const at::ScalarType dtype : {at::kFloat, at::kDouble, at::kBFloat16, at::kHalf}) {
    for (const int64_t target : instruction_sets()) {
      const ForcedInstructionSet forced(target);
      const SharedPrefixTensors keys = shared_prefix_tensors(c, dtype);
      keys.k[2].fill_(std::numeric_limits<double>::quiet_NaN());
      const at::Tensor broken = run(keys).isfinite().logical_not().flatten(1).any(1);
      EXPECT_TRUE(broken.narrow(0, 2, 3).all().item<bool>()) << dtype;  // row 2 of the first and what follows it
      EXPECT_FALSE(broken.narrow(0, 0, 2).any().item<bool>()) << dtype;
      EXPECT_FALSE(broken.narrow(0, 5, 4).any().item<bool>()) << dtype;
    }
  }
}

TEST(SharedPrefixAttention, scores_of_any_size_give_weights) {
  const SharedPrefixCase c{"large", {5}, {6}, 6, 1, 2, 16, {}, {}, {}};
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const SharedPrefixTensors t = shared_prefix_tensors(c, dtype);
    t.q.mul_(1000);
    const at::Tensor expected = expected_from(t);
    EXPECT_LE((to_double(run(t)) - expected).abs().max().item<double>(), 0.05) << dtype;
  }
}

TEST(SharedPrefixAttention, gradcheck) {
  for (const SharedPrefixCase& c : shared_prefix_cases()) {
    const SharedPrefixTensors t = shared_prefix_tensors(c, at::kDouble);
    if (t.k.numel() + t.prefix_k.numel() > 1500 || t.q.size(0) == 0) continue;
    const auto op = [&](const Tensors& x) -> Tensors {
      return {ops::shared_prefix_attention(x[0], x[1], x[2], x[3], x[4], t.layout)};
    };
    Tensors inputs;
    for (const at::Tensor& x : inputs_of(t)) inputs.push_back(x.contiguous());
    EXPECT_LE(gradcheck_error(op, inputs), 1e-7) << c.name;
  }
}

TEST(SharedPrefixAttention, only_inputs_that_require_a_gradient_get_one) {
  const SharedPrefixTensors t = shared_prefix_tensors(shared_prefix_cases().at(3), at::kFloat);
  const at::Tensor incoming = at::randn_like(t.q);
  const Tensors all = gradients(ops::shared_prefix_attention, t, incoming, at::kFloat);
  for (size_t i = 0; i < all.size(); ++i) {
    Tensors x = inputs_of(t);
    x[i] = x[i].clone().requires_grad_();
    const at::Tensor out = ops::shared_prefix_attention(x[0], x[1], x[2], x[3], x[4], t.layout);
    EXPECT_TRUE(at::equal(torch::autograd::grad({out}, {x[i]}, {incoming})[0], all[i])) << i;
  }
}

TEST(SharedPrefixAttention, what_has_no_derivative_says_so) {
  const SharedPrefixTensors t = shared_prefix_tensors(shared_prefix_cases().at(3), at::kDouble);
  const at::Tensor q = t.q.clone().requires_grad_();
  const auto refused = [](const std::string& name) {
    return testing::ThrowsMessage<c10::Error>(
        testing::HasSubstr("derivative for titer::" + name + " is not implemented"));
  };
  const at::Tensor result = ops::shared_prefix_attention(q, t.k, t.v, t.prefix_k, t.prefix_v, t.layout);
  const at::Tensor first = torch::autograd::grad({result.sum()}, {q}, {}, std::nullopt, /*create_graph=*/true)[0];
  EXPECT_THAT([&] { torch::autograd::grad({first.sum()}, {q}); }, refused("shared_prefix_attention_backward"));
  const at::Tensor written = ops::shared_prefix_attention_out(t.out, q, t.k, t.v, t.prefix_k, t.prefix_v, t.layout);
  EXPECT_THAT([&] { torch::autograd::grad({written.sum()}, {q}); }, refused("shared_prefix_attention"));
}

TEST(SharedPrefixAttention, runs_in_inference_mode_and_on_meta_tensors) {
  const SharedPrefixTensors t = shared_prefix_tensors(shared_prefix_cases().at(3), at::kFloat);
  const at::Tensor expected = run(t).clone();
  const c10::InferenceMode guard;
  EXPECT_TRUE(at::equal(run(t), expected));
  const auto meta = [](const at::Tensor& x) { return x.to(at::kMeta); };
  const at::Tensor shape =
      ops::shared_prefix_attention(meta(t.q), meta(t.k), meta(t.v), meta(t.prefix_k), meta(t.prefix_v), t.layout);
  EXPECT_TRUE(shape.is_meta());
  EXPECT_EQ(shape.sizes(), t.q.sizes());
}

template <typename Error>
void expect_refused(const SharedPrefixTensors& t, const std::string& message) {
  EXPECT_THAT([&] { run(t); },
              testing::ThrowsMessage<Error>(testing::HasSubstr("[shared_prefix_attention] " + message)));
}

TEST(SharedPrefixAttention, bad_arguments_are_named) {
  const SharedPrefixTensors good = shared_prefix_tensors({"good", {3, 4}, {5, 2}, 6, 2, 3, 8, {}, {}, {}}, at::kFloat);
  const auto refused = [&]<typename Error>(Error*, const std::string& message, const auto& change) {
    SharedPrefixTensors t = good;
    change(t);
    expect_refused<Error>(t, message);
  };
  const auto value = [&](const std::string& message, const auto& change) {
    refused(static_cast<c10::ValueError*>(nullptr), message, change);
  };
  const auto type = [&](const std::string& message, const auto& change) {
    refused(static_cast<c10::TypeError*>(nullptr), message, change);
  };
  value("q must be dense, [M, Hkv, G, hd], got shape [2, 3, 8]", [](auto& t) { t.q = t.q[0]; });
  type("q must be float32, bfloat16, float16 or float64, got Int", [](auto& t) { t.q = t.q.to(at::kInt); });
  value("k must have shape [N, Hkv, hd] with Hkv 2 and hd 8", [](auto& t) { t.k = at::ones({7, 3, 8}); });
  value("prefix_k must have shape [Hkv, P, hd] with Hkv 2", [](auto& t) { t.prefix_k = at::ones({6, 2, 8}); });
  type("k must have the dtype of q, Float, got Double", [](auto& t) { t.k = t.k.to(at::kDouble); });
  value("v must have the shape of k, [7, 2, 8], got [6, 2, 8]", [](auto& t) { t.v = t.v.narrow(0, 0, 6); });
  value("prefix_v must have the shape of prefix_k", [](auto& t) { t.prefix_v = at::ones({2, 5, 8}); });
  value("k must be on cpu like q, got meta", [](auto& t) { t.k = t.k.to(at::kMeta); });
  type("rows must be int64, got Int", [](auto& t) { t.layout.rows = t.layout.rows.to(at::kInt); });
  value("visible must be a contiguous vector on the CPU", [](auto& t) {
    t.layout.visible = t.layout.visible.view({1, 2});
  });
  value("rows and visible must have one length", [](auto& t) { t.layout.rows = t.layout.rows.narrow(0, 0, 1); });
  value("rows[1] must be in [1, 7], got 0", [](auto& t) { t.layout.rows = at::tensor({7, 0}, at::kLong); });
  value("rows must add up to the rows of k, 7, got 6", [](auto& t) {
    t.layout.rows = at::tensor({3, 3}, at::kLong);
    t.layout.queries = 3;
  });
  value("first_row must have the length of rows, [2], got [1]",
        [](auto& t) { t.layout.first_row = at::tensor({0}, at::kLong); });
  value("first_row[1] must be in [0, 3], so that its rows lie in k, got 4", [](auto& t) {
    t.layout.first_row = at::tensor({0, 4}, at::kLong);
  });
  value("visible[0] must be in [0, 6], the length of the prefix, got 7", [](auto& t) {
    t.layout.visible = at::tensor({7, 0}, at::kLong);
  });
  value("queries must be in [1, 3], the rows of continuation 0, got 4", [](auto& t) { t.layout.queries = 4; });
  value("q must have 4 rows, the queries of all continuations, got 7", [](auto& t) { t.layout.queries = 2; });
  value("window must be at least 1, got 0", [](auto& t) { t.layout.window = 0; });
  value("soft_cap must be above 0, got -1", [](auto& t) { t.layout.soft_cap = -1; });
  value("out must have the shape of q", [](auto& t) { t.out = at::zeros({7, 2, 3, 9}); });
  value("out must not overlap q", [](auto& t) { t.out = t.q; });
  value("v must be contiguous in its last dimension", [](auto& t) { t.v = at::zeros({7, 8, 2}).transpose(1, 2); });
}

}  // namespace
}  // namespace titer::test

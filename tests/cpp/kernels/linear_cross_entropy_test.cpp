#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/full.h>
#include <ATen/ops/gather.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn_like.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <c10/core/InferenceMode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <titer/kernels/linear_cross_entropy.h>
#include <torch/csrc/autograd/autograd.h>

#include <fstream>
#include <limits>

#include "backends.h"
#include "gradcheck.h"
#include "linear_cross_entropy_cases.h"
#include "reference/linear_cross_entropy.h"

namespace titer::test {
namespace {

using ops::linear_cross_entropy;
using ops::LinearCrossEntropy;
using torch::autograd::grad;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

double largest(const at::Tensor& x) { return x.numel() == 0 ? 0 : x.abs().max().item<double>(); }
at::Tensor to_double(const at::Tensor& x) { return x.detach().to(at::kDouble); }

class LinearCrossEntropyTest : public testing::TestWithParam<LinearCrossEntropyCase> {};

TEST_P(LinearCrossEntropyTest, values_equal_reference_in_float64) {
  const LinearCrossEntropyCase& c = GetParam();
  for (const at::Device device : devices()) {
    const auto [hidden, weight, target] = linear_cross_entropy_inputs(c, device);
    const LinearCrossEntropy actual = linear_cross_entropy(hidden, weight, target);
    const LinearCrossEntropy expected = reference::linear_cross_entropy(to_double(hidden), to_double(weight), target);
    const at::Tensor logits = at::linear(to_double(hidden), to_double(weight));
    const double bound = c.value_bound * std::max(1.0, largest(logits));
    EXPECT_EQ(actual.loss.scalar_type(), c.dtype == at::kDouble ? at::kDouble : at::kFloat);
    EXPECT_LE(largest(actual.loss - expected.loss), bound);
    EXPECT_LE(largest(actual.lse - expected.lse), bound);
    EXPECT_LE(largest(actual.best_other - expected.best_other), bound);
    // Random logits may tie within the bound; exact ties have a test of their own.
    const at::Tensor chosen = at::gather(logits, 1, actual.best_other_index.unsqueeze(1)).squeeze(1);
    EXPECT_LE(largest(chosen - expected.best_other), bound);
    EXPECT_FALSE(actual.best_other_index.eq(target).any().item<bool>());
    const at::Tensor clear = (expected.lse - expected.loss - expected.best_other).abs() > bound;
    EXPECT_TRUE(at::equal(actual.match.logical_and(clear), expected.match.logical_and(clear)));
  }
}

TEST_P(LinearCrossEntropyTest, gradients_equal_reference_in_float64) {
  const LinearCrossEntropyCase& c = GetParam();
  for (const at::Device device : devices()) {
    const auto inputs = linear_cross_entropy_inputs(c, device);
    const auto gradients = [&](const auto& op, at::ScalarType dtype) {
      const at::Tensor hidden = inputs.hidden.to(dtype).detach().requires_grad_();
      const at::Tensor weight = inputs.weight.to(dtype).detach().requires_grad_();
      const LinearCrossEntropy result = op(hidden, weight, inputs.target);
      at::manual_seed(5);
      const auto random = [](const at::Tensor& x) { return at::randn_like(x, at::kDouble).to(x.scalar_type()); };
      return grad({result.loss, result.lse, result.best_other}, {hidden, weight},
                  {random(result.loss), random(result.lse), random(result.best_other)});
    };
    const auto actual = gradients(linear_cross_entropy, c.dtype);
    const auto expected = gradients(reference::linear_cross_entropy, at::kDouble);
    for (size_t i = 0; i < expected.size(); ++i) {
      EXPECT_EQ(actual[i].scalar_type(), c.dtype);
      EXPECT_LE(largest(to_double(actual[i]) - expected[i]), c.gradient_bound * std::max(1e-3, largest(expected[i])))
          << (i == 0 ? "hidden" : "weight");
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, LinearCrossEntropyTest, testing::ValuesIn(linear_cross_entropy_cases()),
                         [](const auto& info) { return info.param.name; });

TEST(LinearCrossEntropy, gradcheck_of_every_output) {
  for (const LinearCrossEntropyCase& c : linear_cross_entropy_cases()) {
    if (c.dtype != at::kDouble || (c.rows + c.vocab) * c.d > 2500 || c.logit_scale > 100) continue;
    const auto inputs = linear_cross_entropy_inputs(c, at::kCPU);
    const auto op = [&](const Tensors& x) -> Tensors {
      const LinearCrossEntropy result = linear_cross_entropy(x[0], x[1], inputs.target);
      return {result.loss, result.lse, result.best_other};
    };
    EXPECT_LE(gradcheck_error(op, {inputs.hidden.contiguous(), inputs.weight.contiguous()}), 1e-7) << c.name;
  }
}

LinearCrossEntropyCase small_case(at::ScalarType dtype) {
  return {"small", 20, 12, 300, dtype, Layout::kContiguous, 2, 1e-5, 1e-4};
}

TEST(LinearCrossEntropy, undefined_gradients_count_as_zero) {
  const auto inputs = linear_cross_entropy_inputs(small_case(at::kDouble), at::kCPU);
  for (int used = 0; used < 3; ++used) {
    const auto gradients = [&](const auto& op) {
      const at::Tensor hidden = inputs.hidden.clone().requires_grad_(), weight = inputs.weight.clone().requires_grad_();
      const LinearCrossEntropy result = op(hidden, weight, inputs.target);
      const at::Tensor outputs[] = {result.loss, result.lse, result.best_other};
      return grad({outputs[used].sum()}, {hidden, weight});
    };
    const auto actual = gradients(linear_cross_entropy), expected = gradients(reference::linear_cross_entropy);
    EXPECT_TRUE(at::allclose(actual[0], expected[0], 1e-11, 1e-12)) << used;
    EXPECT_TRUE(at::allclose(actual[1], expected[1], 1e-11, 1e-12)) << used;
  }
}

TEST(LinearCrossEntropy, only_inputs_that_require_a_gradient_get_one) {
  const auto inputs = linear_cross_entropy_inputs(small_case(at::kFloat), at::kCPU);
  const at::Tensor hidden = inputs.hidden.clone().requires_grad_(), weight = inputs.weight.clone().requires_grad_();
  const at::Tensor both = linear_cross_entropy(hidden, weight, inputs.target).loss;
  const auto expected = grad({both.sum()}, {hidden, weight});
  const at::Tensor of_hidden = linear_cross_entropy(hidden, inputs.weight, inputs.target).loss;
  EXPECT_TRUE(at::equal(grad({of_hidden.sum()}, {hidden})[0], expected[0]));
  const at::Tensor of_weight = linear_cross_entropy(inputs.hidden, weight, inputs.target).loss;
  EXPECT_TRUE(at::allclose(grad({of_weight.sum()}, {weight})[0], expected[1], 1e-5, 1e-6));
  EXPECT_FALSE(linear_cross_entropy(inputs.hidden, inputs.weight, inputs.target).loss.requires_grad());
}

TEST(LinearCrossEntropy, second_derivative_is_refused) {
  const auto inputs = linear_cross_entropy_inputs(small_case(at::kDouble), at::kCPU);
  const at::Tensor hidden = inputs.hidden.clone().requires_grad_();
  const at::Tensor loss = linear_cross_entropy(hidden, inputs.weight, inputs.target).loss.sum();
  const at::Tensor first = grad({loss}, {hidden}, {}, std::nullopt, /*create_graph=*/true)[0];
  EXPECT_THAT([&] { grad({first.sum()}, {hidden}); },
              testing::ThrowsMessage<c10::Error>(
                  testing::HasSubstr("derivative for titer::linear_cross_entropy_backward is not implemented")));
}

TEST(LinearCrossEntropy, runs_in_inference_mode) {
  const auto inputs = linear_cross_entropy_inputs(small_case(at::kFloat), at::kCPU);
  const LinearCrossEntropy expected = linear_cross_entropy(inputs.hidden, inputs.weight, inputs.target);
  const c10::InferenceMode guard;
  EXPECT_TRUE(at::equal(linear_cross_entropy(inputs.hidden, inputs.weight, inputs.target).loss, expected.loss));
}

/// What a random table of cases does not hit, on each device.
class LinearCrossEntropyDevice : public testing::TestWithParam<at::Device> {
 protected:
  static at::TensorOptions options() { return at::TensorOptions(GetParam()).dtype(at::kFloat); }
  static at::TensorOptions long_options() { return options().dtype(at::kLong); }
};

INSTANTIATE_TEST_SUITE_P(Devices, LinearCrossEntropyDevice, testing::ValuesIn(devices()),
                         [](const auto& info) { return info.param.str(); });

// weight = identity makes hidden the logits.
LinearCrossEntropy of_logits(const at::Tensor& logits, const at::Tensor& target) {
  return linear_cross_entropy(logits, at::eye(logits.size(1), logits.options()), target);
}

TEST_P(LinearCrossEntropyDevice, ties_take_the_lowest_token) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kDouble}) {
    // Two equal maxima per row, at distances that lie within a vector, a tile, across tiles and across chunks.
    const int64_t vocab = 2500;
    const std::vector<std::pair<int64_t, int64_t>> pairs{{0, 1},       {5, 70},   {3, 127},     {127, 128}, {60, 1023},
                                                         {1023, 1024}, {1, 2499}, {1500, 1501}, {64, 2048}};
    const int64_t rows = static_cast<int64_t>(pairs.size());
    at::Tensor logits = at::zeros({3 * rows, vocab}, options().dtype(dtype));
    std::vector<int64_t> target, other;
    std::vector<bool> match;
    for (int64_t r = 0; r < 3 * rows; ++r) {
      const auto [first, second] = pairs[r / 3];
      logits[r][first].fill_(7);
      logits[r][second].fill_(7);
      const int64_t neither = second == 2499 ? 2 : 2499;
      target.push_back(r % 3 == 0 ? first : r % 3 == 1 ? second : neither);
      other.push_back(r % 3 == 0 ? second : first);
      match.push_back(r % 3 == 0);
    }
    const LinearCrossEntropy result = of_logits(logits, at::tensor(target, long_options()));
    EXPECT_TRUE(at::equal(result.best_other_index, at::tensor(other, long_options()))) << dtype;
    for (int64_t r = 0; r < 3 * rows; ++r) EXPECT_EQ(result.match[r].item<bool>(), match[r]) << r;
  }
}

TEST_P(LinearCrossEntropyDevice, equal_logits_everywhere) {
  const at::Tensor target = at::tensor({0, 1, 299}, long_options());
  const LinearCrossEntropy result = of_logits(at::zeros({3, 300}, options()), target);
  EXPECT_TRUE(at::equal(result.match, at::tensor({1, 0, 0}, long_options()).to(at::kBool)));
  EXPECT_TRUE(at::equal(result.best_other_index, at::tensor({1, 0, 0}, long_options())));
  EXPECT_TRUE(at::allclose(result.loss, at::full({3}, std::log(300.0f), options())));
}

TEST_P(LinearCrossEntropyDevice, small_losses_keep_their_relative_accuracy) {
  at::Tensor logits = at::zeros({4, 200}, options().dtype(at::kDouble));
  const double lead[] = {10, 20, 40, 80};
  for (int64_t r = 0; r < 4; ++r) logits[r][150].fill_(lead[r]);
  const at::Tensor target = at::full({4}, 150, long_options());
  const at::Tensor hidden = logits.to(at::kFloat).requires_grad_();
  const LinearCrossEntropy result = of_logits(hidden, target);
  const at::Tensor gradient = grad({result.loss.sum()}, {hidden})[0];
  for (int64_t r = 0; r < 4; ++r) {
    const double expected = std::log1p(199 * std::exp(-lead[r]));
    EXPECT_NEAR(result.loss[r].item<double>() / expected, 1, 1e-6) << lead[r];
    EXPECT_NEAR(gradient[r][150].item<double>() / std::expm1(-expected), 1, 1e-5) << lead[r];
  }
}

// Row 1 gets one logit of NaN, or of a product that overflows to +inf.
TEST_P(LinearCrossEntropyDevice, broken_logits_surface) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kDouble}) {
    const double large = dtype == at::kDouble ? 1e300 : 1e38;
    for (const double broken : {kNaN, large}) {
      for (const int64_t place : {0, 77, 128, 1999}) {
        const at::Tensor hidden = at::zeros({3, 2}, options().dtype(dtype));
        const at::Tensor weight = at::zeros({2000, 2}, options().dtype(dtype));
        hidden.select(1, 0).fill_(1);
        hidden[1][1].fill_(large);
        weight[place][1].fill_(broken);
        for (const int64_t target : {place, int64_t{5}}) {
          const LinearCrossEntropy result = linear_cross_entropy(hidden, weight, at::full({3}, target, long_options()));
          for (const at::Tensor& output : {result.loss, result.lse, result.best_other}) {
            EXPECT_TRUE(std::isnan(output[1].item<double>()))
                << dtype << " " << broken << " " << place << " " << target;
          }
          EXPECT_FALSE(result.match[1].item<bool>());
        }
      }
    }
  }
}

TEST_P(LinearCrossEntropyDevice, minus_infinity_is_probability_zero) {
  at::Tensor hidden = at::ones({2, 1}, options()), weight = at::full({300, 1}, -kInfinity, options());
  weight[7].fill_(0);
  weight[250].fill_(0);
  const LinearCrossEntropy result = linear_cross_entropy(hidden, weight, at::tensor({7, 8}, long_options()));
  EXPECT_NEAR(result.loss[0].item<double>(), std::log(2.0), 1e-6);
  EXPECT_EQ(result.best_other_index[0].item<int64_t>(), 250);
  EXPECT_TRUE(result.match[0].item<bool>());
  EXPECT_EQ(result.loss[1].item<double>(), kInfinity);
  EXPECT_EQ(result.best_other_index[1].item<int64_t>(), 7);
  const LinearCrossEntropy certain = linear_cross_entropy(
      hidden, weight.index_fill(0, at::tensor({250}, long_options()), -kInfinity), at::tensor({7, 7}, long_options()));
  EXPECT_EQ(certain.loss[0].item<double>(), 0);
  EXPECT_EQ(certain.best_other[0].item<double>(), -kInfinity);
}

TEST(LinearCrossEntropy, values_without_gradient_do_not_depend_on_the_number_of_threads) {
  const int threads = at::get_num_threads();
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const auto inputs =
        linear_cross_entropy_inputs({"threads", 700, 64, 5000, dtype, Layout::kContiguous, 3, 0, 0}, at::kCPU);
    at::set_num_threads(1);
    const LinearCrossEntropy one = linear_cross_entropy(inputs.hidden, inputs.weight, inputs.target);
    at::set_num_threads(3);
    const LinearCrossEntropy three = linear_cross_entropy(inputs.hidden, inputs.weight, inputs.target);
    at::set_num_threads(threads);
    EXPECT_TRUE(at::equal(one.loss, three.loss));
    EXPECT_TRUE(at::equal(one.lse, three.lse));
  }
}

TEST_P(LinearCrossEntropyDevice, rows_beyond_two_to_the_31_logits_are_right_and_never_in_memory_at_once) {
  const LinearCrossEntropyCase c{"huge", 16500, 2, 131072, at::kFloat, Layout::kContiguous, 3, 2e-6, 1e-4};
  static_assert(int64_t{16500} * 131072 > int64_t{1} << 31);
  const auto inputs = linear_cross_entropy_inputs(c, GetParam());
  const auto peak_kib = [] {
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);) {
      if (line.starts_with("VmHWM:")) return std::stol(line.substr(6));
    }
    return 0L;
  };
  const long before = peak_kib();
  const at::Tensor hidden = inputs.hidden.clone().requires_grad_();
  const LinearCrossEntropy result = linear_cross_entropy(hidden, inputs.weight, inputs.target);
  const at::Tensor gradient = grad({result.loss.sum()}, {hidden})[0];
  if (has_cpu_backend(GetParam())) {
    EXPECT_LT(peak_kib() - before, 64 * 1024);  // the logits would be 8 GiB
  }

  const int64_t tail = 50;
  const auto last = [&](const at::Tensor& x) { return x.detach().narrow(0, c.rows - tail, tail); };
  const at::Tensor last_hidden = to_double(last(hidden)).requires_grad_();
  const LinearCrossEntropy expected =
      reference::linear_cross_entropy(last_hidden, to_double(inputs.weight), last(inputs.target));
  EXPECT_LE(largest(last(result.loss) - expected.loss), 2e-5);
  EXPECT_TRUE(at::equal(last(result.best_other_index), expected.best_other_index));
  EXPECT_LE(largest(last(gradient) - grad({expected.loss.sum()}, {last_hidden})[0]), 1e-4);
}

TEST_P(LinearCrossEntropyDevice, gradient_of_the_weight_beyond_one_panel) {
  // 3000 rows x 6000 tokens of float32 gradients are several times the panel that is kept.
  const LinearCrossEntropyCase c{"panels", 3000, 8, 6000, at::kFloat, Layout::kContiguous, 3, 0, 0};
  const auto inputs = linear_cross_entropy_inputs(c, GetParam());
  const auto gradient = [&](const auto& op, at::ScalarType dtype) {
    const at::Tensor weight = inputs.weight.to(dtype, /*non_blocking=*/false, /*copy=*/true).requires_grad_();
    return grad({op(inputs.hidden.to(dtype), weight, inputs.target).loss.mean()}, {weight})[0];
  };
  const at::Tensor expected = gradient(reference::linear_cross_entropy, at::kDouble);
  EXPECT_LE(largest(gradient(linear_cross_entropy, at::kFloat) - expected), 1e-5 * largest(expected));
}

TEST(LinearCrossEntropy, meta_tensors_give_shapes_and_dtypes) {
  const auto meta = [](at::IntArrayRef shape, at::ScalarType dtype) {
    return at::empty(shape, at::TensorOptions(at::kMeta).dtype(dtype));
  };
  const at::Tensor hidden = meta({5, 8}, at::kBFloat16).requires_grad_(), target = meta({5}, at::kLong);
  const LinearCrossEntropy result = linear_cross_entropy(hidden, meta({30, 8}, at::kBFloat16), target);
  EXPECT_EQ(result.loss.sizes(), at::IntArrayRef({5}));
  EXPECT_EQ(result.loss.scalar_type(), at::kFloat);
  EXPECT_EQ(result.best_other_index.scalar_type(), at::kLong);
  EXPECT_EQ(result.match.scalar_type(), at::kBool);
  EXPECT_TRUE(result.loss.is_meta());
  const at::Tensor gradient = grad({result.loss.sum()}, {hidden})[0];
  EXPECT_EQ(gradient.sizes(), hidden.sizes());
  EXPECT_EQ(gradient.scalar_type(), at::kBFloat16);
  EXPECT_THROW(linear_cross_entropy(hidden, meta({30, 9}, at::kBFloat16), target), c10::ValueError);
}

using Outputs = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

// What torch.ops.titer.linear_cross_entropy calls: no C++ entry is in between.
Outputs call_dispatcher(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& target) {
  return c10::Dispatcher::singleton()
      .findSchemaOrThrow("titer::linear_cross_entropy", "")
      .typed<Outputs(const at::Tensor&, const at::Tensor&, const at::Tensor&)>()
      .call(hidden, weight, target);
}

template <typename Error>
void expect_refused(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& target,
                    const std::string& message) {
  const auto matcher = testing::ThrowsMessage<Error>(testing::HasSubstr("[linear_cross_entropy] " + message));
  EXPECT_THAT([&] { linear_cross_entropy(hidden, weight, target); }, matcher);
  EXPECT_THAT([&] { call_dispatcher(hidden, weight, target); }, matcher);
}

TEST(LinearCrossEntropy, bad_arguments_are_named) {
  const at::Tensor hidden = at::ones({3, 4}), weight = at::ones({10, 4}), target = at::zeros({3}, at::kLong);
  expect_refused<c10::ValueError>(hidden.unsqueeze(0), weight, target,
                                  "hidden must be a dense matrix [R, d], got shape [1, 3, 4]");
  expect_refused<c10::ValueError>(hidden, weight[0], target, "weight must be a dense matrix [V, d], got shape [4]");
  expect_refused<c10::TypeError>(hidden.to(at::kInt), weight.to(at::kInt), target,
                                 "hidden must be float32, bfloat16, float16 or float64, got Int");
  expect_refused<c10::TypeError>(hidden, weight.to(at::kBFloat16), target,
                                 "weight must have the dtype of hidden, Float, got BFloat16");
  expect_refused<c10::ValueError>(hidden, at::ones({10, 5}), target,
                                  "hidden [R, d] and weight [V, d] must share d >= 1, got [3, 4] and [10, 5]");
  expect_refused<c10::ValueError>(at::ones({3, 0}), at::ones({10, 0}), target, "hidden [R, d] and weight [V, d]");
  expect_refused<c10::ValueError>(hidden, at::ones({1, 4}), target,
                                  "weight must have between 2 and 2^31 - 1 rows, got 1");
  expect_refused<c10::ValueError>(hidden, at::ones({4, 10}).t(), target, "weight must have contiguous rows");
  expect_refused<c10::ValueError>(hidden, at::ones({1, 4}).expand({10, 4}), target, "weight must have contiguous rows");
  expect_refused<c10::TypeError>(hidden, weight, target.to(at::kInt), "target must be Long, got Int");
  expect_refused<c10::ValueError>(hidden, weight, at::zeros({4}, at::kLong), "target must have shape [3]");
  expect_refused<c10::ValueError>(hidden, weight, at::zeros({3, 1}, at::kLong), "target must have shape [3]");
  expect_refused<c10::ValueError>(hidden, weight.to(at::kMeta), target, "weight must be on cpu like hidden, got meta");
  if (!has_cpu_backend(at::kCPU)) return;  // others do not wait for the values of target: such a loss is NaN
  expect_refused<c10::IndexError>(hidden, weight, at::full({3}, 10, at::kLong),
                                  "target must be in [0, 10), got 10 in row 0");
  expect_refused<c10::IndexError>(hidden, weight, at::tensor({0, -1, 0}, at::kLong),
                                  "target must be in [0, 10), got -1 in row 1");
}

TEST(LinearCrossEntropy, backward_op_checks_its_own_arguments) {
  const auto backward = [](const at::Tensor& lse, const at::Tensor& other, const std::optional<at::Tensor>& mean) {
    using Optional = std::optional<at::Tensor>;
    const at::Tensor& rows = lse;
    c10::Dispatcher::singleton()
        .findSchemaOrThrow("titer::linear_cross_entropy_backward", "")
        .typed<std::tuple<at::Tensor, at::Tensor>(
            const Optional&, const Optional&, const Optional&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
            const at::Tensor&, const at::Tensor&, const at::Tensor&, const Optional&, std::array<bool, 2>)>()
        .call(at::ones({3}), std::nullopt, std::nullopt, at::ones({3, 4}), at::ones({10, 4}), at::zeros({3}, at::kLong),
              at::zeros({3}), rows, other, mean, {true, true});
  };
  const at::Tensor rows = at::zeros({3}), other = at::ones({3}, at::kLong), mean = at::zeros({3, 4});
  EXPECT_NO_THROW(backward(rows, other, mean));
  EXPECT_THROW(backward(at::zeros({2}), other, mean), c10::ValueError);
  EXPECT_THROW(backward(rows.to(at::kDouble), other, mean), c10::TypeError);
  EXPECT_THROW(backward(rows, other, std::nullopt), c10::ValueError);
  EXPECT_THROW(backward(rows, other, at::zeros({3, 5})), c10::ValueError);
  if (!has_cpu_backend(at::kCPU)) return;
  EXPECT_THROW(backward(rows, at::full({3}, 10, at::kLong), mean), c10::IndexError);
}

}  // namespace
}  // namespace titer::test

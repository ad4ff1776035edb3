#include <ATen/Parallel.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn_like.h>
#include <ATen/ops/zeros.h>
#include <c10/core/InferenceMode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <titer/kernels/batched_lora.h>
#include <torch/csrc/autograd/autograd.h>

#include <limits>

#include "backends.h"
#include "batched_lora_cases.h"
#include "gradcheck.h"
#include "reference/batched_lora.h"
#include "rounding.h"

namespace titer::test {
namespace {

using ops::LoraBank;
using torch::autograd::grad;

constexpr at::ScalarType kTypes[] = {at::kFloat, at::kDouble, at::kBFloat16, at::kHalf};

at::Tensor to_double(const at::Tensor& x) { return x.detach().to(at::kDouble); }
at::Tensor size_of(const at::Tensor& x) { return to_double(x).abs(); }

/// Roundings of sums of that many terms, a sixteenth of them in one chain of additions at least, and of a few more.
double steps(int64_t terms) { return 8 + static_cast<double>(terms) / 16; }

class BatchedLoraTest : public testing::TestWithParam<LoraCase> {};

void expect_values_equal_reference(const LoraCase& c, at::Device device) {
  for (const at::ScalarType dtype : kTypes) {
    const LoraInputTensors inputs = lora_inputs(c, dtype, device);
    const auto& bank = inputs.bank;
    const LoraBank wide{to_double(bank.a), to_double(bank.b), bank.rows, bank.scale};
    const LoraBank sizes{size_of(bank.a), size_of(bank.b), bank.rows, bank.scale};
    const at::Tensor expected = reference::batched_lora(to_double(inputs.base), to_double(inputs.x), wide);
    const at::Tensor magnitude = reference::batched_lora(size_of(inputs.base), size_of(inputs.x), sizes);
    const at::Tensor actual = ops::batched_lora(inputs.base, inputs.x, bank);
    EXPECT_TRUE(actual.is_contiguous());
    EXPECT_LE(rounding_error(actual, expected, magnitude, steps(c.d_in + c.rank)), 1) << dtype;
    EXPECT_TRUE(ops::batched_lora_(inputs.base, inputs.x, bank).is_same(inputs.base));
    EXPECT_TRUE(at::equal(inputs.base, actual)) << dtype;
  }
}

TEST_P(BatchedLoraTest, values_equal_reference_in_float64) {
  for (const at::Device device : devices()) expect_values_equal_reference(GetParam(), device);
}

/// Of base, x, a and b.
template <typename Op>
std::vector<at::Tensor> gradients(const Op& op, const LoraInputTensors& inputs, const at::Tensor& incoming) {
  const auto leaf = [](const at::Tensor& t) { return t.detach().requires_grad_(); };
  const at::Tensor base = leaf(inputs.base), x = leaf(inputs.x), a = leaf(inputs.bank.a), b = leaf(inputs.bank.b);
  return grad({op(base, x, LoraBank{a, b, inputs.bank.rows, inputs.bank.scale})}, {base, x, a, b}, {incoming});
}

template <typename Convert>
LoraInputTensors converted(const LoraInputTensors& inputs, const Convert& convert) {
  const LoraBank& bank = inputs.bank;
  return {convert(inputs.base), convert(inputs.x), {convert(bank.a), convert(bank.b), bank.rows, bank.scale}};
}

/// The same formulas on absolute values bound the terms of the sums.
void expect_gradients_equal_reference(const LoraCase& c, at::Device device) {
  for (const at::ScalarType dtype : kTypes) {
    const LoraInputTensors inputs = lora_inputs(c, dtype, device);
    const at::Tensor incoming = at::randn_like(inputs.base);
    const auto actual = gradients(ops::batched_lora, inputs, incoming);
    const auto expected = gradients(reference::batched_lora, converted(inputs, to_double), to_double(incoming));
    const auto magnitude = gradients(reference::batched_lora, converted(inputs, size_of), size_of(incoming));
    EXPECT_TRUE(at::equal(actual[0], incoming));
    const int64_t terms = c.d_in + c.d_out + c.rank + c.total();
    for (size_t i = 1; i < actual.size(); ++i) {
      EXPECT_EQ(actual[i].scalar_type(), i == 1 ? dtype : factor_type(dtype));
      EXPECT_LE(rounding_error(actual[i], expected[i], magnitude[i], steps(terms)), 1) << dtype << " of input " << i;
    }
  }
}

TEST_P(BatchedLoraTest, gradients_equal_reference_in_float64) {
  for (const at::Device device : devices()) expect_gradients_equal_reference(GetParam(), device);
}

TEST_P(BatchedLoraTest, every_instruction_set_equals_reference_in_float64) {
  for (const int64_t target : instruction_sets()) {
    SCOPED_TRACE(hwy::TargetName(target));
    const ForcedInstructionSet forced(target);
    expect_values_equal_reference(GetParam(), at::kCPU);
    expect_gradients_equal_reference(GetParam(), at::kCPU);
  }
}

/// One run of a bank, alone.
LoraInputTensors run_alone(const LoraInputTensors& inputs, int64_t run) {
  int64_t first = 0;
  for (int64_t k = 0; k < run; ++k) first += inputs.bank.rows[k].item<int64_t>();
  const int64_t count = inputs.bank.rows[run].item<int64_t>();
  const auto part = [&](const at::Tensor& t) { return t.narrow(0, first, count); };
  return {part(inputs.base),
          part(inputs.x),
          {inputs.bank.a.narrow(0, run, 1),
           inputs.bank.b.narrow(0, run, 1),
           inputs.bank.rows.narrow(0, run, 1),
           {inputs.bank.scale[static_cast<size_t>(run)]}}};
}

TEST_P(BatchedLoraTest, a_run_is_what_it_is_alone) {
  const LoraCase& c = GetParam();
  for (const at::ScalarType dtype : kTypes) {
    const LoraInputTensors inputs = lora_inputs(c, dtype);
    // torch's float64 product rounds by where its operands lie in memory.
    const auto same = [&](const at::Tensor& x, const at::Tensor& y) {
      return dtype == at::kDouble ? at::allclose(x, y, 1e-12, 1e-12) : at::equal(x, y);
    };
    const at::Tensor incoming = at::randn_like(inputs.base);
    const at::Tensor all = ops::batched_lora(inputs.base, inputs.x, inputs.bank);
    const auto all_gradients = gradients(ops::batched_lora, inputs, incoming);
    int64_t first = 0;
    for (int64_t k = 0; k < c.runs(); ++k) {
      const LoraInputTensors alone = run_alone(inputs, k);
      const int64_t count = c.rows[static_cast<size_t>(k)];
      const auto part = [&](const at::Tensor& t) { return t.narrow(0, first, count); };
      EXPECT_TRUE(same(ops::batched_lora(alone.base, alone.x, alone.bank), part(all))) << dtype << " run " << k;
      const auto own = gradients(ops::batched_lora, alone, part(incoming));
      EXPECT_TRUE(same(own[1], part(all_gradients[1]))) << dtype << " run " << k;
      EXPECT_TRUE(same(own[2][0], all_gradients[2][k])) << dtype << " run " << k;
      EXPECT_TRUE(same(own[3][0], all_gradients[3][k])) << dtype << " run " << k;
      first += count;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, BatchedLoraTest, testing::ValuesIn(lora_cases()),
                         [](const auto& info) { return info.param.name; });

TEST(BatchedLora, gradcheck) {
  for (const LoraCase& c : lora_cases()) {
    if ((c.total() + c.runs() * c.rank) * (c.d_in + c.d_out) > 4000 || c.total() == 0) continue;
    const LoraInputTensors inputs = lora_inputs(c, at::kDouble);
    const auto op = [&](const Tensors& t) -> Tensors {
      return {ops::batched_lora(t[0], t[1], {t[2], t[3], inputs.bank.rows, inputs.bank.scale})};
    };
    EXPECT_LE(gradcheck_error(op, {inputs.base.contiguous(), inputs.x.contiguous(), inputs.bank.a.contiguous(),
                                   inputs.bank.b.contiguous()}),
              1e-7)
        << c.name;
  }
}

LoraCase small_case() { return {"small", {5, 9, 2}, 12, 10, 4}; }

// The products of a and b are what a model computes: moving a power of two between them is exact.
TEST(BatchedLora, moving_a_factor_from_b_to_a_changes_nothing) {
  for (const at::ScalarType dtype : kTypes) {
    const LoraInputTensors inputs = lora_inputs(small_case(), dtype);
    const at::Tensor expected = ops::batched_lora(inputs.base, inputs.x, inputs.bank);
    const auto& [a, b, rows, scale] = inputs.bank;
    EXPECT_TRUE(at::equal(ops::batched_lora(inputs.base, inputs.x, {a * 8, b / 8, rows, scale}), expected)) << dtype;
    const at::Tensor rounded = ops::batched_lora(inputs.base, inputs.x, {a * 3, b / 3, rows, scale});
    EXPECT_LE((to_double(rounded) - to_double(expected)).abs().max().item<double>(),
              8 * unit_roundoff(dtype) * size_of(expected).max().item<double>())
        << dtype;
  }
}

TEST(BatchedLora, ranks_that_are_zero_change_nothing) {
  const LoraInputTensors inputs = lora_inputs(small_case(), at::kFloat);
  const auto& [a, b, rows, scale] = inputs.bank;
  const at::Tensor expected = ops::batched_lora(inputs.base, inputs.x, inputs.bank);
  const at::Tensor wide_a = at::zeros({3, 7, 12}), wide_b = at::zeros({3, 10, 7});
  wide_a.narrow(1, 0, 4).copy_(a);
  wide_b.narrow(2, 0, 4).copy_(b);
  EXPECT_LE(
      (ops::batched_lora(inputs.base, inputs.x, {wide_a, wide_b, rows, scale}) - expected).abs().max().item<double>(),
      1e-6);
  EXPECT_TRUE(at::equal(ops::batched_lora(inputs.base, inputs.x, {a, at::zeros_like(b), rows, scale}), inputs.base));
}

TEST(BatchedLora, does_not_depend_on_the_number_of_threads) {
  const int threads = at::get_num_threads();
  const LoraCase c{"threads", {700, 0, 130, 999}, 96, 160, 8};
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const LoraInputTensors inputs = lora_inputs(c, dtype);
    const at::Tensor incoming = at::randn_like(inputs.base);
    at::set_num_threads(1);
    const at::Tensor one = ops::batched_lora(inputs.base, inputs.x, inputs.bank);
    const auto one_gradients = gradients(ops::batched_lora, inputs, incoming);
    at::set_num_threads(3);
    EXPECT_TRUE(at::equal(ops::batched_lora(inputs.base, inputs.x, inputs.bank), one));
    const auto three_gradients = gradients(ops::batched_lora, inputs, incoming);
    at::set_num_threads(threads);
    for (size_t i = 0; i < one_gradients.size(); ++i) EXPECT_TRUE(at::equal(three_gradients[i], one_gradients[i])) << i;
  }
}

TEST(BatchedLora, only_inputs_that_require_a_gradient_get_one) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const LoraInputTensors inputs = lora_inputs(small_case(), dtype);
    const at::Tensor incoming = at::randn_like(inputs.base);
    const auto all = gradients(ops::batched_lora, inputs, incoming);
    for (size_t i = 0; i < all.size(); ++i) {
      std::vector<at::Tensor> leaves{inputs.base, inputs.x, inputs.bank.a, inputs.bank.b};
      leaves[i] = leaves[i].clone().requires_grad_();
      const at::Tensor result =
          ops::batched_lora(leaves[0], leaves[1], {leaves[2], leaves[3], inputs.bank.rows, inputs.bank.scale});
      EXPECT_TRUE(at::equal(grad({result}, {leaves[i]}, {incoming})[0], all[i])) << i;
    }
    EXPECT_FALSE(ops::batched_lora(inputs.base, inputs.x, inputs.bank).requires_grad());
  }
}

TEST(BatchedLora, in_place_has_the_same_gradients) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const LoraInputTensors inputs = lora_inputs(small_case(), dtype);
    const at::Tensor incoming = at::randn_like(inputs.base);
    const auto in_place = [](const at::Tensor& base, const at::Tensor& x, const LoraBank& bank) {
      at::Tensor doubled = base * 2;  // what is written must not be a leaf
      const auto version = doubled._version();
      ops::batched_lora_(doubled, x, bank);
      EXPECT_GT(doubled._version(), version);
      return doubled;
    };
    const auto fresh = [](const at::Tensor& base, const at::Tensor& x, const LoraBank& bank) {
      return ops::batched_lora(base * 2, x, bank);
    };
    const auto actual = gradients(in_place, inputs, incoming), expected = gradients(fresh, inputs, incoming);
    for (size_t i = 0; i < expected.size(); ++i) EXPECT_TRUE(at::equal(actual[i], expected[i])) << i;
  }
}

TEST(BatchedLora, in_place_on_a_base_without_a_gradient) {
  const LoraInputTensors inputs = lora_inputs(small_case(), at::kFloat);
  const at::Tensor a = inputs.bank.a.clone().requires_grad_(), base = inputs.base.clone();
  const LoraBank bank{a, inputs.bank.b, inputs.bank.rows, inputs.bank.scale};
  const at::Tensor expected = grad({ops::batched_lora(inputs.base, inputs.x, bank).sum()}, {a})[0];
  ops::batched_lora_(base, inputs.x, bank);
  EXPECT_TRUE(at::equal(grad({base.sum()}, {a})[0], expected));
  const at::Tensor leaf = inputs.base.clone().requires_grad_();
  EXPECT_THROW(ops::batched_lora_(leaf, inputs.x, bank), c10::Error);
}

TEST(BatchedLora, an_expanded_gradient_is_one_like_others) {
  const LoraInputTensors inputs = lora_inputs(small_case(), at::kFloat);
  const at::Tensor ones = at::ones(inputs.base.sizes());
  const auto expected = gradients(ops::batched_lora, inputs, ones);
  for (const at::Tensor& expanded : {at::ones({1, 1}).expand(ones.sizes()), at::ones({1, 10}).expand(ones.sizes())}) {
    const auto actual = gradients(ops::batched_lora, inputs, expanded);
    for (size_t i = 0; i < actual.size(); ++i) EXPECT_TRUE(at::equal(actual[i], expected[i])) << i;
  }
}

TEST(BatchedLora, what_has_no_derivative_says_so) {
  const LoraInputTensors inputs = lora_inputs(small_case(), at::kDouble);
  const at::Tensor x = inputs.x.clone().requires_grad_();
  const at::Tensor first =
      grad({ops::batched_lora(inputs.base, x, inputs.bank).sum()}, {x}, {}, std::nullopt, /*create_graph=*/true)[0];
  EXPECT_THAT([&] { grad({first.sum()}, {x}); },
              testing::ThrowsMessage<c10::Error>(
                  testing::HasSubstr("derivative for titer::batched_lora_backward is not implemented")));
}

TEST(BatchedLora, runs_in_inference_mode) {
  const LoraInputTensors inputs = lora_inputs(small_case(), at::kFloat);
  const at::Tensor expected = ops::batched_lora(inputs.base, inputs.x, inputs.bank);
  const c10::InferenceMode guard;
  EXPECT_TRUE(at::equal(ops::batched_lora(inputs.base, inputs.x, inputs.bank), expected));
}

TEST(BatchedLora, broken_values_stay_in_their_row_and_run) {
  for (const at::ScalarType dtype : kTypes) {
    for (const double broken : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
      const LoraInputTensors inputs = lora_inputs(small_case(), dtype);
      const at::Tensor expected = ops::batched_lora(inputs.base, inputs.x, inputs.bank);
      inputs.x[6][11].fill_(broken);
      const at::Tensor of_x = ops::batched_lora(inputs.base, inputs.x, inputs.bank);
      EXPECT_FALSE(at::isfinite(of_x[6]).any().item<bool>()) << dtype << " " << broken;
      EXPECT_EQ(of_x.ne(expected).any(1).sum().item<int64_t>(), 1);
      const LoraInputTensors again = lora_inputs(small_case(), dtype);
      again.bank.b[1][3][2].fill_(broken);
      const at::Tensor of_b = ops::batched_lora(again.base, again.x, again.bank);
      EXPECT_FALSE(at::isfinite(of_b.narrow(0, 5, 9).select(1, 3)).any().item<bool>()) << dtype << " " << broken;
      EXPECT_EQ(of_b.ne(expected).sum().item<int64_t>(), 9);
    }
  }
}

TEST(BatchedLora, meta_tensors_give_shapes_and_dtypes) {
  const auto meta = [](at::IntArrayRef shape, at::ScalarType dtype) {
    return at::empty(shape, at::TensorOptions(at::kMeta).dtype(dtype)).requires_grad_();
  };
  const at::Tensor base = meta({5, 8}, at::kBFloat16), x = meta({5, 6}, at::kBFloat16);
  const LoraBank bank{meta({2, 3, 6}, at::kFloat),
                      meta({2, 8, 3}, at::kFloat),
                      at::tensor(std::vector<int64_t>{4, 1}, at::kLong),
                      {1, 1}};
  const at::Tensor result = ops::batched_lora(base, x, bank);
  EXPECT_TRUE(result.is_meta());
  EXPECT_EQ(result.sizes(), base.sizes());
  EXPECT_EQ(result.scalar_type(), at::kBFloat16);
  const auto gradients = grad({result.sum()}, {base, x, bank.a, bank.b});
  EXPECT_EQ(gradients[1].sizes(), x.sizes());
  EXPECT_EQ(gradients[1].scalar_type(), at::kBFloat16);
  EXPECT_EQ(gradients[2].sizes(), bank.a.sizes());
  EXPECT_EQ(gradients[3].sizes(), bank.b.sizes());
  EXPECT_EQ(gradients[3].scalar_type(), at::kFloat);
}

template <typename Error>
void expect_refused(const at::Tensor& base, const at::Tensor& x, const LoraBank& bank, const std::string& message) {
  const auto matcher = testing::ThrowsMessage<Error>(testing::HasSubstr("[batched_lora] " + message));
  EXPECT_THAT([&] { ops::batched_lora_(base, x, bank); }, matcher);
}

TEST(BatchedLora, bad_arguments_are_named) {
  const at::Tensor base = at::ones({3, 8}), x = at::ones({3, 6}), a = at::ones({2, 4, 6}), b = at::ones({2, 8, 4});
  const auto lengths = [](const std::vector<int64_t>& rows) { return at::tensor(rows, at::kLong); };
  const at::Tensor rows = lengths({1, 2});
  const std::vector<double> scale{1, 2};
  expect_refused<c10::ValueError>(base[0], x, {a, b, rows, scale}, "base must be a dense matrix [R, d_out]");
  expect_refused<c10::ValueError>(base, x[0], {a, b, rows, scale}, "x must be a dense matrix [R, d_in]");
  expect_refused<c10::TypeError>(base.to(at::kInt), x.to(at::kInt), {a, b, rows, scale},
                                 "base must be float32, bfloat16, float16 or float64, got Int");
  expect_refused<c10::ValueError>(base, at::ones({4, 6}), {a, b, rows, scale},
                                  "x must have the rows of base, 3, got 4");
  expect_refused<c10::TypeError>(base, x.to(at::kDouble), {a, b, rows, scale},
                                 "x must have the dtype of base, Float, got Double");
  expect_refused<c10::ValueError>(base, at::ones({3, 5}), {a, b, rows, scale},
                                  "a must have shape [K, r, 5], as wide as x, with K and r at least 1, got [2, 4, 6]");
  expect_refused<c10::ValueError>(base, x, {a.narrow(1, 0, 0), b.narrow(2, 0, 0), rows, scale}, "a must have shape");
  expect_refused<c10::ValueError>(base, x, {a, at::ones({2, 4, 8}), rows, scale}, "b must have shape [2, 8, 4]");
  expect_refused<c10::TypeError>(base, x, {a.to(at::kBFloat16), b, rows, scale}, "a must be Float where x is Float");
  expect_refused<c10::TypeError>(base, x, {a, b.to(at::kDouble), rows, scale}, "b must be Float where x is Float");
  expect_refused<c10::ValueError>(base, x, {a, b.to(at::kMeta), rows, scale}, "b must be on cpu like x, got meta");
  expect_refused<c10::TypeError>(base, x, {a, b, rows.to(at::kInt), scale}, "rows must be int64, got Int");
  expect_refused<c10::ValueError>(base, x, {a, b, lengths({3}), scale},
                                  "rows must be a contiguous vector of 2 entries");
  expect_refused<c10::ValueError>(base, x, {a, b, lengths({4, -1}), scale}, "rows[0] must be in [0, 3], got 4");
  expect_refused<c10::ValueError>(base, x, {a, b, lengths({1, 1}), scale},
                                  "rows must add up to the rows of x, 3, got 2");
  expect_refused<c10::ValueError>(base, x, {a, b, rows, {1}}, "scale must have 2 entries, one per run of a, got 1");
  const LoraBank bank{a, b, rows, scale};
  expect_refused<c10::ValueError>(at::ones({8, 3}).t(), x, bank, "base must be contiguous in its last dimension");
  expect_refused<c10::ValueError>(at::ones({1, 8}).expand({3, 8}), x, bank, "base must not be an expanded tensor");
  const at::Tensor square = at::ones({2, 4, 8});
  expect_refused<c10::ValueError>(base, base, {square, b, rows, scale}, "base must not overlap x");
  expect_refused<c10::ValueError>(b.flatten().narrow(0, 0, 24).view({3, 8}), x, bank, "base must not overlap b");
}

}  // namespace
}  // namespace titer::test

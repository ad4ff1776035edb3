#include <ATen/Parallel.h>
#include <ATen/cpu/Utils.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <c10/core/InferenceMode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <titer/kernels/linear.h>
#include <torch/csrc/autograd/autograd.h>

#include "backends.h"
#include "linear_cases.h"
#include "reference/linear.h"
#include "rounding.h"

namespace titer::test {
namespace {

constexpr at::ScalarType kTypes[] = {at::kFloat, at::kDouble, at::kBFloat16, at::kHalf};

using Optional = std::optional<at::Tensor>;

at::Tensor to_double(const at::Tensor& x) { return x.detach().to(at::kDouble); }

Optional to_double(const Optional& x, bool magnitude) {
  if (!x) return {};
  return magnitude ? to_double(*x).abs() : to_double(*x);
}

/// Products on the matrix unit round once; torch's GEMMs round what they hand to the next addition, too.
double error_of(const at::Tensor& actual, const LinearTensors& t, bool rounds_once) {
  const auto sum = [&](bool magnitude) {
    const auto value = [&](const at::Tensor& x) { return magnitude ? to_double(x).abs() : to_double(x); };
    return reference::linear(value(t.x), value(t.weight), to_double(t.bias, magnitude),
                             to_double(t.residual, magnitude));
  };
  const at::ScalarType dtype = actual.scalar_type();
  const bool narrow = dtype == at::kBFloat16 || dtype == at::kHalf;
  const double again = narrow && !rounds_once ? 2.02 * unit_roundoff(dtype) / unit_roundoff(at::kFloat) : 0;
  return rounding_error(actual, sum(false), sum(true), 8 + static_cast<double>(t.x.size(1)) + again);
}

LinearTensors with_separate_residual(LinearTensors t) {
  if (t.residual) t.residual = t.residual->clone();
  return t;
}

class LinearTest : public testing::TestWithParam<LinearCase> {};

void expect_values_equal_reference(const LinearCase& c, at::Device device, bool rounds_once = false) {
  for (const at::ScalarType dtype : kTypes) {
    const LinearTensors t = linear_tensors(c, dtype, device);
    const LinearTensors inputs = with_separate_residual(t);
    EXPECT_TRUE(ops::linear_out(t.out, t.x, t.weight, t.bias, t.residual).is_same(t.out));
    EXPECT_LE(error_of(t.out, inputs, rounds_once && dtype == at::kBFloat16), 1) << dtype;
    const at::Tensor fresh = ops::linear(inputs.x, inputs.weight, inputs.bias, inputs.residual);
    EXPECT_TRUE(fresh.is_contiguous());
    // On a GPU the library may choose another way for another layout of the output.
    if (device.is_cpu()) {
      EXPECT_TRUE(at::equal(fresh, t.out)) << dtype;
    }
    EXPECT_LE(error_of(fresh, inputs, rounds_once && dtype == at::kBFloat16), 1) << dtype;
  }
}

TEST_P(LinearTest, values_equal_reference_in_float64) {
  for (const at::Device device : devices()) expect_values_equal_reference(GetParam(), device);
}

INSTANTIATE_TEST_SUITE_P(Cases, LinearTest, testing::ValuesIn(linear_cases()),
                         [](const auto& info) { return info.param.name; });

bool has_matrix_unit() { return has_cpu_backend(at::kCPU) && at::cpu::init_amx(); }

TEST(Linear, bfloat16_is_rounded_once) {
  if (!has_matrix_unit()) GTEST_SKIP() << "this processor, or the backend, has no matrix unit (AMX)";
  for (const int64_t rows : {40, 140})
    for (const bool bias : {false, true})
      expect_values_equal_reference({"once", rows, 192, 150, bias, true}, at::kCPU, /*rounds_once=*/true);
}

TEST(Linear, bfloat16_does_not_depend_on_threads) {
  if (!has_matrix_unit()) GTEST_SKIP() << "this processor, or the backend, has no matrix unit (AMX)";
  const int threads = at::get_num_threads();
  // The last has more of the weight than a thread packs at a time.
  for (const auto& [rows, inner] : {std::pair{40, 608}, std::pair{300, 608}, std::pair{66, 8192}}) {
    const LinearTensors t = linear_tensors({"threads", rows, inner, 100, true, true}, at::kBFloat16);
    at::set_num_threads(1);
    const at::Tensor one = ops::linear(t.x, t.weight, t.bias, t.residual);
    for (const int more : {2, 3, 7, 8}) {
      at::set_num_threads(more);
      EXPECT_TRUE(at::equal(one, ops::linear(t.x, t.weight, t.bias, t.residual)));
    }
  }
  at::set_num_threads(threads);
}

TEST(Linear, broken_values_stay_in_their_row) {
  for (const at::ScalarType dtype : kTypes) {
    for (const int64_t rows : {6, 70}) {
      const LinearTensors t = linear_tensors({"broken", rows, 64, 50, true, true}, dtype);
      t.x[2][63].fill_(std::numeric_limits<double>::quiet_NaN());
      const at::Tensor result = ops::linear(t.x, t.weight, t.bias, t.residual);
      EXPECT_EQ(result.isnan().all(1).sum().item<int64_t>(), 1);
      EXPECT_EQ(result.isnan().any(1).sum().item<int64_t>(), 1);
    }
  }
}

TEST(Linear, runs_in_inference_mode_and_without_a_derivative) {
  const LinearTensors t = linear_tensors({"small", 6, 30, 20, false, true}, at::kFloat);
  const at::Tensor expected = ops::linear(t.x, t.weight, t.bias, t.residual);
  {
    const c10::InferenceMode guard;
    EXPECT_TRUE(at::equal(ops::linear(t.x, t.weight, t.bias, t.residual), expected));
  }
  const at::Tensor x = t.x.clone().requires_grad_();
  const at::Tensor result = ops::linear(x, t.weight, t.bias, t.residual);
  EXPECT_THAT(
      [&] { torch::autograd::grad({result.sum()}, {x}); },
      testing::ThrowsMessage<c10::Error>(testing::HasSubstr("derivative for titer::linear is not implemented")));
}

TEST(Linear, meta_tensors_give_shapes_and_dtypes) {
  const auto meta = [](at::IntArrayRef shape) {
    return at::empty(shape, at::TensorOptions(at::kMeta).dtype(at::kHalf));
  };
  const at::Tensor result = ops::linear(meta({5, 8}), meta({3, 8}), meta({3}), meta({5, 3}));
  EXPECT_TRUE(result.is_meta());
  EXPECT_EQ(result.sizes(), (std::vector<int64_t>{5, 3}));
  EXPECT_EQ(result.scalar_type(), at::kHalf);
  EXPECT_THROW(ops::linear(meta({5, 8}), meta({3, 9}), std::nullopt, std::nullopt), c10::ValueError);
}

template <typename Error>
void expect_refused(const std::string& message, const at::Tensor& x, const at::Tensor& weight,
                    const Optional& bias = {}, const Optional& residual = {},
                    const at::Tensor& out = at::ones({3, 5})) {
  EXPECT_THAT([&] { ops::linear_out(out, x, weight, bias, residual); },
              testing::ThrowsMessage<Error>(testing::HasSubstr("[linear] " + message)));
}

TEST(Linear, bad_arguments_are_named) {
  const at::Tensor x = at::ones({3, 8}), weight = at::ones({5, 8}), bias = at::ones({5}), residual = at::ones({3, 5});
  expect_refused<c10::ValueError>("x must be a dense matrix [M, k], got shape [8]", x[0], weight);
  expect_refused<c10::TypeError>("x must be float32, bfloat16, float16 or float64, got Int", x.to(at::kInt), weight);
  expect_refused<c10::ValueError>("weight must have shape [n, 8], rows of the width of x, got [5, 7]", x,
                                  at::ones({5, 7}));
  expect_refused<c10::TypeError>("weight must have the dtype of x, Float, got Half", x, weight.to(at::kHalf));
  expect_refused<c10::ValueError>("weight must be on cpu like x, got meta", x, weight.to(at::kMeta));
  expect_refused<c10::ValueError>("bias must have shape [5], got [4]", x, weight, at::ones({4}));
  expect_refused<c10::ValueError>("residual must have shape [3, 5], got [5]", x, weight, bias, bias);
  expect_refused<c10::ValueError>("out must have shape [3, 5], got [5, 3]", x, weight, {}, {}, at::ones({5, 3}));
  expect_refused<c10::ValueError>("x must be contiguous in its last dimension", at::ones({8, 3}).t(), weight);
  expect_refused<c10::ValueError>("out must not be an expanded tensor", x, weight, {}, {},
                                  at::ones({1, 5}).expand({3, 5}));
  const at::Tensor square = at::ones({3, 3});
  expect_refused<c10::ValueError>("out must not overlap x", square, square.clone(), {}, {}, square);
  const at::Tensor rows = at::ones({4, 5});
  expect_refused<c10::ValueError>("out must be residual itself or not overlap it", x, weight, {}, rows.narrow(0, 1, 3),
                                  rows.narrow(0, 0, 3));
}

}  // namespace
}  // namespace titer::test

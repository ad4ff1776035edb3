#include <ATen/Parallel.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn_like.h>
#include <ATen/ops/zeros.h>
#include <c10/core/InferenceMode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <titer/kernels/rms_norm.h>
#include <torch/csrc/autograd/autograd.h>

#include "backends.h"
#include "gradcheck.h"
#include "reference/rms_norm.h"
#include "rms_norm_cases.h"
#include "rounding.h"

namespace titer::test {
namespace {

using ops::RmsNormScale;
using torch::autograd::grad;

constexpr double kEps = 1e-5;
constexpr RmsNormScale kScales[] = {RmsNormScale::kRounded, RmsNormScale::kWide, RmsNormScale::kOffset};
constexpr at::ScalarType kTypes[] = {at::kFloat, at::kDouble, at::kBFloat16, at::kHalf};

at::Tensor to_double(const at::Tensor& x) { return x.detach().to(at::kDouble); }

/// Roundings of the sum of squares (a sixteenth of the row in one chain of additions at least), and of the rest.
double steps(int64_t d) { return 8 + static_cast<double>(d) / 16; }

/// A value that is rounded twice to 16 bits errs twice as much.
double repeated_rounding(at::ScalarType dtype, RmsNormScale scale) {
  const bool narrow = dtype == at::kBFloat16 || dtype == at::kHalf;
  return narrow && scale == RmsNormScale::kRounded ? unit_roundoff(dtype) / unit_roundoff(at::kFloat) : 0;
}

double error_of(const at::Tensor& actual, const at::Tensor& x, const at::Tensor& weight, RmsNormScale scale,
                const std::optional<at::Tensor>& residual = {}) {
  const at::Tensor normal = reference::rms_norm(to_double(x), to_double(weight), kEps, scale);
  double again = repeated_rounding(x.scalar_type(), scale);
  if (residual) again += unit_roundoff(x.scalar_type()) / unit_roundoff(at::kFloat);  // of what is added to it
  at::Tensor expected = normal, magnitude = normal.abs();
  if (residual) {
    expected = normal + to_double(*residual);
    magnitude = magnitude + expected.abs() / 4;  // the sum is rounded before it is narrowed, and in the oracle
  }
  return rounding_error(actual, expected, magnitude, steps(x.size(1)) + 1.01 * again);
}

class RmsNormTest : public testing::TestWithParam<RmsNormCase> {};

void expect_values_equal_reference(const RmsNormCase& c, at::Device device) {
  for (const at::ScalarType dtype : kTypes) {
    for (const RmsNormScale scale : kScales) {
      const RmsNormInputs inputs = rms_norm_inputs(c, dtype, device);
      const at::Tensor x = inputs.x.clone();  // out may be x, or residual
      const auto residual = inputs.residual ? std::make_optional(inputs.residual->clone()) : std::nullopt;
      const at::Tensor written = ops::rms_norm_out(inputs.out, inputs.x, inputs.weight, kEps, scale, inputs.residual);
      EXPECT_TRUE(written.is_same(inputs.out));
      EXPECT_LE(error_of(inputs.out, x, inputs.weight, scale, residual), 1) << dtype;
      const at::Tensor fresh = ops::rms_norm(x, inputs.weight, kEps, scale, residual);
      EXPECT_TRUE(fresh.is_contiguous());
      // On a GPU the layout decides how many elements a thread adds up in one go, and with them the last bit.
      if (has_cpu_backend(device)) {
        EXPECT_TRUE(at::equal(fresh, inputs.out));
      }
      EXPECT_LE(error_of(fresh, x, inputs.weight, scale, residual), 1) << dtype;
    }
  }
}

TEST_P(RmsNormTest, values_equal_reference_in_float64) {
  for (const at::Device device : devices()) expect_values_equal_reference(GetParam(), device);
}

/// Terms of the gradients, as large as they can be, bound their roundings.
void expect_gradients_equal_reference(const RmsNormCase& c, at::Device device) {
  for (const at::ScalarType dtype : kTypes) {
    for (const RmsNormScale scale : kScales) {
      const RmsNormInputs inputs = rms_norm_inputs(c, dtype, device);
      const at::Tensor incoming = at::randn_like(inputs.out);
      const auto gradients = [&](const auto& op, at::ScalarType type) {
        Tensors leaves{inputs.x, inputs.weight};
        if (inputs.residual) leaves.push_back(*inputs.residual);
        for (at::Tensor& leaf : leaves) leaf = leaf.detach().to(type).requires_grad_();
        const auto residual = inputs.residual ? std::make_optional(leaves.back()) : std::nullopt;
        return grad({op(leaves[0], leaves[1], kEps, scale, residual)}, leaves, {incoming.to(type)});
      };
      const auto actual = gradients(ops::rms_norm, dtype);
      const auto expected = gradients(reference::rms_norm, at::kDouble);

      const at::Tensor x = to_double(inputs.x);
      const at::Tensor inverse = (x.square().mean(1, true) + kEps).rsqrt();
      const at::Tensor normal = (x * inverse).abs();
      const double offset = scale == RmsNormScale::kOffset ? 1 : 0;
      const at::Tensor scaled = (to_double(incoming) * (to_double(inputs.weight) + offset)).abs();
      const at::Tensor of_x = inverse * (scaled + normal * (normal * scaled).mean(1, true));
      EXPECT_EQ(actual[0].scalar_type(), dtype);
      EXPECT_LE(rounding_error(actual[0], expected[0], of_x, 2 * steps(c.d)), 1) << dtype;
      if (inputs.residual) {
        EXPECT_TRUE(at::equal(actual[2], incoming));
      }
      EXPECT_EQ(actual[1].scalar_type(), dtype);
      EXPECT_LE(rounding_error(actual[1], expected[1], (to_double(incoming).abs() * normal).sum(0),
                               steps(c.d) + static_cast<double>(c.rows) + repeated_rounding(dtype, scale)),
                1)
          << dtype;
    }
  }
}

TEST_P(RmsNormTest, gradients_equal_reference_in_float64) {
  for (const at::Device device : devices()) expect_gradients_equal_reference(GetParam(), device);
}

TEST_P(RmsNormTest, every_instruction_set_equals_reference_in_float64) {
  for (const int64_t target : instruction_sets()) {
    SCOPED_TRACE(hwy::TargetName(target));
    const ForcedInstructionSet forced(target);
    expect_values_equal_reference(GetParam(), at::kCPU);
    expect_gradients_equal_reference(GetParam(), at::kCPU);
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, RmsNormTest, testing::ValuesIn(rms_norm_cases()),
                         [](const auto& info) { return info.param.name; });

TEST(RmsNorm, gradcheck) {
  const int64_t largest = has_cpu_backend(at::kCPU) ? 1000 : 300;  // threads of a GPU in turns take 20 s for 1000
  for (const RmsNormCase& c : rms_norm_cases()) {
    if (c.rows * c.d > largest) continue;
    const RmsNormInputs inputs = rms_norm_inputs(c, at::kDouble);
    for (const RmsNormScale scale : kScales) {
      const auto op = [&](const Tensors& x) -> Tensors { return {ops::rms_norm(x[0], x[1], kEps, scale)}; };
      EXPECT_LE(gradcheck_error(op, {inputs.x.contiguous(), inputs.weight}), 1e-7) << c.name;
    }
  }
}

// The float64 oracle does not see where a value is rounded; the composition of transformers' operations does.
TEST(RmsNorm, roundings_are_where_the_scale_says) {
  const RmsNormInputs inputs = rms_norm_inputs({"roundings", 50, 200}, at::kBFloat16);
  const auto share_of_equal = [&](RmsNormScale ours, RmsNormScale theirs) {
    return ops::rms_norm(inputs.x, inputs.weight, kEps, ours)
        .eq(reference::rms_norm(inputs.x, inputs.weight, kEps, theirs))
        .to(at::kDouble)
        .mean()
        .item<double>();
  };
  for (const int64_t target : instruction_sets()) {
    const ForcedInstructionSet forced(target);
    for (const RmsNormScale scale : kScales) EXPECT_GE(share_of_equal(scale, scale), 0.999);
    EXPECT_LE(share_of_equal(RmsNormScale::kRounded, RmsNormScale::kWide), 0.9);
  }
}

TEST(RmsNorm, only_inputs_that_require_a_gradient_get_one) {
  const RmsNormInputs inputs = rms_norm_inputs({"small", 6, 30}, at::kFloat);
  const auto op = [](const at::Tensor& x, const at::Tensor& weight) {
    return ops::rms_norm(x, weight, kEps, RmsNormScale::kWide);
  };
  const at::Tensor x = inputs.x.clone().requires_grad_(), weight = inputs.weight.clone().requires_grad_();
  const auto both = grad({op(x, weight).sum()}, {x, weight});
  EXPECT_TRUE(at::equal(grad({op(x, inputs.weight).sum()}, {x})[0], both[0]));
  EXPECT_TRUE(at::equal(grad({op(inputs.x, weight).sum()}, {weight})[0], both[1]));
  EXPECT_FALSE(op(inputs.x, inputs.weight).requires_grad());
}

TEST(RmsNorm, what_has_no_derivative_says_so) {
  const RmsNormInputs inputs = rms_norm_inputs({"small", 6, 30}, at::kDouble);
  const at::Tensor x = inputs.x.clone().requires_grad_();
  const at::Tensor result = ops::rms_norm(x, inputs.weight, kEps, RmsNormScale::kWide);
  const at::Tensor first = grad({result.sum()}, {x}, {}, std::nullopt, /*create_graph=*/true)[0];
  EXPECT_THAT([&] { grad({first.sum()}, {x}); }, testing::ThrowsMessage<c10::Error>(testing::HasSubstr(
                                                     "derivative for titer::rms_norm_backward is not implemented")));
  const at::Tensor written =
      ops::rms_norm_out(at::zeros(x.sizes(), at::kDouble), x, inputs.weight, kEps, RmsNormScale::kWide);
  EXPECT_THAT(
      [&] { grad({written.sum()}, {x}); },
      testing::ThrowsMessage<c10::Error>(testing::HasSubstr("derivative for titer::rms_norm is not implemented")));
}

TEST(RmsNorm, runs_in_inference_mode) {
  const RmsNormInputs inputs = rms_norm_inputs({"small", 6, 30}, at::kFloat);
  const at::Tensor expected = ops::rms_norm(inputs.x, inputs.weight, kEps, RmsNormScale::kRounded);
  const c10::InferenceMode guard;
  EXPECT_TRUE(at::equal(ops::rms_norm(inputs.x, inputs.weight, kEps, RmsNormScale::kRounded), expected));
}

TEST(RmsNorm, broken_values_stay_in_their_row) {
  for (const at::ScalarType dtype : kTypes) {
    for (const double broken : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
      for (const int64_t place : {0, 30, 76}) {
        const RmsNormInputs inputs = rms_norm_inputs({"broken", 4, 77}, dtype);
        inputs.x[2][place].fill_(broken);
        for (const int64_t target : instruction_sets()) {
          const ForcedInstructionSet forced(target);
          for (const RmsNormScale scale : kScales) {
            const at::Tensor result = ops::rms_norm(inputs.x, inputs.weight, kEps, scale);
            EXPECT_LE(error_of(result, inputs.x, inputs.weight, scale), 1) << dtype << " " << broken;
            EXPECT_EQ(at::isfinite(result).logical_not().any(1).sum().item<int64_t>(), 1);
          }
        }
      }
    }
  }
}

TEST(RmsNorm, a_row_of_zeros_stays_one) {
  const at::Tensor x = at::zeros({2, 50}).requires_grad_();
  const at::Tensor result = ops::rms_norm(x, at::ones({50}), kEps, RmsNormScale::kOffset);
  EXPECT_TRUE(at::equal(result, at::zeros({2, 50})));
  EXPECT_TRUE(grad({result.sum()}, {x})[0].isfinite().all().item<bool>());
}

TEST(RmsNorm, meta_tensors_give_shapes_and_dtypes) {
  const auto meta = [](at::IntArrayRef shape) {
    return at::empty(shape, at::TensorOptions(at::kMeta).dtype(at::kBFloat16)).requires_grad_();
  };
  const at::Tensor x = meta({5, 8}), weight = meta({8});
  const at::Tensor result = ops::rms_norm(x, weight, kEps, RmsNormScale::kRounded);
  EXPECT_TRUE(result.is_meta());
  EXPECT_EQ(result.sizes(), x.sizes());
  EXPECT_EQ(result.scalar_type(), at::kBFloat16);
  const auto gradients = grad({result.sum()}, {x, weight});
  EXPECT_EQ(gradients[0].sizes(), x.sizes());
  EXPECT_EQ(gradients[1].sizes(), weight.sizes());
  EXPECT_THROW(ops::rms_norm(x, meta({9}), kEps, RmsNormScale::kRounded), c10::ValueError);
}

template <typename Error>
void expect_refused(const at::Tensor& x, const at::Tensor& weight, const std::string& message, at::Tensor out = {},
                    double eps = kEps) {
  const auto matcher = testing::ThrowsMessage<Error>(testing::HasSubstr("[rms_norm] " + message));
  if (!out.defined()) {
    EXPECT_THAT([&] { ops::rms_norm(x, weight, eps, RmsNormScale::kWide); }, matcher);
    out = at::empty(x.sizes(), x.options());
  }
  EXPECT_THAT([&] { ops::rms_norm_out(out, x, weight, eps, RmsNormScale::kWide); }, matcher);
}

TEST(RmsNorm, bad_arguments_are_named) {
  const at::Tensor x = at::ones({3, 8}), weight = at::ones({8});
  expect_refused<c10::ValueError>(x[0], weight, "x must be a dense matrix [N, d] with d at least 1, got shape [8]");
  expect_refused<c10::ValueError>(at::ones({3, 0}), at::ones({0}), "x must be a dense matrix [N, d]");
  expect_refused<c10::TypeError>(x.to(at::kInt), weight, "x must be float32, bfloat16, float16 or float64, got Int");
  expect_refused<c10::TypeError>(x, weight.to(at::kHalf), "weight must have the dtype of x, Float, got Half");
  expect_refused<c10::ValueError>(x, at::ones({7}), "weight must have shape [8], the width of x, got [7]");
  expect_refused<c10::ValueError>(x, weight.to(at::kMeta), "weight must be on cpu like x, got meta");
  EXPECT_THAT(
      [&] {
        ops::rms_norm(x, weight, kEps, RmsNormScale::kWide, at::ones({3, 7}));
      },
      testing::ThrowsMessage<c10::ValueError>(
          testing::HasSubstr("[rms_norm] residual must have the shape of x, [3, 8], got [3, 7]")));
  expect_refused<c10::ValueError>(x, weight, "eps must not be negative, got -1", {}, -1);
  expect_refused<c10::ValueError>(x, weight, "out must have the shape of x, [3, 8], got [8]", at::ones({8}));
  expect_refused<c10::TypeError>(x, weight, "out must have the dtype of x, Float", at::ones({3, 8}, at::kDouble));
  expect_refused<c10::ValueError>(x, weight, "out must be contiguous in its last dimension", at::ones({8, 3}).t());
  expect_refused<c10::ValueError>(x, weight, "out must not be an expanded tensor", at::ones({1, 8}).expand({3, 8}));
  const at::Tensor longer = at::ones({4, 8});
  expect_refused<c10::ValueError>(longer.narrow(0, 0, 3), weight, "out must be x itself or not overlap it",
                                  longer.narrow(0, 1, 3));
}

}  // namespace
}  // namespace titer::test

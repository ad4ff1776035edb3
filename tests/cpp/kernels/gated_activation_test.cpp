#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn_like.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <c10/core/InferenceMode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <titer/kernels/gated_activation.h>
#include <torch/csrc/autograd/autograd.h>

#include "backends.h"
#include "gated_activation_cases.h"
#include "gradcheck.h"
#include "reference/gated_activation.h"
#include "rounding.h"

namespace titer::test {
namespace {

using ops::GateActivation;
using torch::autograd::grad;

constexpr GateActivation kActivations[] = {GateActivation::kSilu, GateActivation::kGelu, GateActivation::kGeluTanh};
constexpr at::ScalarType kTypes[] = {at::kFloat, at::kDouble, at::kBFloat16, at::kHalf};

at::Tensor to_double(const at::Tensor& x) { return x.detach().to(at::kDouble); }

/// The argument of exp errs by a few roundings of |gate|, or of its cube, and the activation by as much relatively,
/// which counts where it is small. 16-bit results are rounded twice.
double steps(at::ScalarType dtype) {
  const bool narrow = dtype == at::kBFloat16 || dtype == at::kHalf;
  return 64 + (narrow ? 1.01 * unit_roundoff(dtype) / unit_roundoff(at::kFloat) : 0);
}

double error_of(const at::Tensor& actual, const at::Tensor& gate, const at::Tensor& up, GateActivation activation) {
  const at::Tensor expected = reference::gated_activation(to_double(gate), to_double(up), activation);
  // (1 + tanh(u)) / 2 and (1 + erf(u)) / 2 lose the digits that the logistic function keeps: the oracle errs by
  // roundings to float64 of gate times up, and where torch composes the operation, it does so in its type.
  const at::ScalarType dtype = actual.scalar_type();
  const bool as_oracle = dtype == at::kDouble || dtype == at::kHalf || activation == GateActivation::kGelu;
  const at::Tensor product = (to_double(gate) * to_double(up)).abs() * (as_oracle ? 64 / steps(dtype) : 1e-8);
  return rounding_error(actual, expected, expected.abs() + product, steps(dtype));
}

class GatedActivationTest : public testing::TestWithParam<GatedCase> {};

void expect_values_equal_reference(const GatedCase& c, at::Device device) {
  for (const at::ScalarType dtype : kTypes) {
    for (const GateActivation activation : kActivations) {
      const GatedInputs inputs = gated_inputs(c, dtype, device);
      const at::Tensor gate = inputs.gate.clone(), up = inputs.up.clone();  // out may be one of both
      const at::Tensor written = ops::gated_activation_out(inputs.out, inputs.gate, inputs.up, activation);
      EXPECT_TRUE(written.is_same(inputs.out));
      EXPECT_LE(error_of(inputs.out, gate, up, activation), 1) << dtype << " " << static_cast<int>(activation);
      const at::Tensor fresh = ops::gated_activation(gate, up, activation);
      EXPECT_TRUE(fresh.is_contiguous());
      EXPECT_LE(error_of(fresh, gate, up, activation), 1) << dtype << " " << static_cast<int>(activation);
    }
  }
}

TEST_P(GatedActivationTest, values_equal_reference_in_float64) {
  for (const at::Device device : devices()) expect_values_equal_reference(GetParam(), device);
}

void expect_gradients_equal_reference(const GatedCase& c, at::Device device) {
  for (const at::ScalarType dtype : kTypes) {
    for (const GateActivation activation : kActivations) {
      const GatedInputs inputs = gated_inputs(c, dtype, device);
      const at::Tensor incoming = at::randn_like(inputs.gate);
      const auto gradients = [&](const auto& op, at::ScalarType type) {
        const at::Tensor gate = inputs.gate.detach().to(type).requires_grad_();
        const at::Tensor up = inputs.up.detach().to(type).requires_grad_();
        return grad({op(gate, up, activation)}, {gate, up}, {incoming.to(type)});
      };
      const auto actual = gradients(ops::gated_activation, dtype);
      const auto expected = gradients(reference::gated_activation, at::kDouble);
      // A derivative is a sum of terms of at most 1.2 and |gate| up to 1.2 of them; composed ones round every step.
      const at::Tensor g = to_double(incoming).abs(), x = to_double(inputs.gate).abs(), y = to_double(inputs.up).abs();
      const double rounds = steps(dtype) * (dtype == at::kHalf ? 2 : 1);
      EXPECT_EQ(actual[0].scalar_type(), dtype);
      EXPECT_LE(rounding_error(actual[0], expected[0], 1.2 * g * y, rounds), 1) << dtype;
      EXPECT_EQ(actual[1].scalar_type(), dtype);
      EXPECT_LE(rounding_error(actual[1], expected[1], g * x, rounds), 1) << dtype;
    }
  }
}

TEST_P(GatedActivationTest, gradients_equal_reference_in_float64) {
  for (const at::Device device : devices()) expect_gradients_equal_reference(GetParam(), device);
}

TEST_P(GatedActivationTest, every_instruction_set_equals_reference_in_float64) {
  for (const int64_t target : instruction_sets()) {
    SCOPED_TRACE(hwy::TargetName(target));
    const ForcedInstructionSet forced(target);
    expect_values_equal_reference(GetParam(), at::kCPU);
    expect_gradients_equal_reference(GetParam(), at::kCPU);
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, GatedActivationTest, testing::ValuesIn(gated_cases()),
                         [](const auto& info) { return info.param.name; });

TEST(GatedActivation, gradcheck) {
  for (const GatedCase& c : gated_cases()) {
    if (c.rows * c.width > 1000) continue;
    const GatedInputs inputs = gated_inputs(c, at::kDouble);
    for (const GateActivation activation : kActivations) {
      const auto op = [&](const Tensors& x) -> Tensors { return {ops::gated_activation(x[0], x[1], activation)}; };
      EXPECT_LE(gradcheck_error(op, {inputs.gate.contiguous(), inputs.up.contiguous()}), 1e-7) << c.name;
    }
  }
}

// The float64 oracle does not see that the activation is rounded before it is multiplied; torch's composition does.
TEST(GatedActivation, bfloat16_is_rounded_twice) {
  const GatedInputs inputs = gated_inputs({"roundings", 50, 200}, at::kBFloat16);
  const auto share_of_equal = [&](const at::Tensor& other) {
    return ops::gated_activation(inputs.gate, inputs.up, GateActivation::kSilu)
        .eq(other)
        .to(at::kDouble)
        .mean()
        .item<double>();
  };
  const auto once =
      reference::gated_activation(inputs.gate.to(at::kFloat), inputs.up.to(at::kFloat), GateActivation::kSilu);
  for (const int64_t target : instruction_sets()) {
    const ForcedInstructionSet forced(target);
    EXPECT_GE(share_of_equal(reference::gated_activation(inputs.gate, inputs.up, GateActivation::kSilu)), 0.999);
    EXPECT_LE(share_of_equal(once.to(at::kBFloat16)), 0.9);
  }
}

TEST(GatedActivation, gates_far_from_zero_are_exact) {
  for (const at::ScalarType dtype : {at::kFloat, at::kDouble, at::kBFloat16}) {
    const at::Tensor gate =
        at::tensor({-3e38, -1e30, -1000.0, -100.0, -90.0, -80.0, 0.0, 80.0, 1000.0, 1e30, 3e38}).to(dtype).unsqueeze(0);
    const at::Tensor up = at::ones(gate.sizes(), dtype);
    for (const int64_t target : instruction_sets()) {
      const ForcedInstructionSet forced(target);
      for (const GateActivation activation : {GateActivation::kSilu, GateActivation::kGeluTanh}) {
        const at::Tensor result = to_double(ops::gated_activation(gate, up, activation));
        const at::Tensor expected = to_double(gate).clamp_min(0);
        EXPECT_LE((result - expected).abs().max().item<double>(), 2e-33) << dtype << " " << result;
      }
    }
  }
}

TEST(GatedActivation, broken_values_stay_where_they_are) {
  for (const at::ScalarType dtype : kTypes) {
    for (const double broken : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity(),
                                -std::numeric_limits<double>::infinity()}) {
      for (const GateActivation activation : kActivations) {
        for (const bool in_gate : {true, false}) {
          const GatedInputs inputs = gated_inputs({"broken", 4, 77}, dtype);
          // A gate of -inf is the limit 0 of two of the formulas and NaN in the others.
          if (in_gate && broken < 0) continue;
          (in_gate ? inputs.gate : inputs.up)[2][30].fill_(broken);
          for (const int64_t target : instruction_sets()) {
            const ForcedInstructionSet forced(target);
            const at::Tensor finite = ops::gated_activation(inputs.gate, inputs.up, activation).isfinite();
            EXPECT_FALSE(finite[2][30].item<bool>()) << dtype << " " << broken;
            EXPECT_EQ(finite.logical_not().sum().item<int64_t>(), 1);
          }
        }
      }
    }
  }
}

TEST(GatedActivation, what_has_no_derivative_says_so) {
  const GatedInputs inputs = gated_inputs({"small", 6, 30}, at::kDouble);
  const at::Tensor gate = inputs.gate.clone().requires_grad_();
  const at::Tensor result = ops::gated_activation(gate, inputs.up, GateActivation::kSilu);
  const at::Tensor first = grad({result.sum()}, {gate}, {}, std::nullopt, /*create_graph=*/true)[0];
  EXPECT_THAT([&] { grad({first.sum()}, {gate}); },
              testing::ThrowsMessage<c10::Error>(
                  testing::HasSubstr("derivative for titer::gated_activation_backward is not implemented")));
  const at::Tensor written =
      ops::gated_activation_out(at::zeros(gate.sizes(), at::kDouble), gate, inputs.up, GateActivation::kSilu);
  EXPECT_THAT([&] { grad({written.sum()}, {gate}); },
              testing::ThrowsMessage<c10::Error>(
                  testing::HasSubstr("derivative for titer::gated_activation is not implemented")));
}

TEST(GatedActivation, runs_in_inference_mode) {
  const GatedInputs inputs = gated_inputs({"small", 6, 30}, at::kFloat);
  const at::Tensor expected = ops::gated_activation(inputs.gate, inputs.up, GateActivation::kGeluTanh);
  const c10::InferenceMode guard;
  EXPECT_TRUE(at::equal(ops::gated_activation(inputs.gate, inputs.up, GateActivation::kGeluTanh), expected));
}

TEST(GatedActivation, meta_tensors_give_shapes_and_dtypes) {
  const auto meta = [](at::IntArrayRef shape) {
    return at::empty(shape, at::TensorOptions(at::kMeta).dtype(at::kBFloat16)).requires_grad_();
  };
  const at::Tensor gate = meta({5, 8}), up = meta({5, 8});
  const at::Tensor result = ops::gated_activation(gate, up, GateActivation::kSilu);
  EXPECT_TRUE(result.is_meta());
  EXPECT_EQ(result.sizes(), gate.sizes());
  EXPECT_EQ(result.scalar_type(), at::kBFloat16);
  for (const at::Tensor& gradient : grad({result.sum()}, {gate, up})) EXPECT_EQ(gradient.sizes(), gate.sizes());
  EXPECT_THROW(ops::gated_activation(gate, meta({5, 9}), GateActivation::kSilu), c10::ValueError);
}

template <typename Error>
void expect_refused(const at::Tensor& gate, const at::Tensor& up, const std::string& message, at::Tensor out = {}) {
  const auto matcher = testing::ThrowsMessage<Error>(testing::HasSubstr("[gated_activation] " + message));
  if (!out.defined()) {
    EXPECT_THAT([&] { ops::gated_activation(gate, up, GateActivation::kSilu); }, matcher);
    out = at::empty(gate.sizes(), gate.options());
  }
  EXPECT_THAT([&] { ops::gated_activation_out(out, gate, up, GateActivation::kSilu); }, matcher);
}

TEST(GatedActivation, bad_arguments_are_named) {
  const at::Tensor x = at::ones({3, 8});
  expect_refused<c10::ValueError>(x[0], x[0], "gate must be a dense matrix [N, f], got shape [8]");
  expect_refused<c10::TypeError>(x.to(at::kInt), x, "gate must be float32, bfloat16, float16 or float64, got Int");
  expect_refused<c10::TypeError>(x, x.to(at::kHalf), "up must have the dtype of gate, Float, got Half");
  expect_refused<c10::ValueError>(x, at::ones({3, 7}), "up must have the shape of gate, [3, 8], got [3, 7]");
  expect_refused<c10::ValueError>(x, x.to(at::kMeta), "up must be on cpu like gate, got meta");
  expect_refused<c10::ValueError>(x, x, "out must have the shape of gate, [3, 8], got [8]", at::ones({8}));
  expect_refused<c10::ValueError>(x, x, "out must be contiguous in its last dimension", at::ones({8, 3}).t());
  expect_refused<c10::ValueError>(x, x, "out must not be an expanded tensor", at::ones({1, 8}).expand({3, 8}));
  const at::Tensor longer = at::ones({4, 8});
  expect_refused<c10::ValueError>(x, longer.narrow(0, 0, 3), "out must be up itself or not overlap it",
                                  longer.narrow(0, 1, 3));
}

}  // namespace
}  // namespace titer::test

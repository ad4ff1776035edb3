#include <ATen/Parallel.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn_like.h>
#include <ATen/ops/zeros.h>
#include <c10/core/InferenceMode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <titer/kernels/rope.h>
#include <torch/csrc/autograd/autograd.h>

#include "backends.h"
#include "gradcheck.h"
#include "reference/rope.h"
#include "rope_cases.h"
#include "rounding.h"

namespace titer::test {
namespace {

using torch::autograd::grad;

at::Tensor to_double(const at::Tensor& x) { return x.detach().to(at::kDouble); }

/// Two products and their sum, each rounded once; the products of 16-bit tables to 16 bits.
double error_of(const at::Tensor& actual, const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  const at::Tensor expected = reference::rope(to_double(x), to_double(cos), to_double(sin));
  const at::Tensor magnitude = reference::rope(to_double(x).abs(), to_double(cos).abs(), -to_double(sin).abs());
  const at::Tensor partner = reference::rope(to_double(x).abs(), to_double(cos).abs(), to_double(sin).abs());
  const bool rounds_products = x.scalar_type() == cos.scalar_type();
  const double narrow = rounds_products ? unit_roundoff(x.scalar_type()) / unit_roundoff(at::kFloat) : 0;
  return rounding_error(actual, expected, magnitude.maximum(partner), 2 + 1.01 * narrow);
}

class RopeTest : public testing::TestWithParam<RopeCase> {};

void expect_values_equal_reference(const RopeCase& c, const RopeTypes& types, at::Device device) {
  const RopeInputs inputs = rope_inputs(c, types, device);
  const at::Tensor x = inputs.x.clone();  // out may be x
  const at::Tensor written = ops::rope_out(inputs.out, inputs.x, inputs.cos, inputs.sin);
  EXPECT_TRUE(written.is_same(inputs.out));
  EXPECT_LE(error_of(inputs.out, x, inputs.cos, inputs.sin), 1);
  const at::Tensor fresh = ops::rope(x, inputs.cos, inputs.sin);
  EXPECT_TRUE(fresh.is_contiguous());
  EXPECT_TRUE(at::equal(fresh, inputs.out));
}

TEST_P(RopeTest, values_equal_reference_in_float64) {
  for (const at::Device device : devices()) {
    for (const RopeTypes& types : rope_types()) expect_values_equal_reference(GetParam(), types, device);
  }
}

TEST_P(RopeTest, values_equal_reference_with_every_instruction_set) {
  for (const int64_t target : instruction_sets()) {
    SCOPED_TRACE(hwy::TargetName(target));
    const ForcedInstructionSet forced(target);
    for (const RopeTypes& types : rope_types()) expect_values_equal_reference(GetParam(), types, at::kCPU);
  }
}

TEST_P(RopeTest, values_equal_torch_operations_to_the_last_bit) {
  for (const RopeTypes& types : rope_types()) {
    const RopeInputs inputs = rope_inputs(GetParam(), types);
    const at::Tensor expected = reference::rope(inputs.x, inputs.cos, inputs.sin).to(types.dtype);
    for (const int64_t target : instruction_sets()) {
      const ForcedInstructionSet forced(target);
      EXPECT_TRUE(at::equal(ops::rope(inputs.x, inputs.cos, inputs.sin), expected)) << hwy::TargetName(target);
    }
  }
}

TEST_P(RopeTest, gradient_equals_reference_in_float64) {
  for (const at::Device device : devices()) {
    for (const RopeTypes& types : rope_types()) {
      const RopeInputs inputs = rope_inputs(GetParam(), types, device);
      const at::Tensor x = inputs.x.detach().clone().requires_grad_();
      const at::Tensor result = ops::rope(x, inputs.cos, inputs.sin);
      const at::Tensor incoming = at::randn_like(result.detach());
      const at::Tensor gradient = grad({result}, {x}, {incoming})[0];
      EXPECT_EQ(gradient.scalar_type(), types.dtype);
      EXPECT_LE(error_of(gradient, incoming, inputs.cos, -inputs.sin), 1);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, RopeTest, testing::ValuesIn(rope_cases()),
                         [](const auto& info) { return info.param.name; });

TEST(Rope, processor_has_several_instruction_sets) {
#if HWY_ARCH_X86
  EXPECT_GE(instruction_sets().size(), 2u);
#endif
}

TEST(Rope, gradcheck) {
  for (const RopeCase& c : rope_cases()) {
    if (c10::multiply_integers(c.shape) > 1500) continue;
    const RopeInputs inputs = rope_inputs(c, {at::kDouble, at::kDouble});
    const auto op = [&](const Tensors& x) -> Tensors { return {ops::rope(x[0], inputs.cos, inputs.sin)}; };
    EXPECT_LE(gradcheck_error(op, {inputs.x.contiguous()}), 1e-7) << c.name;
  }
}

RopeInputs small_inputs(at::ScalarType dtype = at::kFloat) {
  return rope_inputs({"small", {5, 3, 2, 36}, 20}, {dtype, dtype});
}

// Rows of 40 that lie 41 apart, and every third part of a fused projection.
TEST(Rope, nothing_beside_the_output_is_written) {
  const at::Tensor padded = at::zeros({21, 2, 41}), fused = at::zeros({21, 2, 3, 40});
  for (const int64_t target : instruction_sets()) {
    const ForcedInstructionSet forced(target);
    for (const auto& [whole, out] :
         {std::pair{padded, padded.narrow(-1, 0, 40)}, std::pair{fused, fused.select(2, 1)}}) {
      for (const int64_t half : {20, 13, 3}) {
        whole.fill_(3);
        ops::rope_out(out, at::ones(out.sizes()), at::ones({21, half}), at::ones({21, half}));
        EXPECT_TRUE(out.ne(3).all().item<bool>());
        out.fill_(3);
        EXPECT_TRUE(whole.eq(3).all().item<bool>());
      }
    }
  }
}

TEST(Rope, incoming_gradient_may_have_any_strides) {
  const RopeInputs inputs = small_inputs();
  const at::Tensor x = inputs.x.clone().requires_grad_();
  const at::Tensor of_sum = grad({ops::rope(x, inputs.cos, inputs.sin).sum()}, {x})[0];
  EXPECT_TRUE(at::equal(of_sum, ops::rope(at::ones(x.sizes()), inputs.cos, -inputs.sin)));
  const at::Tensor strided = at::randn_like(inputs.x.transpose(0, 3).contiguous()).transpose(0, 3);
  EXPECT_TRUE(at::equal(grad({ops::rope(x, inputs.cos, inputs.sin)}, {x}, {strided})[0],
                        ops::rope(strided.contiguous(), inputs.cos, -inputs.sin)));
}

TEST(Rope, gradient_has_a_gradient) {
  const RopeInputs inputs = small_inputs(at::kDouble);
  const at::Tensor x = inputs.x.clone().requires_grad_();
  const auto op = [&](const Tensors& incoming) -> Tensors {
    return grad({ops::rope(x, inputs.cos, inputs.sin)}, {x}, {incoming[0]}, std::nullopt, /*create_graph=*/true);
  };
  EXPECT_LE(gradcheck_error(op, {at::randn_like(inputs.x)}), 1e-7);
}

TEST(Rope, what_gets_no_gradient_says_so) {
  const RopeInputs inputs = small_inputs();
  EXPECT_FALSE(ops::rope(inputs.x, inputs.cos, inputs.sin).requires_grad());
  const at::Tensor cos = inputs.cos.clone().requires_grad_();
  EXPECT_THAT([&] { ops::rope(inputs.x, cos, inputs.sin); },
              testing::ThrowsMessage<c10::ValueError>(
                  testing::HasSubstr("[rope] cos and sin must not require a gradient; detach them")));
  const at::Tensor x = inputs.x.clone().requires_grad_();
  const at::Tensor written = ops::rope_out(at::zeros(x.sizes()), x, inputs.cos, inputs.sin);
  EXPECT_THAT([&] { grad({written.sum()}, {x}); },
              testing::ThrowsMessage<c10::Error>(testing::HasSubstr("derivative for titer::rope is not implemented")));
}

TEST(Rope, writing_counts_as_a_change_of_the_output) {
  const RopeInputs inputs = small_inputs();
  const at::Tensor leaf = at::ones(inputs.out.sizes()).requires_grad_();
  const at::Tensor product = leaf * inputs.out;  // saves out
  ops::rope_out(inputs.out, inputs.x, inputs.cos, inputs.sin);
  EXPECT_THROW(grad({product.sum()}, {leaf}), c10::Error);
}

TEST(Rope, runs_in_inference_mode) {
  const RopeInputs inputs = small_inputs();
  const at::Tensor expected = ops::rope(inputs.x, inputs.cos, inputs.sin);
  const c10::InferenceMode guard;
  EXPECT_TRUE(at::equal(ops::rope(inputs.x, inputs.cos, inputs.sin), expected));
  EXPECT_TRUE(at::equal(ops::rope_out(at::zeros(expected.sizes()), inputs.x, inputs.cos, inputs.sin), expected));
}

TEST(Rope, broken_values_reach_their_pair_only) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf, at::kDouble}) {
    for (const double broken : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
      for (const int64_t place : {3, 17, 25, 35}) {  // first half, second half, and dimensions that do not rotate
        const RopeInputs inputs = small_inputs(dtype);
        inputs.x[4][2][1][place].fill_(broken);
        for (const int64_t target : instruction_sets()) {
          const ForcedInstructionSet forced(target);
          const at::Tensor result = ops::rope(inputs.x, inputs.cos, inputs.sin);
          EXPECT_LE(error_of(result, inputs.x, inputs.cos, inputs.sin), 1) << dtype << " " << broken << " " << place;
          EXPECT_EQ(at::isfinite(result).logical_not().sum().item<int64_t>(), place < 20 ? 2 : 1);
        }
      }
    }
  }
}

TEST(Rope, values_do_not_depend_on_the_number_of_threads) {
  const RopeInputs inputs = rope_inputs({"threads", {3000, 3, 64}, 64}, {at::kFloat, at::kFloat});
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const at::Tensor one = ops::rope(inputs.x, inputs.cos, inputs.sin);
  at::set_num_threads(3);
  const at::Tensor three = ops::rope(inputs.x, inputs.cos, inputs.sin);
  at::set_num_threads(threads);
  EXPECT_TRUE(at::equal(one, three));
}

TEST(Rope, meta_tensors_give_shapes_and_dtypes) {
  const auto meta = [](at::IntArrayRef shape) {
    return at::empty(shape, at::TensorOptions(at::kMeta).dtype(at::kBFloat16));
  };
  const at::Tensor x = meta({5, 3, 8}).requires_grad_();
  const at::Tensor result = ops::rope(x, meta({5, 4}), meta({5, 4}));
  EXPECT_TRUE(result.is_meta());
  EXPECT_EQ(result.sizes(), x.sizes());
  EXPECT_EQ(result.scalar_type(), at::kBFloat16);
  EXPECT_EQ(grad({result.sum()}, {x})[0].sizes(), x.sizes());
  EXPECT_THROW(ops::rope(x, meta({4, 4}), meta({4, 4})), c10::ValueError);
}

template <typename Error>
void expect_refused(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, const std::string& message,
                    at::Tensor out = {}) {
  const auto matcher = testing::ThrowsMessage<Error>(testing::HasSubstr("[rope] " + message));
  if (!out.defined()) {
    EXPECT_THAT([&] { ops::rope(x, cos, sin); }, matcher);
    out = at::empty(x.sizes(), x.options());
  }
  EXPECT_THAT([&] { ops::rope_out(out, x, cos, sin); }, matcher);
}

TEST(Rope, bad_arguments_are_named) {
  const at::Tensor x = at::ones({3, 2, 8}), table = at::ones({3, 4});
  expect_refused<c10::ValueError>(x[0][0], table, table,
                                  "x must be dense, [N, hd], [N, H, hd] or [N, Hkv, G, hd], got");
  expect_refused<c10::ValueError>(x.view({3, 1, 1, 2, 8}), table, table, "x must be dense, [N, hd]");
  expect_refused<c10::TypeError>(x.to(at::kInt), table, table,
                                 "x must be float32, bfloat16, float16 or float64, got Int");
  expect_refused<c10::TypeError>(x, table.to(at::kDouble), table, "cos must have the dtype of x, Float, or float32");
  expect_refused<c10::TypeError>(x.to(at::kHalf), table, table.to(at::kBFloat16), "sin must have the dtype of x, Half");
  expect_refused<c10::ValueError>(x, at::ones({2, 4}), table, "cos must have shape [3, r/2] with r at most 8");
  expect_refused<c10::ValueError>(x, table, at::ones({3, 5}), "sin must have shape [3, r/2] with r at most 8");
  expect_refused<c10::ValueError>(x, table, at::ones({3, 3}), "cos and sin must have one shape and dtype");
  expect_refused<c10::ValueError>(x.to(at::kHalf), table.to(at::kHalf), table, "cos and sin must have one shape");
  expect_refused<c10::ValueError>(x, table.to(at::kMeta), table, "cos must be on cpu like x, got meta");
  expect_refused<c10::ValueError>(x, table, table, "out must have the shape of x, [3, 2, 8], got [3, 8]",
                                  at::ones({3, 8}));
  expect_refused<c10::TypeError>(x, table, table, "out must have the dtype of x, Float, got Double",
                                 at::ones({3, 2, 8}, at::kDouble));
  expect_refused<c10::ValueError>(x, table, table, "out must be contiguous in its last dimension",
                                  at::ones({3, 8, 2}).transpose(1, 2));
  expect_refused<c10::ValueError>(x, table, table, "out must not be an expanded tensor",
                                  at::ones({3, 1, 8}).expand({3, 2, 8}));
  const at::Tensor longer = at::ones({4, 2, 8});
  expect_refused<c10::ValueError>(longer.narrow(0, 0, 3), table, table, "out must be x itself or not overlap it",
                                  longer.narrow(0, 1, 3));
}

}  // namespace
}  // namespace titer::test

// How far a result may lie from float64: one rounding to its dtype, and a few in the type that it is computed in.
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/isnan.h>

#include <limits>

namespace titer::test {

/// Largest relative error of a number that is rounded to nearest.
inline double unit_roundoff(at::ScalarType dtype) {
  switch (dtype) {
    case at::kDouble:
      return 0x1p-53;
    case at::kFloat:
      return 0x1p-24;
    case at::kHalf:
      return 0x1p-11;
    default:
      return 0x1p-8;
  }
}

/// Largest |actual - expected| over what rounding allows, so that at most 1 is right: one rounding of the result to its
/// dtype, and `steps` roundings to float32 (float64 for float64) of intermediate results as large as `magnitude`.
/// NaN where one of both is NaN and the other is not; equal infinities are equal.
///
/// @param expected, magnitude  float64
inline double rounding_error(const at::Tensor& actual, const at::Tensor& expected, const at::Tensor& magnitude,
                             double steps) {
  if (actual.numel() == 0) return 0;
  const at::ScalarType dtype = actual.scalar_type();
  const at::Tensor wide = actual.detach().to(at::kDouble);
  const at::Tensor is_nan = at::isnan(expected);
  if (!at::isnan(wide).eq(is_nan).all().item<bool>()) return std::numeric_limits<double>::quiet_NaN();
  const double computed = unit_roundoff(dtype == at::kDouble ? at::kDouble : at::kFloat);
  const double smallest = dtype == at::kHalf ? 0x1p-25 : 1e-38;  // half the distance of subnormal numbers
  const at::Tensor allowed = expected.abs() * unit_roundoff(dtype) + magnitude.abs() * (steps * computed) + smallest;
  return ((wide - expected).abs() / allowed).masked_fill(is_nan | wide.eq(expected), 0).max().item<double>();
}

}  // namespace titer::test

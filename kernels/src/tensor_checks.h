// Checks that operations on rows share. Messages start with the operation's name in brackets.
#pragma once

#include <ATen/core/Tensor.h>

#include <initializer_list>

namespace titer {

/// A tensor and the name that its operation's documentation gives it.
struct Argument {
  const at::Tensor& tensor;
  const char* name;
};

/// Is the last dimension contiguous, at any distance of the rows?
bool has_dense_rows(const at::Tensor& t);
/// The tensor itself or a contiguous copy.
at::Tensor with_dense_rows(const at::Tensor& t);

/// float32, bfloat16, float16 or float64.
void check_dtype(const char* op, const Argument& x);
/// Shape, dtype and device of another argument.
void check_like(const char* op, const Argument& x, const Argument& other);
/// Rows that are read and written in place are dense.
void check_dense_rows(const char* op, std::initializer_list<Argument> arguments);
/// `out` is no expanded tensor, and is an input itself or does not overlap it. Overlaps are found where both are dense;
/// of views with gaps between their rows, torch cannot tell.
void check_writable(const char* op, const at::Tensor& out, std::initializer_list<Argument> inputs);
/// `out` is no expanded tensor and overlaps no input.
void check_disjoint(const char* op, const Argument& out, std::initializer_list<Argument> inputs);

}  // namespace titer

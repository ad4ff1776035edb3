// Random rows of the large tensors of benchmarks, which would take longer to draw than to measure.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace titer::test {

/// All rows, or as many as make a million elements, whichever is less.
inline int64_t rows_to_draw(int64_t rows, int64_t elements_of_a_row) {
  return std::min(rows, (int64_t{1} << 20) / std::max<int64_t>(1, elements_of_a_row) + 1);
}

/// `rows` rows: those drawn, and then the same again.
inline at::Tensor repeated(const at::Tensor& drawn, int64_t rows) {
  if (drawn.size(0) == rows) return drawn;
  std::vector<int64_t> shape = drawn.sizes().vec();
  shape.front() = rows;
  at::Tensor all = at::empty(shape, drawn.options());
  for (int64_t row = 0; row < rows; row += drawn.size(0)) {
    const int64_t count = std::min(drawn.size(0), rows - row);
    all.narrow(0, row, count).copy_(drawn.narrow(0, 0, count));
  }
  return all;
}

}  // namespace titer::test

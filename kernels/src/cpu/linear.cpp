// CPU backend of linear. A GEMM library first brings the weight into the layout of its kernels, which for a few rows of
// x costs more than the product. Here the weight is the left operand, which block products read as it lies in memory,
// and x, which is small, is packed.
#include "linear.h"

#include <ATen/Parallel.h>
#include <torch/library.h>

#include "cpu/block_gemm.h"
#include "cpu/block_operands.h"
#include "cpu/linear_tile.h"
#include "cpu/packed_columns.h"

namespace titer::cpu {
namespace {

constexpr int64_t kMaxRows = 64;  // more of them pay for another layout of the weight
constexpr int64_t kTileOutputs = 32;

bool suits_blocks(const LinearInputs& inputs) {
  const auto& [x, weight, bias, residual] = inputs;
  return x.scalar_type() == at::kBFloat16 && has_bfloat16_block_gemm() && x.size(0) <= kMaxRows && x.size(1) >= 2 &&
         x.size(1) % 2 == 0 && weight.stride(1) == 1 && weight.stride(0) % 2 == 0 && is_packable(x, 0);
}

void run_blocks(const LinearInputs& inputs, at::Tensor& out) {
  const auto& [x, weight, bias, residual] = inputs;
  const int64_t rows = x.size(0), inner = x.size(1), outputs = weight.size(0);
  const int64_t columns = round_up(rows, kPackedColumns);
  const at::Tensor packed = empty_buffer<c10::BFloat16>(inner * columns);
  const auto bits = [](const at::Tensor& t) { return static_cast<const uint16_t*>(t.const_data_ptr()); };
  pack_columns(bits(x), x.stride(0), rows, inner, static_cast<uint16_t*>(packed.mutable_data_ptr()), columns);
  const c10::BFloat16* const right = packed.const_data_ptr<c10::BFloat16>();
  const at::Tensor dense_bias = bias ? bias->contiguous() : at::Tensor();
  const int64_t tiles = ceil_div(outputs, kTileOutputs);
  constexpr int64_t kGrainElements = 65536;  // of the weight: fewer are read before a second thread has woken up
  at::parallel_for(0, tiles, ceil_div(kGrainElements, kTileOutputs * inner), [&](int64_t begin, int64_t end) {
    const BlockGemmScope scope;
    alignas(64) float tile[kTileOutputs * kMaxRows];
    for (int64_t t = begin; t < end; ++t) {
      const int64_t first = t * kTileOutputs, count = std::min(kTileOutputs, outputs - first);
      const c10::BFloat16* const left = weight.const_data_ptr<c10::BFloat16>() + first * weight.stride(0);
      if (t + 1 < end)
        prefetch_rows(left + kTileOutputs * weight.stride(0), std::min(kTileOutputs, outputs - first - kTileOutputs),
                      weight.stride(0), inner);
      block_gemm(count, columns, inner, left, weight.stride(0), right, columns, tile, columns, /*accumulate=*/false);
      finish_linear_tile(
          tile, count, rows, columns,
          {bias ? bits(dense_bias) + first : nullptr, residual ? bits(*residual) + first : nullptr,
           residual ? residual->stride(0) : 0, static_cast<uint16_t*>(out.mutable_data_ptr()) + first, out.stride(0)});
    }
  });
}

at::Tensor& linear_out_cpu(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                           const std::optional<at::Tensor>& residual, at::Tensor& out) {
  const LinearInputs inputs{x, weight, bias, residual};
  check_linear(inputs, out);
  if (out.numel() == 0) return out;
  if (suits_blocks(inputs)) {
    run_blocks(inputs, out);
  } else {
    linear_composed(inputs, out);
  }
  return out;
}

}  // namespace
}  // namespace titer::cpu

TORCH_LIBRARY_IMPL(titer, CPU, m) { m.impl("linear.out", titer::cpu::linear_out_cpu); }

// CPU backend of batched_lora, forward pass. A thread takes blocks of one run's rows: their projection and its update
// of base stay in its cache. Blocks begin with a run, so that a run's results do not depend on the others.
#include "batched_lora.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "cpu/batched_lora_runs.h"
#include "cpu/low_rank_products.h"

namespace titer::cpu {
namespace {

template <typename Types>
void forward(const at::Tensor& base, const LoraInputs& inputs, const at::Tensor& projected) {
  using Element = typename Types::Element;
  using Sum = typename Types::Sum;
  const int64_t r = inputs.a.size(1), d_in = inputs.x.size(1), d_out = base.size(1);
  const std::vector<RunRows> blocks = rows_of_runs(inputs.rows, kLoraRows);
  const auto num_blocks = static_cast<int64_t>(blocks.size());
  at::parallel_for(0, num_blocks, worthwhile_items(num_blocks, inputs.x.size(0) * r * (d_in + d_out)),
                   [&](int64_t begin, int64_t end) {
                     const BlockGemmScope scope;
                     RowTile<Types> x(inputs.x, kLoraRows, /*needs_right=*/false);
                     Projection<Types> projection(r, d_in);
                     RankUpdate<Types> update(r, d_out);
                     const at::Tensor buffer = empty_buffer<Sum>(projected.defined() ? 0 : kLoraRows * r);
                     int64_t run = -1;
                     for (int64_t i = begin; i < end; ++i) {
                       const RunRows& block = blocks[static_cast<size_t>(i)];
                       if (block.run != run) {
                         run = block.run;
                         projection.load(factor_a<Sum>(inputs, run));
                         update.load(factor_b<Sum>(inputs, run, inputs.scale[static_cast<size_t>(run)]));
                       }
                       Sum* const p = projected.defined() ? projected.mutable_data_ptr<Sum>() + block.first * r
                                                          : buffer.mutable_data_ptr<Sum>();
                       x.load(block.first, block.count);
                       projection.run(x.left(), x.left_stride(), block.count, p);
                       update.run(p, block.count, base.mutable_data_ptr<Element>() + block.first * base.stride(0),
                                  base.stride(0), /*accumulate=*/true);
                     }
                   });
}

void run_forward(const at::Tensor& base, const LoraInputs& inputs, const at::Tensor& projected) {
  if (base.scalar_type() == at::kHalf) {  // no model runs in it on a CPU
    const at::Tensor wide_base = base.to(at::kFloat), wide_x = inputs.x.to(at::kFloat);
    run_forward(wide_base, {wide_x, inputs.a, inputs.b, inputs.rows, inputs.scale}, projected);
    base.copy_(wide_base);
    return;
  }
  const at::Tensor x = readable_rows(inputs.x);
  dispatch_block_types(base.scalar_type(), has_even_rows(x), [&]<typename Types>(Types) {
    if constexpr (!std::is_same_v<typename Types::Element, c10::Half>)
      forward<Types>(base, {x, inputs.a, inputs.b, inputs.rows, inputs.scale}, projected);
  });
}

at::Tensor batched_lora_forward_cpu(at::Tensor& base, const at::Tensor& x, const at::Tensor& a, const at::Tensor& b,
                                    const at::Tensor& rows, at::ArrayRef<double> scale, bool needs_projected) {
  const LoraInputs inputs{x, a, b, rows, scale};
  check_batched_lora(base, inputs);
  const at::Tensor projected = needs_projected ? at::empty({x.size(0), a.size(1)}, a.options()) : at::Tensor();
  run_forward(base, inputs, projected);
  return projected;
}

}  // namespace
}  // namespace titer::cpu

TORCH_LIBRARY_IMPL(titer, CPU, m) { m.impl("batched_lora_forward_", titer::cpu::batched_lora_forward_cpu); }

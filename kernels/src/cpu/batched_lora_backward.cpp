// CPU backend of batched_lora, backward pass, see autograd/batched_lora.cpp for the formulas. A thread takes chunks of
// one run's rows, reads x and the incoming gradient once, and sums the gradients of the factors over a chunk; what
// chunks of a run summed is added in their order. Chunks begin with a run and have a size that depends on the rank
// alone, so that neither the other runs nor the number of threads change a bit.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "batched_lora.h"
#include "cpu/batched_lora_runs.h"
#include "cpu/low_rank_products.h"

namespace titer::cpu {
namespace {

/// A chunk's sums are at most a sixteenth of what is read of it.
int64_t chunk_rows(int64_t r) { return std::max<int64_t>(256, round_up(16 * r, kLoraRows)); }

template <typename Types>
class Backward {
 public:
  using Element = typename Types::Element;
  using Operand = typename Types::Operand;
  using Sum = typename Types::Sum;

  Backward(const at::Tensor& grad, const LoraInputs& inputs, const at::Tensor& projected, const LoraGrads& results)
      : grad_(grad),
        in_(inputs),
        projected_(projected),
        grad_x_(std::get<0>(results)),
        grad_a_(std::get<1>(results)),
        grad_b_(std::get<2>(results)),
        r_(inputs.a.size(1)),
        d_in_(inputs.x.size(1)),
        d_out_(grad.size(1)),
        chunks_(rows_of_runs(inputs.rows, chunk_rows(r_))) {
    const auto count = static_cast<int64_t>(chunks_.size());
    if (grad_a_.defined()) partial_a_ = empty_buffer<Sum>(count * r_ * d_in_);
    if (grad_b_.defined()) partial_b_ = empty_buffer<Sum>(count * r_ * d_out_);
  }

  void run() {
    const auto count = static_cast<int64_t>(chunks_.size());
    at::parallel_for(0, count, worthwhile_items(count, 2 * in_.x.size(0) * r_ * (d_in_ + d_out_)),
                     [&](int64_t begin, int64_t end) {
                       Worker worker(*this);
                       for (int64_t i = begin; i < end; ++i) worker.run(i);
                     });
    at::parallel_for(0, in_.a.size(0), 1, [&](int64_t begin, int64_t end) {
      for (int64_t run = begin; run < end; ++run) add_chunks(run);
    });
  }

 private:
  /// One thread's buffers.
  class Worker {
   public:
    explicit Worker(const Backward& all)
        : all_(all),
          needs_q_(all.grad_x_.defined() || all.grad_a_.defined()),
          x_(all.in_.x, kLoraRows, /*needs_right=*/true),
          grad_(all.grad_, kLoraRows, /*needs_right=*/all.grad_b_.defined()),
          q_(empty_buffer<Sum>(kLoraRows * all.r_)),
          projection_(all.r_, all.d_out_),
          update_(all.r_, all.d_in_),
          outer_a_(all.r_, all.d_in_),
          outer_b_(all.r_, all.d_out_) {}

    void run(int64_t i) {
      const RunRows& chunk = all_.chunks_[static_cast<size_t>(i)];
      if (chunk.run != run_) {
        run_ = chunk.run;
        if (needs_q_) projection_.load(factor_b<Sum>(all_.in_, run_, all_.in_.scale[static_cast<size_t>(run_)]));
        if (all_.grad_x_.defined()) update_.load(factor_a<Sum>(all_.in_, run_));
      }
      outer_a_.start();
      outer_b_.start();
      for (int64_t first = chunk.first; first < chunk.first + chunk.count; first += kLoraRows)
        add_block(first, std::min(kLoraRows, chunk.first + chunk.count - first));
      const int64_t r = all_.r_;
      if (all_.grad_a_.defined())
        outer_a_.finish(all_.partial_a_.template mutable_data_ptr<Sum>() + i * r * all_.d_in_);
      if (all_.grad_b_.defined())
        outer_b_.finish(all_.partial_b_.template mutable_data_ptr<Sum>() + i * r * all_.d_out_);
    }

   private:
    void add_block(int64_t first, int64_t count) {
      grad_.load(first, count);
      if (all_.grad_b_.defined())
        outer_b_.add(all_.projected_.template const_data_ptr<Sum>() + first * all_.r_, grad_.right(),
                     grad_.right_stride(), count);
      if (!needs_q_) return;
      Sum* const q = q_.template mutable_data_ptr<Sum>();
      projection_.run(grad_.left(), grad_.left_stride(), count, q);
      if (all_.grad_a_.defined()) {
        x_.load(first, count);
        outer_a_.add(q, x_.right(), x_.right_stride(), count);
      }
      if (all_.grad_x_.defined())
        update_.run(q, count, all_.grad_x_.template mutable_data_ptr<Element>() + first * all_.d_in_, all_.d_in_,
                    /*accumulate=*/false);
    }

    const Backward& all_;
    const bool needs_q_;
    const BlockGemmScope scope_;
    RowTile<Types> x_, grad_;
    at::Tensor q_;  // grad · b of a block
    Projection<Types> projection_;
    RankUpdate<Types> update_;
    OuterProduct<Types> outer_a_, outer_b_;
    int64_t run_ = -1;
  };

  /// Sums of a run's chunks, those of b transposed and scaled.
  void add_chunks(int64_t run) const {
    std::vector<Sum> sum;
    const auto add = [&](const at::Tensor& partial, int64_t size) {
      sum.assign(static_cast<size_t>(size), Sum(0));
      for (size_t i = 0; i < chunks_.size(); ++i) {
        if (chunks_[i].run != run) continue;
        const Sum* const from = partial.const_data_ptr<Sum>() + static_cast<int64_t>(i) * size;
        std::transform(sum.begin(), sum.end(), from, sum.begin(), [](Sum x, Sum y) { return x + y; });
      }
    };
    if (grad_a_.defined()) {
      add(partial_a_, r_ * d_in_);
      std::copy(sum.begin(), sum.end(), grad_a_.template mutable_data_ptr<Sum>() + run * r_ * d_in_);
    }
    if (grad_b_.defined()) {
      add(partial_b_, r_ * d_out_);
      const Sum scale = static_cast<Sum>(in_.scale[static_cast<size_t>(run)]);
      Sum* out = grad_b_.template mutable_data_ptr<Sum>() + run * r_ * d_out_;
      for (int64_t j = 0; j < d_out_; ++j)
        for (int64_t c = 0; c < r_; ++c) *out++ = scale * sum[static_cast<size_t>(c * d_out_ + j)];
    }
  }

  const at::Tensor& grad_;
  const LoraInputs& in_;
  const at::Tensor& projected_;
  const at::Tensor &grad_x_, &grad_a_, &grad_b_;  // undefined where not asked for
  const int64_t r_, d_in_, d_out_;
  const std::vector<RunRows> chunks_;
  at::Tensor partial_a_, partial_b_;  // [chunks, r, d_in] and [chunks, r, d_out]
};

void run_backward(const at::Tensor& grad, const LoraInputs& inputs, const at::Tensor& projected,
                  const LoraGrads& results) {
  if (grad.scalar_type() == at::kHalf) {  // no model runs in it on a CPU
    const at::Tensor wide_grad = grad.to(at::kFloat), wide_x = inputs.x.to(at::kFloat);
    const auto& [grad_x, grad_a, grad_b] = results;
    const at::Tensor wide_grad_x = grad_x.defined() ? at::empty(grad_x.sizes(), wide_x.options()) : at::Tensor();
    run_backward(wide_grad, {wide_x, inputs.a, inputs.b, inputs.rows, inputs.scale}, projected,
                 {wide_grad_x, grad_a, grad_b});
    if (grad_x.defined()) grad_x.copy_(wide_grad_x);
    return;
  }
  const at::Tensor dense_grad = readable_rows(grad), x = readable_rows(inputs.x);
  dispatch_block_types(grad.scalar_type(), has_even_rows(dense_grad) && has_even_rows(x), [&]<typename Types>(Types) {
    if constexpr (!std::is_same_v<typename Types::Element, c10::Half>) {
      const LoraInputs dense{x, inputs.a, inputs.b, inputs.rows, inputs.scale};
      Backward<Types>(dense_grad, dense, projected, results).run();
    }
  });
}

LoraGrads batched_lora_backward_cpu(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& a,
                                    const at::Tensor& b, const std::optional<at::Tensor>& projected,
                                    const at::Tensor& rows, at::ArrayRef<double> scale,
                                    std::array<bool, 3> output_mask) {
  const LoraInputs inputs{x, a, b, rows, scale};
  const at::Tensor kept = projected.value_or(at::Tensor());
  check_batched_lora_backward(grad, inputs, kept, output_mask);
  const LoraGrads results = empty_lora_grads(inputs, output_mask);
  run_backward(grad, inputs, kept.defined() ? kept.contiguous() : kept, results);
  return results;
}

}  // namespace
}  // namespace titer::cpu

TORCH_LIBRARY_IMPL(titer, CPU, m) { m.impl("batched_lora_backward", titer::cpu::batched_lora_backward_cpu); }

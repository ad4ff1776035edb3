// CPU backend of linear_cross_entropy, backward pass. The gradient of hidden needs no logits; for the gradient of the
// weight, panels of tokens whose logits' gradients
//   softmax_j (grad_loss + grad_lse) - [j = target] grad_loss + [j = best_other_index] grad_best_other
// fit into a few MiB are computed again and multiplied with hidden, one product over all rows, rounded once.
#include "linear_cross_entropy.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <torch/library.h>

#include "cpu/linear_cross_entropy_tile.h"
#include "cpu/linear_cross_entropy_tokens.h"
#include "cpu/token_blocking.h"

namespace titer::cpu {
namespace {

constexpr int64_t kPanelBytes = 8 * kMiB;

template <typename Types>
class WeightGradient {
 public:
  using Element = typename Types::Element;
  using Operand = typename Types::Operand;
  using Sum = typename Types::Sum;

  explicit WeightGradient(const LinearCrossEntropyBackward& arguments)
      : weight_(arguments.weight),
        vocab_size_(weight_.size(0)),
        d_(weight_.size(1)),
        num_rows_(arguments.hidden.size(0)),
        stride_(round_up(num_rows_, kTileColumnAlign)),
        hidden_(arguments.hidden, 0, num_rows_, kTileRows, kTileColumnAlign),
        right_hidden_(empty_buffer<Operand>(stride_ * d_)),
        target_(arguments.target.contiguous()),
        best_other_index_(arguments.best_other_index.contiguous()),
        grad_loss_(padded(arguments.grad_loss)),
        grad_best_other_(padded(arguments.grad_best_other)),
        softmax_grad_(padded(linear_cross_entropy_softmax_grad(arguments))),
        lse_(padded(arguments.lse)) {
    const at::Tensor rows = arguments.hidden.contiguous();
    pack_rows(rows.const_data_ptr<Element>(), d_, num_rows_, d_, right_hidden_.template mutable_data_ptr<Operand>());
  }

  at::Tensor run() {
    const at::Tensor grad = at::empty_like(weight_, at::MemoryFormat::Contiguous);
    const int64_t tile_bytes = kTileTokens * stride_ * static_cast<int64_t>(sizeof(Operand));
    const int64_t num_tiles = ceil_div(vocab_size_, kTileTokens);
    const int64_t panel_tiles = std::clamp<int64_t>(kPanelBytes / tile_bytes, 1, num_tiles);
    panel_ = empty_buffer<Operand>(panel_tiles * kTileTokens * stride_);
    for (int64_t tile = 0; tile < num_tiles; tile += panel_tiles) {
      const int64_t last_tile = std::min(tile + panel_tiles, num_tiles);
      fill_panel(tile, last_tile);
      multiply_panel(tile, last_tile, grad.mutable_data_ptr<Element>());
    }
    return grad;
  }

 private:
  /// Contiguous, zeros behind the last row and where the gradient is undefined.
  at::Tensor padded(const at::Tensor& rows) const {
    const at::Tensor result = at::zeros({stride_}, c10::CppTypeToScalarType<Sum>::value);
    if (rows.defined()) result.narrow(0, 0, num_rows_).copy_(rows);
    return result;
  }

  int64_t num_tokens(int64_t tile) const { return std::min(kTileTokens, vocab_size_ - tile * kTileTokens); }

  /// of one tile of tokens and all rows
  int64_t multiply_adds() const { return kTileTokens * num_rows_ * d_; }

  void fill_panel(int64_t first_tile, int64_t last_tile) {
    const int64_t group = max_blocks_per_group<Types>(d_);
    const int64_t num_groups = ceil_div(hidden_.num_blocks(), group);
    const int64_t num_items = (last_tile - first_tile) * num_groups;
    at::parallel_for(
        0, num_items, worthwhile_items(num_items, num_items * multiply_adds() / num_groups),
        [&](int64_t begin, int64_t end) {
          const BlockGemmScope scope;
          RowTile<Types> tokens(weight_, kTileTokens, /*needs_right=*/false);
          const at::Tensor logits = empty_buffer<Sum>(kTileTokens * kTileRows);
          for (int64_t item = begin; item < end; ++item) {
            const int64_t tile = first_tile + item / num_groups;
            const int64_t first_block = item % num_groups * group;
            tokens.load(tile * kTileTokens, num_tokens(tile));
            for (int64_t b = first_block; b < std::min(first_block + group, hidden_.num_blocks()); ++b) {
              fill_tile(tokens, tile, b, logits.mutable_data_ptr<Sum>(),
                        panel_.template mutable_data_ptr<Operand>() + (tile - first_tile) * kTileTokens * stride_);
            }
          }
        });
  }

  void fill_tile(const RowTile<Types>& tokens, int64_t tile, int64_t b, Sum* gradient, Operand* panel_rows) const {
    const int64_t columns = hidden_.num_columns(b), row = b * kTileRows;
    block_gemm(num_tokens(tile), columns, d_, tokens.left(), tokens.left_stride(), hidden_.block(b), columns, gradient,
               columns, /*accumulate=*/false);
    scaled_softmax(gradient, num_tokens(tile), columns, columns, lse_.template const_data_ptr<Sum>() + row,
                   softmax_grad_.template const_data_ptr<Sum>() + row);
    const auto add = [&](const at::Tensor& tokens_of_rows, const at::Tensor& grads, Sum sign) {
      for (int64_t r = 0; r < hidden_.num_rows(b); ++r) {
        const int64_t j = tokens_of_rows.const_data_ptr<int64_t>()[row + r] - tile * kTileTokens;
        if (j < 0 || j >= num_tokens(tile)) continue;
        gradient[j * columns + r] += sign * grads.template const_data_ptr<Sum>()[row + r];
      }
    };
    add(target_, grad_loss_, Sum(-1));
    add(best_other_index_, grad_best_other_, Sum(1));
    if constexpr (is_paired<Operand>) {
      round_tile(gradient, num_tokens(tile), columns, columns, reinterpret_cast<uint16_t*>(panel_rows + row), stride_);
    } else {
      for (int64_t j = 0; j < num_tokens(tile); ++j) {
        std::copy_n(gradient + j * columns, columns, panel_rows + j * stride_ + row);
      }
    }
  }

  void multiply_panel(int64_t first_tile, int64_t last_tile, Element* grad) const {
    const int64_t inner = is_paired<Operand> ? round_up(num_rows_, 2) : num_rows_;
    const int64_t num_tiles = last_tile - first_tile;
    at::parallel_for(
        first_tile, last_tile, worthwhile_items(num_tiles, num_tiles * multiply_adds()),
        [&](int64_t begin, int64_t end) {
          const BlockGemmScope scope;
          const at::Tensor sums = empty_buffer<Sum>(kTileTokens * d_);
          Sum* const sum = sums.mutable_data_ptr<Sum>();
          for (int64_t tile = begin; tile < end; ++tile) {
            block_gemm(num_tokens(tile), d_, inner,
                       panel_.template const_data_ptr<Operand>() + (tile - first_tile) * kTileTokens * stride_, stride_,
                       right_hidden_.template const_data_ptr<Operand>(), d_, sum, d_, /*accumulate=*/false);
            std::transform(sum, sum + num_tokens(tile) * d_, grad + tile * kTileTokens * d_,
                           [](Sum x) { return static_cast<Element>(x); });
          }
        });
  }

  const at::Tensor& weight_;
  const int64_t vocab_size_, d_, num_rows_;
  const int64_t stride_;  // rows, padded to the SIMD width
  const TransposedBlocks<Types> hidden_;
  const at::Tensor right_hidden_;  // hidden as right operand
  const at::Tensor target_, best_other_index_;
  const at::Tensor grad_loss_, grad_best_other_, softmax_grad_, lse_;  // [stride]
  at::Tensor panel_;                                                   // [tokens of the panel, stride]
};

LinearCrossEntropyInputGrads linear_cross_entropy_backward_cpu(
    const std::optional<at::Tensor>& grad_loss, const std::optional<at::Tensor>& grad_lse,
    const std::optional<at::Tensor>& grad_best_other, const at::Tensor& hidden, const at::Tensor& weight,
    const at::Tensor& target, const at::Tensor& loss, const at::Tensor& lse, const at::Tensor& best_other_index,
    const std::optional<at::Tensor>& others_mean, std::array<bool, 2> output_mask) {
  const at::Tensor none;
  const LinearCrossEntropyBackward arguments{grad_loss.value_or(none),
                                             grad_lse.value_or(none),
                                             grad_best_other.value_or(none),
                                             hidden,
                                             weight,
                                             target,
                                             loss,
                                             lse,
                                             best_other_index,
                                             others_mean.value_or(none),
                                             output_mask};
  check_linear_cross_entropy_backward(arguments);
  check_tokens(target.contiguous(), "target", weight.size(0));
  check_tokens(best_other_index.contiguous(), "best_other_index", weight.size(0));
  at::Tensor grad_hidden, grad_weight;
  if (output_mask[0]) grad_hidden = linear_cross_entropy_grad_hidden(arguments);
  if (output_mask[1] && hidden.size(0) == 0) grad_weight = at::zeros_like(weight, at::MemoryFormat::Contiguous);
  if (output_mask[1] && hidden.size(0) > 0) {
    dispatch_block_types(hidden, weight,
                         [&]<typename Types>(Types) { grad_weight = WeightGradient<Types>(arguments).run(); });
  }
  return {grad_hidden, grad_weight};
}

}  // namespace
}  // namespace titer::cpu

TORCH_LIBRARY_IMPL(titer, CPU, m) {
  m.impl("linear_cross_entropy_backward", titer::cpu::linear_cross_entropy_backward_cpu);
}

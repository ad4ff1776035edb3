// CUDA backend of linear_cross_entropy: cuBLAS products of rows of hidden with tiles of the vocabulary through ATen,
// and the kernels of linear_cross_entropy.cu between them. bfloat16 products leave cuBLAS as float32.
#include "linear_cross_entropy.h"

#include <ATen/ops/add.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <algorithm>

#include "cuda/linear_cross_entropy.cuh"

namespace titer::cuda {
namespace {

constexpr int64_t kTileTokens = 8192;
constexpr int64_t kTileRows = 2048;  ///< with kTileTokens: 64 MiB of float32 logits

/// Sum: logits and statistics. Weight: what logits become before they are multiplied again.
template <typename SumT, typename WeightT, typename ElementT>
struct TileTypes {
  using Sum = SumT;
  using Weight = WeightT;    // the kernels' name of the element type
  using Element = ElementT;  // torch's name of it
};

template <typename Function>
void dispatch_tile_types(at::ScalarType dtype, const Function& function) {
  switch (dtype) {
    case at::kFloat:
      return function(TileTypes<float, float, float>());
    case at::kDouble:
      return function(TileTypes<double, double, double>());
    case at::kHalf:
      return function(TileTypes<float, __half, c10::Half>());
    default:
      return function(TileTypes<float, __nv_bfloat16, c10::BFloat16>());
  }
}

/// Buffers and products of one call.
template <typename Types>
class Tiles {
 public:
  using Sum = typename Types::Sum;
  using Weight = typename Types::Weight;

  Tiles(const at::Tensor& hidden, const at::Tensor& weight)
      : sum_options_(hidden.options().dtype(c10::CppTypeToScalarType<Sum>::value)),
        tile_rows_(std::min(kTileRows, hidden.size(0))),
        tile_tokens_(std::min(kTileTokens, weight.size(0))),
        logits_(at::empty({tile_rows_ * tile_tokens_}, sum_options_)) {
    if (!kSameType) weights_ = at::empty({tile_rows_ * tile_tokens_}, hidden.options());
  }

  int64_t tile_rows() const { return tile_rows_; }
  int64_t tile_tokens() const { return tile_tokens_; }

  /// logits = hidden · weightᵀ, [rows, tokens]
  at::Tensor logits(const at::Tensor& hidden, const at::Tensor& weight) {
    at::Tensor out = matrix(logits_, hidden.size(0), weight.size(0));
    if constexpr (kSameType) {
      at::mm_out(out, hidden, weight.t());
    } else {
      at::mm_out(out, hidden, weight.t(), at::kFloat);
    }
    return out;
  }

  /// Where the kernels put what is multiplied next: over the logits if the type allows it.
  at::Tensor weights(int64_t rows, int64_t tokens) { return matrix(kSameType ? logits_ : weights_, rows, tokens); }
  static Weight* pointer(const at::Tensor& weights) {
    return reinterpret_cast<Weight*>(weights.mutable_data_ptr<typename Types::Element>());
  }

  /// sum += a · b
  void add_product(at::Tensor sum, const at::Tensor& a, const at::Tensor& b) {
    if constexpr (kSameType) {
      at::addmm_out(sum, sum, a, b);
    } else {
      sum.add_(at::mm(a, b, at::kFloat));
    }
  }

  at::TensorOptions sum_options() const { return sum_options_; }

 private:
  static constexpr bool kSameType = std::is_same_v<Sum, Weight>;

  static at::Tensor matrix(const at::Tensor& buffer, int64_t rows, int64_t columns) {
    return buffer.narrow(0, 0, rows * columns).view({rows, columns});
  }

  at::TensorOptions sum_options_;
  int64_t tile_rows_, tile_tokens_;
  at::Tensor logits_, weights_;
};

template <typename Types>
void forward(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& target,
             const LinearCrossEntropyOutputs& outputs) {
  using Sum = typename Types::Sum;
  const auto& [loss, lse, best_other, best_other_index, match, others_mean] = outputs;
  const cudaStream_t stream = c10::cuda::getCurrentCUDAStream();
  Tiles<Types> tiles(hidden, weight);
  const at::Tensor statistics = at::empty({4, tiles.tile_rows()}, tiles.sum_options());
  const at::Tensor argmax = at::empty({tiles.tile_rows()}, target.options());
  const auto statistic = [&](int64_t i) { return statistics.mutable_data_ptr<Sum>() + i * tiles.tile_rows(); };
  const OnlineSoftmax<Sum> state{statistic(0), statistic(1), argmax.mutable_data_ptr<int64_t>(), statistic(2),
                                 statistic(3)};

  for (int64_t row = 0; row < hidden.size(0); row += tiles.tile_rows()) {
    const int64_t num_rows = std::min(tiles.tile_rows(), hidden.size(0) - row);
    const int64_t* const row_target = target.const_data_ptr<int64_t>() + row;
    const at::Tensor rows = hidden.narrow(0, row, num_rows);
    const at::Tensor rescale = statistics[3].narrow(0, 0, num_rows).unsqueeze(1);
    at::Tensor mean = others_mean.defined() ? others_mean.narrow(0, row, num_rows).zero_() : at::Tensor();
    C10_CUDA_CHECK(start_online_softmax(row_target, num_rows, state, stream));
    for (int64_t token = 0; token < weight.size(0); token += tiles.tile_tokens()) {
      const int64_t num_tokens = std::min(tiles.tile_tokens(), weight.size(0) - token);
      const at::Tensor weight_rows = weight.narrow(0, token, num_tokens);
      const at::Tensor logits = tiles.logits(rows, weight_rows);
      const at::Tensor weights = mean.defined() ? tiles.weights(num_rows, num_tokens) : at::Tensor();
      C10_CUDA_CHECK(update_online_softmax(logits.const_data_ptr<Sum>(), num_rows, num_tokens, token, row_target, state,
                                           mean.defined() ? tiles.pointer(weights) : nullptr, stream));
      if (mean.defined()) tiles.add_product(mean.mul_(rescale), weights, weight_rows);
    }
    C10_CUDA_CHECK(finish_online_softmax(
        row_target, num_rows, state,
        {loss.mutable_data_ptr<Sum>() + row, lse.mutable_data_ptr<Sum>() + row,
         best_other.mutable_data_ptr<Sum>() + row, best_other_index.mutable_data_ptr<int64_t>() + row,
         match.mutable_data_ptr<bool>() + row},
        stream));
    if (mean.defined()) mean.mul_(rescale);
  }
}

template <typename Types>
at::Tensor weight_gradient(const LinearCrossEntropyBackward& arguments) {
  using Sum = typename Types::Sum;
  const cudaStream_t stream = c10::cuda::getCurrentCUDAStream();
  const at::Tensor& hidden = arguments.hidden;
  const at::Tensor& weight = arguments.weight;
  const at::Tensor target = arguments.target.contiguous();
  const at::Tensor best_other_index = arguments.best_other_index.contiguous();
  const at::Tensor lse = arguments.lse.contiguous();
  const auto or_zeros = [&](const at::Tensor& grad) {
    return grad.defined() ? grad.contiguous() : at::zeros_like(lse);
  };
  const at::Tensor grad_loss = or_zeros(arguments.grad_loss), grad_best_other = or_zeros(arguments.grad_best_other);
  const at::Tensor softmax_grad = linear_cross_entropy_softmax_grad(arguments).contiguous();

  Tiles<Types> tiles(hidden, weight);
  const at::Tensor grad = at::empty(weight.sizes(), weight.options());
  for (int64_t token = 0; token < weight.size(0); token += tiles.tile_tokens()) {
    const int64_t num_tokens = std::min(tiles.tile_tokens(), weight.size(0) - token);
    const at::Tensor weight_rows = weight.narrow(0, token, num_tokens);
    const at::Tensor sum = at::zeros({num_tokens, weight.size(1)}, tiles.sum_options());
    for (int64_t row = 0; row < hidden.size(0); row += tiles.tile_rows()) {
      const int64_t num_rows = std::min(tiles.tile_rows(), hidden.size(0) - row);
      const at::Tensor rows = hidden.narrow(0, row, num_rows);
      const at::Tensor logits = tiles.logits(rows, weight_rows);
      const at::Tensor gradient = tiles.weights(num_rows, num_tokens);
      const auto from_row = [&](const at::Tensor& t) { return t.const_data_ptr<Sum>() + row; };
      C10_CUDA_CHECK(logits_gradient(
          logits.const_data_ptr<Sum>(), num_rows, num_tokens, token, target.const_data_ptr<int64_t>() + row,
          best_other_index.const_data_ptr<int64_t>() + row, from_row(lse),
          {from_row(softmax_grad), from_row(grad_loss), from_row(grad_best_other)}, tiles.pointer(gradient), stream));
      tiles.add_product(sum, gradient.t(), rows);
    }
    grad.narrow(0, token, num_tokens).copy_(sum);
  }
  return grad;
}

LinearCrossEntropyOutputs linear_cross_entropy_forward_cuda(const at::Tensor& hidden, const at::Tensor& weight,
                                                            const at::Tensor& target, bool needs_others_mean) {
  check_linear_cross_entropy(hidden, weight, target);
  const c10::cuda::CUDAGuard guard(hidden.device());
  const auto outputs = empty_linear_cross_entropy_outputs(hidden, needs_others_mean);
  if (hidden.size(0) == 0) return outputs;
  dispatch_tile_types(hidden.scalar_type(),
                      [&]<typename Types>(Types) { forward<Types>(hidden, weight, target.contiguous(), outputs); });
  return outputs;
}

LinearCrossEntropyInputGrads linear_cross_entropy_backward_cuda(
    const std::optional<at::Tensor>& grad_loss, const std::optional<at::Tensor>& grad_lse,
    const std::optional<at::Tensor>& grad_best_other, const at::Tensor& hidden, const at::Tensor& weight,
    const at::Tensor& target, const at::Tensor& loss, const at::Tensor& lse, const at::Tensor& best_other_index,
    const std::optional<at::Tensor>& others_mean, std::array<bool, 2> output_mask) {
  const c10::cuda::CUDAGuard guard(hidden.device());
  const at::Tensor none;
  LinearCrossEntropyBackward arguments{grad_loss.value_or(none),
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
  // A token outside the vocabulary has a NaN loss and mean already; it must not end in a device assert as well.
  arguments.target = at::clamp(target, 0, weight.size(0) - 1);
  arguments.best_other_index = at::clamp(best_other_index, 0, weight.size(0) - 1);
  at::Tensor grad_hidden, grad_weight;
  if (output_mask[0]) grad_hidden = linear_cross_entropy_grad_hidden(arguments);
  if (output_mask[1] && hidden.size(0) == 0) grad_weight = at::zeros(weight.sizes(), weight.options());
  if (output_mask[1] && hidden.size(0) > 0) {
    dispatch_tile_types(hidden.scalar_type(),
                        [&]<typename Types>(Types) { grad_weight = weight_gradient<Types>(arguments); });
  }
  return {grad_hidden, grad_weight};
}

}  // namespace
}  // namespace titer::cuda

TORCH_LIBRARY_IMPL(titer, CUDA, m) {
  m.impl("linear_cross_entropy_forward", titer::cuda::linear_cross_entropy_forward_cuda);
  m.impl("linear_cross_entropy_backward", titer::cuda::linear_cross_entropy_backward_cuda);
}

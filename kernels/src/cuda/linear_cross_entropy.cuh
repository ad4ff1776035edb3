// Element-wise work of linear_cross_entropy on tiles of logits, [num_rows, num_tokens] row-major and contiguous.
// Torch-free: device pointers and a stream in, the launch's error out. The CPU's cpu/linear_cross_entropy_tile.h, one
// block per row.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

namespace titer::cuda {

/// Running statistics of the rows of a tile over the tokens other than their target, one entry per row.
template <typename T>
struct OnlineSoftmax {
  T* max;           ///< starts at -inf
  T* sum;           ///< of exp(logit - max); starts at 0
  int64_t* argmax;  ///< first token that reached max; starts at the lowest token that is not the target
  T* target_logit;  ///< starts at NaN, which stays if the target lies outside the vocabulary
  T* rescale;       ///< exp(old max - new max) of the latest tile
};

/// One row's results; see the public header.
template <typename T>
struct RowResults {
  T* loss;
  T* lse;
  T* best_other;
  int64_t* best_other_index;
  bool* match;
};

/// Fills the statistics' start values; rescale needs none.
template <typename T>
cudaError_t start_online_softmax(const int64_t* target, int64_t num_rows, OnlineSoftmax<T> state, cudaStream_t stream);

/// Adds the tokens [first_token, first_token + num_tokens). Unless `weights` is null, it receives exp(logit - new max),
/// 0 at the target; it may be the tile itself. T is float or double, W is T, __nv_bfloat16 or __half.
template <typename T, typename W>
cudaError_t update_online_softmax(const T* logits, int64_t num_rows, int64_t num_tokens, int64_t first_token,
                                  const int64_t* target, OnlineSoftmax<T> state, W* weights, cudaStream_t stream);

/// Results of the rows; rescale becomes exp(max - lse), the factor that normalises sums of `weights`.
template <typename T>
cudaError_t finish_online_softmax(const int64_t* target, int64_t num_rows, OnlineSoftmax<T> state,
                                  RowResults<T> results, cudaStream_t stream);

/// Incoming gradients of the rows, never null.
template <typename T>
struct RowGrads {
  const T* softmax;  ///< grad_loss + grad_lse
  const T* loss;
  const T* best_other;
};

/// gradient[r, j] = softmax * exp(logit - lse) - [j = target] loss + [j = best_other_index] best_other. May be the tile
/// itself.
template <typename T, typename W>
cudaError_t logits_gradient(const T* logits, int64_t num_rows, int64_t num_tokens, int64_t first_token,
                            const int64_t* target, const int64_t* best_other_index, const T* lse, RowGrads<T> grads,
                            W* gradient, cudaStream_t stream);

}  // namespace titer::cuda

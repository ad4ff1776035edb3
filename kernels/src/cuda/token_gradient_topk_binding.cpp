// CUDA backend of token_gradient_topk: cuBLAS products of the gradient with tiles of the vocabulary through ATen, whose
// scores the kernels of token_gradient_topk.cu turn into keys that ATen's topk finds the smallest of. 16-bit products
// leave cuBLAS as float32.
#include "token_gradient_topk.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/topk.h>
#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <algorithm>
#include <limits>

#include "cuda/token_gradient_topk.cuh"

namespace titer::cuda {
namespace {

constexpr int64_t kTileTokens = 32768;
constexpr int64_t kTileRows = 256;  ///< with kTileTokens: 32 MiB of scores and 64 MiB of keys

void search(const at::Tensor& gradient, const at::Tensor& embedding, const at::Tensor& allowed, const at::Tensor& ids,
            const at::Tensor& scores) {
  const cudaStream_t stream = c10::cuda::getCurrentCUDAStream();
  const int64_t num_rows = gradient.size(0), k = ids.size(1);
  const int64_t tile = std::min(kTileTokens, embedding.size(0));
  const at::Tensor products = at::empty({num_rows * tile}, scores.options());
  const at::Tensor keys = at::empty({num_rows * (k + tile)}, ids.options());
  const at::Tensor broken = at::zeros({num_rows}, allowed.options());
  at::Tensor best = at::empty({num_rows, k}, ids.options()).fill_(kNoToken);
  for (int64_t token = 0; token < embedding.size(0); token += tile) {
    const int64_t num_tokens = std::min(tile, embedding.size(0) - token);
    const at::Tensor rows = embedding.narrow(0, token, num_tokens).t();
    at::Tensor tile_products = products.narrow(0, 0, num_rows * num_tokens).view({num_rows, num_tokens});
    if (gradient.scalar_type() == at::kFloat) {
      at::mm_out(tile_products, gradient, rows);
    } else {
      at::mm_out(tile_products, gradient, rows, at::kFloat);
    }
    // The best so far stand in front of the tile's.
    const at::Tensor candidates = keys.narrow(0, 0, num_rows * (k + num_tokens)).view({num_rows, k + num_tokens});
    candidates.narrow(1, 0, k).copy_(best);
    C10_CUDA_CHECK(write_keys(tile_products.const_data_ptr<float>(), num_rows, num_tokens, token,
                              allowed.const_data_ptr<bool>() + token, candidates.mutable_data_ptr<int64_t>() + k,
                              k + num_tokens, broken.mutable_data_ptr<bool>(), stream));
    best = std::get<0>(at::topk(candidates, k, /*dim=*/1, /*largest=*/false, /*sorted=*/true));
  }
  C10_CUDA_CHECK(read_keys(best.const_data_ptr<int64_t>(), num_rows, k, broken.const_data_ptr<bool>(),
                           ids.mutable_data_ptr<int64_t>(), scores.mutable_data_ptr<float>(), stream));
}

/// No key holds a double: float64, which serves as oracle, sorts all scores of a few positions.
void sort_all(const at::Tensor& gradient, const at::Tensor& embedding, const at::Tensor& allowed, const at::Tensor& ids,
              const at::Tensor& scores) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  const int64_t k = ids.size(1);
  const at::Tensor products = at::mm(gradient, embedding.t());
  const at::Tensor broken = at::isfinite(products).logical_not().logical_and(allowed).any(1, /*keepdim=*/true);
  const auto [sorted, order] = at::sort(products.masked_fill(allowed.logical_not(), kInfinity), /*stable=*/true,
                                        /*dim=*/1, /*descending=*/false);
  const at::Tensor best = sorted.narrow(1, 0, k);
  ids.copy_(order.narrow(1, 0, k).masked_fill(best.eq(kInfinity).logical_or(broken), -1));
  scores.copy_(best.masked_fill(broken, std::numeric_limits<double>::quiet_NaN()));
}

TokenGradientTopkOutputs token_gradient_topk_cuda(const at::Tensor& gradient, const at::Tensor& embedding,
                                                  const at::Tensor& allowed, int64_t k) {
  check_token_gradient_topk(gradient, embedding, allowed, k);
  const c10::cuda::CUDAGuard guard(gradient.device());
  const auto outputs = empty_token_gradient_topk_outputs(gradient, k);
  const auto& [ids, scores] = outputs;
  const at::Tensor mask = allowed.contiguous();
  const auto find = gradient.scalar_type() == at::kDouble ? sort_all : search;
  for (int64_t row = 0; row < gradient.size(0); row += kTileRows) {
    const int64_t num_rows = std::min(kTileRows, gradient.size(0) - row);
    find(gradient.narrow(0, row, num_rows), embedding, mask, ids.narrow(0, row, num_rows),
         scores.narrow(0, row, num_rows));
  }
  return outputs;
}

}  // namespace
}  // namespace titer::cuda

TORCH_LIBRARY_IMPL(titer, CUDA, m) { m.impl("token_gradient_topk", titer::cuda::token_gradient_topk_cuda); }

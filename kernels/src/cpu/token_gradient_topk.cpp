// CPU backend of token_gradient_topk. Every thread walks a range of the vocabulary in tiles of scores that stay in its
// cache and keeps, for each position, up to twice the k best tokens; what the threads kept is merged at the end. Order
// by (score, token) is total, so that the result depends neither on the ranges nor on who came first.
#include "token_gradient_topk.h"

#include <ATen/Parallel.h>
#include <torch/library.h>

#include <algorithm>
#include <limits>
#include <mutex>
#include <vector>

#include "cpu/token_blocking.h"
#include "cpu/token_gradient_topk_tile.h"

namespace titer::cpu {
namespace {

template <typename Sum>
struct ScoredToken {
  Sum score;
  int64_t token;
};

template <typename Sum>
bool is_better(const ScoredToken<Sum>& a, const ScoredToken<Sum>& b) {
  return a.score != b.score ? a.score < b.score : a.token < b.token;
}

/// Leaves the k best, the worst of them last.
template <typename Sum>
void keep_best(std::vector<ScoredToken<Sum>>& tokens, int64_t k) {
  if (static_cast<int64_t>(tokens.size()) <= k) return;
  std::nth_element(tokens.begin(), tokens.begin() + k - 1, tokens.end(), is_better<Sum>);
  tokens.resize(static_cast<size_t>(k));
}

/// What one range of tokens holds for up to kTileRows positions. Tokens come in ascending order: one whose score equals
/// the worst of k that are kept already cannot be among the k best.
template <typename Sum>
struct BlockBest {
  explicit BlockBest(int64_t positions) : tokens(static_cast<size_t>(positions)) {
    std::fill_n(threshold, positions, std::numeric_limits<Sum>::infinity());
    std::fill(threshold + positions, threshold + kTileRows, -std::numeric_limits<Sum>::infinity());
  }

  void add(const Sum* tile, int64_t num_tokens, int64_t columns, const bool* allowed, int64_t first_token, int64_t k,
           std::vector<TilePlace>& places) {
    const int64_t count = scores_below(tile, num_tokens, columns, columns, allowed, threshold, broken, places.data());
    for (int64_t i = 0; i < count; ++i) {
      const auto [token, column] = places[static_cast<size_t>(i)];
      const Sum score = tile[token * columns + column];
      if (!(score < threshold[column])) continue;  // it has fallen since the tile was searched
      auto& best = tokens[static_cast<size_t>(column)];
      best.push_back({score, first_token + token});
      if (static_cast<int64_t>(best.size()) < 2 * k) continue;
      keep_best(best, k);
      threshold[column] = best.back().score;
    }
  }

  std::vector<std::vector<ScoredToken<Sum>>> tokens;  // per position, at most 2 k
  Sum threshold[kTileRows];                           // padding columns of a tile are never below it
  Sum broken[kTileRows] = {};                         // NaN where a score is not finite
};

/// The positions of one walk over the vocabulary.
template <typename Types>
class TopkSlab {
 public:
  using Sum = typename Types::Sum;

  TopkSlab(const at::Tensor& gradient, const at::Tensor& embedding, const bool* allowed, int64_t k, int64_t first_row,
           int64_t num_rows)
      : embedding_(embedding),
        allowed_(allowed),
        k_(k),
        num_rows_(num_rows),
        gradient_(gradient, first_row, num_rows, kTileRows, kTileColumnAlign) {}

  void run(int64_t* ids, Sum* scores) {
    const int64_t vocab_size = embedding_.size(0), num_tiles = ceil_div(vocab_size, kTileTokens);
    at::parallel_for(0, num_tiles, worthwhile_items(num_tiles, num_rows_ * vocab_size * embedding_.size(1)),
                     [&](int64_t begin, int64_t end) {
                       std::vector<BlockBest<Sum>> found = search(begin, end);
                       const std::lock_guard lock(mutex_);
                       found_.push_back(std::move(found));
                     });
    at::parallel_for(0, num_rows_, 1, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) finish(r, ids + r * k_, scores + r * k_);
    });
  }

 private:
  std::vector<BlockBest<Sum>> search(int64_t first_tile, int64_t last_tile) const {
    const BlockGemmScope scope;
    RowTile<Types> tokens(embedding_, kTileTokens, /*needs_right=*/false);
    const at::Tensor tile = empty_buffer<Sum>(kTileTokens * kTileRows);
    std::vector<TilePlace> places(kTileTokens * kTileRows);
    std::vector<BlockBest<Sum>> found;
    for (int64_t b = 0; b < gradient_.num_blocks(); ++b) found.emplace_back(gradient_.num_rows(b));
    for (int64_t token = first_tile * kTileTokens; token < last_tile * kTileTokens; token += kTileTokens) {
      const int64_t num_tokens = std::min(kTileTokens, embedding_.size(0) - token);
      if (std::none_of(allowed_ + token, allowed_ + token + num_tokens, [](bool x) { return x; })) continue;
      tokens.load(token, num_tokens);
      for (int64_t b = 0; b < gradient_.num_blocks(); ++b) {
        const int64_t columns = gradient_.num_columns(b);
        block_gemm(num_tokens, columns, embedding_.size(1), tokens.left(), tokens.left_stride(), gradient_.block(b),
                   columns, tile.mutable_data_ptr<Sum>(), columns, /*accumulate=*/false);
        found[static_cast<size_t>(b)].add(tile.const_data_ptr<Sum>(), num_tokens, columns, allowed_ + token, token, k_,
                                          places);
      }
    }
    return found;
  }

  void finish(int64_t r, int64_t* ids, Sum* scores) const {
    const auto block = static_cast<size_t>(r / kTileRows), row = static_cast<size_t>(r % kTileRows);
    std::vector<ScoredToken<Sum>> best;
    bool is_broken = false;
    for (const std::vector<BlockBest<Sum>>& range : found_) {
      is_broken |= range[block].broken[row] != 0;
      best.insert(best.end(), range[block].tokens[row].begin(), range[block].tokens[row].end());
    }
    keep_best(best, k_);
    std::sort(best.begin(), best.end(), is_better<Sum>);
    if (is_broken) best.clear();
    for (const auto& [score, token] : best) {
      *ids++ = token;
      *scores++ = score;
    }
    const int64_t rest = k_ - static_cast<int64_t>(best.size());
    std::fill_n(ids, rest, int64_t{-1});
    std::fill_n(scores, rest, is_broken ? std::numeric_limits<Sum>::quiet_NaN() : std::numeric_limits<Sum>::infinity());
  }

  const at::Tensor& embedding_;
  const bool* const allowed_;
  const int64_t k_, num_rows_;
  const TransposedBlocks<Types> gradient_;
  std::mutex mutex_;
  std::vector<std::vector<BlockBest<Sum>>> found_;  // per range of tokens and block of positions
};

TokenGradientTopkOutputs token_gradient_topk_cpu(const at::Tensor& gradient, const at::Tensor& embedding,
                                                 const at::Tensor& allowed, int64_t k) {
  check_token_gradient_topk(gradient, embedding, allowed, k);
  const auto outputs = empty_token_gradient_topk_outputs(gradient, k);
  const auto& [ids, scores] = outputs;
  const at::Tensor mask = allowed.contiguous();
  const int64_t num_rows = gradient.size(0);
  dispatch_block_types(gradient, embedding, [&, &ids = ids, &scores = scores]<typename Types>(Types) {
    const int64_t slab = max_blocks_per_group<Types>(gradient.size(1)) * kTileRows;
    for (int64_t row = 0; row < num_rows; row += slab) {
      TopkSlab<Types>(gradient, embedding, mask.const_data_ptr<bool>(), k, row, std::min(slab, num_rows - row))
          .run(ids.mutable_data_ptr<int64_t>() + row * k,
               scores.template mutable_data_ptr<typename Types::Sum>() + row * k);
    }
  });
  return outputs;
}

}  // namespace
}  // namespace titer::cpu

TORCH_LIBRARY_IMPL(titer, CPU, m) { m.impl("token_gradient_topk", titer::cpu::token_gradient_topk_cpu); }

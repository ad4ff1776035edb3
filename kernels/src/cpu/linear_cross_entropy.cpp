// CPU backend of linear_cross_entropy, forward pass. Every thread multiplies a few rows of the weight, read in place,
// with packed blocks of hidden and reduces the resulting tile of logits while it lies in its cache.
//
// Tiles are transposed, [tokens, rows]: the weight is then the row-major left operand of a block product as it is, only
// the small hidden matrix is packed, and a SIMD lane belongs to one row of hidden.
#include "linear_cross_entropy.h"

#include <ATen/Parallel.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "cpu/linear_cross_entropy_tile.h"
#include "cpu/linear_cross_entropy_tokens.h"
#include "cpu/token_blocking.h"

namespace titer::cpu {
namespace {

constexpr int64_t kChunkTokens = 1024;
constexpr int64_t kSlabBytes = 4 * kMiB;      ///< packed hidden of the rows in flight
constexpr int64_t kPartialBytes = 32 * kMiB;  ///< partial sums of others_mean, one per range of tokens

/// Cuts a slab of rows into groups of blocks and the vocabulary into ranges of tokens; a work item is one of each.
struct Plan {
  int64_t group_blocks;
  int64_t num_groups;
  int64_t range_tokens;
  int64_t num_ranges;

  /// Ranges of fixed size, so that the sums do not depend on the number of threads.
  static Plan for_values(int64_t num_blocks, int64_t max_group_blocks, int64_t vocab_size) {
    const int64_t range = std::min(kChunkTokens, round_up(vocab_size, kTileTokens));
    return {max_group_blocks, ceil_div(num_blocks, max_group_blocks), range, ceil_div(vocab_size, range)};
  }

  /// Every range has a partial others_mean of all rows: one range if there are groups enough for the threads, otherwise
  /// as many as it takes to give every thread the same number of items.
  static Plan for_mean(int64_t num_blocks, int64_t max_group_blocks, int64_t vocab_size, int64_t max_ranges) {
    const int64_t threads = at::get_num_threads();
    int64_t num_groups = ceil_div(num_blocks, max_group_blocks);
    int64_t num_ranges = threads / std::gcd(threads, num_groups);
    if (num_groups >= threads) {
      num_groups = std::min(round_up(num_groups, threads), num_blocks);
      num_ranges = 1;
    }
    num_ranges = std::clamp<int64_t>(num_ranges, 1, std::max<int64_t>(1, max_ranges));
    const int64_t group_blocks = ceil_div(num_blocks, num_groups);
    const int64_t range = round_up(ceil_div(vocab_size, num_ranges), kTileTokens);
    return {group_blocks, ceil_div(num_blocks, group_blocks), range, ceil_div(vocab_size, range)};
  }
};

/// Where the results of a slab go; mean is null if it is not asked for.
template <typename Sum>
struct Rows {
  Sum* loss;
  Sum* lse;
  Sum* best_other;
  int64_t* best_other_index;
  bool* match;
  Sum* mean;  // [rows, d]
};

template <typename Types>
class ForwardSlab {
 public:
  using Operand = typename Types::Operand;
  using Sum = typename Types::Sum;

  ForwardSlab(const at::Tensor& hidden, const at::Tensor& weight, const int64_t* target, int64_t first_row,
              int64_t num_rows, Rows<Sum> out)
      : weight_(weight),
        vocab_size_(weight.size(0)),
        d_(hidden.size(1)),
        num_rows_(num_rows),
        stride_(round_up(num_rows, kTileRows)),
        target_(target),
        out_(out),
        hidden_(hidden, first_row, num_rows, kTileRows, kTileColumnAlign),
        plan_(make_plan()),
        max_(plan_.num_ranges * stride_, -std::numeric_limits<Sum>::infinity()),
        sum_(plan_.num_ranges * stride_, 0),
        argmax_(plan_.num_ranges * stride_, 0),
        target_logit_(num_rows, 0) {
    if (out_.mean != nullptr) {
      partial_means_ = at::zeros({plan_.num_ranges, num_rows_, d_}, c10::CppTypeToScalarType<Sum>::value);
    }
  }

  void run() {
    const int64_t num_items = plan_.num_ranges * plan_.num_groups;
    at::parallel_for(0, num_items, worthwhile_items(num_items, num_rows_ * vocab_size_ * d_),
                     [&](int64_t begin, int64_t end) {
                       Worker worker(*this);
                       for (int64_t item = begin; item < end; ++item)
                         worker.run(item / plan_.num_groups, item % plan_.num_groups);
                     });
    at::parallel_for(0, num_rows_, 64, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) finish(r);
    });
  }

 private:
  /// One thread's buffers.
  class Worker {
   public:
    explicit Worker(ForwardSlab& slab)
        : slab_(slab),
          with_mean_(slab.out_.mean != nullptr),
          tokens_(slab.weight_, kTileTokens, /*needs_right=*/with_mean_),
          tile_(empty_buffer<Sum>(kTileTokens * kTileRows)),
          left_(empty_buffer<Operand>(with_mean_ ? kTileTokens * kTileRows : 0)) {}

    void run(int64_t range, int64_t group) {
      const Plan& plan = slab_.plan_;
      const int64_t range_end = std::min((range + 1) * plan.range_tokens, slab_.vocab_size_);
      const int64_t last_block = std::min((group + 1) * plan.group_blocks, slab_.hidden_.num_blocks());
      for (int64_t token = range * plan.range_tokens; token < range_end; token += kTileTokens) {
        const int64_t num_tokens = std::min(kTileTokens, range_end - token);
        tokens_.load(token, num_tokens);
        tokens_.prefetch(token + num_tokens, std::min(kTileTokens, range_end - token - num_tokens));
        for (int64_t b = group * plan.group_blocks; b < last_block; ++b) add_tile(range, token, num_tokens, b);
      }
    }

   private:
    void add_tile(int64_t range, int64_t first_token, int64_t num_tokens, int64_t b) {
      const int64_t columns = slab_.hidden_.num_columns(b);
      Sum* const tile = tile_.template mutable_data_ptr<Sum>();
      block_gemm(num_tokens, columns, slab_.d_, tokens_.left(), tokens_.left_stride(), slab_.hidden_.block(b), columns,
                 tile, columns, /*accumulate=*/false);
      slab_.take_target_logits(tile, first_token, num_tokens, b);
      const int64_t at = range * slab_.stride_ + b * kTileRows;
      update_online_softmax(tile, num_tokens, columns, columns, first_token,
                            {slab_.max_.data() + at, slab_.sum_.data() + at, slab_.argmax_.data() + at},
                            with_mean_ ? rescale_ : nullptr);
      if (with_mean_) add_to_mean(range, num_tokens, b);
    }

    /// mean = rescale * mean + exp(logits - maximum)ᵀ · rows of the weight
    void add_to_mean(int64_t range, int64_t num_tokens, int64_t b) {
      const int64_t d = slab_.d_;
      const int64_t num_rows = slab_.hidden_.num_rows(b);
      const int64_t columns = slab_.hidden_.num_columns(b);
      Sum* const mean =
          slab_.partial_means_.template mutable_data_ptr<Sum>() + (range * slab_.num_rows_ + b * kTileRows) * d;
      for (int64_t r = 0; r < num_rows; ++r) {
        const Sum factor = rescale_[r];
        if (factor == 1) continue;  // most tiles hold no new maximum
        std::transform(mean + r * d, mean + (r + 1) * d, mean + r * d, [factor](Sum x) { return x * factor; });
      }
      Operand* const left = left_.template mutable_data_ptr<Operand>();
      if constexpr (is_paired<Operand>) {
        transpose_tile(tile_.template const_data_ptr<Sum>(), num_tokens, columns, columns,
                       reinterpret_cast<uint16_t*>(left), kTileTokens);
      } else {
        transpose_tile(tile_.template const_data_ptr<Sum>(), num_tokens, columns, columns, left, kTileTokens);
      }
      const int64_t inner = is_paired<Operand> ? round_up(num_tokens, 2) : num_tokens;
      block_gemm(num_rows, d, inner, left, kTileTokens, tokens_.right(), tokens_.right_stride(), mean, d,
                 /*accumulate=*/true);
    }

    ForwardSlab& slab_;
    const bool with_mean_;
    const BlockGemmScope scope_;
    RowTile<Types> tokens_;
    at::Tensor tile_;  // [tokens, columns]
    at::Tensor left_;  // the tile as left operand, [rows, kTileTokens]
    Sum rescale_[kTileRows];
  };

  Plan make_plan() const {
    const int64_t max_blocks = max_blocks_per_group<Types>(d_);
    if (out_.mean == nullptr) return Plan::for_values(hidden_.num_blocks(), max_blocks, vocab_size_);
    const int64_t partial_bytes = num_rows_ * d_ * static_cast<int64_t>(sizeof(Sum));
    return Plan::for_mean(hidden_.num_blocks(), max_blocks, vocab_size_, kPartialBytes / partial_bytes);
  }

  /// The statistics are those of the other tokens: a target becomes -inf, which adds nothing to them.
  void take_target_logits(Sum* tile, int64_t first_token, int64_t num_tokens, int64_t b) {
    for (int64_t r = 0; r < hidden_.num_rows(b); ++r) {
      const int64_t token = target_[b * kTileRows + r] - first_token;
      if (token < 0 || token >= num_tokens) continue;
      Sum& logit = tile[token * hidden_.num_columns(b) + r];
      target_logit_[b * kTileRows + r] = logit;
      logit = -std::numeric_limits<Sum>::infinity();
    }
  }

  /// Merges the ranges of one row, in double: an exponential per range costs nothing. The target enters last, so that
  /// loss = softplus(lse of the others - its logit) keeps its relative accuracy down to the smallest numbers.
  void finish(int64_t r) const {
    constexpr double kInfinity = std::numeric_limits<double>::infinity();
    double max = -kInfinity;
    int64_t argmax = target_[r] == 0 ? 1 : 0;
    for (int64_t i = r; i < plan_.num_ranges * stride_; i += stride_) {
      if (max_[i] > max) {
        max = max_[i];
        argmax = argmax_[i];
      }
    }
    const double shift = max == -kInfinity ? 0 : max;
    double sum = 0;
    for (int64_t i = r; i < plan_.num_ranges * stride_; i += stride_) sum += sum_[i] * std::exp(max_[i] - shift);

    const double target_logit = target_logit_[r];
    const double lse_others = shift + std::log(sum);
    const double lead = target_logit - lse_others;
    // NaN if a logit is NaN or +inf or all are -inf; only +inf at the target would look like a loss of 0.
    const bool valid = !std::isnan(lead) && target_logit < kInfinity;
    constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
    const double tail = std::log1p(std::exp(-std::abs(lead)));
    const double lse = valid ? std::max(target_logit, lse_others) + tail : kNaN;
    out_.loss[r] = static_cast<Sum>(valid ? tail + std::max(-lead, 0.0) : kNaN);
    out_.lse[r] = static_cast<Sum>(lse);
    out_.best_other[r] = static_cast<Sum>(valid ? max : kNaN);
    out_.best_other_index[r] = argmax;
    out_.match[r] = valid && (target_logit > max || (target_logit == max && target_[r] < argmax));
    if (out_.mean != nullptr) finish_mean(r, lse);
  }

  void finish_mean(int64_t r, double lse) const {
    Sum* const mean = out_.mean + r * d_;
    std::fill_n(mean, d_, Sum(0));
    for (int64_t range = 0; range < plan_.num_ranges; ++range) {
      const Sum factor = static_cast<Sum>(std::exp(max_[range * stride_ + r] - lse));
      const Sum* const partial = partial_means_.template const_data_ptr<Sum>() + (range * num_rows_ + r) * d_;
      for (int64_t k = 0; k < d_; ++k) mean[k] += factor * partial[k];
    }
  }

  const at::Tensor& weight_;
  const int64_t vocab_size_, d_, num_rows_;
  const int64_t stride_;  // rows, padded to whole blocks
  const int64_t* const target_;
  const Rows<Sum> out_;
  const TransposedBlocks<Types> hidden_;
  const Plan plan_;
  std::vector<Sum> max_, sum_;  // [num_ranges, stride]
  std::vector<TokenIndex<Sum>> argmax_;
  std::vector<Sum> target_logit_;
  at::Tensor partial_means_;  // [num_ranges, rows, d], relative to max
};

LinearCrossEntropyOutputs linear_cross_entropy_forward_cpu(const at::Tensor& hidden, const at::Tensor& weight,
                                                           const at::Tensor& target, bool needs_others_mean) {
  check_linear_cross_entropy(hidden, weight, target);
  const at::Tensor target_rows = target.contiguous();
  check_tokens(target_rows, "target", weight.size(0));
  const auto outputs = empty_linear_cross_entropy_outputs(hidden, needs_others_mean);
  const auto& [loss, lse, best_other, best_other_index, match, others_mean] = outputs;
  const int64_t num_rows = hidden.size(0), d = hidden.size(1);
  dispatch_block_types(
      hidden, weight,
      [&, &loss = loss, &lse = lse, &best_other = best_other, &best_other_index = best_other_index, &match = match,
       &others_mean = others_mean]<typename Types>(Types) {
        using Sum = typename Types::Sum;
        const int64_t block_bytes = kTileRows * d * static_cast<int64_t>(sizeof(typename Types::Operand));
        const int64_t slab = std::max<int64_t>(1, kSlabBytes / block_bytes) * kTileRows;
        for (int64_t row = 0; row < num_rows; row += slab) {
          ForwardSlab<Types>(hidden, weight, target_rows.const_data_ptr<int64_t>() + row, row,
                             std::min(slab, num_rows - row),
                             {loss.mutable_data_ptr<Sum>() + row, lse.mutable_data_ptr<Sum>() + row,
                              best_other.mutable_data_ptr<Sum>() + row,
                              best_other_index.mutable_data_ptr<int64_t>() + row, match.mutable_data_ptr<bool>() + row,
                              needs_others_mean ? others_mean.mutable_data_ptr<Sum>() + row * d : nullptr})
              .run();
        }
      });
  return outputs;
}

}  // namespace
}  // namespace titer::cpu

TORCH_LIBRARY_IMPL(titer, CPU, m) {
  m.impl("linear_cross_entropy_forward", titer::cpu::linear_cross_entropy_forward_cpu);
}

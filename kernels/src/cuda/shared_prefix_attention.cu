// FlashAttention's loop (arXiv 2205.14135) over the keys of a tile: scores, their running softmax and the products with
// the values stay in registers. While scores are computed, their values arrive; while those are added, the next keys.
#include <cmath>
#include <cstring>
#include <limits>

#include "cuda/attention_tiles.h"
#include "cuda/launch.cuh"
#include "cuda/mma.cuh"
#include "cuda/shared_prefix_attention.cuh"

namespace titer::cuda {
namespace {

constexpr int kWarp = 32;
constexpr int kWarpPairs = 16;  // rows of a product of matrices
constexpr int kThreads = kTilePairs / kWarpPairs * kWarp;
constexpr int kCopied = 8;  // elements that are copied at once
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kLog2E = 1.44269504f;

/// Keys in shared memory at a time. The results of wide heads leave registers for half as many scores.
template <int kWidth>
constexpr int kKeys = kWidth > 128 ? 32 : 64;

/// Heads padded to kWidth with zeros. Rows are 16 bytes longer, so that eight below each other lie in different banks.
template <typename T, int kWidth>
struct alignas(16) TileMemory {
  using Head = T[kWidth + kCopied];

  Head q[kTilePairs], k[kKeys<kWidth>], v[kKeys<kWidth>];
  int32_t rows[2][kKeys<kWidth>];  // where keys come from, in the prefix or in k: of the keys here and the next
  Segment segments[kTilePairs];
};

/// A lane's elements of products with kKeys and kWidth columns; see mma.cuh for which these are.
template <int kWidth>
using Scores = float[kKeys<kWidth> / 8][4];
template <int kWidth>
using Result = float[kWidth / 8][4];

/// What a lane has to do with the kWarpPairs pairs of its warp. It has elements of two, eight below each other.
struct Lane {
  int first_pair;                           // of the warp, in the tile
  int row, column;                          // of a product
  int in_matrix, odd_matrix, upper_matrix;  // of the row that it names when four matrices are loaded, as two by two

  __device__ explicit Lane(int thread)
      : first_pair(thread / kWarp * kWarpPairs),
        row(thread % kWarp / 4),
        column(thread % 4 * 2),
        in_matrix(thread % 8),
        odd_matrix(thread / 8 % 2 * 8),
        upper_matrix(thread / 16 % 2 * 8) {}

  __device__ int pair(int r) const { return first_pair + row + 8 * r; }
};

/// Which places of the tile's list of keys a pair sees.
struct Seen {
  int own_begin = 0, own_count = 0;
  int prefix_begin = 0, prefix_count = 0;

  __device__ bool has(int place) const {
    return static_cast<unsigned>(place - own_begin) < static_cast<unsigned>(own_count) ||
           static_cast<unsigned>(place - prefix_begin) < static_cast<unsigned>(prefix_count);
  }
  __device__ bool has_any(int begin, int end) const {
    return (own_begin < end && own_begin + own_count > begin) ||
           (prefix_begin < end && prefix_begin + prefix_count > begin);
  }
};

/// @param index  of the pair in the tile; behind the last one nothing is seen
__device__ Seen seen_by(int index, const Tile& tile, const Segment* segments, int group, int window) {
  if (index >= tile.pairs) return {};
  const int pair = tile.first_pair + index;
  int i = 0;
  while (i + 1 < tile.segments && segments[i + 1].first_pair <= pair) ++i;
  const Segment& own = segments[i];
  const int position = pair / group + own.query_position;
  const int first = max(0, position + 1 - window);
  const int own_begin = max(first, own.visible) - own.key_position;
  return {own_begin, position + 1 - own.key_position - own_begin, tile.own_keys + first - tile.prefix_begin,
          max(0, own.visible - first)};
}

/// Of a place in the list: in the prefix, or in k.
__device__ int row_of(int place, const Tile& tile, const Segment* segments) {
  if (place >= tile.own_keys) return tile.prefix_begin + place - tile.own_keys;
  int i = 0;
  while (i + 1 < tile.segments && segments[i + 1].first_key <= place) ++i;
  return place + segments[i].key_row;
}

template <typename T>
__device__ T* head_of(const QueryHeads<T>& heads, int pair, int group, int64_t head) {
  return heads.data + pair / group * heads.query_stride + head * heads.head_stride + pair % group * heads.group_stride;
}

/// Starts to copy kCount heads; source(i) is null where there is none.
template <int kCount, int kWidth, typename T, typename Source>
__device__ void copy_heads(T (*to)[kWidth + kCopied], int head_dim, const Source& source) {
  constexpr int kCopies = kWidth / kCopied;
#pragma unroll
  for (int i = static_cast<int>(threadIdx.x); i < kCount * kCopies; i += kThreads) {
    const int column = i % kCopies * kCopied;
    const T* const from = source(i / kCopies);
    const bool exists = from != nullptr && column < head_dim;
    copy_async(&to[i / kCopies][column], exists ? from + column : nullptr, exists);
  }
}

/// Rounded to T, a in the lower half.
__device__ uint32_t packed(float a, float b, __nv_bfloat16) {
  const __nv_bfloat162 both = __floats2bfloat162_rn(a, b);
  uint32_t bits = 0;
  memcpy(&bits, &both, sizeof(bits));
  return bits;
}
__device__ uint32_t packed(float a, float b, __half) {
  const __half2 both = __floats2half2_rn(a, b);
  uint32_t bits = 0;
  memcpy(&bits, &both, sizeof(bits));
  return bits;
}

/// Over the four lanes that share a row of a product.
__device__ float row_maximum(float x) {
  x = fmaxf(x, __shfl_xor_sync(0xFFFFFFFF, x, 1));
  return fmaxf(x, __shfl_xor_sync(0xFFFFFFFF, x, 2));
}
__device__ float row_sum(float x) {
  x += __shfl_xor_sync(0xFFFFFFFF, x, 1);
  return x + __shfl_xor_sync(0xFFFFFFFF, x, 2);
}

/// scores += q kᵀ of what is in shared memory.
template <typename T, int kWidth>
__device__ void add_scores(const TileMemory<T, kWidth>& shared, const Lane& lane, Scores<kWidth>& scores) {
#pragma unroll
  for (int k = 0; k < kWidth; k += 16) {
    uint32_t a[4];
    load_matrices(a, &shared.q[lane.first_pair + lane.odd_matrix + lane.in_matrix][k + lane.upper_matrix]);
#pragma unroll
    for (int n = 0; n < kKeys<kWidth>; n += 16) {
      uint32_t b[4];
      load_matrices(b, &shared.k[n + lane.upper_matrix + lane.in_matrix][k + lane.odd_matrix]);
      mma_16x8x16(scores[n / 8], a, {b[0], b[1]}, T());
      mma_16x8x16(scores[n / 8 + 1], a, {b[2], b[3]}, T());
    }
  }
}

/// result += weights v. A product leaves its elements where the next one wants them.
template <typename T, int kWidth>
__device__ void add_values(const TileMemory<T, kWidth>& shared, const Lane& lane, const Scores<kWidth>& weights,
                           Result<kWidth>& result) {
#pragma unroll
  for (int k = 0; k < kKeys<kWidth>; k += 16) {
    const auto& left = weights[k / 8];
    const auto& right = weights[k / 8 + 1];
    const uint32_t a[4] = {packed(left[0], left[1], T()), packed(left[2], left[3], T()),
                           packed(right[0], right[1], T()), packed(right[2], right[3], T())};
#pragma unroll
    for (int n = 0; n < kWidth; n += 16) {
      uint32_t b[4];
      load_transposed_matrices(b, &shared.v[k + lane.odd_matrix + lane.in_matrix][n + lane.upper_matrix]);
      mma_16x8x16(result[n / 8], a, {b[0], b[1]}, T());
      mma_16x8x16(result[n / 8 + 1], a, {b[2], b[3]}, T());
    }
  }
}

/// The score of a product, in units of log 2.
__device__ float score_of(float product, float scale, float soft_cap) {
  return soft_cap > 0 ? soft_cap * kLog2E * tanhf(product * scale / soft_cap) : product * scale * kLog2E;
}

/// Of a pair: the largest score so far, and this lane's part of the sum of 2^(score - largest).
struct RunningSoftmax {
  float largest = -kInfinity;
  float sum = 0;
};

/// Row r of a lane: products become weights relative to the largest so far, and so does the result.
template <int kWidth>
__device__ void update_softmax(int r, const Seen& seen, int first_place, float scale, float soft_cap,
                               RunningSoftmax& state, Scores<kWidth>& scores, Result<kWidth>& result) {
  float largest = state.largest;
#pragma unroll
  for (int n = 0; n < kKeys<kWidth> / 8; ++n) {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      float& score = scores[n][2 * r + j];
      score = seen.has(first_place + 8 * n + j) ? score_of(score, scale, soft_cap) : -kInfinity;
      largest = fmaxf(largest, score);
    }
  }
  largest = row_maximum(largest);
  // -inf - (-inf) would be NaN: a pair that has seen nothing yet shifts by 0 instead.
  const float shift = largest == -kInfinity ? 0.0f : largest;
  const float rescale = exp2f(state.largest - shift);
  state.largest = largest;
  state.sum *= rescale;
#pragma unroll
  for (int n = 0; n < kKeys<kWidth> / 8; ++n) {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      float& score = scores[n][2 * r + j];
      score = exp2f(score - shift);
      state.sum += score;
    }
  }
#pragma unroll
  for (int n = 0; n < kWidth / 8; ++n) {
#pragma unroll
    for (int j = 0; j < 2; ++j) result[n][2 * r + j] *= rescale;
  }
}

constexpr size_t kMaxArgumentBytes = 32764;
static_assert(sizeof(AttentionHeads<__half>) + sizeof(TileBatch) <= kMaxArgumentBytes);

// One block for each tile and key head.
template <typename T, int kWidth>
__global__ void __launch_bounds__(kThreads)
    attend_kernel(const __grid_constant__ AttentionHeads<T> heads, const __grid_constant__ TileBatch batch) {
  constexpr int kCount = kKeys<kWidth>;
  auto& shared = *static_cast<TileMemory<T, kWidth>*>(dynamic_shared_memory());
  const Tile tile = batch.tiles[blockIdx.x];
  const int64_t head = blockIdx.y;
  const int num_keys = tile.own_keys + tile.prefix_length;
  const int thread = static_cast<int>(threadIdx.x);

  const auto find_rows = [&](int first_place, int32_t* rows) {
    const int place = first_place + thread;
    if (thread < kCount && place < num_keys) rows[thread] = row_of(place, tile, shared.segments);
  };
  const auto copy_keys = [&](auto* to, const KeyHeads<T>& own, const KeyHeads<T>& prefix, int first_place,
                             const int32_t* rows) {
    copy_heads<kCount, kWidth>(to, heads.head_dim, [&](int i) -> const T* {
      if (first_place + i >= num_keys) return nullptr;
      const KeyHeads<T>& from = first_place + i < tile.own_keys ? own : prefix;
      return from.data + rows[i] * from.row_stride + head * from.head_stride;
    });
  };

  for (int i = thread; i < tile.segments; i += kThreads) shared.segments[i] = batch.segments[tile.first_segment + i];
  __syncthreads();
  find_rows(0, shared.rows[0]);
  __syncthreads();
  copy_heads<kTilePairs, kWidth>(shared.q, heads.head_dim, [&](int i) -> const T* {
    return i < tile.pairs ? head_of(heads.q, tile.first_pair + i, heads.group, head) : nullptr;
  });
  copy_keys(shared.k, heads.k, heads.prefix_k, 0, shared.rows[0]);

  const Lane lane(thread);
  const Seen seen[2] = {seen_by(lane.pair(0), tile, shared.segments, heads.group, heads.window),
                        seen_by(lane.pair(1), tile, shared.segments, heads.group, heads.window)};
  RunningSoftmax softmax[2];
  Result<kWidth> result = {};
  int parity = 0;
  for (int first = 0; first < num_keys; first += kCount, parity ^= 1) {
    const int next = first + kCount;
    wait_for_copies();
    if (next < num_keys) find_rows(next, shared.rows[parity ^ 1]);
    __syncthreads();  // the keys are there, the values before have been read
    copy_keys(shared.v, heads.v, heads.prefix_v, first, shared.rows[parity]);
    const bool is_seen = __any_sync(0xFFFFFFFF, seen[0].has_any(first, next) || seen[1].has_any(first, next));
    Scores<kWidth> scores = {};
    if (is_seen) add_scores(shared, lane, scores);
    wait_for_copies();
    __syncthreads();  // the values are there, the keys have been read
    if (next < num_keys) copy_keys(shared.k, heads.k, heads.prefix_k, next, shared.rows[parity ^ 1]);
    if (!is_seen) continue;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      update_softmax<kWidth>(r, seen[r], first + lane.column, heads.scale, heads.soft_cap, softmax[r], scores, result);
    }
    add_values(shared, lane, scores, result);
  }

#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const float inverse = 1.0f / row_sum(softmax[r].sum);
    if (lane.pair(r) >= tile.pairs) continue;
    T* const out = head_of(heads.out, tile.first_pair + lane.pair(r), heads.group, head) + lane.column;
#pragma unroll
    for (int n = 0; n < kWidth / 8; ++n) {
      if (8 * n >= heads.head_dim) break;
      *reinterpret_cast<uint32_t*>(out + 8 * n) =
          packed(result[n][2 * r] * inverse, result[n][2 * r + 1] * inverse, T());
    }
  }
}

template <typename T, int kWidth>
cudaError_t launch_batch(const AttentionHeads<T>& heads, const TileBatch& batch, cudaStream_t stream) {
  const dim3 blocks(static_cast<unsigned>(batch.num_tiles), static_cast<unsigned>(heads.heads));
  return launch(attend_kernel<T, kWidth>, {blocks, kThreads, stream, sizeof(TileMemory<T, kWidth>)}, heads, batch);
}

}  // namespace

template <typename T>
cudaError_t attend(const AttentionHeads<T>& heads, const std::vector<Continuation>& continuations,
                   cudaStream_t stream) {
  for (const TileBatch& batch : attention_tiles(continuations, heads.group, heads.window)) {
    const cudaError_t error = heads.head_dim <= 64    ? launch_batch<T, 64>(heads, batch, stream)
                              : heads.head_dim <= 128 ? launch_batch<T, 128>(heads, batch, stream)
                                                      : launch_batch<T, 256>(heads, batch, stream);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

#define TITER_INSTANTIATE(T) \
  template cudaError_t attend(const AttentionHeads<T>&, const std::vector<Continuation>&, cudaStream_t);
TITER_INSTANTIATE(__nv_bfloat16)
TITER_INSTANTIATE(__half)

}  // namespace titer::cuda

// How the CUDA kernel of shared_prefix_attention shares its work. A block takes a tile of consecutive (query, head of
// the group) pairs of one key head and walks all keys that any of them sees as one list: the own rows of the tile's
// continuations, then positions of the prefix. Torch-free.
#pragma once

#include <cstdint>
#include <vector>

#include "continuation.h"

namespace titer::cuda {

inline constexpr int32_t kTilePairs = 64;

/// The pairs of one continuation in a tile, and its own keys in the tile's list.
struct Segment {
  int32_t first_pair;      ///< query * G + head of the group
  int32_t first_key;       ///< place in the list
  int32_t visible;         ///< positions of the prefix
  int32_t query_position;  ///< position of a query - its index in q
  int32_t key_position;    ///< position of an own key - its place in the list
  int32_t key_row;         ///< row of an own key in k and v - its place in the list
};

struct Tile {
  int32_t first_pair, pairs;
  int32_t first_segment, segments;
  int32_t own_keys;                     ///< places [0, own_keys) of the list
  int32_t prefix_begin, prefix_length;  ///< positions, at the places behind them
};

/// Of one launch, as its argument: nothing to allocate, to copy or to keep until the kernel has run.
struct TileBatch {
  static constexpr int32_t kMaxTiles = 256, kMaxSegments = 512;

  int32_t num_tiles = 0, num_segments = 0;
  Tile tiles[kMaxTiles];
  Segment segments[kMaxSegments];
};

/// @param window  positions that a query sees, itself included; like all sums of lengths below 2^30
std::vector<TileBatch> attention_tiles(const std::vector<Continuation>& continuations, int64_t group, int64_t window);

}  // namespace titer::cuda

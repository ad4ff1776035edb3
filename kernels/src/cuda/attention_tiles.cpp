#include "cuda/attention_tiles.h"

#include <algorithm>

namespace titer::cuda {
namespace {

constexpr int32_t kFewKeys = 256;

/// Continuations in one tile walk the prefix once. Where there is little of it, they had better be many blocks.
bool has_room(const TileBatch& batch, const Tile& tile, const Continuation& c) {
  return tile.pairs < kTilePairs && batch.num_segments < TileBatch::kMaxSegments &&
         tile.own_keys + c.rows <= std::max(kFewKeys, tile.prefix_length);
}

/// Pairs [first_pair, end) of a continuation, or as many as fit.
///
/// @return  how many
int64_t add_segment(TileBatch& batch, Tile& tile, const Continuation& c, int64_t first_pair, int64_t end, int64_t group,
                    int64_t window) {
  const int64_t pairs = std::min(int64_t{kTilePairs} - tile.pairs, end - first_pair);
  const int64_t query_position = c.visible + c.rows - c.queries - c.first_query;
  const int64_t last_position = (first_pair + pairs - 1) / group + query_position;
  const int64_t first_seen = std::max(int64_t{0}, first_pair / group + query_position + 1 - window);
  const int64_t first_own = std::max(first_seen, c.visible);

  const auto to_int = [](int64_t x) { return static_cast<int32_t>(x); };
  batch.segments[batch.num_segments++] = {to_int(first_pair),
                                          tile.own_keys,
                                          to_int(c.visible),
                                          to_int(query_position),
                                          to_int(first_own - tile.own_keys),
                                          to_int(c.first_row + first_own - c.visible - tile.own_keys)};
  ++tile.segments;
  tile.pairs += to_int(pairs);
  tile.own_keys += to_int(last_position + 1 - first_own);
  if (first_seen < c.visible) {
    const int32_t old_end = tile.prefix_begin + tile.prefix_length;
    const int32_t begin = to_int(first_seen);
    tile.prefix_begin = tile.prefix_length == 0 ? begin : std::min(tile.prefix_begin, begin);
    tile.prefix_length = std::max(old_end, to_int(c.visible)) - tile.prefix_begin;
  }
  return pairs;
}

}  // namespace

std::vector<TileBatch> attention_tiles(const std::vector<Continuation>& continuations, int64_t group, int64_t window) {
  std::vector<TileBatch> batches;
  Tile* tile = nullptr;
  const auto open = [&](int64_t first_pair) {
    const bool is_full = batches.empty() || batches.back().num_tiles == TileBatch::kMaxTiles ||
                         batches.back().num_segments == TileBatch::kMaxSegments;
    TileBatch& batch = is_full ? batches.emplace_back() : batches.back();
    tile = &batch.tiles[batch.num_tiles++];
    *tile = {};
    tile->first_pair = static_cast<int32_t>(first_pair);
    tile->first_segment = batch.num_segments;
  };
  for (const Continuation& c : continuations) {
    const int64_t end = (c.first_query + c.queries) * group;
    for (int64_t pair = c.first_query * group; pair < end;) {
      if (tile == nullptr || !has_room(batches.back(), *tile, c)) open(pair);
      pair += add_segment(batches.back(), *tile, c, pair, end, group, window);
    }
  }
  return batches;
}

}  // namespace titer::cuda

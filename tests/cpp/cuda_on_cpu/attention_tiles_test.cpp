#include "cuda/attention_tiles.h"

#include <gtest/gtest.h>

#include <vector>

namespace titer::cuda {
namespace {

constexpr int64_t kNoWindow = int64_t{1} << 30;

/// As many alike, one behind the other.
std::vector<Continuation> alike(int64_t count, int64_t rows, int64_t queries, int64_t visible) {
  std::vector<Continuation> out;
  for (int64_t c = 0; c < count; ++c) out.push_back({rows, queries, visible, c * rows, c * queries});
  return out;
}

int64_t tiles_of(const std::vector<TileBatch>& batches) {
  int64_t count = 0;
  for (const TileBatch& batch : batches) count += batch.num_tiles;
  return count;
}

TEST(AttentionTiles, every_pair_is_in_one_tile) {
  for (const int64_t group : {1, 3, 71}) {
    for (const int64_t rows : {1, 7, 500}) {
      const auto batches = attention_tiles(alike(300, rows, rows, 9), group, kNoWindow);
      int64_t pair = 0;
      for (const TileBatch& batch : batches) {
        ASSERT_LE(batch.num_tiles, TileBatch::kMaxTiles);
        ASSERT_LE(batch.num_segments, TileBatch::kMaxSegments);
        int32_t segment = 0;
        for (int32_t i = 0; i < batch.num_tiles; ++i) {
          const Tile& tile = batch.tiles[i];
          EXPECT_EQ(tile.first_pair, pair);
          EXPECT_EQ(tile.first_segment, segment);
          EXPECT_EQ(batch.segments[segment].first_pair, pair);
          EXPECT_LE(tile.pairs, kTilePairs);
          pair += tile.pairs;
          segment += tile.segments;
        }
        EXPECT_EQ(segment, batch.num_segments);
      }
      EXPECT_EQ(pair, 300 * rows * group);
    }
  }
}

TEST(AttentionTiles, share_a_prefix_that_is_longer_than_what_they_add_to_it) {
  EXPECT_EQ(tiles_of(attention_tiles(alike(8, 100, 1, 2000), 3, kNoWindow)), 1);
  EXPECT_EQ(tiles_of(attention_tiles(alike(8, 500, 1, 0), 3, kNoWindow)), 8);
}

TEST(AttentionTiles, list_no_key_that_is_in_no_window) {
  const auto batches = attention_tiles(alike(1, 100, 100, 50), 1, 20);
  ASSERT_EQ(tiles_of(batches), 2);
  const Tile& first = batches[0].tiles[0];
  EXPECT_EQ(first.own_keys, 64);
  EXPECT_EQ(first.prefix_begin, 31);
  EXPECT_EQ(first.prefix_length, 19);
  const Tile& second = batches[0].tiles[1];
  EXPECT_EQ(second.own_keys, 36 + 19);
  EXPECT_EQ(second.prefix_length, 0);
}

}  // namespace
}  // namespace titer::cuda

#include "merkle_root.h"

#include <gtest/gtest.h>

#include <cstddef>
#include <stdexcept>
#include <string>
#include <vector>

namespace titer {
namespace {

std::vector<Sha256Digest> digests(std::size_t count) {
  std::vector<Sha256Digest> all;
  for (std::size_t i = 0; i < count; ++i) all.push_back(sha256(std::to_string(i)));
  return all;
}

std::string bytes_of(const Sha256Digest& digest) {
  return {reinterpret_cast<const char*>(digest.bytes.data()), digest.bytes.size()};
}

/// RFC 6962's recursion: the left part has the largest power of two that leaves something for the right one.
Sha256Digest by_recursion(std::span<const Sha256Digest> entries) {
  if (entries.size() == 1) return sha256(std::string(1, '\0') + bytes_of(entries[0]));
  std::size_t left = 1;
  while (2 * left < entries.size()) left *= 2;
  return sha256("\x01" + bytes_of(by_recursion(entries.first(left))) + bytes_of(by_recursion(entries.subspan(left))));
}

TEST(MerkleRoot, equals_the_definition_for_every_shape_of_tree) {
  for (std::size_t count = 1; count <= 70; ++count) {
    const auto entries = digests(count);
    EXPECT_EQ(merkle_root(entries), by_recursion(entries)) << count;
  }
}

TEST(MerkleRoot, a_node_is_no_entry_and_order_and_repetition_count) {
  auto entries = digests(3);
  const Sha256Digest root = merkle_root(entries);
  EXPECT_NE(merkle_root(std::vector{root}), root);
  auto repeated = entries;
  repeated.push_back(entries.back());
  EXPECT_NE(merkle_root(repeated), root);
  std::swap(entries[0], entries[1]);
  EXPECT_NE(merkle_root(entries), root);
  EXPECT_THROW(merkle_root({}), std::invalid_argument);
}

}  // namespace
}  // namespace titer

// In one pass from the left with the roots of the complete subtrees so far, the largest first: as many as n has bits.
#include "merkle_root.h"

#include <cstddef>
#include <stdexcept>
#include <string_view>
#include <vector>

namespace titer {

Sha256Digest merkle_root(std::span<const Sha256Digest> digests) {
  if (digests.empty()) throw std::invalid_argument("[merkle_root] expected at least one digest, got none");
  using namespace std::string_view_literals;
  Sha256 hash;
  std::vector<Sha256Digest> subtrees;
  const auto join_last_two = [&] {
    const Sha256Digest right = subtrees.back();
    subtrees.pop_back();
    subtrees.back() = hash.update("\x01"sv).update(subtrees.back()).update(right).finish();
  };
  for (std::size_t i = 0; i < digests.size(); ++i) {
    subtrees.push_back(hash.update("\0"sv).update(digests[i]).finish());
    for (std::size_t count = i + 1; count % 2 == 0; count /= 2) join_last_two();
  }
  while (subtrees.size() > 1) join_last_two();
  return subtrees.front();
}

}  // namespace titer

#include "added_tokens.h"

#include <algorithm>

namespace titer::tokenization {

void AddedTokenMatcher::insert(std::string_view content, int32_t id) {
  uint32_t node = 0;
  for (std::size_t i = 0; i < content.size(); ++i) {
    const auto byte = static_cast<unsigned char>(content[i]);
    uint32_t child = i == 0 ? first_[byte] : nodes_[node].child;
    while (child != 0 && nodes_[child].byte != byte) child = nodes_[child].sibling;
    if (child == 0) {
      child = static_cast<uint32_t>(nodes_.size());
      nodes_.push_back({byte, -1, 0, 0});
      if (i == 0) {
        first_[byte] = child;
      } else {
        nodes_[child].sibling = nodes_[node].child;
        nodes_[node].child = child;
      }
    }
    node = child;
  }
  nodes_[node].id = id;
  longest_ = std::max(longest_, content.size());
}

AddedTokenMatcher::Match AddedTokenMatcher::find(std::string_view text, std::size_t begin, std::size_t end) const {
  if (longest_ == 0) return {end, end, -1};
  for (std::size_t start = begin; start < end; ++start) {
    uint32_t node = first_[static_cast<unsigned char>(text[start])];
    if (node == 0) continue;
    Match match{end, end, -1};
    for (std::size_t i = start + 1; node != 0; ++i) {
      if (nodes_[node].id >= 0) match = {start, i, nodes_[node].id};
      if (i == end) break;
      const auto byte = static_cast<unsigned char>(text[i]);
      node = nodes_[node].child;
      while (node != 0 && nodes_[node].byte != byte) node = nodes_[node].sibling;
    }
    if (match.id >= 0) return match;
  }
  return {end, end, -1};
}

}  // namespace titer::tokenization

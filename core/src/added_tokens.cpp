#include "added_tokens.h"

#include <algorithm>

#include "unicode_classes.h"
#include "utf8.h"

namespace titer::tokenization {

bool AddedTokens::insert(std::string_view content, int32_t id, uint8_t flags) {
  uint32_t node = 0;
  for (std::size_t i = 0; i < content.size(); ++i) {
    const auto byte = static_cast<unsigned char>(content[i]);
    uint32_t child = i == 0 ? first_[byte] : nodes_[node].child;
    while (child != 0 && nodes_[child].byte != byte) child = nodes_[child].sibling;
    if (child == 0) {
      child = static_cast<uint32_t>(nodes_.size());
      nodes_.push_back({byte, 0, -1, 0, 0});
      if (i == 0) {
        first_[byte] = child;
      } else {
        nodes_[child].sibling = nodes_[node].child;
        nodes_[node].child = child;
      }
    }
    node = child;
  }
  if (nodes_[node].id >= 0) return false;
  nodes_[node].id = id;
  nodes_[node].flags = flags;
  longest_ = std::max(longest_, content.size());
  looks_around_ = looks_around_ || flags != 0;
  strips_right_ = strips_right_ || (flags & kStripRight) != 0;
  return true;
}

AddedTokens::Match AddedTokens::find(std::string_view text, std::size_t begin, std::size_t end) const {
  if (longest_ == 0) return {end, end, -1, 0};
  for (std::size_t start = begin; start < end; ++start) {
    uint32_t node = first_[static_cast<unsigned char>(text[start])];
    if (node == 0) continue;
    Match match{end, end, -1, 0};
    for (std::size_t i = start + 1; node != 0; ++i) {
      if (nodes_[node].id >= 0) match = {start, i, nodes_[node].id, nodes_[node].flags};
      if (i == end) break;
      const auto byte = static_cast<unsigned char>(text[i]);
      node = nodes_[node].child;
      while (node != 0 && nodes_[node].byte != byte) node = nodes_[node].sibling;
    }
    if (match.id >= 0) return match;
  }
  return {end, end, -1, 0};
}

bool AddedTokens::applies(std::string_view text, std::size_t done, Match& match) {
  const auto is = [&](std::size_t position, CharacterClass bit) {
    return (character_at(text, position).classes & bit) != 0;
  };
  if ((match.flags & kSingleWord) != 0) {
    if (match.begin > 0 && is(previous_character(text, match.begin), kWord)) return false;
    if (match.end < text.size() && is(match.end, kWord)) return false;
  }
  if ((match.flags & kStripLeft) != 0) {
    while (match.begin > done) {
      const std::size_t previous = previous_character(text, match.begin);
      if (!is(previous, kSpace)) break;
      match.begin = previous;
    }
  }
  if ((match.flags & kStripRight) != 0) {
    while (match.end < text.size() && is(match.end, kSpace)) match.end += character_at(text, match.end).bytes;
  }
  return true;
}

}  // namespace titer::tokenization

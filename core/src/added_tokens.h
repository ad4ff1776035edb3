// Finds added tokens such as `<|im_start|>` in a text before anything else looks at it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace titer::tokenization {

/// A set of strings, each with an id, searched in a text: leftmost match first, then longest, without overlaps.
class AddedTokenMatcher {
 public:
  struct Match {
    std::size_t begin;
    std::size_t end;
    int32_t id;  ///< negative: none, begin == end == the end of the search
  };

  AddedTokenMatcher() { first_.fill(0); }

  /// `content` must be neither empty nor known.
  void insert(std::string_view content, int32_t id);

  /// First match in text[begin, end). Time grows with the length of the text times the length of the longest token.
  Match find(std::string_view text, std::size_t begin, std::size_t end) const;

  /// Length in bytes of the longest token, 0 if there is none.
  std::size_t longest() const { return longest_; }

 private:
  struct Node {
    unsigned char byte;
    int32_t id;  // of the token that ends here, or -1
    uint32_t child;
    uint32_t sibling;  // 0: none
  };

  std::array<uint32_t, 256> first_;  // node of the first byte, 0: none
  std::vector<Node> nodes_{Node{0, -1, 0, 0}};
  std::size_t longest_ = 0;
};

/// Tokens with `normalized: false` are cut out of the text, then those with `normalized: true` out of what is left.
/// There is no normalizer, so that this order is the only difference between the two.
struct AddedTokens {
  AddedTokenMatcher first;
  AddedTokenMatcher second;

  /// Calls emit(begin, end, id) for consecutive stretches of text[begin, end), none of them empty; id < 0: no added
  /// token.
  template <class Emit>
  void segment(std::string_view text, std::size_t begin, std::size_t end, const Emit& emit) const {
    scan(first, text, begin, end, [&](std::size_t from, std::size_t to, int32_t id) {
      if (id >= 0) {
        emit(from, to, id);
      } else {
        scan(second, text, from, to, emit);
      }
    });
  }

 private:
  template <class Emit>
  static void scan(const AddedTokenMatcher& matcher, std::string_view text, std::size_t begin, std::size_t end,
                   const Emit& emit) {
    while (begin < end) {
      const AddedTokenMatcher::Match match = matcher.find(text, begin, end);
      if (match.begin > begin) emit(begin, match.begin, -1);
      if (match.id >= 0) emit(match.begin, match.end, match.id);
      begin = match.end;
    }
  }
};

}  // namespace titer::tokenization

// Finds added tokens such as `<|im_start|>` in a text before anything else looks at it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace titer::tokenization {

/// What an added token demands of the text around it.
enum AddedTokenFlag : uint8_t {
  kSingleWord = 1,  ///< no word character next to it
  kStripLeft = 2,   ///< takes the white space before it
  kStripRight = 4,  ///< takes the white space after it
};

/// A set of strings, each with an id, searched in a text: leftmost match first, then longest, without overlaps.
class AddedTokens {
 public:
  struct Match {
    std::size_t begin;
    std::size_t end;
    int32_t id;     ///< negative: none, begin == end == the end of the search
    uint8_t flags;  ///< bits of AddedTokenFlag, which find() leaves to the caller
  };

  AddedTokens() { first_.fill(0); }

  /// False if `content`, which must not be empty, is known already.
  bool insert(std::string_view content, int32_t id, uint8_t flags);

  /// First match in text[begin, end). Time grows with the length of the text times the length of the longest token.
  Match find(std::string_view text, std::size_t begin, std::size_t end) const;

  /// Length in bytes of the longest token, 0 if there is none.
  std::size_t longest() const { return longest_; }
  bool empty() const { return longest_ == 0; }
  /// True if some token demands something of the text around it.
  bool looks_around() const { return looks_around_; }

  bool strips_right() const { return strips_right_; }

  /// Calls emit(begin, end, id) for consecutive stretches of the text, none of them empty; id < 0: no added token. If
  /// tokens strip to the right, none may start with white space, which their matches would overlap.
  template <class Emit>
  void segment(std::string_view text, const Emit& emit) const {
    std::size_t done = 0;
    for (std::size_t i = 0; i < text.size();) {
      Match match = find(text, i, text.size());
      if (match.id < 0) break;
      i = match.end;
      if (match.flags != 0 && !applies(text, done, match)) continue;
      if (done < match.begin) emit(done, match.begin, -1);
      emit(match.begin, match.end, match.id);
      done = match.end;
    }
    if (done < text.size()) emit(done, text.size(), -1);
  }

 private:
  struct Node {
    unsigned char byte;
    uint8_t flags;
    int32_t id;  // of the token that ends here, or -1
    uint32_t child;
    uint32_t sibling;  // 0: none
  };

  /// Applies the flags of a match, which may take white space from `done` on. False if the match does not count.
  static bool applies(std::string_view text, std::size_t done, Match& match);

  std::array<uint32_t, 256> first_;  // node of the first byte, 0: none
  std::vector<Node> nodes_{Node{0, 0, -1, 0, 0}};
  std::size_t longest_ = 0;
  bool looks_around_ = false;
  bool strips_right_ = false;
};

}  // namespace titer::tokenization

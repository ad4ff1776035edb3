// A text that was made from another one, with the place in the original that every byte comes from: what offsets of
// tokens need when a normalizer has changed the text. Without offsets the places are not kept.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace titer::tokenization {

/// A stretch of text, normalized or not, without added tokens.
struct Section {
  std::string_view text;
  const uint32_t* positions;  ///< in the original, of every byte and of the end; null: it is the original from `origin`
  std::size_t origin;

  std::size_t position(std::size_t i) const { return positions != nullptr ? positions[i] : origin + i; }
};

/// Built from left to right. A token that covers bytes [i, j) covers [position(i), position(j)) of the original.
class MappedText {
 public:
  explicit MappedText(bool tracked) : tracked_(tracked) {}

  /// Becomes `text`, which stands at `origin` in the original.
  void assign(std::string_view text, std::size_t origin) {
    clear();
    text_.assign(text);
    if (!tracked_) return;
    for (std::size_t i = 0; i <= text.size(); ++i) positions_.push_back(static_cast<uint32_t>(origin + i));
  }

  /// Becomes the text of a section, whose places it takes over.
  void assign(const Section& section) {
    assign(section.text, section.origin);
    if (tracked_ && section.positions != nullptr) {
      positions_.assign(section.positions, section.positions + section.text.size() + 1);
    }
  }

  void clear() {
    text_.clear();
    positions_.clear();
  }

  /// Appends bytes [from, to) of `source`.
  void copy(const MappedText& source, std::size_t from, std::size_t to) {
    text_.append(source.text_, from, to - from);
    if (tracked_) {
      positions_.insert(positions_.end(), source.positions_.begin() + static_cast<std::ptrdiff_t>(from),
                        source.positions_.begin() + static_cast<std::ptrdiff_t>(to));
    }
  }

  /// Appends `content` in place of bytes [from, to) of `source`. Its first byte covers all of them.
  void replace(const MappedText& source, std::size_t from, std::size_t to, std::string_view content) {
    text_.append(content);
    if (!tracked_ || content.empty()) return;
    positions_.push_back(source.positions_[from]);
    positions_.insert(positions_.end(), content.size() - 1, source.positions_[to]);
  }

  /// To be called once after the last byte of `source`.
  void finish(const MappedText& source) {
    if (tracked_) positions_.push_back(source.positions_.back());
  }

  const std::string& text() const { return text_; }
  std::size_t size() const { return text_.size(); }
  bool empty() const { return text_.empty(); }
  /// Null if the places are not kept.
  const uint32_t* positions() const { return tracked_ ? positions_.data() : nullptr; }

 private:
  bool tracked_;
  std::string text_;
  std::vector<uint32_t> positions_;
};

}  // namespace titer::tokenization

// nlohmann-json's lexer and state machine (iterative: its stack is a vector of bits) drive our own builder, which holds
// the limits, because the library's has none and lets the last of two equal keys win.
#include "json.h"

#include <algorithm>
#include <iterator>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "quote.h"
#include "titer/core/atomic_file.h"

namespace titer {
namespace {

using nlohmann::json;

/// Input iterator whose copies share one position, so that the builder knows how far the lexer has read.
class SharedPosition {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  explicit SharedPosition(const char** position) : position_(position) {}
  reference operator*() const { return **position_; }
  SharedPosition& operator++() {
    ++*position_;
    return *this;
  }
  bool operator==(const SharedPosition& other) const { return *position_ == *other.position_; }
  bool operator!=(const SharedPosition& other) const { return !(*this == other); }

 private:
  const char** position_;
};

/// Receives the events of nlohmann's parser and builds the value.
class JsonBuilder {
 public:
  JsonBuilder(std::string_view text, std::string_view origin, const JsonLimits& limits,
              std::span<const JsonStream> streams, const char** position)
      : text_(text), origin_(origin), max_depth_(limits.max_depth), streams_(streams), position_(position) {
    memory_left_ = (std::size_t{60} << 20U) + 15 * text.size();  // the text and what surrounds it are there, too
  }

  json take() { return std::move(root_); }

  bool null() { return add(nullptr, 0); }
  bool boolean(bool value) { return add(value, 0); }
  bool number_integer(json::number_integer_t value) { return add(value, 0); }
  bool number_unsigned(json::number_unsigned_t value) { return add(value, 0); }
  bool number_float(json::number_float_t value, const std::string& /*text*/) { return add(value, 0); }
  // A copy, not a move: it has no spare capacity, and the lexer keeps its buffer.
  bool string(const std::string& value) {
    if (gathers_) {
      charge(kElementBytes + kStringBytes + heap_bytes(value));
      if (num_strings_ == strings_.size()) strings_.emplace_back();
      strings_[num_strings_++] = value;
      return true;
    }
    return add(value, kStringBytes + heap_bytes(value));
  }
  bool binary(const json::binary_t& /*value*/) { return false; }  // JSON text has none

  bool start_object(std::size_t /*unknown*/) { return open(json::value_t::object, kObjectBytes); }
  bool start_array(std::size_t /*unknown*/) { return open(json::value_t::array, kArrayBytes); }
  bool end_object() { return close(); }
  bool end_array() { return close(); }

  bool key(const std::string& name) {
    if (in_stream()) {
      element_key_ = name;
      return true;
    }
    if (!streams_.empty()) remember(name);
    charge(kMemberBytes + heap_bytes(name));
    auto& members = open_.back()->get_ref<json::object_t&>();
    const auto [member, is_new] = members.try_emplace(name);
    if (!is_new) fail("duplicate key " + quote(name));
    member_ = &member->second;
    return true;
  }

  bool parse_error(std::size_t /*position*/, const std::string& /*token*/, const nlohmann::detail::exception& error) {
    // "[json.exception...] parse error at line 1, column 2: syntax error while ... - reason; last read: '...'"
    std::string_view reason = error.what();
    if (const auto start = reason.find("syntax error "); start != std::string_view::npos) reason.remove_prefix(start);
    if (const auto start = reason.find("number overflow"); start != std::string_view::npos) {
      reason = "number is beyond the range of a double";
    }
    reason = reason.substr(0, reason.find("; last read: "));
    fail(escape_for_message(reason, 200));
  }

 private:
  // What glibc's allocator spends on each; an array element counts three times because vectors grow by doubling, and
  // what they leave behind may lie between other values, where nothing uses it again.
  static constexpr std::size_t kElementBytes = 3 * sizeof(json);
  static constexpr std::size_t kStringBytes = 48;
  static constexpr std::size_t kArrayBytes = 32;
  static constexpr std::size_t kObjectBytes = 64;
  static constexpr std::size_t kMemberBytes = 96;

  static std::size_t heap_bytes(const std::string& text) { return text.size() > 15 ? text.size() + 17 : 0; }

  [[noreturn]] void fail(const std::string& what) const {
    const auto byte = std::min<std::size_t>(static_cast<std::size_t>(*position_ - text_.data()), text_.size());
    throw std::invalid_argument("[json] " + what + " at byte " + std::to_string(byte) + " (" +
                                escape_for_message(origin_, 1024) + ")");
  }

  void charge(std::size_t bytes) {
    if (bytes > memory_left_) {
      fail("holds so many small values that it would take over 64 MiB + 16 times its length in memory");
    }
    memory_left_ -= bytes;
  }

  /// Stores a value where it belongs (root, array element or member) and returns its place there.
  template <typename Value>
  json* place(Value&& value, std::size_t bytes) {
    if (in_stream()) {
      memory_before_element_ = memory_left_;
      charge(bytes);
      element_ = json(std::forward<Value>(value));
      return &element_;
    }
    if (open_.empty()) {
      charge(bytes);
      root_ = json(std::forward<Value>(value));
      return &root_;
    }
    if (member_ != nullptr) {
      charge(bytes);
      *member_ = json(std::forward<Value>(value));
      return std::exchange(member_, nullptr);
    }
    if (gathers_) stop_gathering();
    charge(bytes + kElementBytes);
    auto& elements = open_.back()->get_ref<json::array_t&>();
    return &elements.emplace_back(std::forward<Value>(value));
  }

  template <typename Value>
  bool add(Value&& value, std::size_t bytes) {
    place(std::forward<Value>(value), bytes);
    if (in_stream()) hand_over();
    return true;
  }

  bool open(json::value_t type, std::size_t bytes) {
    if (open_.size() >= max_depth_) {
      fail("arrays and objects are nested deeper than " + std::to_string(max_depth_) + " levels");
    }
    const bool is_element = in_stream();
    open_.push_back(place(type, bytes));
    if (is_element && type == json::value_t::array && stream_->take_strings) gathers_ = true;
    if (stream_ == nullptr && open_.size() == kStreamDepth) {
      const auto wanted = [&](const JsonStream& s) { return s.parent == parent_ && s.key == member_key_; };
      const auto found = std::find_if(streams_.begin(), streams_.end(), wanted);
      if (found != streams_.end()) stream_ = &*found;
      element_key_.clear();
    }
    return true;
  }

  bool close() {
    open_.pop_back();
    if (in_stream()) hand_over();
    if (open_.size() < kStreamDepth) stream_ = nullptr;
    return true;
  }

  /// Keys on the way to a member that may be streamed.
  void remember(const std::string& name) {
    if (open_.size() == 1) {
      parent_ = name;
      member_key_.clear();
    } else if (open_.size() == 2) {
      member_key_ = name;
    }
  }

  /// Is what comes next an element of a streamed member?
  bool in_stream() const { return stream_ != nullptr && open_.size() == kStreamDepth; }

  void hand_over() {
    if (num_strings_ > 0) {
      stream_->take_strings(std::span(strings_).first(num_strings_));
    } else {
      stream_->take(element_key_, element_);
    }
    gathers_ = false;
    num_strings_ = 0;
    element_ = nullptr;
    if (memory_before_element_ - memory_left_ > kMaxKeptBytes) strings_ = {};
    memory_left_ = memory_before_element_;
  }

  /// The element turns out to hold something other than strings.
  void stop_gathering() {
    auto& elements = element_.get_ref<json::array_t&>();
    elements.assign(strings_.begin(), strings_.begin() + static_cast<std::ptrdiff_t>(num_strings_));
    gathers_ = false;
    num_strings_ = 0;
  }

  static constexpr std::size_t kMaxKeptBytes = 4096;
  static constexpr std::size_t kStreamDepth = 3;  // the outermost object, the parent and the member are open

  std::string_view text_;
  std::string_view origin_;
  std::size_t max_depth_;
  std::span<const JsonStream> streams_;
  std::size_t memory_left_ = 0;
  const char** position_;
  json root_;
  // Pointers into root_: the containers that hold them do not change before the inner ones are closed.
  std::vector<json*> open_;
  json* member_ = nullptr;

  std::string parent_;      // last key of the outermost object
  std::string member_key_;  // last key of the object in it
  const JsonStream* stream_ = nullptr;
  std::string element_key_;
  json element_;
  std::size_t memory_before_element_ = 0;
  bool gathers_ = false;              // is an element of the stream open that has held strings only?
  std::vector<std::string> strings_;  // the first num_strings_ are its; all keep their memory for the next one
  std::size_t num_strings_ = 0;
};

}  // namespace

json parse_json(std::string_view text, std::string_view origin, const JsonLimits& limits,
                std::span<const JsonStream> streams) {
  const auto fail = [&](const std::string& what) {
    throw std::invalid_argument("[json] " + what + " (" + escape_for_message(origin, 1024) + ")");
  };
  if (text.size() > limits.max_bytes) {
    fail("text has " + std::to_string(text.size()) + " bytes, the limit is " + std::to_string(limits.max_bytes));
  }
  // The lexer skips a byte order mark and takes NUL for the end of its input; both would hide what follows.
  if (text.starts_with("\xEF\xBB\xBF")) fail("text starts with a byte order mark; save it as UTF-8 without one");
  if (const auto nul = text.find('\0'); nul != std::string_view::npos) {
    fail("NUL byte at byte " + std::to_string(nul + 1));
  }
  if (text.empty()) fail("text is empty, expected a JSON value");

  const char* position = text.data();
  const char* end = text.data() + text.size();
  JsonBuilder builder(text, origin, limits, streams, &position);
  json::sax_parse(SharedPosition(&position), SharedPosition(&end), &builder);
  return builder.take();
}

json read_json_file(const std::filesystem::path& path, const JsonLimits& limits) {
  return parse_json(read_file(path, limits.max_bytes), path.string(), limits);
}

}  // namespace titer

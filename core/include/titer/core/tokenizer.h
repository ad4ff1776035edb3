// BPE tokenizer read from a Hugging Face `tokenizer.json`: byte-level, or characters with byte fallback.
//
// The contract is equality: for every file that loads, the ids and the decoded text are those of the `tokenizers`
// package; a file that needs anything else is refused at load with the name of the key. The candidate filter of prompt
// attacks and C++ programs need this without Python and without a regex engine.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <titer/export.h>

namespace titer {

namespace tokenization {
struct State;
}

/// Bytes [begin, end) of a text.
struct ByteRange {
  int64_t begin = 0;
  int64_t end = 0;

  friend bool operator==(const ByteRange&, const ByteRange&) = default;
};

/// Token ids and, at the same index, the bytes of the text that each token covers.
/// A token that the post-processor adds, or that holds only an added prefix space, covers an empty range. Where a
/// normalizer replaced several bytes together, the first token inside them covers all.
struct Encoding {
  std::vector<int64_t> ids;
  std::vector<ByteRange> offsets;
};

/// An immutable tokenizer. Copies share one state; all methods are const and may be called from many threads at once.
///
/// Supported, in combinations that are refused by name where they would not be equal:
///   - model BPE with merges as strings or pairs, `ignore_merges`, `byte_fallback` with all 256 byte tokens, unknown
///     symbols dropped or mapped to `unk_token`, `fuse_unk`
///   - normalizers NFC, NFKC, Prepend, Replace of a string, Sequence
///   - pre-tokenizers ByteLevel (last), Metaspace (first), Digits, Split at a string or with the pattern of GPT-2,
///     Llama 3, GPT-4, Qwen 2, Qwen 3.5, GPT-4o or Tekken, Sequence, or none
///   - added tokens with `lstrip`, `rstrip`, `single_word`, `normalized`
///   - post-processors ByteLevel, TemplateProcessing, Sequence
///   - decoders ByteLevel, ByteFallback, Fuse, Replace of a string, Strip at the start, Metaspace, Sequence
///   - no truncation, no padding
class TITER_EXPORT Tokenizer {
 public:
  /// Reads a `tokenizer.json`.
  ///
  /// @throws std::system_error if the file cannot be read; std::invalid_argument if it is malformed or needs a feature
  ///         that is not supported (the message names the key, what came and what is supported)
  static Tokenizer from_file(const std::filesystem::path& path);

  /// The same from memory; `origin` names the text in error messages.
  static Tokenizer from_json(std::string_view text, std::string_view origin);

  /// Ids of `text`, which must be valid UTF-8.
  ///
  /// @param add_special_tokens  apply the template of the post-processor (for example a leading `<|begin_of_text|>`);
  ///                            added tokens that stand in the text itself are recognised in either case
  /// @throws std::invalid_argument with the byte position if `text` is not valid UTF-8
  std::vector<int64_t> encode(std::string_view text, bool add_special_tokens = true) const;

  /// The same with the byte range of every token.
  Encoding encode_with_offsets(std::string_view text, bool add_special_tokens = true) const;

  /// Text of `ids`; invalid UTF-8 becomes U+FFFD in the way of the decoder. Ids that belong to no token are
  /// skipped, as `tokenizers` does: a model may have more embedding rows than its tokenizer has tokens.
  ///
  /// @throws std::out_of_range if an id is negative
  std::string decode(std::span<const int64_t> ids, bool skip_special_tokens = false) const;

  /// The text that `ids` stand for inside a longer one, possibly invalid UTF-8: unlike decode, it strips nothing at the
  /// start. Encoding it in its place gives the ids back if they are what the tokenizer would choose. @throws
  /// std::out_of_range if an id is negative
  std::string bytes_of(std::span<const int64_t> ids) const;

  /// True if the tokenizer writes a mark of its own in front of a text that follows `before` ("▁" at the start of a
  /// text, in many models behind a token such as `<|user|>`): the first token then holds a space that the text does not
  /// have.
  ///
  /// @throws std::invalid_argument if `before` is not valid UTF-8
  bool marks_word_after(std::string_view before) const;

  /// The text that `ids` add behind `before`, which may be empty: unlike decode, it strips a leading space only where
  /// the tokenizer would put it there itself. Invalid UTF-8 becomes U+FFFD.
  ///
  /// @throws std::out_of_range if an id is negative; std::invalid_argument if `before` is not valid UTF-8
  std::string text_after(std::string_view before, std::span<const int64_t> ids, bool skip_special_tokens = false) const;

  /// Id of a token as spelled in the file (" the" may be "Ġthe" or "▁the"), added tokens included.
  std::optional<int64_t> token_to_id(std::string_view token) const;

  /// Token as spelled in the file. @throws std::out_of_range if no token has this id
  std::string id_to_token(int64_t id) const;

  /// Largest id plus one, added tokens included. There may be holes (see has_token).
  int64_t vocab_size() const;

  /// True if some token has this id.
  bool has_token(int64_t id) const;

  /// True if the id stands under `added_tokens`, special or not.
  bool is_added_token(int64_t id) const;

  /// True if the id stands under `added_tokens` with `special: true`.
  bool is_special_token(int64_t id) const;

 private:
  friend class RetokenizationFilter;
  friend class TextStream;
  explicit Tokenizer(std::shared_ptr<const tokenization::State> state);

  std::shared_ptr<const tokenization::State> state_;
};

}  // namespace titer

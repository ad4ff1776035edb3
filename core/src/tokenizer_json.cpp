#include "tokenizer_json.h"

#include <algorithm>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "byte_alphabet.h"
#include "json.h"
#include "quote.h"
#include "tokenizer_json_checks.h"
#include "tokenizer_json_pipeline.h"
#include "tokenizer_json_tables.h"
#include "unicode_classes.h"
#include "utf8.h"

namespace titer::tokenization {
namespace {

using nlohmann::json;

constexpr std::size_t kMaxAddedTokenBytes = 1024;  // bounds the time of AddedTokens::find
constexpr std::size_t kMergeBlock = 256;
constexpr std::size_t kMaxGlue = 64;              // characters; more are not worth the look-ups
constexpr uint8_t kInModel = 0x80;                // beside TokenFlag, during loading only
constexpr std::string_view kWordMark = "\u2581";  // SentencePiece's space

class StateReader : private JsonChecks {
 public:
  StateReader(const json& document, TokenizerTables& tables, std::string_view origin)
      : JsonChecks(origin),
        document_(document),
        tables_(tables),
        state_(std::make_shared<State>()),
        pipeline_(origin, *state_) {}

  std::shared_ptr<const State> read() {
    if (!document_.is_object()) fail("expected an object, got " + describe(document_));
    allow_keys(document_, "",
               {"version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer", "post_processor",
                "decoder", "model"});
    if (const json* version = find(document_, "version")) {
      if (*version != "1.0") refuse("version", *version, "'1.0'");
    }
    require_null(document_, "truncation");
    require_null(document_, "padding");
    pipeline_.read_normalizer(document_);
    pipeline_.read_pre_tokenizer(document_);
    pipeline_.read_decoder(document_);
    written_space_ = written_space();
    read_vocabulary();
    read_model();
    pipeline_.read_post_processor(document_);
    return state_;
  }

 private:
  /// Fills spellings, bytes, flags, id_of and the matchers from `model.vocab` and `added_tokens`.
  void read_vocabulary() {
    const json& model = member(document_, "", "model");
    if (type_of(model, "model") != "BPE") refuse("model.type", model["type"], "'BPE'");
    byte_fallback_ = flag_or(model, "model", "byte_fallback", false, true);
    const json& vocab = member(model, "model", "vocab");
    if (!vocab.is_object()) fail("'model.vocab' must be an object, got " + describe(vocab));
    const json none = json::array();
    const json* listed = find(document_, "added_tokens");
    const json& added = listed == nullptr ? none : *listed;
    if (!added.is_array()) fail("'added_tokens' must be an array, got " + describe(added));
    array(model, "model", "merges");
    tables_.check();
    const std::size_t num_entries = tables_.num_tokens() + added.size();
    const std::size_t max_ids = 4 * num_entries + 65536;

    std::vector<std::string_view> spellings;
    std::vector<uint8_t> flags;
    const auto claim = [&](int32_t id, std::string_view token, unsigned bits) {
      const auto at = static_cast<std::size_t>(id);
      if (at >= max_ids) {
        fail("token " + quote(token) + " has the id " + std::to_string(id) + ", far beyond the " +
             std::to_string(num_entries) + " tokens of the file");
      }
      if (at >= flags.size()) {
        flags.resize(at + 1);
        spellings.resize(at + 1);
      }
      if ((flags[at] & kExists) != 0 && spellings[at] != token) {
        fail("id " + std::to_string(id) + " belongs to two tokens, " + quote(spellings[at]) + " and " + quote(token));
      }
      flags[at] = static_cast<uint8_t>(flags[at] | bits);
      spellings[at] = token;
    };
    for (std::size_t i = 0; i < tables_.num_tokens(); ++i) claim(tables_.id(i), tables_.token(i), kExists | kInModel);
    std::set<std::string_view> seen;
    auto next_id = static_cast<int32_t>(tables_.num_tokens());
    for (std::size_t i = 0; i < added.size(); ++i) {
      const std::string path = join("added_tokens", i);
      const auto [token, bits] = added_token(added[i], path);
      if (!seen.insert(token).second) fail("'" + path + ".content' is " + quote(token) + " again");
      // tokenizers looks the token up in the model, and numbers new ones on from its size; it ignores the id in the
      // file.
      const int32_t known = tables_.find(token);
      const int32_t assigned = known >= 0 ? known : next_id++;
      if (const int32_t stated = id(member(added[i], path, "id"), path + ".id"); stated != assigned) {
        fail("'" + path + ".id' must be " + std::to_string(assigned) + " for " + quote(token) +
             ", which is what tokenizers assigns, got " + std::to_string(stated));
      }
      claim(assigned, token, bits);
      add_to_matcher(added[i], path, token, assigned);
    }
    check_added_tokens();

    for (std::size_t at = 0; at < flags.size(); ++at) {
      if ((flags[at] & kSpecial) != 0) special_.insert(spellings[at]);
      state_->spellings.push_back(spellings[at]);
      state_->bytes.push_back(text_of(spellings[at], (flags[at] & kAdded) != 0));
    }
    for (std::size_t at = 0; at < flags.size(); ++at) {
      const auto normalized = state_->decoder.normalized_spellings.find(static_cast<int32_t>(at));
      const bool changed = normalized != state_->decoder.normalized_spellings.end();
      if (special_.contains(changed ? std::string_view(normalized->second) : spellings[at])) {
        flags[at] = static_cast<uint8_t>(flags[at] | kSkipped);
      }
    }
    std::vector<int32_t> ids;
    ids.reserve(num_entries);
    for (std::size_t at = 0; at < flags.size(); ++at) {
      if ((flags[at] & kExists) != 0) ids.push_back(static_cast<int32_t>(at));
    }
    state_->id_of.insert_all(ids);
    state_->flags = std::move(flags);
  }

  /// The text that a token stands for when it is neither the first nor the last one: what State::bytes is about.
  std::string text_of(std::string_view token, bool added) const {
    if (state_->pre_tokenizer.byte_level) return bytes_spelled_by(token).value_or(std::string(token));
    if (added) return std::string(token);
    if (byte_fallback_) {
      if (const int byte = fallback_byte(token); byte >= 0 && token == fallback_token(byte)) {
        return {static_cast<char>(static_cast<unsigned char>(byte))};
      }
    }
    if (written_space_.empty()) return std::string(token);
    std::string text;
    std::size_t i = 0;
    for (std::size_t at = token.find(written_space_); at != std::string_view::npos;
         at = token.find(written_space_, i)) {
      text.append(token.substr(i, at - i)).append(" ");
      i = at + written_space_.size();
    }
    return text.append(token.substr(i));
  }

  /// What a space becomes before it meets the model.
  std::string written_space() const {
    if (state_->metaspace) return state_->metaspace->replacement;
    for (const NormalizerStep& step : state_->normalizer.steps) {
      if (step.kind == NormalizerStep::Kind::kReplace && step.pattern == " ") return step.content;
    }
    return "";
  }

  static std::string fallback_token(int byte) {
    constexpr std::string_view digits = "0123456789ABCDEF";
    const auto at = static_cast<std::size_t>(byte);
    return {'<', '0', 'x', digits[at / 16], digits[at % 16], '>'};
  }

  void add_to_matcher(const json& entry, const std::string& path, std::string_view token, int32_t id) {
    const auto bit = [&](const char* key, AddedTokenFlag value) {
      return flag(entry, path, key) ? unsigned{value} : 0U;
    };
    const auto flags =
        static_cast<uint8_t>(bit("single_word", kSingleWord) | bit("lstrip", kStripLeft) | bit("rstrip", kStripRight));
    if (!flag(entry, path, "normalized")) {
      state_->first_added.insert(token, id, flags);
      first_contents_.push_back(token);
      return;
    }
    std::string normalized = state_->normalizer.of(token);
    if (normalized.empty()) {
      fail("'" + path + ".content' is " + quote(token) + ", of which the normalizer leaves nothing");
    }
    if (normalized.size() > 4 * token.size() + 64) {  // bounds the memory of hostile files
      fail("'" + path + ".content' is " + quote(token) + ", which is far longer once it is normalized");
    }
    if (!state_->second_added.insert(normalized, id, flags)) {
      fail("'" + path + ".content' is " + quote(token) + ", which is the same as another one once it is normalized");
    }
    second_contents_.push_back(normalized);
    if (normalized != token) state_->decoder.normalized_spellings.emplace(id, std::move(normalized));
  }

  /// White space that one token strips may not be another token: tokenizers fails on some texts then.
  void check_added_tokens() const {
    const auto check = [&](const AddedTokens& tokens, const auto& contents) {
      if (!tokens.strips_right()) return;
      for (const std::string_view content : contents) {
        if ((character_at(content, 0).classes & kSpace) != 0) {
          fail("'added_tokens' has " + quote(content) + " besides a token with 'rstrip', which is not supported; " +
               "supported: 'rstrip' where no other token starts with white space");
        }
      }
    };
    check(state_->first_added, first_contents_);
    check(state_->second_added, second_contents_);
    if (state_->metaspace && state_->metaspace->prepend == Metaspace::Prepend::kFirst && !state_->normalizer.empty() &&
        !state_->second_added.empty()) {
      fail(
          "'pre_tokenizer.prepend_scheme' is 'first', which is not supported together with a normalizer and an added "
          "token with 'normalized': true");
    }
  }

  /// Content and flags of an entry of `added_tokens`.
  std::pair<std::string_view, unsigned> added_token(const json& entry, const std::string& path) const {
    if (!entry.is_object()) fail("'" + path + "' must be an object, got " + describe(entry));
    allow_keys(entry, path, {"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"});
    const std::string& content = string(entry, path, "content");
    if (content.empty()) fail("'" + path + ".content' must not be empty");
    if (content.size() > kMaxAddedTokenBytes) {
      fail("'" + path + ".content' must be at most " + std::to_string(kMaxAddedTokenBytes) + " bytes, got " +
           std::to_string(content.size()));
    }
    const bool special = flag(entry, path, "special");
    return {content, special ? kExists | kAdded | kSpecial : kExists | kAdded};
  }

  /// Id of a token of `model.vocab`, -1 if it has none.
  int32_t model_id(std::string_view token) const {
    const int32_t id = state_->id_of.find(token);
    return id >= 0 && (state_->flags[static_cast<std::size_t>(id)] & kInModel) != 0 ? id : -1;
  }

  void read_model() {
    const json& object = member(document_, "", "model");
    allow_keys(object, "model",
               {"type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk",
                "byte_fallback", "ignore_merges", "vocab", "merges"});
    if (const json* dropout = find(object, "dropout"); dropout != nullptr && !dropout->is_null() && *dropout != 0.0) {
      refuse("model.dropout", *dropout, "null");
    }
    for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
      const json* affix = find(object, key);
      if (affix != nullptr && !affix->is_null() && *affix != "") refuse(join("model", key), *affix, "null, ''");
    }
    if (state_->pre_tokenizer.byte_level) {
      read_bytes(object);
    } else {
      read_characters(object);
    }
    if (flag_or(object, "model", "ignore_merges", false, true)) read_whole_pieces();
    read_merges();
    if (state_->pre_tokenizer.rules.empty()) state_->pre_tokenizer.rules.emplace_back(SplitRule::kWhole);
    for (uint8_t& bits : state_->flags) bits = static_cast<uint8_t>(bits & ~kInModel);
  }

  /// What pieces start from in a byte-level vocabulary.
  void read_bytes(const json& object) {
    if (byte_fallback_) refuse("model.byte_fallback", object["byte_fallback"], "false with 'ByteLevel'");
    BpeModel& model = state_->model;
    bool complete = true;
    for (std::size_t byte = 0; byte < 256; ++byte) {
      model.byte_ids[byte] = model_id(spelling_of(static_cast<unsigned char>(byte)));
      complete = complete && model.byte_ids[byte] >= 0;
    }
    read_unknown(object, complete);
  }

  /// The same in a vocabulary of characters.
  void read_characters(const json& object) {
    BpeModel& model = state_->model;
    model.byte_ids.fill(-1);
    model.character_ids.emplace();
    for (std::size_t at = 0; at < state_->flags.size(); ++at) {
      const std::string_view token = state_->spellings[at];
      if ((state_->flags[at] & kInModel) == 0 || token.empty()) continue;
      const CodePoint c = code_point_at(token, 0);
      if (c.bytes == token.size()) model.character_ids->insert(c.value, static_cast<int32_t>(at));
    }
    if (byte_fallback_) {
      for (int byte = 0; byte < 256; ++byte) {
        const std::string token = fallback_token(byte);
        const int32_t id = model_id(token);
        // With some of them missing, tokenizers moves unknown characters behind the bytes that follow them.
        if (id < 0) fail("'model.byte_fallback' is true, but 'model.vocab' lacks " + quote(token));
        model.byte_ids[static_cast<std::size_t>(byte)] = id;
      }
    }
    read_unknown(object, byte_fallback_);
  }

  void read_unknown(const json& object, bool complete) {
    state_->model.fuse_unknown = flag_or(object, "model", "fuse_unk", false, true);
    if (const json* unknown = find(object, "unk_token"); unknown != nullptr && !unknown->is_null()) {
      state_->model.unknown_id = model_id(string(object, "model", "unk_token"));
      if (state_->model.unknown_id < 0 && !complete) {
        refuse("model.unk_token", *unknown, "null, or a token of 'model.vocab', because not everything has a token");
      }
    }
  }

  void read_whole_pieces() {
    const bool bytes = state_->pre_tokenizer.byte_level;
    std::vector<int32_t> ids;
    for (std::size_t at = 0; at < state_->flags.size(); ++at) {
      if ((state_->flags[at] & kInModel) == 0 || (bytes && !bytes_spelled_by(state_->spellings[at]))) continue;
      ids.push_back(static_cast<int32_t>(at));
    }
    state_->model.whole_pieces.emplace(bytes ? state_->bytes : state_->spellings).insert_all(ids);
  }

  void read_merges() {
    state_->model.merges.reserve(tables_.num_merges());
    std::set<char32_t> glue;
    bool merges_stand_ins = false;
    std::vector<bool> stands_in(state_->flags.size(), false);  // for characters without a token
    if (state_->model.unknown_id >= 0) stands_in[static_cast<std::size_t>(state_->model.unknown_id)] = true;
    for (const int32_t id : state_->model.byte_ids) {
      if (id >= 0) stands_in[static_cast<std::size_t>(id)] = true;
    }
    std::string wholes;  // of a block of merges, so that what their look-ups wait for is fetched together
    std::vector<std::string_view> texts;
    std::vector<int32_t> ids;
    for (std::size_t begin = 0; begin < tables_.num_merges(); begin += kMergeBlock) {
      const std::size_t end = std::min(begin + kMergeBlock, tables_.num_merges());
      wholes.clear();
      for (std::size_t i = begin; i < end; ++i) wholes.append(tables_.left(i)).append(tables_.right(i));
      texts.clear();
      std::size_t done = 0;
      for (std::size_t i = begin; i < end; ++i) {
        const std::size_t length = tables_.left(i).size() + tables_.right(i).size();
        texts.insert(texts.end(), {tables_.left(i), tables_.right(i), std::string_view(wholes).substr(done, length)});
        done += length;
      }
      ids.resize(texts.size());
      state_->id_of.find_all(texts, ids);
      for (std::size_t i = begin; i < end; ++i) {
        const std::size_t at = 3 * (i - begin);
        state_->model.merges.prefetch(ids[at], ids[at + 1]);
      }
      for (std::size_t i = begin; i < end; ++i) {
        const std::size_t at = 3 * (i - begin);
        for (const std::size_t part : {at, at + 1, at + 2}) check_merge_part(texts[part], ids[part], i);
        state_->model.merges.push_back(ids[at], ids[at + 1], ids[at + 2]);
        if (texts[at + 1].starts_with(kWordMark)) {
          glue.insert(code_point_at(texts[at], previous_character(texts[at], texts[at].size())).value);
        }
        merges_stand_ins = merges_stand_ins || stands_in[static_cast<std::size_t>(ids[at])] ||
                           stands_in[static_cast<std::size_t>(ids[at + 1])];
      }
    }
    if (!merges_stand_ins) cut_at_word_marks(glue);
  }

  /// A model in the way of SentencePiece sees a whole text as one piece. No merge reaches over the border between x and
  /// a word mark unless some merge has a left part that ends in x and a right part that starts with the mark; `glue`
  /// are all such x. Merges on both sides of another border are independent, so the text can be cut there: words are
  /// found in the memo, and the re-tokenisation filter has a local window.
  void cut_at_word_marks(const std::set<char32_t>& glue) {
    const BpeModel& model = state_->model;
    if (!model.character_ids || model.whole_pieces || glue.size() > kMaxGlue) return;
    if (model.character_ids->find(code_point_at(kWordMark, 0).value) < 0) return;
    if (!byte_fallback_ && model.unknown_id < 0) return;  // characters that are dropped leave no border
    Splitter splitter(SplitRule::kStringStarts, std::string(kWordMark));
    splitter.glue.assign(glue.begin(), glue.end());
    state_->pre_tokenizer.rules.push_back(std::move(splitter));
  }

  void check_merge_part(std::string_view token, int32_t id, std::size_t merge) const {
    if (token.empty()) fail("'" + tables_.place(merge) + "' merges an empty token");
    if (id < 0 || (state_->flags[static_cast<std::size_t>(id)] & kInModel) == 0) {
      fail("'" + tables_.place(merge) + "' needs " + quote(token) + ", which 'model.vocab' lacks");
    }
  }

  const json& document_;
  TokenizerTables& tables_;
  std::shared_ptr<State> state_;
  PipelineReader pipeline_;
  bool byte_fallback_ = false;
  std::string written_space_;
  std::set<std::string_view> special_;
  std::vector<std::string_view> first_contents_;
  std::vector<std::string> second_contents_;
};

}  // namespace

std::shared_ptr<const State> read_state(std::string_view text, std::string_view origin) {
  TokenizerTables tables(origin);
  const json document = parse_json(text, origin, {}, tables.streams());
  return StateReader(document, tables, origin).read();
}

}  // namespace titer::tokenization

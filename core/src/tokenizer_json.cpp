#include "tokenizer_json.h"

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "byte_alphabet.h"
#include "quote.h"
#include "tokenizer_json_checks.h"

namespace titer::tokenization {
namespace {

using nlohmann::json;

constexpr std::size_t kMaxAddedTokenBytes = 1024;  // bounds the time of AddedTokenMatcher::find
constexpr std::size_t kMaxRules = 16;
constexpr uint8_t kInModel = 0x80;  // beside TokenFlag, during loading only

class StateReader : private JsonChecks {
 public:
  StateReader(const json& document, std::string_view origin)
      : JsonChecks(origin), document_(document), state_(std::make_shared<State>()) {}

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
    read_normalizer();
    read_pre_tokenizer();
    read_vocabulary();
    read_model();
    read_decoder(member(document_, "", "decoder"), "decoder");
    if (const json* processor = find(document_, "post_processor"); processor != nullptr && !processor->is_null()) {
      read_post_processor(*processor, "post_processor");
    }
    return state_;
  }

 private:
  void read_normalizer() const {
    const json* normalizer = find(document_, "normalizer");
    if (normalizer == nullptr || normalizer->is_null()) return;
    if (type_of(*normalizer, "normalizer") != "Sequence") {
      refuse("normalizer.type", (*normalizer)["type"], "null, or a 'Sequence' of none");
    }
    allow_keys(*normalizer, "normalizer", {"type", "normalizers"});
    if (const json& list = array(*normalizer, "normalizer", "normalizers"); !list.empty()) {
      refuse("normalizer.normalizers", list, "an empty array");
    }
  }

  void read_pre_tokenizer() {
    const json* pre_tokenizer = find(document_, "pre_tokenizer");
    if (pre_tokenizer == nullptr || pre_tokenizer->is_null()) {
      fail("'pre_tokenizer' is null, which is not supported; supported: 'ByteLevel', or a 'Sequence' that ends in it");
    }
    add_pre_tokenizer(*pre_tokenizer, "pre_tokenizer");
    if (!byte_level_seen_) fail("'pre_tokenizer' must end in 'ByteLevel', which is missing");
  }

  void add_pre_tokenizer(const json& object, const std::string& path) {
    const std::string& type = type_of(object, path);
    if (type == "Sequence") {
      allow_keys(object, path, {"type", "pretokenizers"});
      const json& list = array(object, path, "pretokenizers");
      for (std::size_t i = 0; i < list.size(); ++i) add_pre_tokenizer(list[i], join(path + ".pretokenizers", i));
      return;
    }
    if (byte_level_seen_) fail("'" + path + "' follows 'ByteLevel', which must be the last pre-tokenizer");
    PreTokenizer& result = state_->pre_tokenizer;
    if (type == "ByteLevel") {
      check_byte_level(object, path);
      result.add_prefix_space = flag(object, path, "add_prefix_space");
      const bool use_regex = flag_or(object, path, "use_regex", true, false);
      result.rules.push_back(use_regex ? SplitRule::kGpt2 : SplitRule::kWhole);
      byte_level_seen_ = true;
    } else if (type == "Digits") {
      allow_keys(object, path, {"type", "individual_digits"});
      const bool individual = flag(object, path, "individual_digits");
      result.rules.push_back(individual ? SplitRule::kIndividualDigits : SplitRule::kDigitRuns);
    } else if (type == "Split") {
      result.rules.push_back(split_rule(object, path));
    } else {
      refuse(join(path, "type"), object["type"], "'ByteLevel', 'Digits', 'Split', 'Sequence'");
    }
    if (result.rules.size() > kMaxRules) {
      fail("'pre_tokenizer' must have at most " + std::to_string(kMaxRules) + " steps");
    }
  }

  void check_byte_level(const json& object, const std::string& path) const {
    allow_keys(object, path, {"type", "add_prefix_space", "trim_offsets", "use_regex"});
    flag(object, path, "add_prefix_space");
    flag(object, path, "trim_offsets");  // concerns offsets as tokenizers reports them, not ids
    flag_or(object, path, "use_regex", true, false);
  }

  SplitRule split_rule(const json& object, const std::string& path) const {
    allow_keys(object, path, {"type", "pattern", "behavior", "invert"});
    if (string(object, path, "behavior") != "Isolated") refuse(path + ".behavior", object["behavior"], "'Isolated'");
    if (flag(object, path, "invert")) refuse(path + ".invert", object["invert"], "false");
    const json& pattern = member(object, path, "pattern");
    if (!pattern.is_object()) fail("'" + path + ".pattern' must be an object, got " + describe(pattern));
    allow_keys(pattern, path + ".pattern", {"Regex"});
    const std::string& regex = string(pattern, path + ".pattern", "Regex");
    if (regex == kGpt2Pattern) return SplitRule::kGpt2;
    if (regex == kLlama3Pattern) return SplitRule::kLlama3;
    refuse(path + ".pattern.Regex", pattern["Regex"], "the patterns of GPT-2 and Llama 3, character for character");
  }

  /// Fills spellings, bytes, flags, id_of and the matchers from `model.vocab` and `added_tokens`.
  void read_vocabulary() {
    const json& model = member(document_, "", "model");
    if (type_of(model, "model") != "BPE") refuse("model.type", model["type"], "'BPE'");
    const json& vocab = member(model, "model", "vocab");
    if (!vocab.is_object()) fail("'model.vocab' must be an object, got " + describe(vocab));
    const json none = json::array();
    const json* listed = find(document_, "added_tokens");
    const json& added = listed == nullptr ? none : *listed;
    if (!added.is_array()) fail("'added_tokens' must be an array, got " + describe(added));
    const std::size_t num_entries = vocab.size() + added.size();
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
    for (const auto& [token, value] : vocab.items()) {
      claim(id(value, "model.vocab", token), token, kExists | kInModel);
    }
    std::set<std::string_view> seen;
    auto next_id = static_cast<int32_t>(vocab.size());
    for (std::size_t i = 0; i < added.size(); ++i) {
      const std::string path = join("added_tokens", i);
      const auto [token, bits] = added_token(added[i], path);
      if (!seen.insert(token).second) fail("'" + path + ".content' is " + quote(token) + " again");
      // tokenizers looks the token up in the model, and numbers new ones on from its size; it ignores the id in the
      // file.
      const auto known = vocab.find(token);
      const int32_t assigned = known != vocab.end() ? id(*known, "model.vocab") : next_id++;
      if (const int32_t stated = id(member(added[i], path, "id"), path + ".id"); stated != assigned) {
        fail("'" + path + ".id' must be " + std::to_string(assigned) + " for " + quote(token) +
             ", which is what tokenizers assigns, got " + std::to_string(stated));
      }
      claim(assigned, token, bits);
      const bool normalized = flag(added[i], path, "normalized");
      (normalized ? state_->added_tokens.second : state_->added_tokens.first).insert(token, assigned);
    }

    for (std::size_t at = 0; at < flags.size(); ++at) {
      const std::optional<std::string> bytes = bytes_spelled_by(spellings[at]);
      state_->spellings.push_back(spellings[at]);
      state_->bytes.push_back(bytes ? std::string_view(*bytes) : spellings[at]);
    }
    state_->id_of.reserve(num_entries);
    for (std::size_t at = 0; at < flags.size(); ++at) {
      if ((flags[at] & kExists) != 0) state_->id_of.insert(static_cast<int32_t>(at));
    }
    state_->flags = std::move(flags);
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
    for (const char* key : {"single_word", "lstrip", "rstrip"}) {
      if (flag(entry, path, key)) refuse(join(path, key), entry[key], "false");
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
    if (flag_or(object, "model", "byte_fallback", false, true)) {
      refuse("model.byte_fallback", object["byte_fallback"], "false");
    }

    BpeModel& model = state_->model;
    bool complete = true;
    for (std::size_t byte = 0; byte < 256; ++byte) {
      model.byte_ids[byte] = model_id(spelling_of(static_cast<unsigned char>(byte)));
      complete = complete && model.byte_ids[byte] >= 0;
    }
    model.fuse_unknown = flag_or(object, "model", "fuse_unk", false, true);
    if (const json* unknown = find(object, "unk_token"); unknown != nullptr && !unknown->is_null()) {
      model.unknown_id = model_id(string(object, "model", "unk_token"));
      if (model.unknown_id < 0 && !complete) {
        refuse("model.unk_token", *unknown, "null, or a token of 'model.vocab', because the vocabulary lacks a byte");
      }
    }
    if (flag_or(object, "model", "ignore_merges", false, true)) {
      model.whole_pieces.reserve(state_->flags.size());
      for (std::size_t at = 0; at < state_->flags.size(); ++at) {
        if ((state_->flags[at] & kInModel) == 0 || !bytes_spelled_by(state_->spellings[at])) continue;
        model.whole_pieces.insert(static_cast<int32_t>(at));
      }
    }
    read_merges(array(object, "model", "merges"));
    for (uint8_t& bits : state_->flags) bits = static_cast<uint8_t>(bits & ~kInModel);
  }

  void read_merges(const json& merges) {
    const bool pairs = !merges.empty() && merges[0].is_array();
    state_->model.merges.reserve(merges.size());
    std::string merged;
    for (std::size_t i = 0; i < merges.size(); ++i) {
      const json& entry = merges[i];
      std::string_view left;
      std::string_view right;
      if (pairs && entry.is_array() && entry.size() == 2 && entry[0].is_string() && entry[1].is_string()) {
        left = entry[0].get_ref<const std::string&>();
        right = entry[1].get_ref<const std::string&>();
      } else if (!pairs && entry.is_string()) {
        const std::string_view line = entry.get_ref<const std::string&>();
        if (line.substr(0, 8) == "#version") continue;
        const std::size_t space = line.find(' ');
        if (space == std::string_view::npos || line.find(' ', space + 1) != std::string_view::npos) {
          fail("'" + join("model.merges", i) + "' must be two tokens with a space between them, got " + quote(line));
        }
        left = line.substr(0, space);
        right = line.substr(space + 1);
      } else {
        fail("'" + join("model.merges", i) + "' must be " + (pairs ? "an array of two strings" : "a string") +
             " as the first entry is, got " + describe(entry));
      }
      merged.assign(left).append(right);
      const int32_t left_id = merge_part(left, i);
      const int32_t right_id = merge_part(right, i);
      state_->model.merges.push_back(left_id, right_id, merge_part(merged, i));
    }
  }

  int32_t merge_part(std::string_view token, std::size_t index) const {
    if (token.empty()) fail("'" + join("model.merges", index) + "' merges an empty token");
    const int32_t id = model_id(token);
    if (id < 0) fail("'" + join("model.merges", index) + "' needs " + quote(token) + ", which 'model.vocab' lacks");
    return id;
  }

  void read_decoder(const json& object, const std::string& path) const {
    const std::string& type = type_of(object, path);
    if (type == "Sequence") {
      allow_keys(object, path, {"type", "decoders"});
      const json& list = array(object, path, "decoders");
      if (list.size() != 1) refuse(path + ".decoders", list, "an array of one 'ByteLevel'");
      read_decoder(list[0], path + ".decoders[0]");
    } else if (type == "ByteLevel") {
      check_byte_level(object, path);
    } else {
      refuse(join(path, "type"), object["type"], "'ByteLevel', or a 'Sequence' of just that");
    }
  }

  void read_post_processor(const json& object, const std::string& path) {
    const std::string& type = type_of(object, path);
    if (type == "Sequence") {
      allow_keys(object, path, {"type", "processors"});
      const json& list = array(object, path, "processors");
      for (std::size_t i = 0; i < list.size(); ++i) read_post_processor(list[i], join(path + ".processors", i));
    } else if (type == "ByteLevel") {
      check_byte_level(object, path);  // trims offsets only
    } else if (type == "TemplateProcessing") {
      read_template(object, path);
    } else {
      refuse(join(path, "type"), object["type"], "null, 'ByteLevel', 'TemplateProcessing', 'Sequence'");
    }
  }

  void read_template(const json& object, const std::string& path) {
    if (template_seen_) fail("'" + path + "' is a second 'TemplateProcessing'; supported: one");
    template_seen_ = true;
    allow_keys(object, path, {"type", "single", "pair", "special_tokens"});
    array(object, path, "pair");  // for two sequences, which encode does not take
    const json& special_tokens = member(object, path, "special_tokens");
    if (!special_tokens.is_object()) {
      fail("'" + path + ".special_tokens' must be an object, got " + describe(special_tokens));
    }
    const json& single = array(object, path, "single");
    bool sequence_seen = false;
    for (std::size_t i = 0; i < single.size(); ++i) {
      const std::string at = join(path + ".single", i);
      const json& piece = single[i];
      if (!piece.is_object() || piece.size() != 1) fail("'" + at + "' must be an object of one key");
      const std::string& kind = piece.begin().key();
      const json& what = piece.begin().value();
      if (!what.is_object() || (kind != "Sequence" && kind != "SpecialToken")) {
        fail("'" + at + "' must be a 'Sequence' or a 'SpecialToken', got " + quote(kind));
      }
      allow_keys(what, join(at, kind), {"id", "type_id"});
      const std::string& name = string(what, join(at, kind), "id");
      id(member(what, join(at, kind), "type_id"), join(at, kind) + ".type_id");
      if (kind == "Sequence") {
        if (name != "A" || sequence_seen) refuse(at + ".Sequence.id", what["id"], "'A', once");
        sequence_seen = true;
        continue;
      }
      std::vector<int64_t>& ids = sequence_seen ? state_->ids_after : state_->ids_before;
      const json* token = find(special_tokens, name);
      if (token == nullptr || !token->is_object()) {
        fail("'" + at + "' needs " + quote(name) + ", which '" + path + ".special_tokens' lacks");
      }
      const std::string token_path = path + ".special_tokens." + escape_for_message(name);
      allow_keys(*token, token_path, {"id", "ids", "tokens"});
      for (const json& value : array(*token, token_path, "ids")) {
        const int32_t special_id = id(value, token_path + ".ids");
        if (!state_->has(special_id, kExists)) {
          fail("'" + token_path + ".ids' has " + std::to_string(special_id) + ", which is the id of no token");
        }
        ids.push_back(special_id);
      }
    }
    if (!sequence_seen) fail("'" + path + ".single' must contain the 'Sequence' 'A'");
  }

  const json& document_;
  std::shared_ptr<State> state_;
  bool byte_level_seen_ = false;
  bool template_seen_ = false;
};

}  // namespace

std::shared_ptr<const State> read_state(const nlohmann::json& document, std::string_view origin) {
  return StateReader(document, origin).read();
}

}  // namespace titer::tokenization

#include "tokenizer_json_pipeline.h"

#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

#include "quote.h"
#include "split_patterns.h"
#include "utf8.h"

namespace titer::tokenization {

using nlohmann::json;

namespace {

constexpr std::size_t kMaxSteps = 16;         // of each part
constexpr std::size_t kMaxStringBytes = 64;   // of patterns and what replaces them
constexpr std::size_t kMaxGrowth = 64;        // of a text under all steps: bounds the memory of hostile files
constexpr std::size_t kMaxSpecialIds = 1024;  // before or after a text: a template may name a long list again and again
constexpr std::size_t kNfcGrowth = 3;         // U+1D160 and others
constexpr std::size_t kNfkcGrowth = 11;       // U+FDFA

}  // namespace

void PipelineReader::read_normalizer(const json& document) {
  if (const json* normalizer = find(document, "normalizer"); normalizer != nullptr && !normalizer->is_null()) {
    add_normalizer(*normalizer, "normalizer");
  }
}

void PipelineReader::add_normalizer(const json& object, const std::string& path) {
  const std::string& type = type_of(object, path);
  if (type == "Sequence") {
    allow_keys(object, path, {"type", "normalizers"});
    const json& list = array(object, path, "normalizers");
    for (std::size_t i = 0; i < list.size(); ++i) add_normalizer(list[i], join(path + ".normalizers", i));
    return;
  }
  using Kind = NormalizerStep::Kind;
  std::vector<NormalizerStep>& steps = state_.normalizer.steps;
  if (type == "NFC" || type == "NFKC") {
    allow_keys(object, path, {"type"});
    count_growth(normalizer_growth_, type == "NFC" ? kNfcGrowth : kNfkcGrowth, path);
    steps.push_back({type == "NFC" ? Kind::kNfc : Kind::kNfkc, "", ""});
  } else if (type == "Prepend") {
    allow_keys(object, path, {"type", "prepend"});
    steps.push_back({Kind::kPrepend, "", short_string(object, path, "prepend")});
  } else if (type == "Replace") {
    std::string pattern = replaced_string(object, path);
    const std::string& content = short_string(object, path, "content");
    count_growth(normalizer_growth_, (content.size() + pattern.size() - 1) / pattern.size(), path);
    steps.push_back({Kind::kReplace, std::move(pattern), content});
  } else {
    refuse(join(path, "type"), object["type"], "null, 'NFC', 'NFKC', 'Prepend', 'Replace', 'Sequence'");
  }
  if (steps.size() > kMaxSteps) fail("'normalizer' must have at most " + std::to_string(kMaxSteps) + " steps");
}

void PipelineReader::read_pre_tokenizer(const json& document) {
  if (const json* pre_tokenizer = find(document, "pre_tokenizer");
      pre_tokenizer != nullptr && !pre_tokenizer->is_null()) {
    add_pre_tokenizer(*pre_tokenizer, "pre_tokenizer");
  }
  // Gemma replaces all spaces and then splits at spaces. A rule that does nothing would hide the next one from the
  // re-tokenisation filter.
  if (spaces_are_replaced()) {
    std::erase_if(state_.pre_tokenizer.rules,
                  [](const Splitter& s) { return s.pattern.find(' ') != std::string::npos; });
  }
}

/// True if no text that is cut into pieces has a space.
bool PipelineReader::spaces_are_replaced() const {
  const auto has_space = [](std::string_view text) { return text.find(' ') != std::string_view::npos; };
  if (state_.metaspace && !has_space(state_.metaspace->replacement)) return true;
  bool replaced = false;
  for (const NormalizerStep& step : state_.normalizer.steps) {
    const bool is_text = step.kind == NormalizerStep::Kind::kPrepend || step.kind == NormalizerStep::Kind::kReplace;
    replaced = (replaced || step.pattern == " ") && is_text && !has_space(step.content);
  }
  return replaced;
}

void PipelineReader::add_pre_tokenizer(const json& object, const std::string& path) {
  const std::string& type = type_of(object, path);
  if (type == "Sequence") {
    allow_keys(object, path, {"type", "pretokenizers"});
    const json& list = array(object, path, "pretokenizers");
    for (std::size_t i = 0; i < list.size(); ++i) add_pre_tokenizer(list[i], join(path + ".pretokenizers", i));
    return;
  }
  PreTokenizer& result = state_.pre_tokenizer;
  if (result.byte_level) fail("'" + path + "' follows 'ByteLevel', which must be the last pre-tokenizer");
  if (type == "ByteLevel") {
    if (state_.metaspace) fail("'" + path + "' follows 'Metaspace', which is not supported together");
    check_byte_level(object, path);
    result.byte_level = true;
    result.add_prefix_space = flag(object, path, "add_prefix_space");
    const bool use_regex = flag_or(object, path, "use_regex", true, false);
    result.rules.emplace_back(use_regex ? SplitRule::kGpt2 : SplitRule::kWhole);
  } else if (type == "Digits") {
    allow_keys(object, path, {"type", "individual_digits"});
    const bool individual = flag(object, path, "individual_digits");
    result.rules.emplace_back(individual ? SplitRule::kIndividualDigits : SplitRule::kDigitRuns);
  } else if (type == "Split") {
    result.rules.push_back(splitter(object, path));
  } else if (type == "Metaspace") {
    add_metaspace(object, path);
  } else {
    refuse(join(path, "type"), object["type"], "null, 'ByteLevel', 'Digits', 'Metaspace', 'Split', 'Sequence'");
  }
  if (result.rules.size() > kMaxSteps)
    fail("'pre_tokenizer' must have at most " + std::to_string(kMaxSteps) + " steps");
}

void PipelineReader::check_byte_level(const json& object, const std::string& path) const {
  allow_keys(object, path, {"type", "add_prefix_space", "trim_offsets", "use_regex"});
  flag(object, path, "add_prefix_space");
  flag(object, path, "trim_offsets");  // concerns offsets as tokenizers reports them, not ids
  flag_or(object, path, "use_regex", true, false);
}

void PipelineReader::add_metaspace(const json& object, const std::string& path) {
  if (state_.metaspace || !state_.pre_tokenizer.rules.empty()) {
    fail("'" + path + "' is a 'Metaspace' after another step, which is not supported; supported: as the first step");
  }
  state_.metaspace = metaspace(object, path);
  if (flag_or(object, path, "split", true, true)) {
    state_.pre_tokenizer.rules.emplace_back(SplitRule::kStringWithNext, state_.metaspace->replacement);
  }
  if (state_.metaspace->prepend != Metaspace::Prepend::kFirst) return;
  // tokenizers takes a text for the first one if its original starts at 0, which needs not be the start of the text
  // once a normalizer has removed some.
  for (const NormalizerStep& step : state_.normalizer.steps) {
    if (step.kind == NormalizerStep::Kind::kReplace && step.content.empty()) {
      refuse(join(path, "prepend_scheme"), object["prepend_scheme"],
             "'always' and 'never' with a normalizer that removes");
    }
  }
}

Metaspace PipelineReader::metaspace(const json& object, const std::string& path) const {
  allow_keys(object, path, {"type", "replacement", "prepend_scheme", "split", "add_prefix_space", "str_rep"});
  flag_or(object, path, "split", true, true);
  Metaspace result{one_character(object, path, "replacement"), Metaspace::Prepend::kAlways};
  if (find(object, "prepend_scheme") != nullptr) {
    const std::string& scheme = string(object, path, "prepend_scheme");
    if (scheme == "first") {
      result.prepend = Metaspace::Prepend::kFirst;
    } else if (scheme == "never") {
      result.prepend = Metaspace::Prepend::kNever;
    } else if (scheme != "always") {
      refuse(join(path, "prepend_scheme"), object["prepend_scheme"], "'always', 'first', 'never'");
    }
  }
  if (!flag_or(object, path, "add_prefix_space", true, true) && result.prepend != Metaspace::Prepend::kNever) {
    refuse(join(path, "add_prefix_space"), object["add_prefix_space"], "true, unless 'prepend_scheme' is 'never'");
  }
  return result;
}

Splitter PipelineReader::splitter(const json& object, const std::string& path) const {
  allow_keys(object, path, {"type", "pattern", "behavior", "invert"});
  const std::string& behavior = string(object, path, "behavior");
  const bool invert = flag(object, path, "invert");
  const json& pattern = member(object, path, "pattern");
  if (!pattern.is_object() || pattern.size() != 1) fail("'" + path + ".pattern' must be an object of one key");
  if (find(pattern, "String") != nullptr) {
    const std::string& text = short_string(pattern, path + ".pattern", "String");
    if (text.empty()) refuse(path + ".pattern.String", pattern["String"], "a string that is not empty");
    if (invert) refuse(path + ".invert", object["invert"], "false with a string");
    if (behavior == "Isolated") return {SplitRule::kStringIsolated, text};
    if (behavior == "Contiguous") return {SplitRule::kStringContiguous, text};
    if (behavior == "MergedWithPrevious") return {SplitRule::kStringWithPrevious, text};
    if (behavior == "MergedWithNext") return {SplitRule::kStringWithNext, text};
    refuse(path + ".behavior", object["behavior"],
           "'Isolated', 'Contiguous', 'MergedWithPrevious', 'MergedWithNext' with a string");
  }
  allow_keys(pattern, path + ".pattern", {"Regex", "String"});
  // The known patterns match everything, so what they do not match can be isolated or removed without a difference.
  if (behavior != "Isolated" && !(behavior == "Removed" && invert)) {
    refuse(path + ".behavior", object["behavior"], "'Isolated', or 'Removed' with 'invert', with a regular expression");
  }
  const std::optional<SplitRule> rule = rule_of_pattern(string(pattern, path + ".pattern", "Regex"));
  if (!rule) {
    refuse(path + ".pattern.Regex", pattern["Regex"],
           "the patterns of GPT-2, Llama 3, GPT-4, Qwen 2, Qwen 3.5, GPT-4o and Tekken, character for character");
  }
  return *rule;
}

void PipelineReader::read_decoder(const json& document) { add_decoder(member(document, "", "decoder"), "decoder"); }

void PipelineReader::add_decoder(const json& object, const std::string& path) {
  const std::string& type = type_of(object, path);
  using Kind = DecoderStep::Kind;
  std::vector<DecoderStep>& steps = state_.decoder.steps;
  if (type == "Sequence") {
    allow_keys(object, path, {"type", "decoders"});
    const json& list = array(object, path, "decoders");
    for (std::size_t i = 0; i < list.size(); ++i) add_decoder(list[i], join(path + ".decoders", i));
    return;
  }
  if (type == "ByteLevel") {
    check_byte_level(object, path);
    steps.push_back({Kind::kByteLevel, "", "", 0});
  } else if (type == "ByteFallback" || type == "Fuse") {
    allow_keys(object, path, {"type"});
    steps.push_back({type == "Fuse" ? Kind::kFuse : Kind::kByteFallback, "", "", 0});
  } else if (type == "Replace") {
    std::string pattern = replaced_string(object, path);
    const std::string& content = short_string(object, path, "content");
    count_growth(decoder_growth_, (content.size() + pattern.size() - 1) / pattern.size(), path);
    steps.push_back({Kind::kReplace, std::move(pattern), content, 0});
  } else if (type == "Strip") {
    allow_keys(object, path, {"type", "content", "start", "stop"});
    const int32_t start = id(member(object, path, "start"), path + ".start");
    // tokenizers fails on a token that is shorter than what is to be stripped from its end.
    if (id(member(object, path, "stop"), path + ".stop") != 0) refuse(path + ".stop", object["stop"], "0");
    steps.push_back({Kind::kStrip, "", one_character(object, path, "content"), static_cast<std::size_t>(start)});
  } else if (type == "Metaspace") {
    const Metaspace how = metaspace(object, path);
    steps.push_back({Kind::kMetaspace, how.replacement, "", how.prepend == Metaspace::Prepend::kNever ? 0U : 1U});
  } else {
    refuse(join(path, "type"), object["type"],
           "'ByteLevel', 'ByteFallback', 'Fuse', 'Replace', 'Strip', 'Metaspace', 'Sequence'");
  }
  if (steps.size() > kMaxSteps) fail("'decoder' must have at most " + std::to_string(kMaxSteps) + " steps");
}

void PipelineReader::read_post_processor(const json& document) {
  if (const json* processor = find(document, "post_processor"); processor != nullptr && !processor->is_null()) {
    add_post_processor(*processor, "post_processor");
  }
}

void PipelineReader::add_post_processor(const json& object, const std::string& path) {
  const std::string& type = type_of(object, path);
  if (type == "Sequence") {
    allow_keys(object, path, {"type", "processors"});
    const json& list = array(object, path, "processors");
    for (std::size_t i = 0; i < list.size(); ++i) add_post_processor(list[i], join(path + ".processors", i));
  } else if (type == "ByteLevel") {
    check_byte_level(object, path);  // trims offsets only
  } else if (type == "TemplateProcessing") {
    add_template(object, path);
  } else {
    refuse(join(path, "type"), object["type"], "null, 'ByteLevel', 'TemplateProcessing', 'Sequence'");
  }
}

void PipelineReader::add_template(const json& object, const std::string& path) {
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
    std::vector<int64_t>& ids = sequence_seen ? state_.ids_after : state_.ids_before;
    const json* token = find(special_tokens, name);
    if (token == nullptr || !token->is_object()) {
      fail("'" + at + "' needs " + quote(name) + ", which '" + path + ".special_tokens' lacks");
    }
    const std::string token_path = path + ".special_tokens." + escape_for_message(name);
    allow_keys(*token, token_path, {"id", "ids", "tokens"});
    for (const json& value : array(*token, token_path, "ids")) {
      const int32_t special_id = id(value, token_path + ".ids");
      if (!state_.has(special_id, kExists)) {
        fail("'" + token_path + ".ids' has " + std::to_string(special_id) + ", which is the id of no token");
      }
      ids.push_back(special_id);
      if (ids.size() > kMaxSpecialIds) {
        fail("'" + path + ".single' adds more than " + std::to_string(kMaxSpecialIds) + " special tokens");
      }
    }
  }
  if (!sequence_seen) fail("'" + path + ".single' must contain the 'Sequence' 'A'");
}

/// The pattern of a `Replace`.
std::string PipelineReader::replaced_string(const json& object, const std::string& path) const {
  allow_keys(object, path, {"type", "pattern", "content"});
  const json& pattern = member(object, path, "pattern");
  if (!pattern.is_object()) fail("'" + path + ".pattern' must be an object, got " + describe(pattern));
  allow_keys(pattern, path + ".pattern", {"String"});
  const std::string& text = short_string(pattern, path + ".pattern", "String");
  if (text.empty()) refuse(path + ".pattern.String", pattern["String"], "a string that is not empty");
  return text;
}

const std::string& PipelineReader::short_string(const json& object, const std::string& path, const char* key) const {
  const std::string& text = string(object, path, key);
  if (text.size() > kMaxStringBytes) {
    fail("'" + join(path, key) + "' must be at most " + std::to_string(kMaxStringBytes) + " bytes, got " +
         std::to_string(text.size()));
  }
  return text;
}

std::string PipelineReader::one_character(const json& object, const std::string& path, const char* key) const {
  const std::string& text = string(object, path, key);
  if (text.empty() || code_point_at(text, 0).bytes != text.size())
    refuse(join(path, key), object[key], "one character");
  return text;
}

/// Multiplies the factor by which a text may grow.
void PipelineReader::count_growth(std::size_t& growth, std::size_t factor, const std::string& path) const {
  growth *= std::max<std::size_t>(factor, 1);
  if (growth > kMaxGrowth)
    fail("'" + path + "' makes texts more than " + std::to_string(kMaxGrowth) + " times as long");
}

}  // namespace titer::tokenization

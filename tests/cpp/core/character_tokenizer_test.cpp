// Tokenizers in the way of SentencePiece: characters with byte fallback, normalizers and word marks.
#include <gmock/gmock.h>

#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "small_tokenizer.h"
#include "titer/core/tokenizer.h"
#include "tokenizer_texts.h"

namespace titer {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::load;
using testing::random_text;
using testing::refusal;
using testing::refusal_of;
using testing::tokens;

/// A document with a normalizer and a pre-tokenizer over small_characters.
Tokenizer characters(const json& normalizer, const json& pre_tokenizer) {
  return load(testing::small_characters(normalizer, pre_tokenizer));
}

TEST(CharacterTokenizer, what_has_no_token_falls_back_to_bytes) {
  const Tokenizer tokenizer = characters(nullptr, testing::metaspace("never", false));
  EXPECT_THAT(tokens(tokenizer, "thé z"), ElementsAre("th", "é", "▁", "<0x7A>"));
  EXPECT_THAT(tokens(tokenizer, "東"), ElementsAre("<0xE6>", "<0x9D>", "<0xB1>"));
  EXPECT_EQ(tokenizer.decode(tokenizer.encode("the 東 z")), "the 東 z");
  EXPECT_EQ(tokenizer.bytes_of(tokenizer.encode(" the 東")), " the 東");
  EXPECT_EQ(tokenizer.decode(std::vector<int64_t>{tokenizer.token_to_id("<0xE6>").value()}), "\uFFFD");
}

TEST(CharacterTokenizer, unknown_characters_are_fused_if_the_file_says_so) {
  json document = testing::small_characters(nullptr, testing::metaspace("never", false));
  document["model"]["byte_fallback"] = false;
  EXPECT_THAT(tokens(load(document), "a東京a"), ElementsAre("a", "<unk>", "a"));
  document["model"]["fuse_unk"] = false;
  EXPECT_THAT(tokens(load(document), "a東京a"), ElementsAre("a", "<unk>", "<unk>", "a"));
  document["model"]["unk_token"] = nullptr;
  EXPECT_THAT(tokens(load(document), "a東京a"), ElementsAre("aa"));
}

TEST(CharacterTokenizer, byte_fallback_needs_all_bytes) {
  json document = testing::small_characters(nullptr, nullptr);
  document["model"]["vocab"].erase("<0x0A>");
  document["model"]["vocab"]["other"] = 11;
  EXPECT_THAT(refusal(document), HasSubstr("'model.byte_fallback' is true, but 'model.vocab' lacks '<0x0A>'"));
}

TEST(CharacterTokenizer, the_word_mark_goes_where_the_scheme_says) {
  const auto with = [](const char* scheme) { return characters(nullptr, testing::metaspace(scheme, true)); };
  EXPECT_THAT(tokens(with("always"), "the<|a|>the"), ElementsAre("▁the", "<|a|>", "▁the"));
  EXPECT_THAT(tokens(with("first"), "the<|a|>the"), ElementsAre("▁the", "<|a|>", "the"));
  EXPECT_THAT(tokens(with("first"), "<|a|>the"), ElementsAre("<|a|>", "the"));
  EXPECT_THAT(tokens(with("never"), "the<|a|> the"), ElementsAre("the", "<|a|>", "▁the"));
  EXPECT_THAT(tokens(with("always"), " the"), ElementsAre("▁the"));
  EXPECT_THAT(tokens(with("always"), "a  a"), ElementsAre("▁a", "▁", "▁a"));
  const Tokenizer whole = characters(nullptr, testing::metaspace("always", false));
  EXPECT_THAT(tokens(whole, "a  s"), ElementsAre("▁a", "▁▁", "s"));
  EXPECT_THAT(tokens(with("always"), "a  s"), ElementsAre("▁a", "▁", "▁", "s"));
}

TEST(CharacterTokenizer, offsets_cover_the_text_that_the_normalizer_changed) {
  const auto offsets = [](const Tokenizer& tokenizer, std::string_view text) {
    const Encoding encoding = tokenizer.encode_with_offsets(text);
    EXPECT_EQ(encoding.ids, tokenizer.encode(text));
    return encoding.offsets;
  };
  const json llama2 = testing::normalizers({{{"type", "Prepend"}, {"prepend", "▁"}}, testing::replace(" ", "▁")});
  EXPECT_EQ(offsets(characters(llama2, nullptr), "the the"), (std::vector<ByteRange>{{0, 3}, {3, 7}}));
  EXPECT_EQ(offsets(characters(llama2, nullptr), "z"), (std::vector<ByteRange>{{0, 0}, {0, 1}}));
  const json nfc = {{"type", "NFC"}};
  const json never = testing::metaspace("never", false);
  EXPECT_EQ(offsets(characters(nfc, never), "se\u0301s"), (std::vector<ByteRange>{{0, 1}, {1, 4}, {4, 5}}));
  std::mt19937 random(11);
  for (const auto& [name, document] : testing::other_documents()) {
    const Tokenizer tokenizer = load(document);
    for (int round = 0; round < 300; ++round) {
      const std::string text = random_text(random, 12);
      int64_t position = 0;
      for (const auto& [begin, end] : offsets(tokenizer, text)) {
        ASSERT_EQ(begin, position) << name << ": " << text;
        position = end;
      }
      ASSERT_EQ(position, static_cast<int64_t>(text.size())) << name << ": " << text;
    }
  }
}

TEST(CharacterTokenizer, cutting_at_word_marks_changes_nothing) {
  // The first merges "!" with the mark after it, the second cannot cut at all.
  json document = testing::small_characters(testing::replace(" ", "▁"), nullptr);
  const Tokenizer cut = load(document);
  document["model"]["vocab"]["<0x00>a"] = document["model"]["vocab"].size();
  for (json& added : document["added_tokens"]) added["id"] = added["id"].get<int>() + 1;
  document["model"]["merges"].push_back({"<0x00>", "a"});
  const Tokenizer whole = load(document);
  std::mt19937 random(12);
  for (int round = 0; round < 2000; ++round) {
    std::string text;
    for (int i = 0; i < 30; ++i) text += std::vector<std::string>{" ", " ", "the", "!", "a", "x", "東"}[random() % 7];
    ASSERT_EQ(cut.decode(cut.encode(text)), whole.decode(whole.encode(text)));
    ASSERT_EQ(tokens(cut, text), tokens(whole, text)) << text;
  }
}

TEST(CharacterTokenizer, decoders_run_in_order) {
  json document = testing::small_characters(nullptr, testing::metaspace("always", false));
  const auto decoded = [&](const json& decoder, const std::vector<std::string>& spelled) {
    document["decoder"] = decoder;
    const Tokenizer tokenizer = load(document);
    std::vector<int64_t> ids;
    for (const std::string& token : spelled) ids.push_back(tokenizer.token_to_id(token).value());
    return tokenizer.decode(ids);
  };
  const std::vector<std::string> spelled = {"▁the", "▁▁", "<0xC3>", "<0xA9>", "<0xC3>", "▁a"};
  EXPECT_EQ(decoded(testing::metaspace("always", true), spelled), "the  <0xC3><0xA9><0xC3> a");
  EXPECT_EQ(decoded(testing::metaspace("never", true), spelled), " the  <0xC3><0xA9><0xC3> a");
  EXPECT_EQ(decoded({{"type", "ByteFallback"}}, spelled), "▁the▁▁\uFFFD\uFFFD\uFFFD▁a");
  EXPECT_EQ(decoded({{"type", "ByteFallback"}}, {"<0xC3>", "<0xA9>", "a"}), "éa");
  const json strip = {{"type", "Strip"}, {"content", "▁"}, {"start", 1}, {"stop", 0}};
  EXPECT_EQ(decoded(strip, {"▁the", "▁▁"}), "the▁");
  const json fuse = {{"type", "Fuse"}};
  EXPECT_EQ(decoded({{"type", "Sequence"}, {"decoders", {fuse, strip}}}, {"▁the", "▁▁"}), "the▁▁");
}

TEST(CharacterTokenizer, added_tokens_look_at_the_text_around_them) {
  json document = testing::small_characters(nullptr, testing::metaspace("never", false));
  const auto with = [&](const char* flag) {
    json changed = document;
    changed["added_tokens"][0][flag] = true;
    return load(changed);
  };
  EXPECT_THAT(tokens(with("lstrip"), "a  <|a|>  s"), ElementsAre("a", "<|a|>", "▁▁", "s"));
  EXPECT_THAT(tokens(with("rstrip"), "a  <|a|>  a"), ElementsAre("a", "▁▁", "<|a|>", "a"));
  EXPECT_THAT(tokens(with("single_word"), "<|a|>t"), ElementsAre("<|", "a", "|", ">", "t"));
  EXPECT_THAT(tokens(with("single_word"), "<|a|> t"), ElementsAre("<|a|>", "▁t"));
  document["added_tokens"][1]["content"] = " x";
  EXPECT_THAT(refusal_of([&] { with("rstrip"); }), HasSubstr("'rstrip'"));
  EXPECT_THAT(tokens(with("lstrip"), " x <|a|>"), ElementsAre(" x", "<|a|>"));
}

TEST(CharacterTokenizer, a_million_equal_characters_take_no_quadratic_time) {
  for (const auto& [name, document] : testing::other_documents()) {
    const Tokenizer tokenizer = load(document);
    for (const char* part : {"a", "\u0301", " ", "x", "<", "ﷺ"}) {
      std::string text;
      for (int i = 0; i < 100'000; ++i) text += part;
      EXPECT_FALSE(tokenizer.encode(text).empty()) << name << ": " << part;
    }
  }
}

TEST(CharacterTokenizer, text_after_drops_the_mark_where_the_tokenizer_writes_it) {
  const json prepend = testing::normalizers({{{"type", "Prepend"}, {"prepend", "▁"}}, testing::replace(" ", "▁")});
  const Tokenizer always = characters(prepend, nullptr);
  const Tokenizer first = characters(nullptr, testing::metaspace("first", false));
  const Tokenizer never = characters(nullptr, testing::metaspace("never", false));
  const auto after = [](const Tokenizer& tokenizer, std::string_view before, std::vector<std::string> spelled) {
    std::vector<int64_t> ids;
    for (const std::string& token : spelled) ids.push_back(tokenizer.token_to_id(token).value());
    return tokenizer.text_after(before, ids);
  };
  EXPECT_TRUE(always.marks_word_after("") && always.marks_word_after("a<|a|>") && !always.marks_word_after("<|a|>a"));
  EXPECT_TRUE(first.marks_word_after("") && !first.marks_word_after("<|a|>") && !never.marks_word_after(""));
  EXPECT_EQ(after(always, "", {"▁the", "▁a"}), "the a");
  EXPECT_EQ(after(always, "", {"▁", "▁a"}), " a");
  EXPECT_EQ(after(always, "a", {"▁the"}), " the");
  EXPECT_EQ(after(first, "", {"▁the"}), "the");
  EXPECT_EQ(after(first, "", {"▁", "▁a"}), "  a");  // "  a" starts with a space: nothing is added to it
  EXPECT_EQ(after(first, "", {"▁"}), " ");
  EXPECT_EQ(after(first, "<|a|>", {"▁the"}), " the");
  EXPECT_EQ(after(never, "", {"▁the"}), " the");
  EXPECT_EQ(after(always, "", {"<0xE6>"}), "\uFFFD");
  EXPECT_EQ(always.text_after("", std::vector<int64_t>{always.token_to_id("<|a|>").value()}, true), "");
}

}  // namespace
}  // namespace titer

#include "titer/core/tokenizer.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <cerrno>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "small_tokenizer.h"
#include "temporary_folder.h"
#include "tokenizer_texts.h"

namespace titer {
namespace {

using nlohmann::json;
using testing::byte_level;
using testing::digits;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::load;
using testing::random_text;
using testing::refusal;
using testing::refusal_of;
using testing::sequence;
using testing::small_tokenizer;
using ::testing::StartsWith;
using testing::tokens;

TEST(Tokenizer, the_lowest_rank_merges_first_and_then_the_leftmost) {
  const Tokenizer tokenizer = load(small_tokenizer(byte_level(false, true)));
  EXPECT_THAT(tokens(tokenizer, "the"), ElementsAre("the"));
  EXPECT_THAT(tokens(tokenizer, " the"), ElementsAre("Ġthe"));
  EXPECT_THAT(tokens(tokenizer, "aaa"), ElementsAre("aa", "a"));
  EXPECT_THAT(tokens(tokenizer, "aaaaaaa"), ElementsAre("aaaa", "aa", "a"));
  EXPECT_THAT(tokens(tokenizer, "éa"), ElementsAre("Ã©", "a"));
  EXPECT_THAT(tokens(tokenizer, ""), ElementsAre());
}

TEST(Tokenizer, pieces_of_every_length_are_merged_as_the_definition_says) {
  const Tokenizer tokenizer = load(small_tokenizer(byte_level(false, false)));
  const auto merge_by_definition = [](std::vector<std::string> symbols) {
    while (true) {
      const auto& merges = testing::small_merges();
      auto best = merges.end();
      std::size_t at = 0;
      for (std::size_t i = 0; i + 1 < symbols.size(); ++i) {
        const auto found = std::find(merges.begin(), merges.end(), std::pair(symbols[i], symbols[i + 1]));
        if (found < best) {
          best = found;
          at = i;
        }
      }
      if (best == merges.end()) return symbols;
      symbols[at] += symbols[at + 1];
      symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(at) + 1);
    }
  };
  std::mt19937 random(4);
  for (std::size_t length = 0; length < 100; ++length) {
    for (int round = 0; round < 20; ++round) {
      std::string text;
      std::vector<std::string> symbols;
      for (std::size_t i = 0; i < length; ++i) {
        text += "aathe !s1234ing're\n "[random() % 20];
        symbols.emplace_back(tokenization::spelling_of(static_cast<unsigned char>(text.back())));
      }
      ASSERT_EQ(tokens(tokenizer, text), merge_by_definition(symbols)) << text;
    }
  }
}

TEST(Tokenizer, the_last_of_two_equal_merges_counts) {
  json document = small_tokenizer(byte_level(false, true), {"ha"});
  document["model"]["merges"] = {"a a", "t h", "a a", "h a"};
  EXPECT_THAT(tokens(load(document), "thaa"), ElementsAre("th", "aa"));
  document["model"]["merges"] = {"a a", "h a", "a a"};
  EXPECT_THAT(tokens(load(document), "haa"), ElementsAre("ha", "a"));
}

TEST(Tokenizer, merges_are_read_as_strings_and_as_pairs) {
  json document = small_tokenizer(byte_level(false, true));
  const std::vector<int64_t> expected = load(document).encode("the thing is aaaa");
  json pairs = json::array();
  for (const auto& [left, right] : testing::small_merges()) pairs.push_back({left, right});
  document["model"]["merges"] = pairs;
  EXPECT_EQ(load(document).encode("the thing is aaaa"), expected);
  document["model"]["merges"] = {"#version: 0.2", "t h"};
  EXPECT_THAT(tokens(load(document), "the"), ElementsAre("th", "e"));
}

TEST(Tokenizer, whole_pieces_win_over_merges_only_if_the_file_says_so) {
  json document = small_tokenizer(byte_level(false, true), {"hat"});
  EXPECT_THAT(tokens(load(document), "hat"), ElementsAre("h", "a", "t"));
  document["model"]["ignore_merges"] = true;
  EXPECT_THAT(tokens(load(document), "hat"), ElementsAre("hat"));
  EXPECT_THAT(tokens(load(document), "hats"), ElementsAre("h", "a", "t", "s"));
}

TEST(Tokenizer, bytes_without_a_token_are_dropped_or_unknown) {
  json document = small_tokenizer(byte_level(false, true));
  document["model"]["vocab"].erase("z");
  document["model"]["vocab"]["?unk?"] = 1000;
  EXPECT_THAT(tokens(load(document), "tzzha"), ElementsAre("th", "a"));
  EXPECT_EQ(load(document).encode_with_offsets("tzzh").offsets, (std::vector<ByteRange>{{0, 4}}));
  document["model"]["unk_token"] = "?unk?";
  EXPECT_THAT(tokens(load(document), "tzzh"), ElementsAre("t", "?unk?", "?unk?", "h"));
  document["model"]["fuse_unk"] = true;
  EXPECT_THAT(tokens(load(document), "tzzhz"), ElementsAre("t", "?unk?", "h", "?unk?"));
  EXPECT_EQ(load(document).encode_with_offsets("tzzh").offsets, (std::vector<ByteRange>{{0, 1}, {1, 3}, {3, 4}}));
  document["model"]["unk_token"] = "absent";
  EXPECT_THAT(refusal(document), HasSubstr("model.unk_token"));
}

TEST(Tokenizer, a_prefix_space_is_added_to_every_stretch_and_covers_no_text) {
  const Tokenizer tokenizer = load(small_tokenizer(sequence({digits(true), byte_level(true, true)})));
  EXPECT_THAT(tokens(tokenizer, "the1the<|a|>a b"), ElementsAre("Ġthe", "Ġ", "1", "Ġthe", "<|a|>", "Ġa", "Ġ", "b"));
  const Encoding encoding = tokenizer.encode_with_offsets("the1 the");
  EXPECT_EQ(encoding.offsets, (std::vector<ByteRange>{{0, 3}, {3, 3}, {3, 4}, {4, 8}}));
}

TEST(Tokenizer, added_tokens_are_found_leftmost_longest_and_normalized_ones_later) {
  const Tokenizer tokenizer = load(small_tokenizer(byte_level(false, true)));
  EXPECT_THAT(tokens(tokenizer, "a<|a|>a"), ElementsAre("a", "<|a|>", "a"));
  EXPECT_THAT(tokens(tokenizer, "<|a|><|a|>"), ElementsAre("<|a|><|", "a", "|", ">"));
  EXPECT_THAT(tokens(tokenizer, "xxx"), ElementsAre("xx", "x"));
  json document = small_tokenizer(byte_level(false, true));
  document["added_tokens"].push_back(document["added_tokens"][0]);
  document["added_tokens"][3]["content"] = "x<";
  document["added_tokens"][3]["id"] = tokenizer.vocab_size();
  EXPECT_THAT(tokens(load(document), "xx<"), ElementsAre("x", "x<"));
}

TEST(Tokenizer, special_and_added_ids_are_known) {
  const Tokenizer tokenizer = load(small_tokenizer(byte_level(false, true)));
  const int64_t special = tokenizer.token_to_id("<|a|>").value();
  const int64_t added = tokenizer.token_to_id("xx").value();
  EXPECT_TRUE(tokenizer.is_special_token(special));
  EXPECT_TRUE(tokenizer.is_added_token(special));
  EXPECT_FALSE(tokenizer.is_special_token(added));
  EXPECT_TRUE(tokenizer.is_added_token(added));
  EXPECT_FALSE(tokenizer.is_added_token(0));
  EXPECT_EQ(tokenizer.vocab_size(), added + 1);
  EXPECT_FALSE(tokenizer.has_token(added + 1));
  EXPECT_FALSE(tokenizer.has_token(-1));
  EXPECT_EQ(tokenizer.token_to_id("nothing"), std::nullopt);
  EXPECT_THROW(tokenizer.id_to_token(added + 1), std::out_of_range);
  EXPECT_EQ(tokenizer.decode(std::vector<int64_t>{special, 'a', added}, true), "axx");
}

TEST(Tokenizer, holes_between_ids_belong_to_no_token) {
  json document = small_tokenizer(byte_level(false, true));
  document["added_tokens"] = json::array();
  document["model"]["vocab"]["hat"] = 1000;
  const Tokenizer tokenizer = load(document);
  EXPECT_EQ(tokenizer.vocab_size(), 1001);
  EXPECT_FALSE(tokenizer.has_token(999));
  EXPECT_THROW(tokenizer.id_to_token(999), std::out_of_range);
  EXPECT_EQ(tokenizer.decode(std::vector<int64_t>{1000, 999, 5000, 1000}), "hathat");
}

TEST(Tokenizer, the_template_stands_around_the_text_if_it_is_asked_for) {
  json document = small_tokenizer(byte_level(false, true));
  const int64_t special = load(document).token_to_id("<|a|>").value();
  const json piece = {{"SpecialToken", {{"id", "BOS"}, {"type_id", 0}}}};
  const json text = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
  document["post_processor"] = {
      {"type", "Sequence"},
      {"processors",
       {byte_level(true, true),
        {{"type", "TemplateProcessing"},
         {"single", {piece, piece, text, piece}},
         {"pair", json::array()},
         {"special_tokens", {{"BOS", {{"id", "BOS"}, {"ids", {special}}, {"tokens", {"<|a|>"}}}}}}}}}};
  const Tokenizer tokenizer = load(document);
  EXPECT_THAT(tokens(tokenizer, "a"), ElementsAre("<|a|>", "<|a|>", "a", "<|a|>"));
  EXPECT_THAT(tokens(tokenizer, "a", false), ElementsAre("a"));
  EXPECT_THAT(tokens(tokenizer, "").size(), 3U);
  EXPECT_EQ(tokenizer.encode_with_offsets("a").offsets, (std::vector<ByteRange>{{0, 0}, {0, 0}, {0, 1}, {1, 1}}));

  json& single = document["post_processor"]["processors"][1]["single"];
  single = json::array({piece});  // {piece} is a copy of it to clang
  EXPECT_THAT(refusal(document), HasSubstr("must contain the 'Sequence' 'A'"));
  single = {text, text};
  EXPECT_THAT(refusal(document), HasSubstr("single[1].Sequence.id"));
  single = {text, {{"SpecialToken", {{"id", "EOS"}, {"type_id", 0}}}}};
  EXPECT_THAT(refusal(document), HasSubstr("'EOS'"));
  single = json::array({text});
  document["post_processor"]["processors"].push_back(document["post_processor"]["processors"][1]);
  EXPECT_THAT(refusal(document), HasSubstr("second 'TemplateProcessing'"));
}

TEST(Tokenizer, offsets_cover_the_text_without_gap_or_overlap) {
  std::mt19937 random(1);
  for (const auto& [name, pre_tokenizer] : testing::pre_tokenizers()) {
    const Tokenizer tokenizer = load(small_tokenizer(pre_tokenizer));
    for (int round = 0; round < 300; ++round) {
      const std::string text = random_text(random, 12);
      const Encoding encoding = tokenizer.encode_with_offsets(text);
      EXPECT_EQ(encoding.ids, tokenizer.encode(text)) << name;
      int64_t position = 0;
      for (std::size_t i = 0; i < encoding.ids.size(); ++i) {
        EXPECT_EQ(encoding.offsets[i].begin, position) << name << ": " << text;
        position = encoding.offsets[i].end;
        const std::string bytes = tokenizer.bytes_of(std::vector<int64_t>{encoding.ids[i]});
        const std::string covered = text.substr(static_cast<std::size_t>(encoding.offsets[i].begin),
                                                static_cast<std::size_t>(position - encoding.offsets[i].begin));
        EXPECT_TRUE(bytes == covered || bytes == " " + covered) << name << ": " << text;
      }
      EXPECT_EQ(position, static_cast<int64_t>(text.size())) << name;
    }
  }
}

TEST(Tokenizer, every_maximal_invalid_sequence_decodes_to_one_replacement_character) {
  const Tokenizer tokenizer = load(small_tokenizer(byte_level(false, true)));
  const auto decoded = [&](std::string_view bytes) {
    std::vector<int64_t> ids;
    for (const char byte : bytes) {
      const std::string spelling(tokenization::spelling_of(static_cast<unsigned char>(byte)));
      ids.push_back(tokenizer.token_to_id(spelling).value());
    }
    EXPECT_EQ(tokenizer.bytes_of(ids), bytes);
    return tokenizer.decode(ids);
  };
  EXPECT_EQ(decoded("a\xC3\xA9"), "aé");
  EXPECT_EQ(decoded("\xC3"), "\uFFFD");
  EXPECT_EQ(decoded("\xC0\x80"), "\uFFFD\uFFFD");
  EXPECT_EQ(decoded("\xE4\xB8z"), "\uFFFDz");
  EXPECT_EQ(decoded("\xE4z"), "\uFFFDz");
  EXPECT_EQ(decoded("\xED\xA0\x80"), "\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(decoded("\xF0\x9F\x98"), "\uFFFD");
  EXPECT_EQ(decoded("\xF0\x9F\x41"), "\uFFFDA");
  EXPECT_EQ(decoded("\xF0\x8F\x41"), "\uFFFD\uFFFDA");
  EXPECT_EQ(decoded("\xF4\x90\x80\x80"), "\uFFFD\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(decoded("\xFF\x80"), "\uFFFD\uFFFD");
}

TEST(Tokenizer, invalid_text_and_negative_ids_are_refused_with_their_place) {
  const Tokenizer tokenizer = load(small_tokenizer(byte_level(false, true)));
  EXPECT_THAT(refusal_of([&] { tokenizer.encode("abc\xFFz"); }), HasSubstr("byte 3"));
  EXPECT_THAT(refusal_of([&] { tokenizer.encode_with_offsets("\xED\xA0\x80"); }), HasSubstr("byte 0"));
  EXPECT_THROW(tokenizer.decode(std::vector<int64_t>{1, -1}), std::out_of_range);
  EXPECT_THROW(tokenizer.bytes_of(std::vector<int64_t>{-5}), std::out_of_range);
}

TEST(Tokenizer, a_million_equal_letters_take_no_quadratic_time) {
  const Tokenizer tokenizer = load(small_tokenizer(byte_level(false, true)));
  EXPECT_EQ(tokenizer.encode(std::string(1'000'000, 'a')).size(), 250'000U);
}

TEST(Tokenizer, copies_and_threads_share_one_state) {
  const Tokenizer tokenizer = load(small_tokenizer(byte_level(false, true)));
  std::mt19937 random(2);
  std::vector<std::string> texts;
  std::vector<std::vector<int64_t>> expected;
  for (int i = 0; i < 200; ++i) {
    texts.push_back(random_text(random, 30));
    expected.push_back(tokenizer.encode(texts.back()));
  }
  std::vector<std::thread> threads;
  std::vector<int> num_wrong(4, 0);
  for (std::size_t t = 0; t < num_wrong.size(); ++t) {
    threads.emplace_back([&, t, copy = tokenizer] {
      for (int round = 0; round < 20; ++round) {
        for (std::size_t i = 0; i < texts.size(); ++i) num_wrong[t] += copy.encode(texts[i]) != expected[i] ? 1 : 0;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(num_wrong, ::testing::Each(0));
}

TEST(Tokenizer, more_pieces_than_the_memo_holds_are_encoded_alike) {
  const Tokenizer tokenizer = load(small_tokenizer(byte_level(false, true)));
  std::string text;
  for (int i = 0; i < 60'000; ++i) {
    for (int rest = i; rest > 0; rest /= 26) text += static_cast<char>('a' + rest % 26);
    text += ' ';
  }
  const std::vector<int64_t> first = tokenizer.encode(text);
  EXPECT_EQ(tokenizer.encode(text), first);
  EXPECT_EQ(tokenizer.encode_with_offsets(text).ids, first);
  EXPECT_EQ(tokenizer.decode(first), text);
}

TEST(Tokenizer, files_are_read_and_missing_ones_reported) {
  const testing::TemporaryFolder folder;
  const auto path = folder.write("tokenizer.json", small_tokenizer(byte_level(false, true)).dump());
  EXPECT_THAT(tokens(Tokenizer::from_file(path), "the"), ElementsAre("the"));
  EXPECT_EQ(testing::errno_of([&] { Tokenizer::from_file(folder / "absent.json"); }), ENOENT);
}

TEST(Tokenizer, hostile_files_are_refused_with_a_reason) {
  const json good = small_tokenizer(byte_level(false, true));
  const auto changed = [&](const char* pointer, const json& value) {
    json document = good;
    document[json::json_pointer(pointer)] = value;
    return refusal(document);
  };
  EXPECT_THAT(refusal(json::array()), StartsWith("[tokenizer] expected an object, got an array of 0"));
  EXPECT_THAT(changed("/model/vocab/new", 0), HasSubstr("id 0 belongs to two tokens"));
  EXPECT_THAT(changed("/model/vocab/new", -1), HasSubstr("'model.vocab.new' must be an id"));
  EXPECT_THAT(changed("/model/vocab/new", 1.5), HasSubstr("'model.vocab.new' must be an id"));
  EXPECT_THAT(changed("/model/vocab/new", int64_t{1} << 31U), HasSubstr("'model.vocab.new' must be an id"));
  EXPECT_THAT(changed("/model/vocab/new", 1 << 30U), HasSubstr("far beyond"));
  EXPECT_THAT(changed("/model/vocab", 3), HasSubstr("'model.vocab' must be an object"));
  EXPECT_THAT(changed("/model/merges", {"t q"}), HasSubstr("'tq', which 'model.vocab' lacks"));
  EXPECT_THAT(changed("/model/vocab", json::array({"a"})), HasSubstr("'model.vocab' must be an object"));
  EXPECT_THAT(changed("/model/merges", json::object()), HasSubstr("'model.merges' must be an array"));
  EXPECT_THAT(changed("/model/type", "WordPiece"), HasSubstr("'model.type' is 'WordPiece'"));
  EXPECT_THAT(changed("/model/merges", {"#version: 0.2", "t h", "t q"}), HasSubstr("'model.merges[2]' needs 'tq'"));
  EXPECT_THAT(refusal_of([] {
                Tokenizer::from_json(R"({"model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "a": 0}, "merges": []},
                                         "decoder": {"type": "Fuse"}})",
                                     "x");
              }),
              HasSubstr("'model.vocab' has 'a' twice"));
  EXPECT_THAT(changed("/model/merges", {"the"}), HasSubstr("model.merges[0]"));
  EXPECT_THAT(changed("/model/merges", {"t  h"}), HasSubstr("model.merges[0]"));
  EXPECT_THAT(changed("/model/merges", {"t "}), HasSubstr("empty token"));
  EXPECT_THAT(changed("/model/merges", {json::array({"t", "h"}), "t h"}), HasSubstr("model.merges[1]"));
  EXPECT_THAT(changed("/model/merges", {json::array({"t", "h", "e"})}), HasSubstr("model.merges[0]"));
  EXPECT_THAT(changed("/model/merges", {"<|a|> h"}), HasSubstr("lacks"));
  EXPECT_THAT(changed("/added_tokens/0/content", ""), HasSubstr("'added_tokens[0].content' must not be empty"));
  EXPECT_THAT(changed("/added_tokens/0/content", std::string(1025, 'x')), HasSubstr("at most 1024 bytes"));
  EXPECT_THAT(changed("/added_tokens/1/content", "<|a|>"), HasSubstr("'added_tokens[1].content' is '<|a|>' again"));
  EXPECT_THAT(changed("/added_tokens/0/id", 7), HasSubstr("'added_tokens[0].id' must be"));
  EXPECT_THAT(changed("/added_tokens/0/lstrip", 1), HasSubstr("'added_tokens[0].lstrip' is 1"));
  EXPECT_THAT(changed("/added_tokens", 1), HasSubstr("'added_tokens' must be an array"));
  EXPECT_THAT(changed("/pre_tokenizer", sequence({byte_level(false, true), digits(true)})),
              HasSubstr("must be the last"));
  EXPECT_THAT(changed("/pre_tokenizer", sequence({digits(true), testing::metaspace("always", true)})),
              HasSubstr("as the first step"));
  EXPECT_THAT(changed("/pre_tokenizer", testing::split_string("", "Isolated")), HasSubstr("pattern.String"));
  EXPECT_THAT(changed("/pre_tokenizer", testing::split_string("a", "Removed")), HasSubstr("behavior"));
  EXPECT_THAT(changed("/pre_tokenizer", testing::split("\\w+")), HasSubstr("pattern.Regex' is '\\w+'"));
  EXPECT_THAT(changed("/pre_tokenizer", sequence(std::vector<json>(17, digits(true)))), HasSubstr("at most 16"));
  EXPECT_THAT(changed("/decoder", nullptr), HasSubstr("'decoder'"));
  EXPECT_THAT(changed("/normalizer", {{"type", "Lowercase"}}), HasSubstr("'normalizer.type' is 'Lowercase'"));
  EXPECT_THAT(changed("/normalizer", testing::replace("", "x")), HasSubstr("pattern.String"));
  EXPECT_THAT(changed("/normalizer", testing::replace("a", std::string(65, 'x'))), HasSubstr("at most 64 bytes"));
  const json doubling = testing::replace("a", "aa");
  EXPECT_THAT(changed("/normalizer", testing::normalizers(std::vector<json>(7, doubling))), HasSubstr("64 times"));
  EXPECT_THAT(changed("/normalizer", testing::replace("x", "")), HasSubstr("leaves nothing"));
  EXPECT_THAT(changed("/normalizer", {{"type", "Sequence"}, {"normalizers", json::array()}}), "accepted");
  EXPECT_THAT(refusal_of([] { Tokenizer::from_json("{\"a\": \"\xFF\"}", "x.json"); }), HasSubstr("x.json"));
}

}  // namespace
}  // namespace titer

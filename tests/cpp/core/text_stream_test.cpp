#include "text_stream.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "small_tokenizer.h"
#include "stop_strings.h"
#include "utf8.h"

namespace titer {
namespace {

using nlohmann::json;

json decoders(std::vector<json> steps) { return {{"type", "Sequence"}, {"decoders", std::move(steps)}}; }

json strip(std::string_view content, int start) {
  return {{"type", "Strip"}, {"content", content}, {"start", start}, {"stop", 0}};
}

const json kFallback = {{"type", "ByteFallback"}};
const json kFuse = {{"type", "Fuse"}};

/// Tokenizers with decoders of every shape, by name.
std::vector<std::pair<std::string, Tokenizer>> tokenizers() {
  std::vector<std::pair<std::string, json>> documents = testing::other_documents();
  for (const auto& [name, pre_tokenizer] : testing::pre_tokenizers()) {
    documents.emplace_back(name, testing::small_tokenizer(pre_tokenizer));
  }
  const json spaces = testing::replace("▁", " ");
  const std::vector<std::pair<std::string, json>> rest = {
      {"llama2 with its Strip", decoders({spaces, kFallback, kFuse, strip(" ", 1)})},
      {"two spaces stripped", decoders({spaces, kFallback, kFuse, strip(" ", 2)})},
      {"stripped twice", decoders({spaces, kFallback, kFuse, strip(" ", 1), strip("t", 1)})},
      {"each token stripped", decoders({spaces, kFallback, strip(" ", 1), kFuse})},
      {"metaspace", testing::metaspace("always", false)},
      {"metaspace, nothing stripped", testing::metaspace("never", false)},
      {"metaspace behind bytes", decoders({kFallback, testing::metaspace("first", false), kFuse})},
      {"metaspace before bytes", decoders({testing::metaspace("first", false), kFallback, kFuse})},
      {"bytes that a Replace makes", decoders({testing::replace("t", "<0xC3>"), kFallback, kFuse})},
      {"a Replace across tokens", decoders({spaces, kFallback, kFuse, testing::replace("th", "x")})},
      {"bytes twice",
       decoders({kFallback, testing::replace("a", "<0xC3>"), testing::replace("t", "<0xA9>"), kFallback})},
      {"not fused", decoders({spaces, kFallback})},
      {"byte-level behind a Replace",
       decoders({spaces,
                 {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}}})}};
  for (const auto& [name, decoder] : rest) {
    documents.emplace_back(name, testing::small_characters(nullptr, testing::metaspace("first", false)));
    documents.back().second["decoder"] = decoder;
  }
  std::vector<std::pair<std::string, Tokenizer>> loaded;
  for (const auto& [name, document] : documents) loaded.emplace_back(name, Tokenizer::from_json(document.dump(), name));
  return loaded;
}

/// Any tokens, but often the bytes of characters: those of some texts one by one, now and then one left out.
std::vector<int64_t> random_ids(const Tokenizer& tokenizer, std::mt19937& random) {
  const auto byte_id = [&](unsigned char byte) {
    constexpr std::string_view digits = "0123456789ABCDEF";
    const std::string fallback = std::string("<0x") + digits[byte / 16] + digits[byte % 16] + ">";
    const auto id = tokenizer.token_to_id(fallback);
    return id ? *id : tokenizer.token_to_id(std::string(tokenization::spelling_of(byte))).value();
  };
  static const std::vector<std::string> texts = {"é", "東京", "😀", " a", "the", " ", "  ", "\uFFFD", "ts", "\xED\xA0"};
  std::vector<int64_t> ids;
  for (auto left = 1 + random() % 12; left > 0; --left) {
    switch (random() % 5) {
      case 0:
        ids.push_back(static_cast<int64_t>(random() % static_cast<unsigned>(tokenizer.vocab_size() + 2)));
        break;
      case 1:
        if (random() % 2 == 0) ids.push_back(tokenizer.vocab_size() - 1 - static_cast<int64_t>(random() % 45));
        break;
      case 2:  // letters as tokens of their own, which decoders rewrite
        for (auto letters = random() % 4; letters > 0; --letters) {
          const auto letter = std::string(1, "tha"[random() % 3]);
          ids.push_back(tokenizer.token_to_id(letter).value());
        }
        break;
      default:
        for (const char c : texts[random() % texts.size()]) {
          if (random() % 16 != 0) ids.push_back(byte_id(static_cast<unsigned char>(c)));
        }
    }
  }
  return ids;
}

TEST(TextStream, its_text_is_the_decoded_one_but_for_an_incomplete_character) {
  std::mt19937 random(3);
  for (const auto& [name, tokenizer] : tokenizers()) {
    int num_equal = 0;
    for (int round = 0; round < 400; ++round) {
      const std::vector<int64_t> ids = random_ids(tokenizer, random);
      TextStream stream(tokenizer);
      std::string before;
      for (std::size_t n = 1; n <= ids.size(); ++n) {
        const std::size_t unchanged = stream.push(ids[n - 1]);
        ASSERT_LE(unchanged, before.size());
        ASSERT_EQ(stream.text().substr(0, unchanged), before.substr(0, unchanged)) << name;
        before = stream.text();
        const std::string decoded = tokenizer.decode({ids.data(), n}, true);
        if (stream.text() == decoded) {
          ++num_equal;
          continue;
        }
        // Otherwise it waits: it is the text of a few tokens less, or lacks the U+FFFD at the end.
        ASSERT_TRUE(decoded.ends_with("\uFFFD")) << name << ": '" << stream.text() << "' for '" << decoded << "'";
        bool explained = false;
        for (std::size_t less = 0; less <= 3 && less <= n && !explained; ++less) {
          std::string shorter = tokenizer.decode({ids.data(), n - less}, true);
          explained = stream.text() == shorter;
          while (!explained && shorter.ends_with("\uFFFD")) {
            shorter.resize(shorter.size() - 3);
            explained = stream.text() == shorter;
          }
        }
        ASSERT_TRUE(explained) << name << ": '" << stream.text() << "' for '" << decoded << "'";
      }
    }
    EXPECT_GT(num_equal, 1000) << name;
  }
}

TEST(TextStream, stop_strings_are_found_where_the_decoded_prefixes_first_hold_them) {
  std::mt19937 random(4);
  const std::vector<std::string> candidates = {"é",    "東京", "京", "😀",  " a", "a",    "the",
                                               " the", "t",    "  ", "e ", "éa", "the a"};
  for (const auto& [name, tokenizer] : tokenizers()) {
    int num_found = 0;
    for (int round = 0; round < 400; ++round) {
      const std::vector<int64_t> ids = random_ids(tokenizer, random);
      std::vector<std::string> stop;
      for (auto left = 1 + random() % 3; left > 0; --left) stop.push_back(candidates[random() % candidates.size()]);
      TextStream stream(tokenizer);
      for (std::size_t n = 1; n <= ids.size(); ++n) {
        const std::size_t unchanged = stream.push(ids[n - 1]);
        const auto match = find_stop_string(stream.text(), unchanged, stop);
        const std::string decoded = tokenizer.decode({ids.data(), n}, true);
        const auto expected = find_stop_string(decoded, 0, stop);
        ASSERT_EQ(match, expected) << name << ": '" << stream.text() << "' for '" << decoded << "'";
        if (!match) continue;
        ++num_found;
        ASSERT_EQ(stream.text().substr(0, match->begin), decoded.substr(0, match->begin));
        break;
      }
    }
    EXPECT_GT(num_found, 10) << name;
  }
}

TEST(TextStream, characters_wait_for_their_last_byte_and_wrong_bytes_do_not_wait) {
  const Tokenizer tokenizer =
      Tokenizer::from_json(testing::small_tokenizer(testing::byte_level(false, true)).dump(), "byte-level");
  const auto push = [&](TextStream& stream, int byte) {
    const std::string spelled(tokenization::spelling_of(static_cast<unsigned char>(byte)));
    return stream.push(tokenizer.token_to_id(spelled).value());
  };
  TextStream stream(tokenizer);
  std::vector<std::string> texts;
  for (const int byte : {0x61, 0xF0, 0x9F, 0x98, 0x80, 0xE2, 0x82, 0x62, 0xFF, 0xC3, 0xC3, 0xA9}) {
    push(stream, byte);
    texts.push_back(stream.text());
  }
  EXPECT_THAT(texts, ::testing::ElementsAre("a", "a", "a", "a", "a😀", "a😀", "a😀", "a😀\uFFFDb", "a😀\uFFFDb\uFFFD",
                                            "a😀\uFFFDb\uFFFD", "a😀\uFFFDb\uFFFD\uFFFD", "a😀\uFFFDb\uFFFD\uFFFDé"));
}

TEST(TextStream, a_wrong_byte_undoes_its_run_where_the_decoder_does) {
  const Tokenizer tokenizer = Tokenizer::from_json(testing::small_characters(nullptr, nullptr).dump(), "fallback");
  TextStream stream(tokenizer);
  std::vector<std::string> texts;
  std::vector<std::size_t> unchanged;
  for (const char* token : {"a", "<0xC3>", "<0xA9>", "<0xE2>", "<0x61>", "t"}) {
    unchanged.push_back(stream.push(tokenizer.token_to_id(token).value()));
    texts.push_back(stream.text());
  }
  EXPECT_THAT(texts,
              ::testing::ElementsAre("a", "a", "aé", "aé", "a\uFFFD\uFFFD\uFFFD\uFFFD", "a\uFFFD\uFFFD\uFFFD\uFFFDt"));
  EXPECT_THAT(unchanged, ::testing::ElementsAre(0, 1, 1, 3, 1, 13));
}

TEST(TextStream, tokens_without_text_change_nothing) {
  const Tokenizer tokenizer =
      Tokenizer::from_json(testing::small_tokenizer(testing::byte_level(false, true)).dump(), "byte-level");
  TextStream stream(tokenizer);
  stream.push(tokenizer.token_to_id("t").value());
  EXPECT_EQ(stream.push(tokenizer.token_to_id("<|a|>").value()), 1);
  EXPECT_EQ(stream.push(tokenizer.vocab_size() + 7), 1);
  EXPECT_EQ(stream.text(), "t");
}

TEST(TextStream, the_end_that_more_bytes_could_complete_is_found) {
  const std::string alphabet = "\x61\x7F\x80\x8F\x90\x9F\xA0\xBF\xC1\xC2\xDF\xE0\xE1\xED\xEF\xF0\xF1\xF4\xF5\xFF";
  const auto completable = [&](std::string_view end) {  // by trying all of the alphabet, which holds every border
    const auto tries = [&](const auto& self, const std::string& bytes) -> bool {
      if (utf8_sequence_length(bytes, 0) == bytes.size()) return true;
      return bytes.size() < 4 &&
             std::any_of(alphabet.begin(), alphabet.end(), [&](char c) { return self(self, bytes + c); });
    };
    return utf8_sequence_length(end, 0) == 0 && tries(tries, std::string(end));
  };
  std::mt19937 random(5);
  for (int round = 0; round < 20000; ++round) {
    std::string text;
    for (auto left = random() % 6; left > 0; --left) text += alphabet[random() % alphabet.size()];
    std::size_t expected = 0;
    for (std::size_t length = 1; length <= 3 && length <= text.size(); ++length) {
      if (completable(std::string_view(text).substr(text.size() - length))) expected = length;
    }
    ASSERT_EQ(incomplete_utf8_length(text), expected) << ::testing::PrintToString(text);
  }
}

}  // namespace
}  // namespace titer

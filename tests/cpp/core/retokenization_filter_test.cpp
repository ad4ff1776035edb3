#include "titer/core/retokenization_filter.h"

#include <gmock/gmock.h>

#include <optional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "small_tokenizer.h"
#include "utf8.h"

namespace titer {
namespace {

using nlohmann::json;
using testing::byte_level;
using testing::digits;
using testing::sequence;

Tokenizer load(const json& document) { return Tokenizer::from_json(document.dump(), "tokenizer.json"); }

Tokenizer gpt2() { return load(testing::small_tokenizer(byte_level(false, true))); }

std::vector<int64_t> ids_of(const Tokenizer& tokenizer, const std::vector<std::string>& tokens) {
  std::vector<int64_t> ids;
  for (const std::string& token : tokens) ids.push_back(tokenizer.token_to_id(token).value());
  return ids;
}

/// A filter between two texts that are tokenized by themselves.
RetokenizationFilter between(const Tokenizer& tokenizer, std::string_view before, std::string_view after) {
  return {tokenizer, before, after, tokenizer.encode(before, false), tokenizer.encode(after, false)};
}

bool valid(const RetokenizationFilter& filter, const Tokenizer& tokenizer, const std::vector<std::string>& slot) {
  const std::vector<int64_t> ids = ids_of(tokenizer, slot);
  const bool answer = filter.valid(ids);
  EXPECT_EQ(answer, filter.whole_prompt_valid(ids));
  return answer;
}

TEST(RetokenizationFilter, ids_that_merge_inside_the_slot_are_rejected) {
  const Tokenizer tokenizer = gpt2();
  const RetokenizationFilter filter = between(tokenizer, "say", " now");
  EXPECT_TRUE(filter.is_local());
  EXPECT_TRUE(valid(filter, tokenizer, {"Ġthe", "Ġt"}));
  EXPECT_FALSE(valid(filter, tokenizer, {"Ġt", "h", "e"}));
  EXPECT_TRUE(valid(filter, tokenizer, {"a", "Ġt", "a"}));
  EXPECT_FALSE(valid(filter, tokenizer, {"a", "a"}));
  EXPECT_TRUE(valid(filter, tokenizer, {}));
}

TEST(RetokenizationFilter, a_merge_across_either_border_of_the_slot_is_rejected) {
  const Tokenizer tokenizer = gpt2();
  EXPECT_FALSE(valid(between(tokenizer, "say t", ""), tokenizer, {"h"}));
  EXPECT_TRUE(valid(between(tokenizer, "say t", ""), tokenizer, {"a"}));
  EXPECT_FALSE(valid(between(tokenizer, "", "h now"), tokenizer, {"Ġt"}));
  EXPECT_TRUE(valid(between(tokenizer, "", "s now"), tokenizer, {"Ġt"}));
}

TEST(RetokenizationFilter, white_space_at_the_border_belongs_to_the_next_word) {
  const Tokenizer tokenizer = gpt2();
  EXPECT_FALSE(valid(between(tokenizer, "a ", "b"), tokenizer, {"a"}));
  EXPECT_FALSE(valid(between(tokenizer, "a", "the"), tokenizer, {"Ġ"}));
  EXPECT_TRUE(valid(between(tokenizer, "a", " the"), tokenizer, {"Ġ"}));
  EXPECT_FALSE(valid(between(tokenizer, "a", "  the"), tokenizer, {"Ġ"}));
  EXPECT_TRUE(valid(between(tokenizer, "a", ""), tokenizer, {"Ġ"}));
}

TEST(RetokenizationFilter, broken_characters_are_rejected_even_if_the_context_completes_them) {
  const Tokenizer tokenizer = gpt2();
  EXPECT_FALSE(valid(between(tokenizer, "a", "b"), tokenizer, {"Ã"}));
  EXPECT_TRUE(valid(between(tokenizer, "a", "b"), tokenizer, {"Ã©"}));
  EXPECT_FALSE(valid(between(tokenizer, "a", "b"), tokenizer, {"Ã", "©"}));
}

TEST(RetokenizationFilter, added_tokens_in_the_slot_or_across_its_borders_are_rejected) {
  const Tokenizer tokenizer = gpt2();
  EXPECT_FALSE(valid(between(tokenizer, "a", "b"), tokenizer, {"<|a|>"}));
  EXPECT_FALSE(valid(between(tokenizer, "a", "b"), tokenizer, {"<|", "a", "|", ">"}));
  EXPECT_FALSE(valid(between(tokenizer, "a<|a", "b"), tokenizer, {"|", ">"}));
  EXPECT_FALSE(valid(between(tokenizer, "a", "a|>b"), tokenizer, {"<|"}));
  EXPECT_FALSE(valid(between(tokenizer, "a<", "a|>b"), tokenizer, {"|"}));
  EXPECT_FALSE(valid(between(tokenizer, "ax", "b"), tokenizer, {"x"}));
  EXPECT_TRUE(valid(between(tokenizer, "a<|a|>", "<|a|>b"), tokenizer, {"a", "Ġt", "|", ">"}));
  EXPECT_FALSE(valid(between(tokenizer, "a<|a|>", "<|a|>b"), tokenizer, {"<|"}));  // grows the token before it
}

TEST(RetokenizationFilter, an_added_token_over_an_empty_slot_is_rejected) {
  const Tokenizer tokenizer = gpt2();
  const RetokenizationFilter filter(tokenizer, "a<|a", "|>b", ids_of(tokenizer, {"a", "<|a|>"}),
                                    ids_of(tokenizer, {"b"}));
  EXPECT_FALSE(filter.valid({}));
  EXPECT_FALSE(filter.whole_prompt_valid({}));
}

TEST(RetokenizationFilter, ids_that_the_texts_do_not_have_are_handled_by_the_whole_prompt) {
  const Tokenizer tokenizer = gpt2();
  const std::vector<int64_t> wrong = ids_of(tokenizer, {"b", "Ġt"});
  const RetokenizationFilter filter(tokenizer, "a a a", "", wrong, {});
  EXPECT_FALSE(filter.is_local());
  EXPECT_FALSE(filter.valid(ids_of(tokenizer, {"a"})));
  EXPECT_FALSE(between(load(testing::small_tokenizer(byte_level(true, true))), "a", "b").is_local());
}

TEST(RetokenizationFilter, ids_that_the_texts_do_not_have_near_the_slot_make_every_slot_invalid) {
  const Tokenizer tokenizer = gpt2();
  const RetokenizationFilter after_misses_one(tokenizer, "a", "b c", ids_of(tokenizer, {"a"}),
                                              ids_of(tokenizer, {"Ġ", "c"}));
  EXPECT_TRUE(after_misses_one.is_local());
  EXPECT_FALSE(valid(after_misses_one, tokenizer, {"!"}));
  const RetokenizationFilter before_has_another(tokenizer, "a", "b c", ids_of(tokenizer, {"b"}),
                                                ids_of(tokenizer, {"b", "Ġ", "c"}));
  EXPECT_FALSE(valid(before_has_another, tokenizer, {"!"}));
}

TEST(RetokenizationFilter, a_contraction_that_the_slot_completes_is_seen) {
  const Tokenizer tokenizer = gpt2();
  EXPECT_FALSE(valid(between(tokenizer, "we'r", " on"), tokenizer, {"e"}));
  EXPECT_TRUE(valid(between(tokenizer, "we'r", " on"), tokenizer, {"a"}));
  EXPECT_TRUE(valid(between(tokenizer, "we", " on"), tokenizer, {"'re"}));
}

TEST(RetokenizationFilter, invalid_text_and_negative_ids_are_refused) {
  const Tokenizer tokenizer = gpt2();
  EXPECT_THROW(RetokenizationFilter(tokenizer, "\xFF", "", {}, {}), std::invalid_argument);
  EXPECT_THROW(RetokenizationFilter(tokenizer, "", "\xFF", {}, {}), std::invalid_argument);
  EXPECT_THROW(between(tokenizer, "", "").valid(std::vector<int64_t>{-1}), std::out_of_range);
  EXPECT_FALSE(between(tokenizer, "", "").valid(std::vector<int64_t>{100'000}));
}

/// Prompts cut at random token borders, slots changed at random, with the ids that sit at the borders over-represented.
class RandomPrompts {
 public:
  RandomPrompts(const Tokenizer& tokenizer, unsigned seed) : tokenizer_(tokenizer), random_(seed) {}

  std::vector<int64_t> ids(std::size_t max_size) {
    static const std::vector<std::string> border_tokens = {
        "Ġ", "ĠĠ", "Ċ", "ĊĊ", "ĠĊ", "č", "ĉ", "1", "12", "'", "'s", "s", "t", "r", "e", "'re", "3", "4", "45", "the",
        "Ġthe", "Ã", "©", "Ã©", "a", "Ġa", "!", "!!", "!!Ċ", "<", "|", "<|", ">", "x", "Â", "ł", "ä", "<|a|>", "xx",
        // not byte-level
        "▁", "▁▁", "▁the", "▁t", "▁a", "!▁", "é", "éa", "\u0301", "<0x20>", "<0xEF>", "<0xAC>", "<0x81>", "\n", "\n\n"};
    std::vector<int64_t> chosen(random_() % (max_size + 1));
    for (int64_t& id : chosen) {
      const std::optional<int64_t> chosen_id = tokenizer_.token_to_id(border_tokens[random_() % border_tokens.size()]);
      const auto any_id = static_cast<int64_t>(random_() % static_cast<unsigned>(tokenizer_.vocab_size()));
      id = random_() % 4 == 0 ? any_id : chosen_id.value_or(any_id);
    }
    return chosen;
  }

  /// Random text: the valid part of random ids.
  std::string text(std::size_t max_ids) { return tokenizer_.decode(ids(max_ids)); }

  std::size_t below(std::size_t bound) { return random_() % bound; }

 private:
  const Tokenizer& tokenizer_;
  std::mt19937 random_;
};

class LocalWindow : public ::testing::TestWithParam<std::pair<std::string, json>> {};

TEST_P(LocalWindow, gives_the_answer_of_the_whole_prompt) {
  for (const bool ignore_merges : {false, true}) {
    json document = GetParam().second;
    document["model"]["ignore_merges"] = ignore_merges;
    const Tokenizer tokenizer = load(document);
    RandomPrompts prompts(tokenizer, 7);
    int num_valid = 0;
    for (int round = 0; round < 400; ++round) {
      // Either the texts are tokenized by themselves, or a whole prompt is cut at token borders.
      std::string before = prompts.text(12);
      std::string after = prompts.text(round % 10 == 0 ? 80 : 12);
      std::vector<int64_t> before_ids = tokenizer.encode(before, false);
      std::vector<int64_t> after_ids = tokenizer.encode(after, false);
      if (round % 2 == 1) {
        const std::string text = before + prompts.text(4) + after;
        const Encoding whole = tokenizer.encode_with_offsets(text, false);
        const std::size_t first = prompts.below(whole.ids.size() + 1);
        const std::size_t second = first + prompts.below(whole.ids.size() + 1 - first);
        const auto border = [&](std::size_t i) {
          return i < whole.ids.size() ? static_cast<std::size_t>(whole.offsets[i].begin) : text.size();
        };
        before = text.substr(0, border(first));
        after = text.substr(border(second));
        if (first_invalid_utf8(before) < before.size() || first_invalid_utf8(after) < after.size()) continue;
        before_ids.assign(whole.ids.begin(), whole.ids.begin() + static_cast<std::ptrdiff_t>(first));
        after_ids.assign(whole.ids.begin() + static_cast<std::ptrdiff_t>(second), whole.ids.end());
      }
      const RetokenizationFilter filter(tokenizer, before, after, before_ids, after_ids);
      for (int candidate = 0; candidate < 30; ++candidate) {
        std::vector<int64_t> slot = prompts.ids(6);
        if (candidate % 2 == 1) slot = tokenizer.encode(tokenizer.decode(slot), false);
        const bool answer = filter.valid(slot);
        ASSERT_EQ(answer, filter.whole_prompt_valid(slot))
            << json({before, after, before_ids, after_ids, slot}).dump(-1, ' ', false, json::error_handler_t::replace);
        num_valid += answer ? 1 : 0;
      }
    }
    EXPECT_GT(num_valid, 50);
  }
}

std::vector<std::pair<std::string, json>> documents() {
  std::vector<std::pair<std::string, json>> all = testing::other_documents();
  for (const auto& [name, pre_tokenizer] : testing::pre_tokenizers()) {
    all.emplace_back(name, testing::small_tokenizer(pre_tokenizer));
  }
  return all;
}

INSTANTIATE_TEST_SUITE_P(EveryKindOfFile, LocalWindow, ::testing::ValuesIn(documents()),
                         [](const auto& parameter) { return parameter.param.first; });

TEST(RetokenizationFilter, sentencepiece_vocabularies_have_a_local_window) {
  for (const auto& [name, document] : testing::other_documents()) {
    const Tokenizer tokenizer = load(document);
    const bool whole = name == "stripping" || name == "long_replace";
    EXPECT_EQ(between(tokenizer, "a the", " the").is_local(), !whole) << name;
  }
}

TEST(RetokenizationFilter, a_mark_in_front_of_the_slot_needs_the_whole_prompt) {
  const Tokenizer tokenizer = load(testing::other_documents()[0].second);
  EXPECT_FALSE(between(tokenizer, "", " the").is_local());
  EXPECT_FALSE(between(tokenizer, "a<|a|>", " the").is_local());
  const RetokenizationFilter filter(tokenizer, "a", " the", ids_of(tokenizer, {"▁a"}), ids_of(tokenizer, {"▁the"}));
  EXPECT_TRUE(filter.is_local());
  EXPECT_TRUE(valid(filter, tokenizer, {"▁the"}));
  EXPECT_FALSE(valid(filter, tokenizer, {"▁t", "h", "e"}));
  EXPECT_FALSE(valid(filter, tokenizer, {"a"}));
}

TEST(RetokenizationFilter, a_mark_that_composes_with_the_text_before_it_is_rejected) {
  json document = testing::small_characters({{"type", "NFC"}}, testing::metaspace("never", false));
  const Tokenizer tokenizer = load(document);
  EXPECT_FALSE(valid(between(tokenizer, "the", "a"), tokenizer, {"\u0301"}));
  EXPECT_TRUE(valid(between(tokenizer, "th", "s"), tokenizer, {"é"}));
  EXPECT_FALSE(valid(between(tokenizer, "th", "\u0301"), tokenizer, {"e"}));
}

TEST(RetokenizationFilter, threads_share_a_filter) {
  const Tokenizer tokenizer = gpt2();
  const RetokenizationFilter filter = between(tokenizer, "a<|a|>the ", " now<|a|>");
  RandomPrompts prompts(tokenizer, 8);
  std::vector<std::vector<int64_t>> slots;
  std::vector<bool> expected;
  for (int i = 0; i < 300; ++i) {
    slots.push_back(prompts.ids(5));
    expected.push_back(filter.whole_prompt_valid(slots.back()));
  }
  std::vector<std::thread> threads;
  std::vector<int> num_wrong(4, 0);
  for (std::size_t t = 0; t < num_wrong.size(); ++t) {
    threads.emplace_back([&, t] {
      for (std::size_t i = 0; i < slots.size(); ++i) num_wrong[t] += filter.valid(slots[i]) != expected[i] ? 1 : 0;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(num_wrong, ::testing::Each(0));
}

}  // namespace
}  // namespace titer

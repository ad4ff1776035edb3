#include "tokenizer_split.h"

#include <gmock/gmock.h>

#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer_texts.h"
#include "utf8.h"

namespace titer {
namespace {

using ::testing::ElementsAre;
using testing::random_text;
using tokenization::next_piece;
using tokenization::SplitRule;

std::vector<std::string> pieces(SplitRule rule, std::string_view text) {
  std::vector<std::string> cut;
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t end = next_piece(rule, text, i, text.size()).end;
    cut.emplace_back(text.substr(i, end - i));
    i = end;
  }
  return cut;
}

TEST(TokenizerSplit, pieces_are_those_of_the_gpt2_pattern) {
  EXPECT_THAT(pieces(SplitRule::kGpt2, "I'm don't'S 'll x'rx"),
              ElementsAre("I", "'m", " don", "'t", "'", "S", " '", "ll", " x", "'", "rx"));
  EXPECT_THAT(pieces(SplitRule::kGpt2, "a  b\n\n c "), ElementsAre("a", " ", " b", "\n\n", " c", " "));
  EXPECT_THAT(pieces(SplitRule::kGpt2, "12a 34!? ¡x"), ElementsAre("12", "a", " 34", "!?", " ¡", "x"));
}

TEST(TokenizerSplit, pieces_are_those_of_the_llama3_pattern) {
  EXPECT_THAT(pieces(SplitRule::kLlama3, "I'M don'T'ſ 'll x'rx"),
              ElementsAre("I", "'M", " don", "'T", "'ſ", " '", "ll", " x", "'rx"));
  EXPECT_THAT(pieces(SplitRule::kLlama3, "a  b \n \n  c\n"), ElementsAre("a", " ", " b", " \n \n", " ", " c", "\n"));
  EXPECT_THAT(pieces(SplitRule::kLlama3, "12345 6!?\r\n\nx\tx"),
              ElementsAre("123", "45", " ", "6", "!?\r\n\n", "x", "\tx"));
}

TEST(TokenizerSplit, digits_are_single_or_in_runs) {
  EXPECT_THAT(pieces(SplitRule::kIndividualDigits, "12a b³4"), ElementsAre("1", "2", "a b", "³", "4"));
  EXPECT_THAT(pieces(SplitRule::kDigitRuns, "12a b³4"), ElementsAre("12", "a b", "³4"));
}

TEST(TokenizerSplit, pieces_are_those_of_the_qwen_patterns) {
  EXPECT_THAT(pieces(SplitRule::kQwen2, "I'm 123 e\u0301t!?\n"),
              ElementsAre("I", "'m", " ", "1", "2", "3", " e", "\u0301t", "!?\n"));
  EXPECT_THAT(pieces(SplitRule::kQwen35, "I'm 123 e\u0301t!\u0301?"),
              ElementsAre("I", "'m", " ", "1", "2", "3", " e\u0301t", "!\u0301", "?"));
}

TEST(TokenizerSplit, pieces_are_those_of_the_gpt4o_pattern) {
  EXPECT_THAT(pieces(SplitRule::kGpt4o, "helloWorld HTTPServer ABC's I'LL"),
              ElementsAre("hello", "World", " HTTPServer", " ABC's", " I'LL"));
  EXPECT_THAT(pieces(SplitRule::kGpt4o, "AB中CDeF 12345//\n/x"),
              ElementsAre("AB中CDe", "F", " ", "123", "45", "//\n/", "x"));
  EXPECT_THAT(pieces(SplitRule::kGpt4o, "AB中CD e\u0301 !\u0301"), ElementsAre("AB中", "CD", " e\u0301", " !\u0301"));
  EXPECT_THAT(pieces(SplitRule::kTekken, "ABC's 123"), ElementsAre("ABC", "'s", " ", "1", "2", "3"));
}

TEST(TokenizerSplit, strings_are_cut_as_the_behavior_says) {
  const auto cut = [](SplitRule rule, std::string_view text) {
    std::vector<std::string> found;
    for (std::size_t i = 0; i < text.size();) {
      const std::size_t end = next_piece({rule, "-"}, text, i, text.size()).end;
      found.emplace_back(text.substr(i, end - i));
      i = end;
    }
    return found;
  };
  EXPECT_THAT(cut(SplitRule::kStringIsolated, "-the-final--down-"),
              ElementsAre("-", "the", "-", "final", "-", "-", "down", "-"));
  EXPECT_THAT(cut(SplitRule::kStringContiguous, "-the-final--down-"),
              ElementsAre("-", "the", "-", "final", "--", "down", "-"));
  EXPECT_THAT(cut(SplitRule::kStringWithPrevious, "-the-final--down-"),
              ElementsAre("-", "the-", "final-", "-", "down-"));
  EXPECT_THAT(cut(SplitRule::kStringWithNext, "-the-final--down-"), ElementsAre("-the", "-final", "-", "-down", "-"));
  EXPECT_THAT(cut(SplitRule::kStringStarts, "-the-final--down-"), ElementsAre("-the", "-final", "-", "-down", "-"));
}

// The re-tokenisation filter rests on this.
TEST(TokenizerSplit, a_piece_depends_on_nothing_beyond_its_reach) {
  std::mt19937 random(3);
  using tokenization::Splitter;
  Splitter starts(SplitRule::kStringStarts, " ");
  starts.glue = {U' ', U'!'};
  for (const Splitter& rule :
       {Splitter(SplitRule::kIndividualDigits), Splitter(SplitRule::kDigitRuns), Splitter(SplitRule::kGpt2),
        Splitter(SplitRule::kLlama3), Splitter(SplitRule::kQwen2), Splitter(SplitRule::kQwen35),
        Splitter(SplitRule::kGpt4o), Splitter(SplitRule::kTekken), Splitter(SplitRule::kStringIsolated, "aa"),
        Splitter(SplitRule::kStringContiguous, "aa"), Splitter(SplitRule::kStringWithPrevious, "aa"),
        Splitter(SplitRule::kStringWithNext, "aa"), starts}) {
    for (int round = 0; round < 20'000; ++round) {
      const std::string text = random_text(random, 8);
      if (text.empty()) continue;
      const tokenization::Piece piece = next_piece(rule, text, 0, text.size());
      ASSERT_GT(piece.end, 0U);
      ASSERT_LE(piece.end, text.size());
      if (piece.reach >= text.size()) continue;
      const std::size_t seen = piece.reach + utf8_sequence_length(text, piece.reach);
      const std::string other = text.substr(0, seen) + random_text(random, 8);
      ASSERT_EQ(next_piece(rule, other, 0, other.size()).end, piece.end) << text << " | " << other;
    }
  }
}

}  // namespace
}  // namespace titer

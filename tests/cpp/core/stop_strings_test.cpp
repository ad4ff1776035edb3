#include "stop_strings.h"

#include <gmock/gmock.h>

#include <random>
#include <string>
#include <vector>

namespace titer {
namespace {

using Stops = std::vector<std::string>;

std::optional<StopMatch> find(std::string_view text, const Stops& stop, std::size_t unchanged = 0) {
  return find_stop_string(text, unchanged, stop);
}

TEST(StopStrings, the_one_that_is_complete_first_wins) {
  EXPECT_EQ(find("a cat and a dog", {"dog", "cat"}), (StopMatch{2, 5, 1}));
  EXPECT_EQ(find("abcd", {"abcd", "bc"}), (StopMatch{1, 3, 1})) << "though the other one starts earlier";
  EXPECT_EQ(find("aaa", {"aa"}), (StopMatch{0, 2, 0}));
  EXPECT_EQ(find("a cat", {"dog"}), std::nullopt);
  EXPECT_EQ(find("a cat", {}), std::nullopt);
  EXPECT_EQ(find("", {"dog"}), std::nullopt);
}

TEST(StopStrings, the_longest_of_those_that_end_together_wins) {
  EXPECT_EQ(find("xabc", {"c", "abc", "bc"}), (StopMatch{1, 4, 1}));
  EXPECT_EQ(find("xabc", {"abc", "abc"}), (StopMatch{1, 4, 0}));
}

TEST(StopStrings, only_what_ends_behind_the_unchanged_text_counts) {
  EXPECT_EQ(find("stop stop", {"stop"}, 3), (StopMatch{0, 4, 0}));
  EXPECT_EQ(find("stop stop", {"stop"}, 4), (StopMatch{5, 9, 0}));
  EXPECT_EQ(find("stop stop", {"stop"}, 9), std::nullopt);
  EXPECT_EQ(find("stop", {"stop"}, 100), std::nullopt);
}

/// Read by the definition: byte by byte.
std::optional<StopMatch> by_definition(const std::string& text, std::size_t unchanged, const Stops& stop) {
  for (std::size_t end = unchanged + 1; end <= text.size(); ++end) {
    std::optional<StopMatch> longest;
    for (std::size_t index = 0; index < stop.size(); ++index) {
      const std::string& wanted = stop[index];
      if (wanted.size() > end || text.compare(end - wanted.size(), wanted.size(), wanted) != 0) continue;
      if (!longest || wanted.size() > longest->end - longest->begin) longest = {end - wanted.size(), end, index};
    }
    if (longest) return longest;
  }
  return std::nullopt;
}

TEST(StopStrings, however_a_text_is_cut_the_same_one_is_found) {
  std::mt19937 random(1);
  const auto random_text = [&](std::size_t longest) {
    std::string text;
    for (auto left = 1 + random() % longest; left > 0; --left) text += "ab\xC3\xA9"[random() % 4];
    return text;
  };
  int found = 0;
  for (int round = 0; round < 20000; ++round) {
    Stops stop;
    for (auto left = random() % 4; left > 0; --left) stop.push_back(random_text(6));
    const std::string text = random_text(24);
    const auto expected = by_definition(text, 0, stop);
    found += expected.has_value();
    std::optional<StopMatch> match;
    for (std::size_t unchanged = 0; unchanged < text.size() && !match;) {
      const std::size_t size = std::min(text.size(), unchanged + random() % 5);
      match = find(text.substr(0, size), stop, unchanged);
      unchanged = size;
    }
    ASSERT_EQ(match, expected) << text;
    const std::size_t unchanged = random() % 30;
    ASSERT_EQ(find(text, stop, unchanged), by_definition(text, unchanged, stop)) << text;
  }
  EXPECT_GT(found, 5000);
}

}  // namespace
}  // namespace titer

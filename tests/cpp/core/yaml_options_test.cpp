#include "titer/core/yaml_options.h"

#include <gmock/gmock.h>

#include <cmath>
#include <limits>

#include "temporary_folder.h"

namespace titer {
namespace {

using testing::errno_of;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::refusal_of;
using testing::TemporaryFolder;

std::string refusal(std::string_view text) {
  return refusal_of([&] { parse_yaml_options(text, "gcg.yaml"); });
}

/// The value of `key: <scalar>`.
OptionValue scalar(std::string_view text) {
  return parse_yaml_options("key: " + std::string(text) + "\n", "gcg.yaml").at(0).value;
}

TEST(YamlOptions, assignments_keep_order_and_lines) {
  const auto assignments = parse_yaml_options(
      "# comment\n"
      "search_width: 64   # candidates\n"
      "\n"
      "loss: mellowmax\n"
      "banned:\n"
      "  - a\n"
      "  - \"1\"\n"
      "initial: |\n"
      "  x x\n"
      "other: [b, 'c']\n",
      "gcg.yaml");
  ASSERT_EQ(assignments.size(), 5U);
  EXPECT_EQ(assignments[0].name, "search_width");
  EXPECT_EQ(assignments[0].value, OptionValue(std::int64_t{64}));
  EXPECT_EQ(assignments[0].origin, "gcg.yaml:2");
  EXPECT_EQ(assignments[1].value, OptionValue(std::string("mellowmax")));
  EXPECT_EQ(assignments[1].origin, "gcg.yaml:4");
  EXPECT_EQ(assignments[2].value, OptionValue(std::vector<std::string>{"a", "1"}));
  EXPECT_EQ(assignments[2].origin, "gcg.yaml:5");
  EXPECT_EQ(assignments[3].value, OptionValue(std::string("x x\n")));
  EXPECT_EQ(assignments[4].value, OptionValue(std::vector<std::string>{"b", "c"}));
  EXPECT_EQ(assignments[4].origin, "gcg.yaml:10");
}

TEST(YamlOptions, scalars_follow_the_core_schema) {
  EXPECT_EQ(scalar("true"), OptionValue(true));
  EXPECT_EQ(scalar("FALSE"), OptionValue(false));
  EXPECT_EQ(scalar("yes"), OptionValue(std::string("yes")));
  EXPECT_EQ(scalar("off"), OptionValue(std::string("off")));
  EXPECT_EQ(scalar("-12"), OptionValue(std::int64_t{-12}));
  EXPECT_EQ(scalar("+7"), OptionValue(std::int64_t{7}));
  EXPECT_EQ(scalar("007"), OptionValue(std::int64_t{7})) << "no octal by leading zero";
  EXPECT_EQ(scalar("0o17"), OptionValue(std::int64_t{15}));
  EXPECT_EQ(scalar("0xff"), OptionValue(std::int64_t{255}));
  EXPECT_EQ(scalar("9223372036854775807"), OptionValue(std::numeric_limits<std::int64_t>::max()));
  EXPECT_EQ(scalar("-9223372036854775808"), OptionValue(std::numeric_limits<std::int64_t>::min()));
  EXPECT_EQ(scalar("1e-3"), OptionValue(1e-3));
  EXPECT_EQ(scalar("-.5"), OptionValue(-0.5));
  EXPECT_EQ(scalar("+1."), OptionValue(1.0));
  EXPECT_EQ(scalar("-.inf"), OptionValue(-std::numeric_limits<double>::infinity()));
  EXPECT_TRUE(std::isnan(std::get<double>(scalar(".nan"))));
  for (const char* null : {"null", "~", "Null", ""}) EXPECT_EQ(scalar(null), OptionValue(std::monostate{})) << null;
  for (const char* text : {"1_000", "+-5", "1e", "e5", ".", "0x", "0b1", "1.2.3", "12:30", "inf", "nan", "--"}) {
    EXPECT_EQ(scalar(text), OptionValue(std::string(text)));
  }
}

TEST(YamlOptions, quoted_scalars_stay_texts) {
  EXPECT_EQ(scalar("'12'"), OptionValue(std::string("12")));
  EXPECT_EQ(scalar("\"true\""), OptionValue(std::string("true")));
  EXPECT_EQ(scalar("\"null\""), OptionValue(std::string("null")));
  EXPECT_EQ(scalar("''"), OptionValue(std::string()));
  EXPECT_EQ(scalar(R"("a\n\u00e9")"), OptionValue(std::string("a\n\u00e9")));
  EXPECT_EQ(scalar(">-\n  5"), OptionValue(std::string("5")));
}

TEST(YamlOptions, a_text_without_keys_assigns_nothing) {
  for (const char* text : {"", "\n\n", "# all\n# commented\n", "---\n", "---\n...\n", "{}", "null"}) {
    EXPECT_THAT(parse_yaml_options(text, "gcg.yaml"), IsEmpty()) << text;
  }
}

TEST(YamlOptions, numbers_that_do_not_fit_are_refused) {
  EXPECT_EQ(refusal("a: 9223372036854775808"),
            "[yaml] integer '9223372036854775808' does not fit into 64 bits (gcg.yaml:1)");
  EXPECT_THAT(refusal("a: 1e400"), HasSubstr("beyond the range of a double (gcg.yaml:1)"));
}

TEST(YamlOptions, anything_but_a_flat_mapping_is_refused_with_its_line) {
  EXPECT_EQ(refusal("- a\n- b\n"), "[yaml] expected a mapping of options, got a list (gcg.yaml:1)");
  EXPECT_EQ(refusal("just text"), "[yaml] expected a mapping of options, got a single value (gcg.yaml:1)");
  EXPECT_EQ(refusal("a: 1\nb:\n  c: 2\n"),
            "[yaml] expected a value or a list of texts for option 'b', got a mapping (gcg.yaml:3)");
  EXPECT_EQ(refusal("a: [[b]]\n"), "[yaml] expected texts in the list of option 'a', got a list (gcg.yaml:1)");
  EXPECT_EQ(refusal("a: [{b: c}]\n"), "[yaml] expected texts in the list of option 'a', got a mapping (gcg.yaml:1)");
  EXPECT_EQ(refusal("a:\n  - b\n  - 3\n"),
            "[yaml] expected texts in the list of option 'a', got something else; quote the item (gcg.yaml:3)");
  EXPECT_THAT(refusal("a: [b, ~]\n"), HasSubstr("quote the item"));
  EXPECT_THAT(refusal("[a, b]: 1\n"), HasSubstr("expected an option name, got a list (gcg.yaml:1)"));
  EXPECT_THAT(refusal("? {a: b}\n: 1\n"), HasSubstr("expected an option name, got a mapping"));
  EXPECT_THAT(refusal("~: 1\n"), HasSubstr("expected an option name, got null"));
}

TEST(YamlOptions, duplicate_keys_are_refused) {
  EXPECT_EQ(refusal("a: 1\nb: 2\n'a': 3\n"), "[yaml] option 'a' is given twice (gcg.yaml:3)");
}

TEST(YamlOptions, anchors_aliases_and_tags_are_refused) {
  EXPECT_EQ(refusal("a: &x 1\nb: 2\n"), "[yaml] anchors are not supported; write the value out (gcg.yaml:1)");
  EXPECT_THAT(refusal("a: &x [b]\n"), HasSubstr("anchors are not supported"));
  EXPECT_THAT(refusal("&x a: b\n"), HasSubstr("anchors are not supported"));
  EXPECT_NE(refusal("a: *x\n"), "accepted");
  EXPECT_THAT(refusal("a: !!str 1\n"), HasSubstr("is not supported; quote texts"));
  EXPECT_THAT(refusal("a: !python/object:os.system x\n"), HasSubstr("is not supported"));
  EXPECT_THAT(refusal("!!map\na: 1\n"), HasSubstr("is not supported"));
  EXPECT_THAT(refusal("a: !!seq [b]\n"), HasSubstr("is not supported"));
}

TEST(YamlOptions, a_second_document_is_refused) {
  EXPECT_EQ(refusal("a: 1\n---\nb: 2\n"),
            "[yaml] a second document starts; expected one mapping of options (gcg.yaml:2)");
  EXPECT_EQ(refusal("---\na: 1\n...\n"), "accepted");
}

TEST(YamlOptions, malformed_text_is_refused_with_its_line) {
  for (const char* text :
       {"a: 1\nb: [c\n", "a: 1\nb: 'c\n", "a: 1\n  b: 2\n", "a: 1\nb\n", "a: 1\n\tb: 2\n", "a: 1\n}\n"}) {
    EXPECT_THAT(refusal(text), HasSubstr("(gcg.yaml:")) << text;
  }
}

TEST(YamlOptions, a_line_without_colon_is_no_null) {
  EXPECT_EQ(refusal("a: 1\nb\n"), "[yaml] expected ': ' and a value after option 'b' (gcg.yaml:2)");
  EXPECT_EQ(refusal("{b}  # not: this\n"), "[yaml] expected ': ' and a value after option 'b' (gcg.yaml:1)");
  EXPECT_THAT(refusal("a:1\nb: 2\n"), HasSubstr("(gcg.yaml:"));
  EXPECT_EQ(refusal("a: 1\nb:\n"), "accepted");
}

TEST(YamlOptions, text_that_is_not_unicode_is_refused) {
  EXPECT_EQ(refusal("a: 1\nb: \xff\n"), "[yaml] invalid UTF-8 (gcg.yaml:2)");
  EXPECT_EQ(refusal(std::string_view("a: b\0c", 6)), "[yaml] control character '\\x00' (gcg.yaml:1)");
  EXPECT_EQ(refusal("\xFE\xFF"), "[yaml] invalid UTF-8 (gcg.yaml:1)") << "UTF-16 is not guessed";
}

TEST(YamlOptions, deep_nesting_neither_recurses_nor_takes_long) {
  for (const std::string piece : {"[", "{", "? ", "- ", "a: [", "{a: ", "[{", "!x ", "&x ", "a:\n "}) {
    std::string text;
    while (text.size() < 100'000) text += piece;
    EXPECT_NE(refusal(text), "accepted") << piece;
  }
  std::string indented;
  for (int depth = 0; depth < 600; ++depth) indented += std::string(depth, ' ') + "a:\n";
  EXPECT_THAT(refusal(indented), HasSubstr("got a mapping"));
}

TEST(YamlOptions, size_is_limited) {
  EXPECT_THAT(refusal("a: " + std::string((1U << 18U), 'x')), HasSubstr("the limit is 262144"));
  EXPECT_EQ(refusal("a: " + std::string(200'000, 'x')), "accepted");
}

TEST(YamlOptions, files_are_read_and_named) {
  const TemporaryFolder folder;
  const auto path = folder.write("gcg.yaml", "search_width: 3\n");
  EXPECT_EQ(read_yaml_options(path).at(0).origin, path.string() + ":1");
  EXPECT_EQ(errno_of([&] { read_yaml_options(folder / "none.yaml"); }), ENOENT);
}

struct WidthOptions {
  std::int64_t search_width = 512;
  void visit(OptionVisitor& visitor) { visitor.option({.name = "search_width", .range = {.min = 1}}, search_width); }
};

TEST(YamlOptions, errors_of_the_option_name_file_and_line) {
  WidthOptions options;
  const auto assign = [&](std::string_view text) {
    return refusal_of([&] { set_options(options, parse_yaml_options(text, "gcg.yaml"), "gcg"); });
  };
  EXPECT_EQ(assign("\nserch_width: 3\n"),
            "[gcg] unknown option 'serch_width'; did you mean 'search_width'? (gcg.yaml:2)");
  EXPECT_EQ(assign("search_width: -3\n"), "[gcg] search_width must be at least 1, got -3 (gcg.yaml:1)");
  EXPECT_EQ(assign("search_width: 3\n"), "accepted");
  EXPECT_EQ(options.search_width, 3);
}

}  // namespace
}  // namespace titer

#include "titer/core/options.h"

#include <gmock/gmock.h>

#include <cmath>
#include <limits>

#include "temporary_folder.h"

namespace titer {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::refusal_of;

enum class Loss { kCrossEntropy, kMellowmax, kCarliniWagner };
constexpr std::string_view kLossNames[] = {"cross_entropy", "mellowmax", "carlini_wagner"};

struct SearchOptions {
  std::int64_t search_width = 512;
  double temperature = 1.0;
  bool use_buffer = false;
  std::string initial = "x x";
  std::vector<std::string> banned = {"a"};
  std::optional<std::int64_t> batch_size;
  Loss loss = Loss::kCrossEntropy;
  double momentum = 0.0;

  void visit(OptionVisitor& visitor) {
    visitor.option({.name = "search_width", .unit = "candidates", .doc = "Width.", .range = {.min = 1}}, search_width);
    visitor.option({.name = "temperature", .range = {.min = 0, .min_exclusive = true}}, temperature);
    visitor.option({.name = "use_buffer"}, use_buffer);
    visitor.option({.name = "initial", .doc = "First text."}, initial);
    visitor.option({.name = "banned"}, banned);
    visitor.option({.name = "batch_size", .range = {.min = 1, .max = 4096}}, batch_size);
    visitor.option({.name = "loss", .choices = kLossNames}, loss);
    visitor.option({.name = "momentum", .range = {.min = 0, .max = 1, .max_exclusive = true}}, momentum);
  }
};

std::string refusal(const OptionAssignment& assignment) {
  SearchOptions options;
  return refusal_of([&] { set_options(options, std::vector{assignment}, "gcg"); });
}

SearchOptions with(std::vector<OptionAssignment> assignments) {
  SearchOptions options;
  set_options(options, assignments, "gcg");
  return options;
}

TEST(Options, descriptions_come_in_order_with_defaults) {
  const auto described = describe_options(SearchOptions{});
  std::vector<std::string> names;
  std::vector<std::string> types;
  std::vector<std::string> ranges;
  for (const auto& option : described) {
    names.push_back(option.name);
    types.push_back(option.type);
    ranges.push_back(option.range_text);
  }
  EXPECT_THAT(names, ElementsAre("search_width", "temperature", "use_buffer", "initial", "banned", "batch_size", "loss",
                                 "momentum"));
  EXPECT_THAT(types, ElementsAre("int", "float", "bool", "str", "list[str]", "int | None", "choice", "float"));
  EXPECT_THAT(ranges, ElementsAre("at least 1", "greater than 0", "", "", "", "between 1 and 4096", "",
                                  "at least 0 and less than 1"));
  EXPECT_EQ(described[0].unit, "candidates");
  EXPECT_EQ(described[0].doc, "Width.");
  EXPECT_EQ(described[0].value, OptionValue(std::int64_t{512}));
  EXPECT_EQ(described[5].value, OptionValue(std::monostate{}));
  EXPECT_EQ(described[6].value, OptionValue(std::string("cross_entropy")));
  EXPECT_THAT(described[6].choices, ElementsAre("cross_entropy", "mellowmax", "carlini_wagner"));
  EXPECT_THAT(described[0].choices, IsEmpty());
}

TEST(Options, values_of_every_type_are_set) {
  const auto options = with({{"search_width", std::int64_t{64}},
                             {"temperature", 0.5},
                             {"use_buffer", true},
                             {"initial", std::string("! !")},
                             {"banned", std::vector<std::string>{"b", "c"}},
                             {"batch_size", std::int64_t{8}},
                             {"loss", std::string("mellowmax")}});
  EXPECT_EQ(options.search_width, 64);
  EXPECT_EQ(options.temperature, 0.5);
  EXPECT_TRUE(options.use_buffer);
  EXPECT_EQ(options.initial, "! !");
  EXPECT_THAT(options.banned, ElementsAre("b", "c"));
  EXPECT_EQ(options.batch_size, 8);
  EXPECT_EQ(options.loss, Loss::kMellowmax);
  EXPECT_EQ(options.momentum, 0.0) << "what is not assigned keeps its default";
  EXPECT_EQ(with({{"temperature", std::int64_t{2}}}).temperature, 2.0) << "an integer is a float";
}

TEST(Options, null_empties_an_optional) {
  auto options = with({{"batch_size", std::int64_t{8}}});
  set_options(options, std::vector<OptionAssignment>{{"batch_size", std::monostate{}}}, "gcg");
  EXPECT_EQ(options.batch_size, std::nullopt);
}

TEST(Options, values_out_of_range_are_refused) {
  EXPECT_EQ(refusal({"search_width", std::int64_t{-3}}), "[gcg] search_width must be at least 1, got -3");
  EXPECT_EQ(refusal({"search_width", std::int64_t{0}, "gcg.yaml:12"}),
            "[gcg] search_width must be at least 1, got 0 (gcg.yaml:12)");
  EXPECT_EQ(refusal({"temperature", 0.0}), "[gcg] temperature must be greater than 0, got 0.0");
  EXPECT_EQ(refusal({"temperature", std::int64_t{-1}}), "[gcg] temperature must be greater than 0, got -1");
  EXPECT_EQ(refusal({"batch_size", std::int64_t{4097}}), "[gcg] batch_size must be between 1 and 4096, got 4097");
  EXPECT_EQ(refusal({"momentum", 1.0}), "[gcg] momentum must be at least 0 and less than 1, got 1.0");
  EXPECT_EQ(refusal({"momentum", 0.0}), "accepted");
  EXPECT_EQ(refusal({"search_width", std::numeric_limits<std::int64_t>::max()}), "accepted");
}

TEST(Options, numbers_that_are_not_finite_are_refused) {
  EXPECT_EQ(refusal({"temperature", std::numeric_limits<double>::quiet_NaN()}),
            "[gcg] temperature must be finite, got nan");
  EXPECT_EQ(refusal({"temperature", std::numeric_limits<double>::infinity()}),
            "[gcg] temperature must be finite, got inf");
}

TEST(Options, values_of_another_type_are_refused) {
  EXPECT_EQ(refusal({"search_width", std::string("many")}), "[gcg] search_width must be an integer, got 'many'");
  EXPECT_EQ(refusal({"search_width", 512.0}), "[gcg] search_width must be an integer, got 512.0");
  EXPECT_EQ(refusal({"search_width", true}), "[gcg] search_width must be an integer, got true");
  EXPECT_EQ(refusal({"search_width", std::monostate{}}), "[gcg] search_width must be an integer, got null");
  EXPECT_EQ(refusal({"temperature", false}), "[gcg] temperature must be a number, got false");
  EXPECT_EQ(refusal({"use_buffer", std::int64_t{1}}), "[gcg] use_buffer must be true or false, got 1");
  EXPECT_EQ(refusal({"use_buffer", std::string("yes")}), "[gcg] use_buffer must be true or false, got 'yes'");
  EXPECT_EQ(refusal({"initial", std::int64_t{5}}), "[gcg] initial must be a text (quote it), got 5");
  EXPECT_EQ(refusal({"initial", std::vector<std::string>{"a"}}), "[gcg] initial must be a text, got a list of 1 text");
  EXPECT_EQ(refusal({"banned", std::string("a")}), "[gcg] banned must be a list of texts, got 'a'");
  EXPECT_EQ(refusal({"batch_size", 1.5}), "[gcg] batch_size must be an integer or null, got 1.5");
  EXPECT_EQ(refusal({"loss", std::string("ce")}),
            "[gcg] loss must be one of cross_entropy, mellowmax, carlini_wagner, got 'ce'");
  EXPECT_EQ(refusal({"loss", std::int64_t{0}}),
            "[gcg] loss must be one of cross_entropy, mellowmax, carlini_wagner, got 0");
}

TEST(Options, unknown_names_suggest_the_nearest) {
  EXPECT_EQ(refusal({"serch_width", std::int64_t{1}, "gcg.yaml:12"}),
            "[gcg] unknown option 'serch_width'; did you mean 'search_width'? (gcg.yaml:12)");
  EXPECT_THAT(refusal({"seacrh_width", std::int64_t{1}}), HasSubstr("did you mean 'search_width'?"));
  EXPECT_THAT(refusal({"Loss", std::int64_t{1}}), HasSubstr("did you mean 'loss'?"));
  EXPECT_EQ(refusal({"zzzzzz", std::int64_t{1}}),
            "[gcg] unknown option 'zzzzzz'; known: search_width, temperature, use_buffer, initial, banned, batch_size, "
            "loss, momentum");
  EXPECT_LT(refusal({std::string(1'000'000, 'x'), true}).size(), 400U);
  EXPECT_THAT(refusal({"\xff\n", true}), HasSubstr("'\\xff\\x0a'"));
}

TEST(Options, an_error_changes_nothing) {
  SearchOptions options;
  const std::vector<OptionAssignment> assignments = {{"search_width", std::int64_t{7}}, {"temperature", -1.0}};
  EXPECT_THROW(set_options(options, assignments, "gcg"), std::invalid_argument);
  EXPECT_EQ(options.search_width, 512);
}

TEST(Options, a_name_given_twice_is_refused) {
  SearchOptions options;
  const std::vector<OptionAssignment> assignments = {{"search_width", std::int64_t{7}},
                                                     {"search_width", std::int64_t{8}, "command line"}};
  EXPECT_EQ(refusal_of([&] { set_options(options, assignments, "gcg"); }),
            "[gcg] search_width is given twice (command line)");
}

TEST(Options, values_written_by_code_are_checked_too) {
  SearchOptions options;
  check_options(options, "gcg");
  options.momentum = 2;
  EXPECT_EQ(refusal_of([&] { check_options(options, "gcg"); }),
            "[gcg] momentum must be at least 0 and less than 1, got 2.0");
  options.momentum = 0;
  options.loss = static_cast<Loss>(9);
  EXPECT_THAT(refusal_of([&] { check_options(options, "gcg"); }), HasSubstr("loss must be one of its 3 enumerators"));
}

TEST(Options, command_line_texts_follow_the_type) {
  const auto value = [](std::string_view text) { return parse_option_text(SearchOptions{}, text, "gcg").value; };
  EXPECT_EQ(value("search_width=64"), OptionValue(std::int64_t{64}));
  EXPECT_EQ(value("temperature=1e-3"), OptionValue(1e-3));
  EXPECT_EQ(value("temperature=+2"), OptionValue(2.0));
  EXPECT_EQ(value("use_buffer=true"), OptionValue(true));
  EXPECT_EQ(value("initial=123"), OptionValue(std::string("123")));
  EXPECT_EQ(value("initial=a=b"), OptionValue(std::string("a=b")));
  EXPECT_EQ(value("initial="), OptionValue(std::string()));
  EXPECT_EQ(value("banned=a, b"), OptionValue(std::vector<std::string>{"a, b"}));
  EXPECT_EQ(value(R"(banned=["a, b", "c"])"), OptionValue(std::vector<std::string>{"a, b", "c"}));
  EXPECT_EQ(value("banned=[]"), OptionValue(std::vector<std::string>{}));
  EXPECT_EQ(value("batch_size=none"), OptionValue(std::monostate{}));
  EXPECT_EQ(value("batch_size=3"), OptionValue(std::int64_t{3}));
  EXPECT_EQ(value("loss=mellowmax"), OptionValue(std::string("mellowmax")));
}

TEST(Options, command_line_texts_that_do_not_fit_are_refused) {
  const auto refusal_for = [](std::string_view text) {
    return refusal_of([&] { parse_option_text(SearchOptions{}, text, "gcg"); });
  };
  EXPECT_EQ(refusal_for("search_width"), "[gcg] expected key=value, got 'search_width'");
  EXPECT_EQ(refusal_for("=3"), "[gcg] expected key=value, got '=3'");
  EXPECT_EQ(refusal_for("search_width=12x"), "[gcg] search_width must be an integer, got '12x' (command line)");
  EXPECT_EQ(refusal_for("search_width=0"), "[gcg] search_width must be at least 1, got 0 (command line)");
  EXPECT_EQ(refusal_for("search_width=99999999999999999999"),
            "[gcg] search_width must be an integer, got '99999999999999999999' (command line)");
  EXPECT_EQ(refusal_for("temperature=+-1"), "[gcg] temperature must be a number, got '+-1' (command line)");
  EXPECT_EQ(refusal_for("temperature=nan"), "[gcg] temperature must be finite, got nan (command line)");
  EXPECT_THAT(refusal_for("temperature=1e999"), HasSubstr("must be a number"));
  EXPECT_THAT(refusal_for("use_buffer=1"), HasSubstr("must be true or false"));
  EXPECT_THAT(refusal_for("banned=[1]"), HasSubstr("must be a list of texts"));
  EXPECT_THAT(refusal_for("banned=[\"a\""), HasSubstr("command line"));
  EXPECT_THAT(refusal_for("banned=[[[[["), HasSubstr("command line"));
  EXPECT_THAT(refusal_for("serch_width=1"), HasSubstr("did you mean 'search_width'?"));
  EXPECT_THAT(refusal_for("initial=\xff"), HasSubstr("valid UTF-8"));
}

TEST(Options, json_is_one_stable_line) {
  SearchOptions options;
  options.temperature = 0.1;
  options.initial = "\"\n\u00e9";
  EXPECT_EQ(options_to_json(options), R"({"search_width":512,"temperature":0.1,"use_buffer":false,"initial":"\"\n)"
                                      "\u00e9"
                                      R"(","banned":["a"],"batch_size":null,"loss":"cross_entropy","momentum":0.0})");
  options.initial = "\xff";
  EXPECT_THAT(refusal_of([&] { options_to_json(options); }), HasSubstr("initial must be valid UTF-8"));
}

}  // namespace
}  // namespace titer

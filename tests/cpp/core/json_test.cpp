#include "json.h"

#include <gmock/gmock.h>

#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "quote.h"
#include "temporary_folder.h"

namespace titer {
namespace {

using testing::errno_of;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::refusal_of;
using testing::TemporaryFolder;

std::string refusal(std::string_view text, const JsonLimits& limits = {}) {
  return refusal_of([&] { parse_json(text, "config.json", limits); });
}

TEST(Json, values_of_every_type_are_read) {
  const auto value =
      parse_json(R"( {"a": [1, -2, 2.5, true, null, "x\u00e9\ud83d\ude00"], "b": {"c": {}}, "d": []} )", "x");
  EXPECT_EQ(value["a"][0].get<std::int64_t>(), 1);
  EXPECT_EQ(value["a"][1].get<std::int64_t>(), -2);
  EXPECT_EQ(value["a"][2].get<double>(), 2.5);
  EXPECT_TRUE(value["a"][3].get<bool>());
  EXPECT_TRUE(value["a"][4].is_null());
  EXPECT_EQ(value["a"][5].get<std::string>(), "x\u00e9\U0001F600");
  EXPECT_TRUE(value["b"]["c"].is_object());
  EXPECT_TRUE(value["d"].empty());
  EXPECT_EQ(value.dump(), nlohmann::json::parse(value.dump()).dump());
}

TEST(Json, scalars_may_be_the_whole_document) {
  EXPECT_EQ(parse_json("3", "x"), 3);
  EXPECT_EQ(parse_json("\"a\"", "x"), "a");
  EXPECT_TRUE(parse_json("null", "x").is_null());
}

TEST(Json, integers_keep_all_64_bits) {
  EXPECT_EQ(parse_json("9223372036854775807", "x").get<std::int64_t>(), std::numeric_limits<std::int64_t>::max());
  EXPECT_EQ(parse_json("18446744073709551615", "x").get<std::uint64_t>(), std::numeric_limits<std::uint64_t>::max());
  EXPECT_TRUE(parse_json("18446744073709551616", "x").is_number_float());
}

TEST(Json, duplicate_keys_are_refused_at_any_depth) {
  EXPECT_EQ(refusal(R"({"a":1,"a":2})"), "[json] duplicate key 'a' at byte 10 (config.json)");
  EXPECT_THAT(refusal(R"([{"b":{"c":1,"c":1}}])"), HasSubstr("duplicate key 'c'"));
  EXPECT_THAT(refusal(R"({"a":1,"\u0061":2})"), HasSubstr("duplicate key 'a'"));
  EXPECT_EQ(refusal(R"([{"a":1},{"a":2}])"), "accepted");
}

TEST(Json, nesting_stops_at_the_depth_limit) {
  const auto nested = [](int depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  EXPECT_EQ(refusal(nested(64)), "accepted");
  EXPECT_EQ(refusal(nested(65)), "[json] arrays and objects are nested deeper than 64 levels at byte 65 (config.json)");
  EXPECT_THAT(refusal(R"({"a":{"b":1}})", {.max_depth = 1}), HasSubstr("deeper than 1"));
  EXPECT_THAT(refusal(std::string(5'000'000, '[')), HasSubstr("nested deeper"));
}

TEST(Json, text_stops_at_the_size_limit) {
  EXPECT_EQ(refusal("[1,2]", {.max_bytes = 5}), "accepted");
  EXPECT_EQ(refusal("[1,2]", {.max_bytes = 4}), "[json] text has 5 bytes, the limit is 4 (config.json)");
}

TEST(Json, documents_that_explode_in_memory_are_refused) {
  std::string text = "[{}";
  for (int i = 0; i < 1'500'000; ++i) text += ",{}";
  text += "]";
  EXPECT_THAT(refusal(text), HasSubstr("64 MiB + 16 times"));
  // A few MiB of the same stay below the fixed part.
  EXPECT_EQ(refusal("[{}" + text.substr(3, 900'000) + "]"), "accepted");
}

TEST(Json, text_outside_the_grammar_is_refused_with_its_byte) {
  EXPECT_THAT(refusal(""), HasSubstr("empty"));
  EXPECT_THAT(refusal("[1,"), HasSubstr("at byte 3 (config.json)"));
  EXPECT_THAT(refusal("[1,]"), HasSubstr("at byte 4"));
  EXPECT_THAT(refusal("{\"a\" 1}"), HasSubstr("object separator"));
  EXPECT_THAT(refusal("{} {}"), HasSubstr("expected end of input"));
  for (const char* text : {"01", "1.", ".5", "+1", "NaN", "Infinity", "-Infinity", "tru", "'a'", "{a:1}", "[1] // c",
                           "/* c */ 1", "\"\t\"", "\"\\x41\"", "\"\\u12\"", "]", "}", ","}) {
    EXPECT_THAT(refusal(text), HasSubstr("(config.json)")) << text;
  }
}

TEST(Json, bytes_after_a_nul_do_not_hide) {
  EXPECT_EQ(refusal(std::string_view("{}\0{\"a\":1}", 10)), "[json] NUL byte at byte 3 (config.json)");
}

TEST(Json, byte_order_mark_is_refused) { EXPECT_THAT(refusal("\xEF\xBB\xBF{}"), HasSubstr("byte order mark")); }

TEST(Json, text_that_is_not_unicode_is_refused) {
  for (const char* text : {"\"\xff\"", "\"\xc0\x80\"", "\"\xed\xa0\x80\"", "\"\xf4\x90\x80\x80\"", "\"\xe2\x82\"",
                           R"("\ud800")", R"("\udc00")", R"("\ud800\u0041")", R"("\ud83dx")"}) {
    const std::string message = refusal(text);
    EXPECT_THAT(message, HasSubstr("(config.json)")) << text;
    EXPECT_EQ(first_invalid_utf8(message), message.size()) << "the message itself must be valid UTF-8";
  }
}

TEST(Json, numbers_beyond_double_are_refused) {
  EXPECT_EQ(refusal("[1e400]"), "[json] number is beyond the range of a double at byte 7 (config.json)");
  EXPECT_THAT(refusal("-1e400"), HasSubstr("beyond the range"));
  EXPECT_EQ(parse_json("1e-400", "x").get<double>(), 0.0);
}

TEST(Json, hostile_names_do_not_flood_the_message) {
  const std::string key(1'000'000, 'k');
  EXPECT_LT(refusal("{\"" + key + "\":1,\"" + key + "\":1}").size(), 400U);
  EXPECT_LT(refusal("[" + key + "]").size(), 400U);
  EXPECT_THAT(refusal("{\"\\u000a\":1,\"\\u000a\":1}"), Not(HasSubstr("\n")));
}

TEST(Json, files_are_limited_before_they_are_read) {
  const TemporaryFolder folder;
  const auto path = folder.write("a.json", R"({"a": [1, 2]})");
  EXPECT_EQ(read_json_file(path)["a"][1], 2);
  EXPECT_THAT(refusal_of([&] { read_json_file(path, {.max_bytes = 3}); }), HasSubstr("the limit is 3"));
  EXPECT_THAT(refusal_of([&] { read_json_file(folder.write("b.json", "{")); }), HasSubstr("b.json"));
  EXPECT_EQ(errno_of([&] { read_json_file(folder / "none.json"); }), ENOENT);
}

/// The elements that parse_json hands over for "model.vocab", and the rest of the document.
std::pair<std::string, nlohmann::json> streamed(std::string_view text, const JsonLimits& limits = {}) {
  std::string elements;
  const std::vector<JsonStream> streams = {{"model", "vocab", [&](const std::string& key, const nlohmann::json& value) {
                                              elements += key + "=" + value.dump() + " ";
                                            }}};
  nlohmann::json rest = parse_json(text, "config.json", limits, streams);
  return {elements, std::move(rest)};
}

TEST(Json, elements_of_a_stream_are_handed_over_and_not_kept) {
  const auto [elements, rest] = streamed(R"({"a": {"vocab": [1]}, "model": {"b": [2], "vocab":
      {"x": 1, "": "s", "n": null, "o": {"y": [{"z": []}]}, "e": [], "x": 2}, "c": {"vocab": 3}}, "d": [[4]]})");
  EXPECT_EQ(elements, R"(x=1 ="s" n=null o={"y":[{"z":[]}]} e=[] x=2 )");
  EXPECT_EQ(rest.dump(), R"({"a":{"vocab":[1]},"d":[[4]],"model":{"b":[2],"c":{"vocab":3},"vocab":{}}})");
  EXPECT_EQ(streamed(R"({"model": {"vocab": [1, [2], "3"]}})").first, R"(=1 =[2] ="3" )");
}

TEST(Json, arrays_of_strings_are_handed_over_as_such_where_that_is_asked_for) {
  std::string elements;
  const std::vector<JsonStream> streams = {
      {"model", "merges",
       [&](const std::string& key, const nlohmann::json& value) { elements += key + value.dump() + " "; },
       [&](std::span<const std::string> strings) {
         for (const std::string& text : strings) elements += text + "+";
         elements += " ";
       }}};
  const nlohmann::json rest = parse_json(
      R"({"model": {"merges": [["a", "b"], "c", ["d", 1], [], [["e"]], ["f", ["g"], "h"], ["i"], ["j", {"k": "l"}],
                               {"m": ["n"]}, ["o", "p", "q"], [null, "r"]], "s": ["t", "u"]}})",
      "tokenizer.json", {}, streams);
  EXPECT_EQ(elements,
            R"(a+b+ "c" ["d",1] [] [["e"]] ["f",["g"],"h"] i+ ["j",{"k":"l"}] {"m":["n"]} o+p+q+ [null,"r"] )");
  EXPECT_EQ(rest.dump(), R"({"model":{"merges":[],"s":["t","u"]}})");
}

TEST(Json, only_the_member_that_is_asked_for_is_streamed) {
  for (const char* text :
       {R"({"a":{"vocab":1},"model":[[1]]})", R"([{"model":{"vocab":[1]}}])", R"({"model":{"a":{"vocab":[1]}}})",
        R"({"vocab":{"model":[1]}})", R"({"model":{"vocab":"text"}})", R"({"model":[{"vocab":[1]}]})", "3"}) {
    const auto [elements, rest] = streamed(text);
    EXPECT_EQ(elements, "") << text;
    EXPECT_EQ(rest.dump(), text);
  }
}

TEST(Json, limits_hold_inside_a_stream) {
  const auto refused = [](std::string_view text, const JsonLimits& limits = {}) {
    return refusal_of([&] { streamed(text, limits); });
  };
  EXPECT_THAT(refused(R"({"model":{"vocab":[[[1]]]}})", {.max_depth = 4}), HasSubstr("nested deeper than 4"));
  EXPECT_THAT(refused(R"({"model":{"vocab":{"a":{"b":1,"b":2}}}})"), HasSubstr("duplicate key 'b'"));
  EXPECT_THAT(refused(R"({"model":{"vocab":{},"vocab":{}}})"), HasSubstr("duplicate key 'vocab'"));
  EXPECT_THAT(refused(R"({"model":{"vocab":[1,]}})"), HasSubstr("byte 22"));
  EXPECT_THAT(refused(R"({"model":{"vocab":["\ud800"]}})"), HasSubstr("(config.json)"));
  // One element as large as a document may be; many small ones, which are not kept, may be more.
  std::string nested;
  for (int i = 0; i < 3'000'000; ++i) nested += "{},";
  nested.back() = ']';
  EXPECT_THAT(refused(R"({"model":{"vocab":[[)" + nested + "]}}"), HasSubstr("64 MiB"));
  EXPECT_EQ(refused(R"({"model":{"vocab":[)" + nested + "}}"), "accepted");
}

TEST(Quote, hostile_bytes_are_escaped_and_long_text_is_cut) {
  EXPECT_EQ(quote("a\n\x7f\xff\u00e9"), "'a\\x0a\\x7f\\xff\u00e9'");
  EXPECT_EQ(quote("abcdef", 3), "'abc...'");
  EXPECT_EQ(quote("ab\u00e9", 3), "'ab\u00e9'") << "a character is never cut in half";
}

}  // namespace
}  // namespace titer

#include "canonical_json.h"

#include <gtest/gtest.h>

#include <string>
#include <string_view>

#include "json.h"

namespace titer {
namespace {

std::string canonical(std::string_view text) {
  std::string out;
  append_canonical_json(out, parse_json(text, "test"));
  return out;
}

// Right: what json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"), ensure_ascii=False) gives.
TEST(CanonicalJson, values_are_written_as_python_writes_them) {
  for (const auto& [text, expected] : {
           std::pair{R"( { "b" : [ 1 , true , null ] , "a" : { } } )", R"({"a":{},"b":[1,true,null]})"},
           {R"({"é":1,"z":2,"\ud83d\ude00":3,"\ufffd":4,"":5})", R"({"":5,"z":2,"é":1,"�":4,"😀":3})"},
           {R"("\u0000\u0008\u0009\u000a\u000b\u000c\u000d\u001f\u007f\"\\\/\u00e9\u2028")",
            "\"\\u0000\\b\\t\\n\\u000b\\f\\r\\u001f\x7f\\\"\\\\/é\u2028\""},
           {"[0,-0,-1,9223372036854775807,-9223372036854775808,18446744073709551615]",
            "[0,0,-1,9223372036854775807,-9223372036854775808,18446744073709551615]"},
           {"[0.0,-0.0,1.0,1e2,0.1,-2.5,1e-4,1e-5,123e-7]", "[0.0,-0.0,1.0,100.0,0.1,-2.5,0.0001,1e-05,1.23e-05]"},
           {"[1e15,1e16,9007199254740993.0,9999999999999998.0,1e22,1e300,1.5e-300]",
            "[1000000000000000.0,1e+16,9007199254740992.0,9999999999999998.0,1e+22,1e+300,1.5e-300]"},
           {"[5e-324,1.7976931348623157e308,0.30000000000000004,2.2250738585072014e-308]",
            "[5e-324,1.7976931348623157e+308,0.30000000000000004,2.2250738585072014e-308]"},
       }) {
    EXPECT_EQ(canonical(text), expected) << text;
    EXPECT_EQ(canonical(expected), expected) << text;
  }
}

TEST(CanonicalJson, integers_outside_64_bits_are_the_nearest_double) {
  EXPECT_EQ(canonical("18446744073709551616"), "1.8446744073709552e+19");
  EXPECT_EQ(canonical("-9223372036854775809"), "-9.223372036854776e+18");
}

}  // namespace
}  // namespace titer

#include "titer/core/dataset.h"

#include <gmock/gmock.h>
#include <sys/stat.h>

#include <array>
#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "merkle_root.h"
#include "temporary_folder.h"

namespace titer {
namespace {

using testing::errno_of;
using ::testing::HasSubstr;
using testing::refusal_of;
using testing::TemporaryFolder;

constexpr std::string_view kPlain = R"({"prompt": "Two plus two?", "response": " Four."})";
constexpr std::string_view kChat =
    R"({"id": "a", "task": "sum", "messages": [{"role": "system", "content": "Be brief."},)"
    R"( {"role": "user", "content": "2+2"}, {"role": "assistant", "content": "4"}], "metadata": {"b": 1, "a": [2.50]}})";

std::string lines(std::initializer_list<std::string_view> records) {
  std::string text;
  for (const auto record : records) text.append(record).append("\n");
  return text;
}

/// What opening `contents` as notes.jsonl says, without the folder's name.
std::string refusal_for(std::string_view contents) {
  const TemporaryFolder folder;
  const auto file = folder.write("notes.jsonl", contents);
  std::string message = refusal_of([&] { Dataset{file}; });
  const auto path = message.find(folder.path().string());
  return path == message.npos ? message : message.erase(path, folder.path().string().size() + 1);
}

TEST(Dataset, records_are_read_as_they_stand) {
  const TemporaryFolder folder;
  const Dataset data(folder.write("a.jsonl", lines({kPlain, kChat})));
  ASSERT_EQ(data.size(), 2U);
  EXPECT_EQ(data.path(), folder / "a.jsonl");

  const Record plain = data.record(0);
  EXPECT_TRUE(plain.from_prompt);
  EXPECT_EQ(plain.id, std::nullopt);
  EXPECT_EQ(plain.task, std::nullopt);
  EXPECT_EQ(plain.metadata, "{}");
  ASSERT_EQ(plain.messages.size(), 2U);
  EXPECT_EQ(plain.messages[0].role, Role::kUser);
  EXPECT_EQ(plain.messages[0].content, "Two plus two?");
  EXPECT_EQ(plain.messages[1].role, Role::kAssistant);
  EXPECT_EQ(plain.messages[1].content, " Four.");

  const Record chat = data.record(1);
  EXPECT_FALSE(chat.from_prompt);
  EXPECT_EQ(chat.id, "a");
  EXPECT_EQ(chat.task, "sum");
  EXPECT_EQ(chat.metadata, R"({"a":[2.5],"b":1})");
  ASSERT_EQ(chat.messages.size(), 3U);
  EXPECT_EQ(chat.messages[0].role, Role::kSystem);
  EXPECT_EQ(chat.messages[2].content, "4");
  EXPECT_THROW(std::ignore = data.record(2), std::out_of_range);
}

TEST(Dataset, hashes_are_those_of_the_canonical_text) {
  const TemporaryFolder folder;
  const Dataset data(folder.write("a.jsonl", lines({kPlain, kChat})));
  const std::array expected = {
      sha256(R"({"prompt":"Two plus two?","response":" Four."})"),
      sha256(R"({"id":"a","messages":[{"content":"Be brief.","role":"system"},{"content":"2+2","role":"user"},)"
             R"({"content":"4","role":"assistant"}],"metadata":{"a":[2.5],"b":1},"task":"sum"})"),
  };
  EXPECT_THAT(data.hashes(), ::testing::ElementsAreArray(expected));
  EXPECT_EQ(data.record(1).hash, expected[1]);
  EXPECT_EQ(data.merkle_root(), merkle_root(expected));
}

TEST(Dataset, the_way_of_writing_does_not_change_hashes_and_order_changes_the_root) {
  const TemporaryFolder folder;
  const std::string_view other = R"({"prompt":"a","response":"b"})";
  const Dataset data(folder.write("a.jsonl", lines({kPlain, other})));
  const Dataset spaced(folder.write(
      "b.jsonl", "  {\"response\" : \"\\u0020Four.\",\t\"prompt\":\"Two plus two?\"} \r\n" + std::string(other)));
  EXPECT_EQ(data.merkle_root(), spaced.merkle_root());
  EXPECT_EQ(spaced.record(0).messages[1].content, " Four.");
  const Dataset reordered(folder.write("c.jsonl", lines({other, kPlain})));
  EXPECT_EQ(data.hashes()[0], reordered.hashes()[1]);
  EXPECT_NE(data.merkle_root(), reordered.merkle_root());
}

TEST(Dataset, lines_of_any_length_are_found_across_blocks) {
  const TemporaryFolder folder;
  std::string text;
  std::vector<std::size_t> lengths;
  for (std::size_t length : {1U, 700'000U, 400'000U, 3'000'000U, 5U, 1'048'576U, 2U}) {
    text += R"({"prompt":"a","response":")" + std::string(length, 'x') + "\"}\n";
    lengths.push_back(length);
  }
  std::size_t num_blocks = 0;
  const Dataset data(folder.write("a.jsonl", text), [&] { ++num_blocks; });
  EXPECT_EQ(num_blocks, text.size() >> 20U);
  ASSERT_EQ(data.size(), lengths.size());
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    EXPECT_EQ(data.record(i).messages[1].content.size(), lengths[i]) << i;
  }
}

TEST(Dataset, reading_can_be_stopped) {
  const TemporaryFolder folder;
  std::string text;
  while (text.size() < (std::size_t{2} << 20U)) text += lines({kPlain});
  const auto file = folder.write("a.jsonl", text);
  EXPECT_THROW(Dataset(file, [] { throw std::runtime_error("stop"); }), std::runtime_error);
}

TEST(Dataset, fields_are_refused_by_name) {
  const auto with_messages = [](std::string_view messages) { return R"({"messages": )" + std::string(messages) + "}"; };
  const std::string user = R"({"role": "user", "content": "a"})";
  const std::string assistant = R"({"role": "assistant", "content": "b"})";
  const std::string system = R"({"role": "system", "content": ""})";
  const std::vector<std::pair<std::string, std::string>> cases = {
      {R"([1])", "expected an object, got a list"},
      {R"({})", "expected either 'messages', or 'prompt' and 'response', got neither"},
      {R"({"prompt": "a", "response": "b", "messages": []})", "'prompt' and 'response', got both"},
      {R"({"prompt": "a"})", "'response' is missing"},
      {R"({"response": "a"})", "'prompt' is missing"},
      {R"({"prompt": 1, "response": "a"})", "'prompt' is a number; expected a string"},
      {R"({"prompt": "a", "response": null})", "'response' is null; expected a string"},
      {R"({"prompt": "", "response": "a"})", "'prompt' is empty"},
      {R"({"prompt": "a", "response": ""})", "'response' is empty"},
      {R"({"prompt": "a", "response": " \n\u00a0\u3000"})", "'response' holds white space only"},
      {R"({"prompt": "a", "respnse": "b"})", "unknown key 'respnse'; did you mean 'response'?"},
      {R"({"prompt": "a", "response": "b", "source": "c"})",
       "unknown key 'source'; known: id, messages, metadata, prompt, response, task; what else there is goes into "
       "'metadata'"},
      {R"({"prompt": "a", "response": "b", "id": 3})", "'id' is a number; expected a string"},
      {R"({"prompt": "a", "response": "b", "id": ""})", "'id' is empty; leave it out where there is none"},
      {R"({"prompt": "a", "response": "b", "task": true})", "'task' is true; expected a string"},
      {R"({"prompt": "a", "response": "b", "task": ""})", "'task' is empty"},
      {R"({"prompt": "a", "response": "b", "metadata": []})", "'metadata' is a list; expected an object"},
      {with_messages("3"), "'messages' is a number; expected a list"},
      {with_messages("[]"), "'messages' is empty; expected at least a user's message and an assistant's answer"},
      {with_messages("[3]"), "'messages[0]' is a number; expected an object"},
      {with_messages("[" + user + "]"), "'messages' ends with 'user'; expected an assistant's answer"},
      {with_messages("[" + system + "]"), "'messages' ends with 'system'; expected an assistant's answer"},
      {with_messages("[" + assistant + "]"), "'messages[0].role' is 'assistant'; expected user: user and assistant"},
      {with_messages("[" + user + "," + user + "]"), "'messages[1].role' is 'user'; expected assistant: user and"},
      {with_messages("[" + system + "," + assistant + "]"), "'messages[1].role' is 'assistant'; expected user:"},
      {with_messages("[" + user + "," + assistant + "," + system + "]"),
       "'messages[2].role' is 'system'; expected system in the first message only"},
      {with_messages("[" + user + "," + assistant + R"(,{"role":"bot","content":"c"}])"),
       "'messages[2].role' is 'bot'; expected user or assistant"},
      {with_messages(R"([{"role":"tool","content":"c"}])"), "'messages[0].role' is 'tool'; expected system or user"},
      {with_messages(R"([{"role":["user"],"content":"c"}])"), "'messages[0].role' is a list; expected a string"},
      {with_messages(R"([{"content":"c"}])"), "'messages[0].role' is missing"},
      {with_messages(R"([{"role":"user"}])"), "'messages[0].content' is missing"},
      {with_messages(R"([{"role":"user","content":null}])"), "'messages[0].content' is null; expected a string"},
      {with_messages(R"([{"role":"user","content":" "}])"), "'messages[0].content' holds white space only"},
      {with_messages("[" + user + R"(,{"role":"assistant","content":""}])"), "'messages[1].content' is empty"},
      {with_messages(R"([{"role":"user","content":"c","name":"d"}])"),
       "unknown key 'messages[0].name'; known: content, role"},
      {with_messages(R"([{"role":"user","contents":"c"}])"),
       "unknown key 'messages[0].contents'; did you mean 'content'?"},
  };
  for (const auto& [record, message] : cases) {
    EXPECT_THAT(refusal_for(lines({kPlain, record, kPlain})), HasSubstr("[dataset] notes.jsonl:2: ")) << record;
    EXPECT_THAT(refusal_for(lines({kPlain, record, kPlain})), HasSubstr(message)) << record;
  }
}

TEST(Dataset, lines_that_are_no_json_are_refused_by_number) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"nothing", "invalid literal"},
      {R"({"prompt": "a", "response": "b"} {})", "expected end of input"},
      {R"({"prompt": "a", "prompt": "a", "response": "b"})", "duplicate key 'prompt'"},
      {"{\"prompt\": \"\xff\", \"response\": \"b\"}", "ill-formed UTF-8"},
      {R"({"prompt": "\ud800", "response": "b"})", "surrogate"},
      {std::string("{\"prompt\": \"\0\", \"response\": \"b\"}", 32), "NUL byte"},
      {R"({"prompt": "a", "response": "b", "metadata": )" + std::string(100'000, '['), "nested deeper than 64 levels"},
      {R"({"prompt": "a", "response": "b", "metadata": {"a": 1e400}})", "beyond the range of a double"},
      {R"({"prompt": "a", "response": "b", "metadata": {"a": NaN}})", "invalid literal"},
      {"{\"prompt\": \"a\",\r\"response\": \"b\"}\r{}", "expected end of input"},
  };
  for (const auto& [record, message] : cases) {
    EXPECT_THAT(refusal_for(lines({kPlain, kPlain, record})),
                ::testing::AllOf(HasSubstr(message), HasSubstr("notes.jsonl:3)")))
        << record;
  }
  EXPECT_THAT(refusal_for("\xEF\xBB\xBF" + lines({kPlain})), HasSubstr("byte order mark"));
  for (const char* blank : {"", " \t", "\r"}) {
    EXPECT_EQ(refusal_for(lines({kPlain, blank, kPlain})),
              "[dataset] notes.jsonl:2: the line is blank; expected a record");
    EXPECT_EQ(refusal_for(lines({kPlain, blank})), "[dataset] notes.jsonl:2: the line is blank; expected a record");
  }
}

TEST(Dataset, a_last_line_that_is_cut_short_says_so) {
  const std::string whole = lines({kPlain, kPlain});
  for (std::size_t bytes = kPlain.size() + 2; bytes < whole.size() - 1; ++bytes) {
    const std::string message = refusal_for(whole.substr(0, bytes));
    EXPECT_THAT(message, HasSubstr("notes.jsonl:2")) << bytes;
    EXPECT_THAT(message, HasSubstr("without a line break, is it cut short?")) << bytes;
  }
  EXPECT_EQ(refusal_for(whole.substr(0, whole.size() - 1)), "accepted");
  EXPECT_THAT(refusal_for(lines({kPlain, "{"})), ::testing::Not(HasSubstr("cut short")));
}

TEST(Dataset, files_without_records_are_refused) {
  EXPECT_EQ(refusal_for(""), "[dataset] the file holds no records (notes.jsonl)");
  EXPECT_THAT(refusal_for("\n"), HasSubstr("notes.jsonl:1: the line is blank"));
  const TemporaryFolder folder;
  EXPECT_THAT(refusal_of([] { Dataset("/dev/null"); }), HasSubstr("[dataset] expected a regular file"));
  ASSERT_EQ(mkfifo((folder / "pipe").c_str(), 0600), 0);
  EXPECT_THAT(refusal_of([&] { Dataset(folder / "pipe"); }), HasSubstr("regular file"));
  EXPECT_EQ(errno_of([&] { Dataset(folder.path()); }), EISDIR);
  EXPECT_EQ(errno_of([&] { Dataset(folder / "none.jsonl"); }), ENOENT);
}

TEST(Dataset, a_line_has_a_largest_length_and_its_end_is_not_searched_beyond) {
  const TemporaryFolder folder;
  const auto hole = folder.write("hole.jsonl", lines({kPlain}));
  std::filesystem::resize_file(hole, std::uintmax_t{1} << 40U);
  EXPECT_THAT(refusal_of([&] { Dataset{hole}; }), HasSubstr("hole.jsonl:2: the line has more than 16777216 bytes"));
  const std::string longest = R"({"prompt":"a","response":"b"})";
  const std::string padding((std::size_t{16} << 20U) - longest.size(), ' ');
  EXPECT_EQ(refusal_for(lines({longest + padding, kPlain})), "accepted");
  EXPECT_THAT(refusal_for(lines({longest + padding + " ", kPlain})),
              HasSubstr("notes.jsonl:1: the line has more than"));
}

TEST(Dataset, an_id_that_comes_again_names_both_lines) {
  const std::string b = R"({"id":"b","prompt":"a","response":"b"})";
  const std::string c = R"({"id":"c","prompt":"a","response":"b"})";
  EXPECT_EQ(refusal_for(lines({kPlain, b, kPlain, c, c, b, b})),
            "[dataset] notes.jsonl:5: 'id' is 'c', and so it is on line 4; expected a different one");
  EXPECT_EQ(refusal_for(lines({b, kPlain, b, b})),
            "[dataset] notes.jsonl:3: 'id' is 'b', and so it is on line 1; expected a different one");
  EXPECT_EQ(refusal_for(lines({kPlain, b, kPlain, c})), "accepted");
}

TEST(Dataset, what_changes_under_an_open_file_is_noticed) {
  const TemporaryFolder folder;
  const std::string text = lines({kPlain, kChat});
  const auto file = folder.write("a.jsonl", text);
  const Dataset data(file);
  const auto refusal = [&](std::size_t index) { return refusal_of([&] { std::ignore = data.record(index); }); };

  std::filesystem::resize_file(file, text.size() - 10);
  EXPECT_EQ(refusal(0), "accepted");
  EXPECT_THAT(refusal(1), HasSubstr("a.jsonl:2: the record is not the one that was there when the file was opened"));
  std::filesystem::resize_file(file, 0);
  EXPECT_THAT(refusal(0), HasSubstr("a.jsonl:1: the record is not the one"));

  std::string changed = text;
  changed.replace(text.find("Four"), 4, "Five");
  folder.write("a.jsonl", changed);
  EXPECT_THAT(refusal(0), HasSubstr("a.jsonl:1: the record is not the one"));
  EXPECT_EQ(refusal(1), "accepted");

  folder.write("a.jsonl", text);
  folder.write("b.jsonl", lines({kChat}));
  std::filesystem::rename(folder / "b.jsonl", file);
  EXPECT_EQ(refusal(0), "accepted");
  std::filesystem::remove(file);
  EXPECT_EQ(data.record(1).id, "a");
}

}  // namespace
}  // namespace titer

#include "titer/core/run_log.h"

#include <gmock/gmock.h>
#include <sys/resource.h>

#include <csignal>
#include <string>

#include "temporary_folder.h"

namespace titer {
namespace {

using testing::contents_of;
using testing::errno_of;
using ::testing::HasSubstr;
using testing::refusal_of;
using testing::TemporaryFolder;

TEST(RunLog, records_are_lines_and_are_there_at_once) {
  const TemporaryFolder folder;
  RunLog log(folder / "run.jsonl");
  log.append(R"({"step":0})");
  EXPECT_EQ(contents_of(log.path()), "{\"step\":0}\n");
  log.append(R"({"step":1,"text":"a\nb"})");
  log.sync();
  EXPECT_EQ(contents_of(log.path()), "{\"step\":0}\n{\"step\":1,\"text\":\"a\\nb\"}\n");
}

TEST(RunLog, reopening_continues) {
  const TemporaryFolder folder;
  { RunLog(folder / "a").append(R"({"a":1})"); }
  RunLog log(folder / "a");
  EXPECT_EQ(log.torn_bytes(), 0U);
  log.append(R"({"a":2})");
  EXPECT_EQ(contents_of(log.path()), "{\"a\":1}\n{\"a\":2}\n");
}

TEST(RunLog, a_torn_last_line_is_cut_off_and_counted) {
  const TemporaryFolder folder;
  RunLog log(folder.write("a", "{\"a\":1}\n{\"a\":\"tor"));
  EXPECT_EQ(log.torn_bytes(), 9U);
  log.append(R"({"a":2})");
  EXPECT_EQ(contents_of(log.path()), "{\"a\":1}\n{\"a\":2}\n");
}

TEST(RunLog, zeros_of_a_power_cut_are_cut_off) {
  const TemporaryFolder folder;
  RunLog log(folder.write("a", "{\"a\":1}\n" + std::string(5000, '\0')));
  EXPECT_EQ(log.torn_bytes(), 5000U);
  EXPECT_EQ(contents_of(log.path()), "{\"a\":1}\n");
}

TEST(RunLog, a_torn_first_line_leaves_an_empty_log) {
  const TemporaryFolder folder;
  RunLog log(folder.write("a", "{"));
  EXPECT_EQ(log.torn_bytes(), 1U);
  EXPECT_EQ(contents_of(log.path()), "");
}

TEST(RunLog, a_whole_last_record_without_newline_is_completed) {
  const TemporaryFolder folder;
  RunLog log(folder.write("a", "{\"a\":1}\n{\"a\":2}"));
  EXPECT_EQ(log.torn_bytes(), 0U);
  EXPECT_EQ(contents_of(log.path()), "{\"a\":1}\n{\"a\":2}\n");
}

TEST(RunLog, long_torn_lines_are_found_across_read_blocks) {
  const TemporaryFolder folder;
  const std::string torn = "{\"a\":\"" + std::string(100'000, 'x');
  RunLog log(folder.write("a", "{\"a\":1}\n" + torn));
  EXPECT_EQ(log.torn_bytes(), torn.size());
  EXPECT_EQ(contents_of(log.path()), "{\"a\":1}\n");
}

TEST(RunLog, files_that_are_no_logs_are_not_cut) {
  const TemporaryFolder folder;
  const auto notes = folder.write("notes.txt", "buy milk\nand bread");
  EXPECT_THAT(refusal_of([&] { RunLog log(notes); }), HasSubstr("not a run log"));
  EXPECT_EQ(contents_of(notes), "buy milk\nand bread");
  EXPECT_THAT(refusal_of([] { RunLog log("/dev/null"); }), HasSubstr("regular file"));
  EXPECT_EQ(errno_of([&] { RunLog log(folder.path()); }), EISDIR);
  EXPECT_EQ(errno_of([&] { RunLog log(folder / "no/such/run.jsonl"); }), ENOENT);
}

TEST(RunLog, a_second_writer_is_refused) {
  const TemporaryFolder folder;
  {
    const RunLog first(folder / "a");
    EXPECT_EQ(errno_of([&] { RunLog second(folder / "a"); }), EWOULDBLOCK);
  }
  EXPECT_EQ(errno_of([&] { RunLog again(folder / "a"); }), 0);
}

TEST(RunLog, records_that_are_not_one_line_of_one_object_are_refused) {
  const TemporaryFolder folder;
  RunLog log(folder / "a");
  for (const char* record :
       {"", "[1]", "3", "{", "{}{}", "{\"a\":1,\"a\":2}", "{\"a\":\n1}", "{}\n", "{}\r", " {}", "{\"a\":\"\xff\"}"}) {
    EXPECT_NE(refusal_of([&] { log.append(record); }), "accepted") << record;
  }
  EXPECT_EQ(contents_of(log.path()), "");
}

TEST(RunLog, a_failed_append_leaves_the_log_as_it_was) {
  const TemporaryFolder folder;
  RunLog log(folder / "a");
  log.append(R"({"a":1})");
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit old_limit{};
  getrlimit(RLIMIT_FSIZE, &old_limit);
  const rlimit limit{20, old_limit.rlim_max};
  setrlimit(RLIMIT_FSIZE, &limit);
  const int error = errno_of([&] { log.append(R"({"a":"longer than what is left"})"); });
  setrlimit(RLIMIT_FSIZE, &old_limit);
  std::signal(SIGXFSZ, old_handler);
  EXPECT_EQ(error, EFBIG);
  EXPECT_EQ(contents_of(log.path()), "{\"a\":1}\n");
  log.append(R"({"a":2})");
  EXPECT_EQ(contents_of(log.path()), "{\"a\":1}\n{\"a\":2}\n");
}

}  // namespace
}  // namespace titer

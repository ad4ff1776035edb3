#include "titer/core/folder_file.h"

#include <gmock/gmock.h>
#include <sys/stat.h>

#include "temporary_folder.h"

namespace titer {
namespace {

namespace fs = std::filesystem;
using testing::errno_of;
using ::testing::HasSubstr;
using testing::refusal_of;
using testing::TemporaryFolder;

TEST(FolderFile, absence_is_no_error_and_a_link_to_nothing_is_one) {
  const TemporaryFolder folder;
  EXPECT_FALSE(has_entry(folder.path(), "a"));
  EXPECT_EQ(read_folder_file(folder.path(), "a", 10), std::nullopt);
  EXPECT_EQ(read_folder_json(folder.path(), "a", 10), std::nullopt);
  fs::create_symlink("nothing", folder / "a");
  EXPECT_TRUE(has_entry(folder.path(), "a"));
  EXPECT_EQ(errno_of([&] { read_folder_file(folder.path(), "a", 10); }), ENOENT);
}

TEST(FolderFile, only_regular_files_within_the_folder_are_read) {
  const TemporaryFolder outside;
  const TemporaryFolder folder;
  folder.write("inner", "text");
  fs::create_symlink("inner", folder / "link");
  fs::create_symlink(outside.write("secret", "text"), folder / "away");
  fs::create_symlink("loop", folder / "loop");
  mkfifo((folder / "pipe").c_str(), 0600);
  EXPECT_EQ(read_folder_file(folder.path(), "link", 4), "text");
  EXPECT_THAT(refusal_of([&] { read_folder_file(folder.path(), "link", 3); }), HasSubstr("the limit is 3"));
  EXPECT_THAT(refusal_of([&] { read_folder_file(folder.path(), "away", 4); }), HasSubstr("leaves the folder"));
  EXPECT_THAT(refusal_of([&] { read_folder_file(folder.path(), "pipe", 4); }), HasSubstr("regular file"));
  EXPECT_EQ(errno_of([&] { read_folder_file(folder.path(), "loop", 4); }), ELOOP);
  for (const std::string_view name : {"", ".", "..", "a/b", "/etc/passwd", "../inner"}) {
    EXPECT_THAT(refusal_of([&] { folder_file(folder.path(), name); }), HasSubstr("plain name of a file")) << name;
  }
}

TEST(FolderFile, json_comes_back_without_the_parts_that_nobody_needs) {
  const TemporaryFolder folder;
  folder.write("a.json", R"({ "model": {"vocab": {"a": 1}, "type": "BPE"}, "x": [1, 18446744073709551616] })");
  EXPECT_EQ(read_folder_json(folder.path(), "a.json", 100, {"/model/vocab", "/absent"}),
            R"({"model":{"type":"BPE","vocab":null},"x":[1,1.8446744073709552e+19]})");
  EXPECT_THAT(refusal_of([&] { read_folder_json(folder.path(), "a.json", 20); }), HasSubstr("the limit is 20"));
  folder.write("a.json", R"({"a": 1, "a": 2})");
  EXPECT_THAT(refusal_of([&] { read_folder_json(folder.path(), "a.json", 20); }), HasSubstr("duplicate key 'a'"));
  folder.write("a.json", "[]");
  EXPECT_THAT(refusal_of([&] { read_folder_json(folder.path(), "a.json", 20); }), HasSubstr("expected an object"));
}

}  // namespace
}  // namespace titer

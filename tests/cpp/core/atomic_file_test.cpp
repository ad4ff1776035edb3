#include "titer/core/atomic_file.h"

#include <gmock/gmock.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <csignal>
#include <string>

#include "temporary_folder.h"

namespace titer {
namespace {

namespace fs = std::filesystem;
using testing::contents_of;
using ::testing::ElementsAre;
using testing::errno_of;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::refusal_of;
using testing::TemporaryFolder;

mode_t mode_of(const fs::path& path) {
  struct stat status {};
  EXPECT_EQ(stat(path.c_str(), &status), 0);
  return status.st_mode & 07777U;
}

/// Writes past `bytes` fail as on a full disk (EFBIG) while this lives.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : old_handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    getrlimit(RLIMIT_FSIZE, &old_limit_);
    const rlimit limit{bytes, old_limit_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;
  ~FileSizeLimit() {
    setrlimit(RLIMIT_FSIZE, &old_limit_);
    std::signal(SIGXFSZ, old_handler_);
  }

 private:
  void (*old_handler_)(int);
  rlimit old_limit_{};
};

TEST(AtomicFile, contents_arrive_whole_and_nothing_else_stays) {
  const TemporaryFolder folder;
  const std::string contents("a\0b\n", 4);
  write_file_atomically(folder / "result.json", contents);
  EXPECT_EQ(contents_of(folder / "result.json"), contents);
  EXPECT_THAT(folder.names(), ElementsAre("result.json"));
}

TEST(AtomicFile, old_contents_stay_until_commit) {
  const TemporaryFolder folder;
  const auto path = folder.write("a", "old");
  AtomicFileWriter writer(path);
  writer.write("ne");
  writer.write("w", 1);
  EXPECT_EQ(contents_of(path), "old");
  writer.commit();
  EXPECT_EQ(contents_of(path), "new");
  EXPECT_THROW(writer.write("x"), std::logic_error);
  EXPECT_THROW(writer.commit(), std::logic_error);
}

TEST(AtomicFile, abandoned_writer_removes_its_temporary) {
  const TemporaryFolder folder;
  {
    AtomicFileWriter writer(folder / "a");
    writer.write("half");
    EXPECT_EQ(folder.names().size(), 1U);
  }
  EXPECT_THAT(folder.names(), IsEmpty());
}

TEST(AtomicFile, full_disk_leaves_old_file_and_no_temporary) {
  const TemporaryFolder folder;
  const auto path = folder.write("a", "old");
  {
    const FileSizeLimit limit(4096);
    EXPECT_EQ(errno_of([&] { write_file_atomically(path, std::string(10'000, 'x')); }), EFBIG);
  }
  EXPECT_EQ(contents_of(path), "old");
  EXPECT_THAT(folder.names(), ElementsAre("a"));
}

TEST(AtomicFile, permissions_of_an_existing_file_are_kept) {
  const TemporaryFolder folder;
  const auto path = folder.write("a", "old");
  fs::permissions(path, fs::perms::owner_read | fs::perms::owner_write);
  write_file_atomically(path, "new");
  EXPECT_EQ(mode_of(path), 0600U);

  const mode_t old_umask = umask(027);
  write_file_atomically(folder / "b", "new");
  umask(old_umask);
  EXPECT_EQ(mode_of(folder / "b"), 0640U) << "a new file follows the umask";
}

TEST(AtomicFile, symbolic_links_are_followed) {
  const TemporaryFolder folder;
  const auto path = folder.write("a", "old");
  fs::create_symlink("a", folder / "link");
  write_file_atomically(folder / "link", "new");
  EXPECT_EQ(contents_of(path), "new");
  EXPECT_TRUE(fs::is_symlink(folder / "link"));
}

TEST(AtomicFile, devices_are_written_and_not_replaced) {
  write_file_atomically("/dev/null", "x");
  EXPECT_TRUE(fs::is_character_file("/dev/null"));
  EXPECT_EQ(errno_of([] { write_file_atomically("/dev/full", "x"); }), ENOSPC);
  EXPECT_TRUE(fs::is_character_file("/dev/full"));
}

TEST(AtomicFile, errors_name_the_file_and_carry_errno) {
  const TemporaryFolder folder;
  EXPECT_EQ(errno_of([&] { write_file_atomically(folder / "no/such/folder", "x"); }), ENOENT);
  EXPECT_EQ(errno_of([&] { write_file_atomically(folder.path(), "x"); }), EISDIR);
  try {
    write_file_atomically(folder / "no/such/folder", "x");
  } catch (const std::system_error& error) {
    EXPECT_THAT(error.what(), HasSubstr("no/such/folder"));
  }
}

TEST(AtomicFile, names_of_the_longest_length_work) {
  const TemporaryFolder folder;
  const std::string name(255, 'n');
  write_file_atomically(folder / name, "x");
  EXPECT_THAT(folder.names(), ElementsAre(name));
}

TEST(AtomicFile, relative_names_land_in_the_current_folder) {
  const TemporaryFolder folder;
  const auto before = fs::current_path();
  fs::current_path(folder.path());
  write_file_atomically("a", "x");
  fs::current_path(before);
  EXPECT_EQ(contents_of(folder / "a"), "x");
}

TEST(ReadFile, whole_contents_within_the_limit) {
  const TemporaryFolder folder;
  const std::string contents("a\0b", 3);
  const auto path = folder.write("a", contents);
  EXPECT_EQ(read_file(path, 3), contents);
  EXPECT_EQ(read_file(folder.write("empty", ""), 0), "");
  EXPECT_EQ(refusal_of([&] { read_file(path, 2); }),
            "[read_file] file has 3 bytes, the limit is 2 (" + path.string() + ")");
}

TEST(ReadFile, only_regular_files) {
  const TemporaryFolder folder;
  EXPECT_EQ(errno_of([&] { read_file(folder / "none", 10); }), ENOENT);
  EXPECT_EQ(errno_of([&] { read_file(folder.path(), 10); }), EISDIR);
  EXPECT_THAT(refusal_of([] { read_file("/dev/zero", 10); }), HasSubstr("regular file"));
  ASSERT_EQ(mkfifo((folder / "pipe").c_str(), 0600), 0);
  EXPECT_THAT(refusal_of([&] { read_file(folder / "pipe", 10); }), HasSubstr("regular file"));
}

}  // namespace
}  // namespace titer

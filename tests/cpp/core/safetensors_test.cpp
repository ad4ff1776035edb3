#include "titer/core/safetensors.h"

#include <gmock/gmock.h>

#include <cstring>

#include "temporary_folder.h"

namespace titer {
namespace {

namespace fs = std::filesystem;
using testing::contents_of;
using ::testing::ElementsAre;
using testing::errno_of;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using testing::refusal_of;
using testing::TemporaryFolder;

/// A file with this header and `data_bytes` zeros.
std::string file_with(std::string_view header, std::size_t data_bytes) {
  const std::uint64_t length = header.size();
  std::string contents(8, '\0');
  std::memcpy(contents.data(), &length, 8);
  contents += header;
  contents.append(data_bytes, '\0');
  return contents;
}

SafetensorsFile parse(const std::string& contents) {
  auto storage = std::make_shared<std::string>(contents);
  return {storage, std::as_bytes(std::span(*storage)), "model.safetensors"};
}

std::string refusal(const std::string& contents) {
  return refusal_of([&] { parse(contents); });
}

StoredTensor tensor(std::string name, StoredDtype dtype, std::vector<std::int64_t> shape, std::string_view bytes) {
  return {std::move(name), dtype, std::move(shape), std::as_bytes(std::span(bytes.data(), bytes.size())), nullptr};
}

std::string_view bytes_of(const StoredTensor& stored) {
  return {reinterpret_cast<const char*>(stored.data.data()), stored.data.size()};
}

TEST(Safetensors, tensors_come_by_name_with_their_bytes) {
  std::string contents = file_with(
      R"({"__metadata__":{"format":"pt"},"w":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},)"
      R"("b":{"dtype":"U8","shape":[3],"data_offsets":[8,11]},"e":{"dtype":"F16","shape":[0,5],"data_offsets":[11,11]},)"
      R"("s":{"dtype":"I16","shape":[],"data_offsets":[11,13]}}   )",
      13);
  contents.replace(contents.size() - 5, 5, "xyz\x02\x01");
  const auto file = parse(contents);
  ASSERT_EQ(file.tensors().size(), 4U);
  EXPECT_EQ(file.tensors()[0].name, "b");
  EXPECT_EQ(bytes_of(file.tensors()[0]), "xyz");
  EXPECT_THAT(file.find("w")->shape, ElementsAre(2, 1));
  EXPECT_EQ(file.find("w")->dtype, StoredDtype::kF32);
  EXPECT_THAT(file.find("e")->data, IsEmpty());
  EXPECT_EQ(bytes_of(*file.find("s")), "\x02\x01");
  EXPECT_EQ(file.find("x"), nullptr);
  EXPECT_EQ(file.metadata().at("format"), "pt");
}

TEST(Safetensors, every_dtype_has_its_name_and_size) {
  const std::vector<std::pair<std::string, std::size_t>> expected = {
      {"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E4M3", 1}, {"F8_E5M2", 1}, {"I16", 2}, {"U16", 2}, {"F16", 2},
      {"BF16", 2}, {"I32", 4}, {"U32", 4}, {"F32", 4},     {"I64", 8},     {"U64", 8}, {"F64", 8}};
  for (const auto& [name, bytes] : expected) {
    const auto file = parse(file_with(
        R"({"t":{"dtype":")" + name + R"(","shape":[3],"data_offsets":[0,)" + std::to_string(3 * bytes) + "]}}",
        3 * bytes));
    EXPECT_EQ(dtype_name(file.tensors()[0].dtype), name);
    EXPECT_EQ(dtype_bytes(file.tensors()[0].dtype), bytes);
  }
}

TEST(Safetensors, a_file_without_tensors_is_valid) { EXPECT_THAT(parse(file_with("{}", 0)).tensors(), IsEmpty()); }

TEST(Safetensors, lengths_that_do_not_fit_are_refused) {
  EXPECT_THAT(refusal(""), HasSubstr("expected at least 8 bytes, the file has 0"));
  EXPECT_THAT(refusal("1234567"), HasSubstr("the file has 7"));
  std::string huge = file_with("{}", 0);
  const std::uint64_t length = std::uint64_t{1} << 60U;
  std::memcpy(huge.data(), &length, 8);
  EXPECT_EQ(refusal(huge),
            "[safetensors] header says 1152921504606846976 bytes, the file has 10; it is truncated or not safetensors "
            "(model.safetensors)");
  EXPECT_THAT(refusal(file_with(std::string(100'000'001, ' '), 0)), HasSubstr("the limit is 100000000"));
  EXPECT_THAT(refusal(file_with("", 0)), HasSubstr("must start with '{'"));
  EXPECT_THAT(refusal(file_with(" {}", 0)), HasSubstr("must start with '{'"));
}

TEST(Safetensors, other_formats_are_called_by_their_name) {
  const auto padded = [](std::string_view start) { return std::string(start) + std::string(100, '\x7f'); };
  EXPECT_THAT(refusal(padded("PK\x03\x04")), HasSubstr("looks like a zip archive"));
  EXPECT_THAT(refusal(padded("\x80\x02")), HasSubstr("looks like a pickle"));
  EXPECT_THAT(refusal(padded("version https://git-lfs")), HasSubstr("a Git LFS pointer"));
  EXPECT_THAT(refusal("GGUF"),
              HasSubstr("expected at least 8 bytes, the file has 4; it is truncated or not safetensors; "
                        "it looks like a GGUF file"));
  EXPECT_THAT(refusal(padded("")), Not(HasSubstr("looks like")));
}

TEST(Safetensors, data_must_cover_the_file_exactly) {
  const std::string one = R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})";
  EXPECT_EQ(refusal(file_with(one, 4)), "accepted");
  EXPECT_THAT(refusal(file_with(one, 3)), HasSubstr("tensor 'a': data ends at 4, 3 bytes follow the header"));
  EXPECT_THAT(refusal(file_with(one, 5)), HasSubstr("1 bytes follow the last tensor"));
  EXPECT_THAT(refusal(file_with("{}", 1)), HasSubstr("1 bytes follow the last tensor"));
  EXPECT_THAT(refusal(file_with(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[1,5]}})", 5)),
              HasSubstr("data begins at 1, expected 0; there is a hole"));
  const auto two = [](std::string_view b_offsets) {
    return R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":)" +
           std::string(b_offsets) + "}}";
  };
  EXPECT_EQ(refusal(file_with(two("[4,8]"), 8)), "accepted");
  EXPECT_THAT(refusal(file_with(two("[3,7]"), 8)),
              HasSubstr("tensor 'b': data begins at 3, expected 4; tensors overlap"));
  EXPECT_THAT(refusal(file_with(two("[0,4]"), 4)), HasSubstr("tensors overlap"));
  EXPECT_THAT(refusal(file_with(two("[5,9]"), 9)), HasSubstr("there is a hole"));
}

TEST(Safetensors, sizes_must_match_and_may_not_overflow) {
  const auto entry = [](std::string_view dtype, std::string_view shape, std::string_view offsets) {
    return file_with("{\"t\":{\"dtype\":" + std::string(dtype) + ",\"shape\":" + std::string(shape) +
                         ",\"data_offsets\":" + std::string(offsets) + "}}",
                     8);
  };
  EXPECT_EQ(refusal(entry("\"F32\"", "[2]", "[0,8]")), "accepted");
  EXPECT_THAT(refusal(entry("\"F32\"", "[3]", "[0,8]")), HasSubstr("dtype x shape is 12 bytes, data_offsets give 8"));
  EXPECT_THAT(refusal(entry("\"F32\"", "[]", "[0,8]")), HasSubstr("dtype x shape is 4 bytes"));
  EXPECT_THAT(refusal(entry("\"U8\"", "[4294967296,4294967296]", "[0,8]")), HasSubstr("exceeds 2^63 bytes"));
  EXPECT_THAT(refusal(entry("\"U8\"", "[0,4294967296,4294967296]", "[0,0]")), HasSubstr("exceeds 2^63 bytes"));
  EXPECT_THAT(refusal(entry("\"F64\"", "[2305843009213693953]", "[0,8]")), HasSubstr("exceeds 2^63 bytes"));
  EXPECT_THAT(refusal(entry("\"U8\"", "[-8]", "[0,8]")), HasSubstr("non-negative"));
  EXPECT_THAT(refusal(entry("\"U8\"", "[8.0]", "[0,8]")), HasSubstr("non-negative 64-bit integers"));
  EXPECT_THAT(refusal(entry("\"U8\"", "[18446744073709551615]", "[0,8]")), HasSubstr("64-bit integers"));
  EXPECT_THAT(refusal(entry("\"U8\"", "8", "[0,8]")), HasSubstr("shape must be a list"));
  EXPECT_THAT(refusal(entry("\"U8\"", "[8]", "[8,0]")), HasSubstr("data_offsets must be two non-negative"));
  EXPECT_THAT(refusal(entry("\"U8\"", "[8]", "[0,8,8]")), HasSubstr("data_offsets must be two integers"));
  EXPECT_THAT(refusal(entry("\"U8\"", "[8]", "{}")), HasSubstr("data_offsets must be two integers"));
  EXPECT_THAT(refusal(entry("\"U8\"", "[8]", "[9223372036854775800,9223372036854775807]")), HasSubstr("tensor 't'"));
  EXPECT_THAT(refusal(entry("\"F4\"", "[8]", "[0,8]")), HasSubstr("dtype 'F4' is not supported"));
  EXPECT_THAT(refusal(entry("32", "[8]", "[0,8]")), HasSubstr("dtype must be a text"));
}

TEST(Safetensors, malformed_headers_are_refused) {
  for (const char* header :
       {"{", "{}x", "{\"a\":1}", "{\"a\":{}}", "{\"__metadata__\":[]}", "{\"__metadata__\":{\"a\":1}}",
        R"({"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0],"extra":1}})",
        R"({"a":{"dtype":"U8","shape":[[[[]]]],"data_offsets":[0,0]}})",
        R"({"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})",
        "{\"\xff\":1}"}) {
    EXPECT_THAT(refusal(file_with(header, 0)), HasSubstr("(model.safetensors)")) << header;
  }
}

TEST(Safetensors, tensors_outlive_the_file_object) {
  const TemporaryFolder folder;
  write_safetensors(folder / "a", std::vector{tensor("t", StoredDtype::kU8, {4}, "abcd")});
  StoredTensor kept;
  {
    const SafetensorsFile file(folder / "a");
    kept = file.tensors()[0];
  }
  fs::remove(folder / "a");
  EXPECT_EQ(bytes_of(kept), "abcd");
}

TEST(Safetensors, files_that_cannot_be_opened_say_why) {
  const TemporaryFolder folder;
  EXPECT_EQ(errno_of([&] { SafetensorsFile(folder / "none"); }), ENOENT);
  EXPECT_EQ(errno_of([&] { SafetensorsFile{folder.path()}; }), EISDIR);
  EXPECT_THAT(refusal_of([&] { SafetensorsFile(folder.write("empty", "")); }), HasSubstr("file is empty"));
  EXPECT_THAT(refusal_of([&] { SafetensorsFile("/dev/zero"); }), HasSubstr("regular file"));
}

TEST(Safetensors, what_is_written_is_read_back) {
  const TemporaryFolder folder;
  const std::vector<StoredTensor> tensors = {
      tensor("odd", StoredDtype::kU8, {3}, "abc"), tensor("half", StoredDtype::kBF16, {2}, "wxyz"),
      tensor("double \u00e9", StoredDtype::kF64, {1, 1}, "12345678"), tensor("none", StoredDtype::kF32, {0, 7}, "")};
  write_safetensors(folder / "a", tensors, {{"format", "pt"}, {"note", "\"\n"}});
  const SafetensorsFile file(folder / "a");
  ASSERT_EQ(file.tensors().size(), 4U);
  for (const auto& expected : tensors) {
    const StoredTensor* found = file.find(expected.name);
    ASSERT_NE(found, nullptr) << expected.name;
    EXPECT_EQ(found->dtype, expected.dtype);
    EXPECT_EQ(found->shape, expected.shape);
    EXPECT_EQ(bytes_of(*found), bytes_of(expected));
    EXPECT_TRUE(found->is_aligned()) << expected.name;
  }
  EXPECT_EQ(file.metadata(), (SafetensorsMetadata{{"format", "pt"}, {"note", "\"\n"}}));
}

TEST(Safetensors, equal_input_gives_equal_bytes_in_any_order) {
  const TemporaryFolder folder;
  const auto a = tensor("a", StoredDtype::kU8, {1}, "1");
  const auto b = tensor("b", StoredDtype::kF32, {1}, "abcd");
  const auto c = tensor("c", StoredDtype::kF32, {1}, "efgh");
  write_safetensors(folder / "1", std::vector{a, b, c});
  write_safetensors(folder / "2", std::vector{c, a, b});
  const std::string written = contents_of(folder / "1");
  EXPECT_EQ(written, contents_of(folder / "2"));
  EXPECT_EQ(written.substr(written.size() - 9), "abcdefgh1");
  EXPECT_EQ((written.size() - 9) % 8, 0U);
}

TEST(Safetensors, tensors_that_cannot_be_written_are_refused_before_a_file_exists) {
  const TemporaryFolder folder;
  const auto refusal_for = [&](std::vector<StoredTensor> tensors, const SafetensorsMetadata& metadata = {}) {
    return refusal_of([&] { write_safetensors(folder / "a", tensors, metadata); });
  };
  const auto good = tensor("t", StoredDtype::kU8, {1}, "1");
  EXPECT_THAT(refusal_for({good, good}), HasSubstr("tensor 't' is given twice"));
  EXPECT_THAT(refusal_for({tensor("t", StoredDtype::kU8, {2}, "1")}),
              HasSubstr("dtype x shape is 2 bytes, data has 1"));
  EXPECT_THAT(refusal_for({tensor("t", StoredDtype::kU8, {-1}, "1")}), HasSubstr("negative"));
  EXPECT_THAT(refusal_for({tensor("__metadata__", StoredDtype::kU8, {1}, "1")}), HasSubstr("not allowed"));
  EXPECT_THAT(refusal_for({tensor("", StoredDtype::kU8, {1}, "1")}), HasSubstr("not allowed"));
  EXPECT_THAT(refusal_for({tensor("\xff", StoredDtype::kU8, {1}, "1")}), HasSubstr("UTF-8"));
  EXPECT_THAT(refusal_for({good}, {{"k", "\xff"}}), HasSubstr("UTF-8"));
  EXPECT_THAT(folder.names(), IsEmpty());
  EXPECT_EQ(errno_of([&] { write_safetensors("/dev/full", std::vector{good}); }), ENOSPC);
}

TEST(Safetensors, unaligned_data_is_reported) {
  const auto file = parse(file_with(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                                    R"("b":{"dtype":"F32","shape":[1],"data_offsets":[1,5]}} )",
                                    5));
  const auto address = reinterpret_cast<std::uintptr_t>(file.find("b")->data.data());
  EXPECT_EQ(file.find("b")->is_aligned(), address % 4 == 0);
  EXPECT_TRUE(file.find("a")->is_aligned());
}

/// A model folder of two shards.
class SafetensorsShards : public ::testing::Test {
 protected:
  SafetensorsShards() {
    write_safetensors(folder_ / "model-1.safetensors",
                      std::vector{tensor("a", StoredDtype::kU8, {1}, "1"), tensor("c", StoredDtype::kU8, {1}, "3")});
    write_safetensors(folder_ / "model-2.safetensors", std::vector{tensor("b", StoredDtype::kU8, {1}, "2")});
  }

  std::string refusal_with_index(std::string_view index) const {
    folder_.write("model.safetensors.index.json", index);
    return refusal_of([&] { SafetensorsFolder{folder_.path()}; });
  }
  std::string refusal_with_shard(std::string_view shard) const {
    return refusal_with_index("{\"weight_map\":{\"a\":\"" + std::string(shard) + "\"}}");
  }

  TemporaryFolder folder_;
};

TEST_F(SafetensorsShards, tensors_are_found_through_the_index) {
  folder_.write("model.safetensors.index.json",
                R"({"metadata":{"total_size":3},"weight_map":{"c":"model-1.safetensors","b":"model-2.safetensors",)"
                R"("a":"model-1.safetensors"}})");
  const SafetensorsFolder folder(folder_.path());
  std::string all;
  for (const auto& stored : folder.tensors()) all += stored.name + "=" + std::string(bytes_of(stored)) + " ";
  EXPECT_EQ(all, "a=1 b=2 c=3 ");
  EXPECT_EQ(folder.find("d"), nullptr);
  EXPECT_EQ(refusal_of([&] { folder.tensor("d"); }),
            "[safetensors] there is no tensor 'd' (" + folder_.path().string() + ")");
}

TEST_F(SafetensorsShards, a_single_file_goes_before_the_index) {
  write_safetensors(folder_ / "model.safetensors", std::vector{tensor("a", StoredDtype::kU8, {1}, "9")});
  folder_.write("model.safetensors.index.json", "{}");
  EXPECT_EQ(bytes_of(SafetensorsFolder(folder_.path()).tensor("a")), "9");
}

TEST_F(SafetensorsShards, a_tensor_missing_from_its_shard_is_named_with_it) {
  EXPECT_THAT(refusal_with_index(R"({"weight_map":{"b":"model-1.safetensors"}})"),
              HasSubstr("tensor 'b' is not in the shard 'model-1.safetensors'"));
}

TEST_F(SafetensorsShards, malformed_indices_are_refused) {
  for (const char* index : {"[]", "{}", R"({"weight_map":[]})", R"({"weight_map":{"a":1}})", "{", ""}) {
    EXPECT_THAT(refusal_with_index(index), HasSubstr("model.safetensors.index.json")) << index;
  }
}

TEST_F(SafetensorsShards, shard_names_cannot_leave_the_folder) {
  fs::create_directory(folder_ / "inner");
  fs::copy(folder_ / "model-1.safetensors", folder_ / "inner" / "x");
  for (const std::string shard : {"../x", "inner/x", "/etc/passwd", "..", ".", "", "a\\\\b", "a\\u0000b"}) {
    EXPECT_THAT(refusal_with_shard(shard), HasSubstr("expected the plain name of a file in this folder")) << shard;
  }
  folder_.write("model.safetensors.index.json", R"({"weight_map":{"a":"none.safetensors"}})");
  EXPECT_EQ(errno_of([&] { SafetensorsFolder{folder_.path()}; }), ENOENT);
}

TEST_F(SafetensorsShards, links_may_stay_inside_but_not_leave) {
  const TemporaryFolder elsewhere;
  fs::copy(folder_ / "model-1.safetensors", elsewhere / "secret");
  fs::create_symlink(elsewhere / "secret", folder_ / "out.safetensors");
  EXPECT_THAT(refusal_with_shard("out.safetensors"), HasSubstr("'out.safetensors' is a symbolic link that leaves"));
  fs::create_symlink("model-1.safetensors", folder_ / "in.safetensors");
  EXPECT_EQ(refusal_with_shard("in.safetensors"), "accepted");
  fs::create_directory(folder_ / "inner");
  fs::copy(folder_ / "model-1.safetensors", folder_ / "inner" / "x");
  fs::create_symlink("inner/x", folder_ / "deeper.safetensors");
  EXPECT_EQ(refusal_with_shard("deeper.safetensors"), "accepted");
}

TEST(SafetensorsFolder, hugging_face_caches_link_into_their_blobs) {
  const TemporaryFolder cache;
  const auto snapshot = cache / "snapshots" / "0123";
  fs::create_directories(snapshot);
  fs::create_directories(cache / "blobs");
  fs::create_directories(cache / "other");
  for (const char* place : {"blobs", "other"}) {
    write_safetensors(cache / place / "abc", std::vector{tensor("a", StoredDtype::kU8, {1}, "1")});
  }
  fs::create_symlink("../../blobs/abc", snapshot / "model.safetensors");
  EXPECT_EQ(bytes_of(SafetensorsFolder(snapshot).tensor("a")), "1");
  fs::remove(snapshot / "model.safetensors");
  fs::create_symlink("../../other/abc", snapshot / "model.safetensors");
  EXPECT_THAT(refusal_of([&] { SafetensorsFolder{snapshot}; }), HasSubstr("leaves the folder"));
}

TEST(SafetensorsFolder, folders_without_weights_say_what_was_looked_for) {
  const TemporaryFolder folder;
  EXPECT_THAT(refusal_of([&] { SafetensorsFolder{folder.path()}; }),
              HasSubstr("expected model.safetensors or model.safetensors.index.json, the folder has neither ("));
  folder.write("pytorch_model.bin", "");
  EXPECT_THAT(refusal_of([&] { SafetensorsFolder{folder.path()}; }), HasSubstr("pickle files are not read"));
  EXPECT_EQ(errno_of([&] { SafetensorsFolder(folder / "none"); }), ENOENT);
  EXPECT_EQ(errno_of([&] { SafetensorsFolder(folder / "pytorch_model.bin"); }), ENOTDIR);
}

}  // namespace
}  // namespace titer

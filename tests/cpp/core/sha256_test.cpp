#include "titer/core/sha256.h"

#include <gtest/gtest.h>

#include <string>

namespace titer {
namespace {

// FIPS 180-4's examples, and the empty message.
TEST(Sha256, known_digests) {
  EXPECT_EQ(sha256("").hex(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256("abc").hex(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq").hex(),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(sha256(std::string(1'000'000, 'a')).hex(),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, pieces_give_the_digest_of_the_whole_and_the_next_message_starts_anew) {
  Sha256 hash;
  hash.update("a").update("").update("bc");
  EXPECT_EQ(hash.finish(), sha256("abc"));
  EXPECT_EQ(hash.finish(), sha256(""));
  const Sha256Digest digest = sha256("abc");
  const std::string bytes(reinterpret_cast<const char*>(digest.bytes.data()), digest.bytes.size());
  EXPECT_EQ(hash.update(digest).finish(), sha256(bytes));
}

}  // namespace
}  // namespace titer

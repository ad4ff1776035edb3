// OpenSSL's implementation, which uses the processor's SHA instructions.
#include "titer/core/sha256.h"

#include <openssl/evp.h>

#include <new>
#include <stdexcept>

namespace titer {
namespace {

void require(int status) {
  if (status != 1) throw std::runtime_error("[sha256] OpenSSL's libcrypto does not compute SHA-256 here");
}

}  // namespace

struct Sha256::State {
  State() {
    if (method == nullptr || context == nullptr) throw std::bad_alloc();
    start();
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  void start() { require(EVP_DigestInit_ex2(context.get(), method.get(), nullptr)); }

  // Fetched once: looking an algorithm up takes longer than hashing a short message.
  std::unique_ptr<EVP_MD, decltype(&EVP_MD_free)> method{EVP_MD_fetch(nullptr, "SHA256", nullptr), &EVP_MD_free};
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context{EVP_MD_CTX_new(), &EVP_MD_CTX_free};
};

Sha256::Sha256() : state_(std::make_unique<State>()) {}
Sha256::Sha256(Sha256&&) noexcept = default;
Sha256& Sha256::operator=(Sha256&&) noexcept = default;
Sha256::~Sha256() = default;

Sha256& Sha256::update(std::string_view bytes) {
  require(EVP_DigestUpdate(state_->context.get(), bytes.data(), bytes.size()));
  return *this;
}

Sha256& Sha256::update(const Sha256Digest& digest) {
  require(EVP_DigestUpdate(state_->context.get(), digest.bytes.data(), digest.bytes.size()));
  return *this;
}

Sha256Digest Sha256::finish() {
  Sha256Digest digest;
  require(EVP_DigestFinal_ex(state_->context.get(), reinterpret_cast<unsigned char*>(digest.bytes.data()), nullptr));
  state_->start();
  return digest;
}

Sha256Digest sha256(std::string_view bytes) { return Sha256().update(bytes).finish(); }

std::string Sha256Digest::hex() const {
  constexpr std::string_view kHex = "0123456789abcdef";
  std::string text;
  text.reserve(2 * bytes.size());
  for (const std::byte byte : bytes) {
    text += kHex[std::to_integer<unsigned>(byte) >> 4U];
    text += kHex[std::to_integer<unsigned>(byte) & 15U];
  }
  return text;
}

}  // namespace titer

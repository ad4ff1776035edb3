// SHA-256 (FIPS 180-4): names contents so that nobody can make two that share a name.
#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "titer/export.h"

namespace titer {

struct TITER_EXPORT Sha256Digest {
  std::array<std::byte, 32> bytes{};

  /// 64 lower-case hexadecimal digits.
  std::string hex() const;
  auto operator<=>(const Sha256Digest&) const = default;
};

/// Hashes a message that arrives in pieces.
class TITER_EXPORT Sha256 {
 public:
  Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;
  ~Sha256();

  Sha256& update(std::string_view bytes);
  Sha256& update(const Sha256Digest& digest);

  /// The digest of all that came since construction or the last finish(); the next message may follow.
  Sha256Digest finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// The digest of one message.
TITER_EXPORT Sha256Digest sha256(std::string_view bytes);

}  // namespace titer

// Counter-based random numbers: Philox4x32-10 (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2,
// 3", SC 2011). A draw is a function of (seed, purpose, step, item), so it never depends on batch size, threads, ranks
// or the point from which a run was resumed.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <stdexcept>

namespace titer {

/// What a stream is for. Two purposes never share draws. The values are part of every result ever recorded: append new
/// ones, never renumber.
enum class RandomPurpose : std::uint32_t {
  kSlotInitialisation = 1,       ///< the slot's first token ids
  kCandidateSampling = 2,        ///< positions and tokens of a search step's candidates; item = draw
  kGeneration = 3,               ///< sampled decoding; item = stream of the prompt, step = position
  kParameterInitialisation = 4,  ///< item = layer
  kDataOrder = 5,                ///< of an epoch, which is the step
  kDropout = 6,                  ///< item = row of a sequence at a layer
};

using PhiloxCounter = std::array<std::uint32_t, 4>;
using PhiloxKey = std::array<std::uint32_t, 2>;

/// The bijection itself: ten rounds, 128 bits in, 128 bits out.
constexpr PhiloxCounter philox4x32(PhiloxCounter counter, PhiloxKey key) {
  constexpr std::uint64_t kMultiplier0 = 0xD2511F53;
  constexpr std::uint64_t kMultiplier1 = 0xCD9E8D57;
  constexpr std::uint32_t kWeyl0 = 0x9E3779B9;  // golden ratio
  constexpr std::uint32_t kWeyl1 = 0xBB67AE85;  // sqrt(3) - 1
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t product0 = kMultiplier0 * counter[0];
    const std::uint64_t product1 = kMultiplier1 * counter[2];
    counter = {static_cast<std::uint32_t>(product1 >> 32U) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(product1),
               static_cast<std::uint32_t>(product0 >> 32U) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(product0)};
    key = {key[0] + kWeyl0, key[1] + kWeyl1};
  }
  return counter;
}

/// The stream of one (seed, purpose, step, item): 2^34 32-bit words.
///
/// Key = seed XOR mix(purpose), so for one purpose different seeds always have different keys.
/// Counter = {block, step, low half of item, high half of item}; each block gives four words.
class Philox {
 public:
  Philox(std::uint64_t seed, RandomPurpose purpose, std::uint32_t step, std::uint64_t item)
      : counter_{0, step, static_cast<std::uint32_t>(item), static_cast<std::uint32_t>(item >> 32U)} {
    const std::uint64_t key = seed ^ mix(static_cast<std::uint64_t>(purpose));
    key_ = {static_cast<std::uint32_t>(key), static_cast<std::uint32_t>(key >> 32U)};
  }

  std::uint32_t next32() {
    if (used_ == words_.size()) {
      words_ = philox4x32(counter_, key_);
      ++counter_[0];
      used_ = 0;
    }
    return words_[used_++];
  }

  /// Two words, the first one low.
  std::uint64_t next64() {
    const std::uint64_t low = next32();
    return low | static_cast<std::uint64_t>(next32()) << 32U;
  }

  /// Uniform integer in [0, n), exactly unbiased (Lemire, "Fast random integer generation in an interval", 2019).
  /// @throws std::invalid_argument if n is 0
  std::uint64_t below(std::uint64_t n) {
    if (n == 0) throw std::invalid_argument("[Philox] below(n) needs n of at least 1, got 0");
    Product product = static_cast<Product>(next64()) * n;
    if (static_cast<std::uint64_t>(product) < n) {
      const std::uint64_t rejected = (0 - n) % n;  // 2^64 mod n
      while (static_cast<std::uint64_t>(product) < rejected) product = static_cast<Product>(next64()) * n;
    }
    return static_cast<std::uint64_t>(product >> 64U);
  }

  /// Uniform in [0, 1): a multiple of 2^-53.
  double uniform() { return static_cast<double>(next64() >> 11U) * 0x1p-53; }

 private:
  __extension__ using Product = unsigned __int128;

  /// Finaliser of SplitMix64: a bijection that spreads small numbers over 64 bits.
  static constexpr std::uint64_t mix(std::uint64_t value) {
    value += 0x9E3779B97F4A7C15;
    value = (value ^ (value >> 30U)) * 0xBF58476D1CE4E5B9;
    value = (value ^ (value >> 27U)) * 0x94D049BB133111EB;
    return value ^ (value >> 31U);
  }

  PhiloxCounter counter_;
  PhiloxKey key_{};
  PhiloxCounter words_{};
  std::size_t used_ = 4;
};

}  // namespace titer

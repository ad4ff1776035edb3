#include "string_table.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <random>

namespace titer::tokenization {
namespace {

__extension__ using Product = unsigned __int128;

constexpr std::size_t kBlock = 32;  // strings whose places are fetched together

uint64_t mix(uint64_t a, uint64_t b) {
  const Product product = static_cast<Product>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64U);
}

}  // namespace

uint64_t hash_seed() {
  static const uint64_t seed = [] {
    std::random_device device;
    return uint64_t{device()} << 32U | device();
  }();
  return seed;
}

uint64_t hash_of(std::string_view bytes) {
  constexpr uint64_t kMultiplier = 0x9E3779B97F4A7C15U;
  uint64_t hash = hash_seed() ^ bytes.size() * kMultiplier;
  const char* data = bytes.data();
  std::size_t left = bytes.size();
  for (; left >= 8; left -= 8, data += 8) {
    uint64_t word = 0;
    std::memcpy(&word, data, 8);
    hash = mix(hash ^ word, kMultiplier);
  }
  uint64_t tail = 0;
  if (left > 0) std::memcpy(&tail, data, left);
  return mix(hash ^ tail, 0xD6E8FEB86659FD93U);
}

int32_t StringIndex::insert_all(std::span<const int32_t> ids) {
  slots_.assign(std::bit_ceil(2 * ids.size() + 2), Slot{});
  const auto text = [&](std::size_t i) { return strings_[static_cast<std::size_t>(ids[i])]; };
  const std::size_t mask = slots_.size() - 1;
  int32_t repeated = -1;
  std::array<uint64_t, kBlock> hashes{};
  for (std::size_t begin = 0; begin < ids.size(); begin += kBlock) {
    const std::size_t size = std::min(kBlock, ids.size() - begin);
    for (std::size_t i = 0; i < size; ++i) {
      hashes[i] = hash_of(text(begin + i));
      __builtin_prefetch(&slots_[hashes[i] & mask], 1);
    }
    for (std::size_t i = 0; i < size; ++i) {
      Slot& slot = slots_[slot_of(text(begin + i), hashes[i])];
      if (slot.id < 0) {
        slot = {ids[begin + i], static_cast<uint32_t>(hashes[i] >> 32U)};
      } else if (repeated < 0) {
        repeated = ids[begin + i];
      }
    }
  }
  return repeated;
}

int32_t StringIndex::find(std::string_view text) const {
  if (slots_.empty()) return -1;
  return slots_[slot_of(text, hash_of(text))].id;
}

void StringIndex::find_all(std::span<const std::string_view> texts, std::span<int32_t> ids) const {
  if (slots_.empty()) {
    std::fill(ids.begin(), ids.end(), -1);
    return;
  }
  std::array<uint64_t, kBlock> hashes{};
  const std::size_t mask = slots_.size() - 1;
  for (std::size_t begin = 0; begin < texts.size(); begin += kBlock) {
    const std::size_t size = std::min(kBlock, texts.size() - begin);
    const auto first_id = [&](std::size_t i) { return slots_[hashes[i] & mask].id; };
    for (std::size_t i = 0; i < size; ++i) {
      hashes[i] = hash_of(texts[begin + i]);
      __builtin_prefetch(&slots_[hashes[i] & mask]);
    }
    for (std::size_t i = 0; i < size; ++i) {
      if (first_id(i) >= 0) strings_.prefetch_place(static_cast<std::size_t>(first_id(i)));
    }
    for (std::size_t i = 0; i < size; ++i) {
      if (first_id(i) >= 0) strings_.prefetch_bytes(static_cast<std::size_t>(first_id(i)));
    }
    for (std::size_t i = 0; i < size; ++i) ids[begin + i] = slots_[slot_of(texts[begin + i], hashes[i])].id;
  }
}

std::size_t StringIndex::slot_of(std::string_view text, uint64_t hash) const {
  const auto tag = static_cast<uint32_t>(hash >> 32U);
  const std::size_t mask = slots_.size() - 1;
  for (std::size_t slot = hash & mask;; slot = (slot + 1) & mask) {
    const Slot& found = slots_[slot];
    if (found.id < 0 || (found.tag == tag && strings_[static_cast<std::size_t>(found.id)] == text)) return slot;
  }
}

}  // namespace titer::tokenization

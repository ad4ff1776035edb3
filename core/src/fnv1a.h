// FNV-1a (Fowler, Noll, Vo): a hash that tells things apart, not one that resists who wants them to collide.
#pragma once

#include <cstdint>

namespace titer {

inline constexpr std::uint64_t kFnv1aStart = 0xCBF29CE484222325;

/// The hash of what came before and one more unit: a byte, or a word at once.
constexpr std::uint64_t fnv1a(std::uint64_t hash, std::uint64_t unit) { return (hash ^ unit) * 0x100000001B3; }

}  // namespace titer

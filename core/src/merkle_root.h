// One digest for a list of digests: the Merkle tree hash of RFC 6962, section 2.1. Any entry can be shown to be in the
// list by about log2(n) digests.
#pragma once

#include <span>

#include "titer/core/sha256.h"

namespace titer {

/// A leaf is SHA-256(0x00 || digest), a node SHA-256(0x01 || left || right); on every level neighbours are paired from
/// the left, and one that is left over moves up as it is. The prefixes keep a node from being shown as an entry.
/// @param digests  at least one
Sha256Digest merkle_root(std::span<const Sha256Digest> digests);

}  // namespace titer

// Names and sizes that the safetensors reader and writer share.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "titer/core/safetensors.h"

namespace titer {

/// Inverse of dtype_name.
std::optional<StoredDtype> dtype_from_name(std::string_view name);

/// Bytes of a tensor; nothing if a size is negative or the product passes 2^63 - 1.
std::optional<std::uint64_t> stored_bytes(StoredDtype dtype, std::span<const std::int64_t> shape);

}  // namespace titer

// The table of element types.
#include "stored_layout.h"

#include <algorithm>
#include <array>
#include <cstddef>

namespace titer {
namespace {

struct DtypeEntry {
  StoredDtype dtype;
  std::string_view name;
  std::size_t bytes;
};

/// In the order of the enumeration.
constexpr std::array<DtypeEntry, 15> kDtypes = {{
    {StoredDtype::kBool, "BOOL", 1},
    {StoredDtype::kU8, "U8", 1},
    {StoredDtype::kI8, "I8", 1},
    {StoredDtype::kF8E4M3, "F8_E4M3", 1},
    {StoredDtype::kF8E5M2, "F8_E5M2", 1},
    {StoredDtype::kI16, "I16", 2},
    {StoredDtype::kU16, "U16", 2},
    {StoredDtype::kF16, "F16", 2},
    {StoredDtype::kBF16, "BF16", 2},
    {StoredDtype::kI32, "I32", 4},
    {StoredDtype::kU32, "U32", 4},
    {StoredDtype::kF32, "F32", 4},
    {StoredDtype::kI64, "I64", 8},
    {StoredDtype::kU64, "U64", 8},
    {StoredDtype::kF64, "F64", 8},
}};

const DtypeEntry& entry_of(StoredDtype dtype) { return kDtypes.at(static_cast<std::size_t>(dtype)); }

}  // namespace

std::string_view dtype_name(StoredDtype dtype) { return entry_of(dtype).name; }

std::size_t dtype_bytes(StoredDtype dtype) { return entry_of(dtype).bytes; }

std::optional<StoredDtype> dtype_from_name(std::string_view name) {
  const auto found =
      std::find_if(kDtypes.begin(), kDtypes.end(), [&](const auto& entry) { return entry.name == name; });
  if (found == kDtypes.end()) return std::nullopt;
  return found->dtype;
}

std::optional<std::uint64_t> stored_bytes(StoredDtype dtype, std::span<const std::int64_t> shape) {
  std::int64_t bytes = static_cast<std::int64_t>(dtype_bytes(dtype));
  bool is_empty = false;
  for (const std::int64_t size : shape) {
    if (size < 0) return std::nullopt;
    if (size == 0) {
      is_empty = true;  // the other sizes must still make sense: tensor libraries multiply them for strides
    } else if (__builtin_mul_overflow(bytes, size, &bytes)) {
      return std::nullopt;
    }
  }
  return is_empty ? 0 : static_cast<std::uint64_t>(bytes);
}

}  // namespace titer

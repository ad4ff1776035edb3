// Unicode normalization forms NFC and NFKC (UAX #15) as the `tokenizers` package computes them: its tables belong to
// one Unicode version, which is neither the newest nor that of its regex engine. The tables are asked of the package by
// core/tools/generate_unicode_tables.py.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace titer::tokenization {

enum class NormalizationForm : uint8_t { kNfc, kNfkc };

/// True if a text can be cut before this code point and the parts normalized apart: it is its own normal form, and what
/// it decomposes into neither moves to the left nor composes with what stands there.
bool starts_normalization(NormalizationForm form, char32_t c);

/// Length of the shortest prefix of text[begin, end), which is not empty, that can be normalized apart from the rest.
std::size_t normalization_chunk(NormalizationForm form, std::string_view text, std::size_t begin, std::size_t end);

/// Normal form of a valid UTF-8 text. O(n log n).
std::string normalize(NormalizationForm form, std::string_view text);

}  // namespace titer::tokenization

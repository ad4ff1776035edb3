// What a name that is not known was probably meant to be: the end of an error message about an option or a key.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace titer {

/// "; did you mean 'search_width'?" if one of the known names is about a third of its letters away or nearer, the first
/// of the nearest ones; otherwise "; known: " and all of them.
std::string hint_for_unknown(std::string_view name, std::span<const std::string_view> known);

}  // namespace titer

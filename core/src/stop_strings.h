// Where a text that grows at its end first holds one of several strings.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace titer {

/// Bytes [begin, end) of a text hold stop[index].
struct StopMatch {
  std::size_t begin = 0;
  std::size_t end = 0;
  std::size_t index = 0;

  friend bool operator==(const StopMatch&, const StopMatch&) = default;
};

/// The occurrence of a stop string that is complete first when the text is read byte by byte, however many bytes came
/// together; of several that are complete with the same byte the longest.
///
/// @param text       may hold more than what is new; what came before `unchanged` is read only as far as an occurrence
///                   that ends behind it can reach
/// @param unchanged  only occurrences that end behind this byte count: the others were seen, or were not to count
/// @param stop       none empty
std::optional<StopMatch> find_stop_string(std::string_view text, std::size_t unchanged,
                                          std::span<const std::string> stop);

}  // namespace titer

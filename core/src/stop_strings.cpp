#include "stop_strings.h"

#include <tuple>

namespace titer {

std::optional<StopMatch> find_stop_string(std::string_view text, std::size_t unchanged,
                                          std::span<const std::string> stop) {
  std::optional<StopMatch> first;
  for (std::size_t index = 0; index < stop.size(); ++index) {
    const std::size_t length = stop[index].size();
    // An occurrence of `length` bytes that ends at `unchanged + 1` or later starts here or later.
    const std::size_t start = unchanged + 1 > length ? unchanged + 1 - length : 0;
    const std::size_t begin = text.find(stop[index], start);
    if (begin == std::string_view::npos) continue;
    const StopMatch match{begin, begin + length, index};
    if (!first || std::tie(match.end, match.begin) < std::tie(first->end, first->begin)) first = match;
  }
  return first;
}

}  // namespace titer

// Names are compared by their edit distance; those over 64 bytes are nobody's typing error and would only take time.
#include "nearest_name.h"

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

namespace titer {
namespace {

constexpr std::size_t kMaxNameBytes = 64;

/// Optimal string alignment distance: insertions, deletions, substitutions, swaps of neighbours.
std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> before(b.size() + 1);
  std::vector<std::size_t> last(b.size() + 1);
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) last[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) row[j] = std::min(row[j], before[j - 2] + 1);
    }
    std::swap(before, last);
    std::swap(last, row);
  }
  return last[b.size()];
}

}  // namespace

std::string hint_for_unknown(std::string_view name, std::span<const std::string_view> known) {
  const std::string_view* nearest = nullptr;
  std::size_t nearest_distance = 0;
  for (const std::string_view& candidate : known) {
    if (name.size() > kMaxNameBytes) break;
    const std::size_t distance = edit_distance(name, candidate);
    if (distance <= std::max<std::size_t>(1, candidate.size() / 3) &&
        (nearest == nullptr || distance < nearest_distance)) {
      nearest = &candidate;
      nearest_distance = distance;
    }
  }
  if (nearest != nullptr) return "; did you mean '" + std::string(*nearest) + "'?";
  std::string all;
  for (const std::string_view candidate : known) all.append(all.empty() ? "" : ", ").append(candidate);
  return "; known: " + all;
}

}  // namespace titer

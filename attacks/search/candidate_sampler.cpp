#include "search/candidate_sampler.h"

#include <ATen/ops/tensor.h>
#include <titer/core/philox.h>

#include <algorithm>
#include <numeric>
#include <set>
#include <vector>

namespace titer {
namespace {

constexpr int64_t kDrawsPerCandidate = 20;

/// n distinct positions: the first `n` places of a Fisher-Yates shuffle. The first may be given.
std::vector<int64_t> distinct_positions(Philox& random, int64_t length, int64_t n, std::optional<int64_t> first) {
  std::vector<int64_t> positions(static_cast<size_t>(length));
  std::iota(positions.begin(), positions.end(), int64_t{0});
  for (int64_t i = 0; i < n; ++i) {
    const int64_t pick =
        i == 0 && first ? *first : i + static_cast<int64_t>(random.below(static_cast<uint64_t>(length - i)));
    std::swap(positions[static_cast<size_t>(i)], positions[static_cast<size_t>(pick)]);
  }
  positions.resize(static_cast<size_t>(n));
  return positions;
}

}  // namespace

SampledCandidates sample_candidates(std::span<const int64_t> base, const at::Tensor& tokens,
                                    const CandidateSampling& sampling,
                                    const std::function<bool(std::span<const int64_t>)>& valid) {
  const auto length = static_cast<int64_t>(base.size());
  const int64_t* const token = tokens.const_data_ptr<int64_t>();
  const int64_t choices = tokens.size(1);
  std::set<std::vector<int64_t>> seen{{base.begin(), base.end()}};
  std::vector<int64_t> found;
  SampledCandidates out;
  int64_t width = 0;
  for (; width < sampling.width && out.draws / kDrawsPerCandidate < sampling.width; ++out.draws) {
    Philox random(sampling.seed, RandomPurpose::kCandidateSampling, static_cast<uint32_t>(sampling.step),
                  static_cast<uint64_t>(out.draws));
    std::optional<int64_t> stratum;
    if (sampling.stratified) stratum = out.draws % sampling.width * length / sampling.width;
    std::vector<int64_t> candidate(base.begin(), base.end());
    for (const int64_t position : distinct_positions(random, length, sampling.n_replace, stratum)) {
      const auto choice = static_cast<int64_t>(random.below(static_cast<uint64_t>(choices)));
      candidate[static_cast<size_t>(position)] = token[position * choices + choice];
    }
    if (!seen.insert(candidate).second || !valid(candidate)) continue;
    found.insert(found.end(), candidate.begin(), candidate.end());
    ++width;
  }
  out.ids = at::tensor(found, at::kLong).view({width, length});
  return out;
}

}  // namespace titer

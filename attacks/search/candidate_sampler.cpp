#include "search/candidate_sampler.h"

#include <ATen/ops/isfinite.h>
#include <ATen/ops/tensor.h>
#include <c10/util/Exception.h>
#include <titer/core/philox.h>

#include <algorithm>
#include <numeric>
#include <set>

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

std::vector<std::vector<int64_t>> promising_tokens(const at::Tensor& gradient, const std::vector<bool>& allowed,
                                                   int64_t k) {
  TORCH_CHECK_VALUE(at::isfinite(gradient).all().item<bool>(), "[search] the token gradient is not finite");
  std::vector<int64_t> tokens;
  for (size_t id = 0; id < allowed.size(); ++id)
    if (allowed[id]) tokens.push_back(static_cast<int64_t>(id));
  const auto kept = std::min(static_cast<std::ptrdiff_t>(k), static_cast<std::ptrdiff_t>(tokens.size()));

  const at::Tensor rows = gradient.contiguous();
  std::vector<std::vector<int64_t>> out;
  for (int64_t position = 0; position < rows.size(0); ++position) {
    const float* row = rows.const_data_ptr<float>() + position * rows.size(1);
    std::vector<int64_t> order = tokens;
    const auto better = [row](int64_t a, int64_t b) { return row[a] != row[b] ? row[a] < row[b] : a < b; };
    if (kept < static_cast<std::ptrdiff_t>(order.size()))
      std::nth_element(order.begin(), order.begin() + kept, order.end(), better);
    std::sort(order.begin(), order.begin() + kept, better);
    order.resize(static_cast<size_t>(kept));
    out.push_back(std::move(order));
  }
  return out;
}

SampledCandidates sample_candidates(std::span<const int64_t> base, const std::vector<std::vector<int64_t>>& tokens,
                                    const CandidateSampling& sampling,
                                    const std::function<bool(std::span<const int64_t>)>& valid) {
  const auto length = static_cast<int64_t>(base.size());
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
      const std::vector<int64_t>& choices = tokens[static_cast<size_t>(position)];
      candidate[static_cast<size_t>(position)] = choices[random.below(choices.size())];
    }
    if (!seen.insert(candidate).second || !valid(candidate)) continue;
    found.insert(found.end(), candidate.begin(), candidate.end());
    ++width;
  }
  out.ids = at::tensor(found, at::kLong).view({width, length});
  return out;
}

}  // namespace titer

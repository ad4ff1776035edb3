// Once a few tiles have been seen, few scores are below their threshold: vectors find them, scalar code takes them.
#include "cpu/token_gradient_topk_tile.h"

#include <bit>
#include <cstring>

#include "cpu/highway_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/token_gradient_topk_tile.cpp"
#include <hwy/foreach_target.h>  // must come before highway.h
//
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace titer::cpu {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

template <typename T>
HWY_INLINE int64_t below(const T* scores, int64_t num_tokens, int64_t columns, int64_t ld, const bool* allowed,
                         const T* threshold, T* broken, TilePlace* places) {
  const hn::CappedTag<T, kTileColumnAlign> d;
  TilePlace* const begin = places;
  for (int64_t c = 0; c < columns; c += static_cast<int64_t>(hn::Lanes(d))) {
    const auto limit = hn::LoadU(d, threshold + c);
    auto not_finite = hn::LoadU(d, broken + c);
    for (int64_t j = 0; j < num_tokens; ++j) {
      if (!allowed[j]) continue;
      const auto x = hn::LoadU(d, scores + j * ld + c);
      not_finite = hn::MulAdd(x, hn::Zero(d), not_finite);  // infinity times 0 is NaN
      const auto found = hn::Lt(x, limit);
      if (hn::AllFalse(d, found)) continue;
      uint8_t bytes[8] = {};
      hn::StoreMaskBits(d, found, bytes);
      uint64_t bits;
      std::memcpy(&bits, bytes, sizeof(bits));
      for (; bits != 0; bits &= bits - 1)
        *places++ = {static_cast<int32_t>(j), static_cast<int32_t>(c + std::countr_zero(bits))};
    }
    hn::StoreU(not_finite, d, broken + c);
  }
  return places - begin;
}

int64_t BelowFloat(const float* scores, int64_t num_tokens, int64_t columns, int64_t ld, const bool* allowed,
                   const float* threshold, float* broken, TilePlace* places) {
  return below(scores, num_tokens, columns, ld, allowed, threshold, broken, places);
}
int64_t BelowDouble(const double* scores, int64_t num_tokens, int64_t columns, int64_t ld, const bool* allowed,
                    const double* threshold, double* broken, TilePlace* places) {
  return below(scores, num_tokens, columns, ld, allowed, threshold, broken, places);
}

}  // namespace HWY_NAMESPACE
}  // namespace titer::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace titer::cpu {

HWY_EXPORT(BelowFloat);
HWY_EXPORT(BelowDouble);

int64_t scores_below(const float* scores, int64_t num_tokens, int64_t columns, int64_t ld, const bool* allowed,
                     const float* threshold, float* broken, TilePlace* places) {
  return HWY_DYNAMIC_DISPATCH(BelowFloat)(scores, num_tokens, columns, ld, allowed, threshold, broken, places);
}
int64_t scores_below(const double* scores, int64_t num_tokens, int64_t columns, int64_t ld, const bool* allowed,
                     const double* threshold, double* broken, TilePlace* places) {
  return HWY_DYNAMIC_DISPATCH(BelowDouble)(scores, num_tokens, columns, ld, allowed, threshold, broken, places);
}

}  // namespace titer::cpu
#endif  // HWY_ONCE

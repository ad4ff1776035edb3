#include "cpu/linear_tile.h"

#include "cpu/highway_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/linear_tile.cpp"
#include <hwy/foreach_target.h>  // must come before highway.h
//
#include "cpu/float_lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace titer::cpu {
namespace HWY_NAMESPACE {

void FinishLinearTile(const float* tile, int64_t outputs, int64_t rows, int64_t ld, const LinearOutput& to) {
  for (int64_t r = 0; r < rows; ++r) {
    const uint16_t* const residual = to.residual == nullptr ? nullptr : to.residual + r * to.residual_stride;
    uint16_t* const out = to.out + r * to.out_stride;
    for_each_vector<float>(outputs, [&](auto d, int64_t j) HWY_ATTR {
      const hn::RebindToSigned<decltype(d)> di;
      const auto column = hn::Mul(hn::Iota(di, 0), hn::Set(di, static_cast<int32_t>(ld)));
      auto sum = hn::GatherIndex(d, tile + j * ld + r, column);
      if (to.bias != nullptr) sum = hn::Add(sum, load(d, to.bias + j));
      if (residual != nullptr) sum = hn::Add(sum, load(d, residual + j));
      store(sum, d, out + j);
    });
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace titer::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace titer::cpu {

HWY_EXPORT(FinishLinearTile);

void finish_linear_tile(const float* tile, int64_t outputs, int64_t rows, int64_t ld, const LinearOutput& to) {
  HWY_DYNAMIC_DISPATCH(FinishLinearTile)(tile, outputs, rows, ld, to);
}

}  // namespace titer::cpu
#endif  // HWY_ONCE

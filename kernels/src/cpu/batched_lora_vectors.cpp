#include "cpu/batched_lora_vectors.h"

#include "cpu/highway_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/batched_lora_vectors.cpp"
#include <hwy/foreach_target.h>  // must come before highway.h
//
#include "cpu/float_lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace titer::cpu {
namespace HWY_NAMESPACE {

template <typename T>
HWY_INLINE void round(const Wide<T>* sums, int64_t rows, int64_t width, T* out, int64_t out_stride, bool accumulate) {
  for (int64_t r = 0; r < rows; ++r, sums += width, out += out_stride) {
    if (accumulate) {
      for_each_vector<Wide<T>>(width, [&](auto d, int64_t i) HWY_ATTR {
        store(hn::Add(load(d, out + i), hn::LoadU(d, sums + i)), d, out + i);
      });
    } else {
      for_each_vector<Wide<T>>(width, [&](auto d, int64_t i) HWY_ATTR { store(hn::LoadU(d, sums + i), d, out + i); });
    }
  }
}

void RoundFloat(const float* sums, int64_t rows, int64_t width, float* out, int64_t out_stride, bool accumulate) {
  round(sums, rows, width, out, out_stride, accumulate);
}
void RoundDouble(const double* sums, int64_t rows, int64_t width, double* out, int64_t out_stride, bool accumulate) {
  round(sums, rows, width, out, out_stride, accumulate);
}
void RoundBFloat16(const float* sums, int64_t rows, int64_t width, uint16_t* out, int64_t out_stride, bool accumulate) {
  round(sums, rows, width, out, out_stride, accumulate);
}

}  // namespace HWY_NAMESPACE
}  // namespace titer::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace titer::cpu {

HWY_EXPORT(RoundFloat);
HWY_EXPORT(RoundDouble);
HWY_EXPORT(RoundBFloat16);

void round_rows(const float* sums, int64_t rows, int64_t width, float* out, int64_t out_stride, bool accumulate) {
  HWY_DYNAMIC_DISPATCH(RoundFloat)(sums, rows, width, out, out_stride, accumulate);
}
void round_rows(const double* sums, int64_t rows, int64_t width, double* out, int64_t out_stride, bool accumulate) {
  HWY_DYNAMIC_DISPATCH(RoundDouble)(sums, rows, width, out, out_stride, accumulate);
}
void round_rows(const float* sums, int64_t rows, int64_t width, uint16_t* out, int64_t out_stride, bool accumulate) {
  HWY_DYNAMIC_DISPATCH(RoundBFloat16)(sums, rows, width, out, out_stride, accumulate);
}

}  // namespace titer::cpu
#endif  // HWY_ONCE

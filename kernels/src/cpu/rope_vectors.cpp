#include "cpu/rope_vectors.h"

#include <cstring>

#include "cpu/highway_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/rope_vectors.cpp"
#include <hwy/foreach_target.h>  // must come before highway.h
//
#include "cpu/float_lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace titer::cpu {
namespace HWY_NAMESPACE {

/// A product, rounded to T where torch would: if the table is no wider.
template <typename T, typename Table, class D>
HWY_INLINE hn::Vec<D> product(D d, hn::Vec<D> x, hn::Vec<D> angle) {
  const auto wide = hn::Mul(x, angle);
  if constexpr (sizeof(T) == 2 && sizeof(Table) == 2) {
    return rounded_to_bfloat16(d, wide);
  } else {
    return wide;
  }
}

/// Calls function(x, out) for the heads of a row.
template <typename T, typename Table, class Function>
HWY_INLINE void for_each_head(const RopeRows<T, Table>& heads, int64_t row, const Function& function) {
  for (int64_t outer = 0; outer < heads.outer; ++outer) {
    const T* x = heads.x + row * heads.x_strides.row + outer * heads.x_strides.outer;
    T* out = heads.out + row * heads.out_strides.row + outer * heads.out_strides.outer;
    for (int64_t inner = 0; inner < heads.inner; ++inner) {
      function(x, out);
      x += heads.x_strides.inner;
      out += heads.out_strides.inner;
    }
  }
}

template <typename T, typename Table>
HWY_INLINE void rotate(const RopeRows<T, Table>& heads, int64_t begin, int64_t end) {
  const int64_t half = heads.half;
  const auto rotated = [](auto d, auto first, auto second, auto c, auto s) HWY_ATTR {
    return std::array{hn::Sub(product<T, Table>(d, first, c), product<T, Table>(d, second, s)),
                      hn::Add(product<T, Table>(d, second, c), product<T, Table>(d, first, s))};
  };
  for (int64_t row = begin; row < end; ++row) {
    const Table* const cos = heads.cos + row * heads.cos_stride;
    const Table* const sin = heads.sin + row * heads.sin_stride;
    for_each_block<T, T, Table>(half, [&](auto block, int64_t i) HWY_ATTR {
      const auto c = block.load(cos + i), s = block.load(sin + i);
      for_each_head(heads, row, [&](const T* x, T* out) HWY_ATTR {
        const auto results = block.map(rotated, block.load(x + i), block.load(x + half + i), c, s);
        block.store(results, 0, out + i);
        block.store(results, 1, out + half + i);
      });
    });
    if (heads.rest > 0 && heads.out != heads.x)
      for_each_head(heads, row, [&](const T* x, T* out) {
        std::memcpy(out + 2 * half, x + 2 * half, static_cast<size_t>(heads.rest) * sizeof(T));
      });
  }
}

void RotateFloat(const RopeRows<float, float>& heads, int64_t begin, int64_t end) { rotate(heads, begin, end); }
void RotateDouble(const RopeRows<double, double>& heads, int64_t begin, int64_t end) { rotate(heads, begin, end); }
void RotateBFloat16(const RopeRows<uint16_t, uint16_t>& heads, int64_t begin, int64_t end) {
  rotate(heads, begin, end);
}
void RotateBFloat16ByFloat(const RopeRows<uint16_t, float>& heads, int64_t begin, int64_t end) {
  rotate(heads, begin, end);
}

}  // namespace HWY_NAMESPACE
}  // namespace titer::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace titer::cpu {

HWY_EXPORT(RotateFloat);
HWY_EXPORT(RotateDouble);
HWY_EXPORT(RotateBFloat16);
HWY_EXPORT(RotateBFloat16ByFloat);

void rotate_rows(const RopeRows<float, float>& heads, int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(RotateFloat)(heads, begin, end);
}
void rotate_rows(const RopeRows<double, double>& heads, int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(RotateDouble)(heads, begin, end);
}
void rotate_rows(const RopeRows<uint16_t, uint16_t>& heads, int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(RotateBFloat16)(heads, begin, end);
}
void rotate_rows(const RopeRows<uint16_t, float>& heads, int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(RotateBFloat16ByFloat)(heads, begin, end);
}

}  // namespace titer::cpu
#endif  // HWY_ONCE

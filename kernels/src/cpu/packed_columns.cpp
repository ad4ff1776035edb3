#include "cpu/packed_columns.h"

#include "cpu/highway_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/packed_columns.cpp"
#include <hwy/foreach_target.h>  // must come before highway.h
//
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace titer::cpu {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

/// Transposes words of 4 or 8 bytes, a vector of rows at a time: gathers a column of them, stores a row.
template <typename Word>
HWY_INLINE void transpose_words(const Word* rows, int64_t row_stride, int64_t count, int64_t inner, Word* out,
                                int64_t ld) {
  using Index = std::conditional_t<sizeof(Word) == 8, int64_t, int32_t>;
  const hn::CappedTag<Word, kPackedColumns> d;
  const hn::RebindToSigned<decltype(d)> di;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto offsets = hn::Mul(hn::Iota(di, 0), hn::Set(di, static_cast<Index>(row_stride)));
  int64_t c = 0;
  for (; c + lanes <= count; c += lanes) {
    for (int64_t i = 0; i < inner; ++i)
      hn::StoreU(hn::GatherIndex(d, rows + c * row_stride + i, offsets), d, out + i * ld + c);
  }
  const int64_t padded = (count + kPackedColumns - 1) / kPackedColumns * kPackedColumns;
  for (int64_t i = 0; c < padded && i < inner; ++i) {
    for (int64_t rest = c; rest < padded; ++rest) out[i * ld + rest] = rest < count ? rows[rest * row_stride + i] : 0;
  }
}

void PackFloat(const float* rows, int64_t row_stride, int64_t count, int64_t inner, float* out, int64_t ld) {
  transpose_words(reinterpret_cast<const uint32_t*>(rows), row_stride, count, inner, reinterpret_cast<uint32_t*>(out),
                  ld);
}
void PackDouble(const double* rows, int64_t row_stride, int64_t count, int64_t inner, double* out, int64_t ld) {
  transpose_words(reinterpret_cast<const uint64_t*>(rows), row_stride, count, inner, reinterpret_cast<uint64_t*>(out),
                  ld);
}
void PackBFloat16(const uint16_t* rows, int64_t row_stride, int64_t count, int64_t inner, uint16_t* out, int64_t ld) {
  transpose_words(reinterpret_cast<const uint32_t*>(rows), row_stride / 2, count, inner / 2,
                  reinterpret_cast<uint32_t*>(out), ld);
}
}  // namespace HWY_NAMESPACE
}  // namespace titer::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace titer::cpu {

HWY_EXPORT(PackFloat);
HWY_EXPORT(PackDouble);
HWY_EXPORT(PackBFloat16);

void pack_columns(const float* rows, int64_t row_stride, int64_t count, int64_t inner, float* out, int64_t ld) {
  HWY_DYNAMIC_DISPATCH(PackFloat)(rows, row_stride, count, inner, out, ld);
}
void pack_columns(const double* rows, int64_t row_stride, int64_t count, int64_t inner, double* out, int64_t ld) {
  HWY_DYNAMIC_DISPATCH(PackDouble)(rows, row_stride, count, inner, out, ld);
}
void pack_columns(const uint16_t* rows, int64_t row_stride, int64_t count, int64_t inner, uint16_t* out, int64_t ld) {
  HWY_DYNAMIC_DISPATCH(PackBFloat16)(rows, row_stride, count, inner, out, ld);
}
}  // namespace titer::cpu
#endif  // HWY_ONCE

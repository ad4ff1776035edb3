// Vectors of float or double, the types that arithmetic runs in, between memory of float, double or bfloat16. Included
// once per instruction set, see highway_targets.h; bfloat16 values are passed as their bits.

#if defined(TITER_KERNELS_CPU_FLOAT_LANES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TITER_KERNELS_CPU_FLOAT_LANES_INL_H_
#undef TITER_KERNELS_CPU_FLOAT_LANES_INL_H_
#else
#define TITER_KERNELS_CPU_FLOAT_LANES_INL_H_
#endif

#include <hwy/highway.h>

#include <cstdint>
#include <type_traits>

HWY_BEFORE_NAMESPACE();
namespace titer::cpu {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

/// What T is computed in.
template <typename T>
using Wide = std::conditional_t<sizeof(T) == 8, double, float>;

// The upper halves of the results are the bfloat16 bits; the lower halves are unspecified.
template <class D>
HWY_INLINE hn::Vec<hn::RebindToUnsigned<D>> round_to_bfloat16(D, hn::Vec<D> x) {
  const hn::RebindToUnsigned<D> du;
  const auto bits = hn::BitCast(du, x);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1));
  const auto rounded = hn::Add(bits, hn::Add(odd, hn::Set(du, 0x7FFF)));
  // Rounding could carry a NaN into infinity or zero.
  return hn::IfThenElse(hn::RebindMask(du, hn::IsNaN(x)), hn::Set(du, 0x7FC00000), rounded);
}

/// Rounded to nearest even and back.
template <class D>
HWY_INLINE hn::Vec<D> rounded_to_bfloat16(D d, hn::Vec<D> x) {
  const hn::RebindToUnsigned<D> du;
  return hn::BitCast(d, hn::And(round_to_bfloat16(d, x), hn::Set(du, 0xFFFF0000)));
}

template <class D>
HWY_INLINE hn::Vec<D> load(D d, const hn::TFromD<D>* from) {
  return hn::LoadU(d, from);
}

template <class D>
HWY_INLINE hn::Vec<D> load(D d, const uint16_t* from) {
  const hn::RebindToUnsigned<D> du;
  const hn::Rebind<uint16_t, D> dh;
  return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(du, hn::LoadU(dh, from))));
}

template <class D>
HWY_INLINE void store(hn::Vec<D> x, D d, hn::TFromD<D>* to) {
  hn::StoreU(x, d, to);
}

/// Rounded to nearest even.
template <class D>
HWY_INLINE void store(hn::Vec<D> x, D d, uint16_t* to) {
  const hn::Rebind<uint16_t, D> dh;
  const hn::RebindToSigned<D> di;
  hn::StoreU(hn::DemoteTo(dh, hn::BitCast(di, hn::ShiftRight<16>(round_to_bfloat16(d, x)))), dh, to);
}

/// Covers [0, count) with vectors of T: calls function(d, offset), wide vectors first, single elements last.
template <typename T, class Function>
HWY_INLINE void for_each_vector(int64_t count, const Function& function) {
  const hn::CappedTag<T, 16> wide;
  const hn::CappedTag<T, 4> narrow;
  const hn::CappedTag<T, 1> single;
  int64_t i = 0;
  for (const auto n = static_cast<int64_t>(hn::Lanes(wide)); i + n <= count; i += n) function(wide, i);
  for (const auto n = static_cast<int64_t>(hn::Lanes(narrow)); i + n <= count; i += n) function(narrow, i);
  for (; i < count; ++i) function(single, i);
}

}  // namespace HWY_NAMESPACE
}  // namespace titer::cpu
HWY_AFTER_NAMESPACE();

#endif

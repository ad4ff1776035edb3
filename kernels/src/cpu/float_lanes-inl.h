// Vectors of float or double, the types that arithmetic runs in, between memory of float, double or bfloat16. Included
// once per instruction set, see highway_targets.h; bfloat16 values are passed as their bits.

#if defined(TITER_KERNELS_CPU_FLOAT_LANES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TITER_KERNELS_CPU_FLOAT_LANES_INL_H_
#undef TITER_KERNELS_CPU_FLOAT_LANES_INL_H_
#else
#define TITER_KERNELS_CPU_FLOAT_LANES_INL_H_
#endif

#include <hwy/highway.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <type_traits>

HWY_BEFORE_NAMESPACE();
namespace titer::cpu {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

/// What T is computed in.
template <typename T>
using Wide = std::conditional_t<sizeof(T) == 8, double, float>;

// The upper halves of the results are the bfloat16 bits; the lower halves are unspecified. A carry could turn a NaN
// into infinity or zero if its lower half is not zero, which it is in every NaN that comes of bfloat16 numbers alone.

/// Of what comes of bfloat16 numbers alone.
template <class D>
HWY_INLINE hn::Vec<hn::RebindToUnsigned<D>> round_narrow_to_bfloat16(D, hn::Vec<D> x) {
  const hn::RebindToUnsigned<D> du;
  const auto bits = hn::BitCast(du, x);
  if constexpr (HWY_TARGET == HWY_AVX3) {  // where masks have registers of their own
    const auto odd = hn::TestBit(bits, hn::Set(du, 0x10000));
    return hn::Add(bits, hn::IfThenElse(odd, hn::Set(du, 0x8000), hn::Set(du, 0x7FFF)));
  } else {
    const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1));
    return hn::Add(bits, hn::Add(odd, hn::Set(du, 0x7FFF)));
  }
}

/// Of any float.
template <class D>
HWY_INLINE hn::Vec<hn::RebindToUnsigned<D>> round_to_bfloat16(D d, hn::Vec<D> x) {
  const hn::RebindToUnsigned<D> du;
  return hn::IfThenElse(hn::RebindMask(du, hn::IsNaN(x)), hn::Set(du, 0x7FC00000), round_narrow_to_bfloat16(d, x));
}

/// What comes of bfloat16 numbers alone, rounded to nearest even and back.
template <class D>
HWY_INLINE hn::Vec<D> rounded_to_bfloat16(D d, hn::Vec<D> x) {
  const hn::RebindToUnsigned<D> du;
  return hn::BitCast(d, hn::And(round_narrow_to_bfloat16(d, x), hn::Set(du, 0xFFFF0000)));
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

/// N elements of rows in memory as one vector.
template <class D>
struct OneVector {
  template <typename Element>
  HWY_INLINE std::array<hn::Vec<D>, 1> load(const Element* from) const {
    return {HWY_NAMESPACE::load(d, from)};
  }
  template <class Function, class... Vectors>
  HWY_INLINE auto map(const Function& function, const Vectors&... x) const {
    return std::array<decltype(function(d, x[0]...)), 1>{function(d, x[0]...)};
  }
  template <class Results, typename Element>
  HWY_INLINE void store(const Results& results, size_t k, Element* to) const {
    HWY_NAMESPACE::store(results[0][k], d, to);
  }

  D d;
};

#if HWY_TARGET != HWY_SCALAR  // which has no vectors

/// 2N elements of rows in memory as two vectors, of the even and of the odd elements: bfloat16 come apart and together
/// in this way without a shuffle. kNarrow: what is stored comes of bfloat16 numbers alone.
template <class D, bool kNarrow>
struct EvenAndOdd {
  using Vectors = std::array<hn::Vec<D>, 2>;

  HWY_INLINE Vectors load(const float* from) const {
    const auto lower = hn::LoadU(d, from), upper = hn::LoadU(d, from + hn::Lanes(d));
    return {hn::ConcatEven(d, upper, lower), hn::ConcatOdd(d, upper, lower)};
  }
  HWY_INLINE Vectors load(const uint16_t* from) const {
    const hn::RebindToUnsigned<D> du;
    const auto bits = hn::BitCast(du, hn::LoadU(hn::Repartition<uint16_t, D>(), from));
    return {hn::BitCast(d, hn::ShiftLeft<16>(bits)), hn::BitCast(d, hn::And(bits, hn::Set(du, 0xFFFF0000)))};
  }
  template <class Function, class... X>
  HWY_INLINE auto map(const Function& function, const X&... x) const {
    return std::array{function(d, x[0]...), function(d, x[1]...)};
  }
  template <class Results>
  HWY_INLINE void store(const Results& results, size_t k, uint16_t* to) const {
    const hn::Repartition<uint16_t, D> dh;
    const auto even = hn::ShiftRight<16>(rounded(results[0][k])), odd = rounded(results[1][k]);
    hn::StoreU(hn::OddEven(hn::BitCast(dh, odd), hn::BitCast(dh, even)), dh, to);
  }
  HWY_INLINE auto rounded(hn::Vec<D> x) const {
    return kNarrow ? round_narrow_to_bfloat16(d, x) : round_to_bfloat16(d, x);
  }

  D d;
};

#endif

/// Covers [0, count) of rows of T that are computed from rows of In: calls function(block, offset), where block loads,
/// maps and stores the vectors that begin there.
template <typename T, typename... In, class Function>
HWY_INLINE void for_each_block(int64_t count, const Function& function) {
  int64_t i = 0;
#if HWY_TARGET != HWY_SCALAR
  if constexpr (sizeof(T) == 2) {
    const EvenAndOdd<hn::CappedTag<float, 16>, (... && (sizeof(In) == 2))> both{};
    for (const auto n = static_cast<int64_t>(2 * hn::Lanes(both.d)); i + n <= count; i += n) function(both, i);
  }
#endif
  for_each_vector<Wide<T>>(count - i, [&](auto d, int64_t j) HWY_ATTR { function(OneVector<decltype(d)>{d}, i + j); });
}

/// Covers [0, count): function(d, x...) returns, for vectors x of the rows `in`, an array of what belongs to the same
/// places of the rows `out`, where it is rounded to T.
template <typename T, size_t kOutputs, class Function, typename... In>
HWY_INLINE void transform(int64_t count, T* const (&out)[kOutputs], const Function& function, const In*... in) {
  for_each_block<T, In...>(count, [&](auto block, int64_t i) HWY_ATTR {
    const auto results = block.map(function, block.load(in + i)...);
    for (size_t k = 0; k < kOutputs; ++k) block.store(results, k, out[k] + i);
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace titer::cpu
HWY_AFTER_NAMESPACE();

#endif

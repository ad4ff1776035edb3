// The exponential of vectors. Included once per instruction set, see highway_targets.h.

#if defined(TITER_KERNELS_CPU_EXP_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TITER_KERNELS_CPU_EXP_INL_H_
#undef TITER_KERNELS_CPU_EXP_INL_H_
#else
#define TITER_KERNELS_CPU_EXP_INL_H_
#endif

#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace titer::cpu {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

/// e^x to the last digits, of float for x <= 88; 0 where that would be a subnormal float; NaN stays NaN.
///
/// Of float, in half the operations of Highway's, which covers all numbers: x = n ln 2 + r with |r| <= ln 2 / 2, and
/// e^x = 2^n e^r. Adding 1.5 * 2^23 to x / ln 2 rounds it to n, which then stands in the lowest bits of the sum.
template <class D>
HWY_INLINE hn::Vec<D> exp_up_to_88(D d, hn::Vec<D> x) {
  if constexpr (sizeof(hn::TFromD<D>) == sizeof(double)) {
    return hn::IfThenElse(hn::IsNaN(x), x, hn::Exp(d, x));  // Highway's maps NaN to 0, which would hide broken scores
  } else {
    const hn::RebindToSigned<D> di;
    const auto shifter = hn::Set(d, 0x1.8p23F);
    const auto shifted = hn::MulAdd(x, hn::Set(d, 1.44269504F), shifter);
    const auto n = hn::Sub(shifted, shifter);
    const auto power = hn::BitCast(d, hn::Add(hn::ShiftLeft<23>(hn::BitCast(di, shifted)), hn::Set(di, 127 << 23)));
    // ln 2 in two parts, of which n times the first is exact.
    const auto r = hn::NegMulAdd(n, hn::Set(d, -2.12194440e-4F), hn::NegMulAdd(n, hn::Set(d, 0.693359375F), x));
    // e^r = 1 + r + r² q(r) with a minimax polynomial q; relative error 4e-9.
    auto q = hn::MulAdd(r, hn::Set(d, 0x1.6a2434p-10F), hn::Set(d, 0x1.1239e2p-7F));
    q = hn::MulAdd(r, q, hn::Set(d, 0x1.5558f2p-5F));
    q = hn::MulAdd(r, q, hn::Set(d, 0x1.555492p-3F));
    q = hn::MulAdd(r, q, hn::Set(d, 0x1.fffffcp-2F));
    const auto above_one = hn::MulAdd(hn::Mul(r, r), q, r);
    return hn::IfThenZeroElse(hn::Lt(x, hn::Set(d, -87.3F)), hn::MulAdd(above_one, power, power));
  }
}

/// e^-x of float for |x| <= 87.3, in two thirds of the operations: relative error 2^-22 (1 + |x| / 3), which is nothing
/// beside a rounding to bfloat16.
///
/// x / ln 2 = n + f with |f| <= 1 / 2, and e^-x = 2^-n 2^-f.
template <class D>
HWY_INLINE hn::Vec<D> short_exp_of_minus(D d, hn::Vec<D> x) {
  const hn::RebindToSigned<D> di;
  const auto shifter = hn::Set(d, 0x1.8p23F), per_octave = hn::Set(d, 1.44269504F);
  const auto shifted = hn::NegMulAdd(x, per_octave, shifter);
  const auto f = hn::NegMulSub(x, per_octave, hn::Sub(shifted, shifter));
  auto p = hn::MulAdd(f, hn::Set(d, 0x1.5bba14p-10F), hn::Set(d, 0x1.3cea88p-7F));
  p = hn::MulAdd(f, p, hn::Set(d, 0x1.c6b752p-5F));
  p = hn::MulAdd(f, p, hn::Set(d, 0x1.ebf9bcp-3F));
  p = hn::MulAdd(f, p, hn::Set(d, 0x1.62e42ap-1F));
  p = hn::MulAdd(f, p, hn::Set(d, 1));
  return hn::BitCast(d, hn::Add(hn::BitCast(di, p), hn::ShiftLeft<23>(hn::BitCast(di, shifted))));
}

}  // namespace HWY_NAMESPACE
}  // namespace titer::cpu
HWY_AFTER_NAMESPACE();

#endif

// The exponential of vectors of scores. Included once per instruction set, see highway_targets.h.

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

// Highway's Exp maps NaN to 0, which would hide broken scores.
template <class D, class V>
HWY_INLINE V exp_keeping_nan(D d, V x) {
  namespace hn = hwy::HWY_NAMESPACE;
  return hn::IfThenElse(hn::IsNaN(x), x, hn::Exp(d, x));
}

}  // namespace HWY_NAMESPACE
}  // namespace titer::cpu
HWY_AFTER_NAMESPACE();

#endif

// Both activations are f(x) = x s(z) with the logistic function s: SiLU has z = x, and because (1 + tanh(u)) / 2 =
// s(2u), GELU has z = 2 sqrt(2 / pi) (x + 0.044715 x³). Then f'(x) = s + x s (1 - s) z'(x).
#include "cpu/gated_activation_vectors.h"

#include "cpu/highway_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/gated_activation_vectors.cpp"
#include <hwy/foreach_target.h>  // must come before highway.h
//
#include "cpu/exp-inl.h"
#include "cpu/float_lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace titer::cpu {
namespace HWY_NAMESPACE {

struct Silu {
  template <class D>
  static HWY_INLINE hn::Vec<D> argument(D /*d*/, hn::Vec<D> x) {
    return x;
  }
  template <class D>
  static HWY_INLINE hn::Vec<D> slope(D d, hn::Vec<D> /*x*/) {
    return hn::Set(d, 1);
  }
};

struct GeluTanh {
  static constexpr double kLinear = 1.5957691216057308;  // 2 sqrt(2 / pi)
  static constexpr double kCubic = 0.044715 * kLinear;

  template <class D>
  static HWY_INLINE hn::Vec<D> argument(D d, hn::Vec<D> x) {
    using T = hn::TFromD<D>;
    const auto square = hn::Mul(x, x);
    return hn::Mul(x, hn::MulAdd(square, hn::Set(d, static_cast<T>(kCubic)), hn::Set(d, static_cast<T>(kLinear))));
  }
  template <class D>
  static HWY_INLINE hn::Vec<D> slope(D d, hn::Vec<D> x) {
    using T = hn::TFromD<D>;
    const auto square = hn::Mul(x, x);
    return hn::MulAdd(square, hn::Set(d, static_cast<T>(3 * kCubic)), hn::Set(d, static_cast<T>(kLinear)));
  }
};

/// 1 / x of normal numbers, to the last digits of float, or those of bfloat16 and ten more. A division of floats takes
/// as long as all the rest of a gate; steps of Newton's method from the processor's guess, which has 8 bits on Arm and
/// 12 or more on x86, do not.
template <bool kShort, class D>
HWY_INLINE hn::Vec<D> reciprocal(D d, hn::Vec<D> x) {
  const auto one = hn::Set(d, 1);
  if constexpr (sizeof(hn::TFromD<D>) == sizeof(double)) {
    return hn::Div(one, x);
  } else {
    const auto guess = hn::ApproximateReciprocal(x);
    const auto better = hn::MulAdd(guess, hn::NegMulAdd(x, guess, one), guess);
    if constexpr (kShort && HWY_ARCH_X86) return better;
    return hn::MulAdd(better, hn::NegMulAdd(x, better, one), better);
  }
}

/// s(z) and s(-z) = 1 - s(z), each to the last digits, or to ten more than bfloat16 has where that is what results are
/// rounded to. Of NaN they are anything.
template <bool kShort, class D>
struct Logistic {
  using T = hn::TFromD<D>;

  HWY_INLINE Logistic(D d, hn::Vec<D> z) {
    const auto limit = hn::Set(d, static_cast<T>(sizeof(T) == 8 ? 700 : 87.3));  // e^limit has a normal reciprocal
    const auto bounded = hn::Min(z, limit);
    const auto inverse = [&]() HWY_ATTR {
      if constexpr (kShort) {
        return short_exp_of_minus(d, bounded);
      } else {
        return exp_up_to_88(d, hn::Neg(bounded));
      }
    }();
    const auto quotient = reciprocal<kShort>(d, hn::Add(hn::Set(d, 1), inverse));
    // Below, e^-z is not what it should be; and times a huge number, what is left at the limits would not be small.
    const auto below = hn::Lt(z, hn::Neg(limit));
    share = hn::IfThenZeroElse(below, quotient);
    rest = hn::IfThenElse(below, hn::Set(d, 1), hn::IfThenZeroElse(hn::Gt(z, limit), hn::Mul(inverse, quotient)));
  }

  hn::Vec<D> share, rest;
};

template <class Gate, typename T>
HWY_INLINE void forward(const GatedRows<T>& rows, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r) {
    const T* const gate = rows.gate + r * rows.gate_stride;
    const T* const up = rows.up + r * rows.up_stride;
    T* const out = rows.out + r * rows.out_stride;
    transform<T>(
        rows.width, {out},
        [](auto d, auto x, auto y) HWY_ATTR {
          auto activated = hn::Mul(x, Logistic<sizeof(T) == 2, decltype(d)>(d, Gate::argument(d, x)).share);
          if constexpr (sizeof(T) == 2) activated = rounded_to_bfloat16(d, activated);
          return std::array{hn::Mul(activated, y)};
        },
        gate, up);
  }
}

template <class Gate, typename T>
HWY_INLINE void backward(const GatedGradRows<T>& rows, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r) {
    const T* const grad = rows.grad + r * rows.grad_stride;
    const T* const gate = rows.gate + r * rows.gate_stride;
    const T* const up = rows.up + r * rows.up_stride;
    T* const grad_gate = rows.grad_gate + r * rows.width;
    T* const grad_up = rows.grad_up + r * rows.width;
    transform<T>(
        rows.width, {grad_gate, grad_up},
        [](auto d, auto g, auto x, auto y) HWY_ATTR {
          const Logistic<sizeof(T) == 2, decltype(d)> s(d, Gate::argument(d, x));
          const auto activated = hn::Mul(x, s.share);
          const auto derivative = hn::MulAdd(hn::Mul(activated, s.rest), Gate::slope(d, x), s.share);
          return std::array{hn::Mul(hn::Mul(g, y), derivative), hn::Mul(g, activated)};
        },
        grad, gate, up);
  }
}

template <typename T>
HWY_INLINE void forward(const GatedRows<T>& rows, SigmoidGate gate, int64_t begin, int64_t end) {
  if (gate == SigmoidGate::kSilu) {
    forward<Silu>(rows, begin, end);
  } else {
    forward<GeluTanh>(rows, begin, end);
  }
}

template <typename T>
HWY_INLINE void backward(const GatedGradRows<T>& rows, SigmoidGate gate, int64_t begin, int64_t end) {
  if (gate == SigmoidGate::kSilu) {
    backward<Silu>(rows, begin, end);
  } else {
    backward<GeluTanh>(rows, begin, end);
  }
}

void ForwardFloat(const GatedRows<float>& rows, SigmoidGate gate, int64_t begin, int64_t end) {
  forward(rows, gate, begin, end);
}
void ForwardDouble(const GatedRows<double>& rows, SigmoidGate gate, int64_t begin, int64_t end) {
  forward(rows, gate, begin, end);
}
void ForwardBFloat16(const GatedRows<uint16_t>& rows, SigmoidGate gate, int64_t begin, int64_t end) {
  forward(rows, gate, begin, end);
}
void BackwardFloat(const GatedGradRows<float>& rows, SigmoidGate gate, int64_t begin, int64_t end) {
  backward(rows, gate, begin, end);
}
void BackwardDouble(const GatedGradRows<double>& rows, SigmoidGate gate, int64_t begin, int64_t end) {
  backward(rows, gate, begin, end);
}
void BackwardBFloat16(const GatedGradRows<uint16_t>& rows, SigmoidGate gate, int64_t begin, int64_t end) {
  backward(rows, gate, begin, end);
}

}  // namespace HWY_NAMESPACE
}  // namespace titer::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace titer::cpu {

HWY_EXPORT(ForwardFloat);
HWY_EXPORT(ForwardDouble);
HWY_EXPORT(ForwardBFloat16);
HWY_EXPORT(BackwardFloat);
HWY_EXPORT(BackwardDouble);
HWY_EXPORT(BackwardBFloat16);

void gate_rows(const GatedRows<float>& rows, SigmoidGate gate, int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(ForwardFloat)(rows, gate, begin, end);
}
void gate_rows(const GatedRows<double>& rows, SigmoidGate gate, int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(ForwardDouble)(rows, gate, begin, end);
}
void gate_rows(const GatedRows<uint16_t>& rows, SigmoidGate gate, int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(ForwardBFloat16)(rows, gate, begin, end);
}
void gate_rows_backward(const GatedGradRows<float>& rows, SigmoidGate gate, int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(BackwardFloat)(rows, gate, begin, end);
}
void gate_rows_backward(const GatedGradRows<double>& rows, SigmoidGate gate, int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(BackwardDouble)(rows, gate, begin, end);
}
void gate_rows_backward(const GatedGradRows<uint16_t>& rows, SigmoidGate gate, int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(BackwardBFloat16)(rows, gate, begin, end);
}

}  // namespace titer::cpu
#endif  // HWY_ONCE

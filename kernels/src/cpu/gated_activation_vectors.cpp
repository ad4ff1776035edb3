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

/// 1 / x to the last digits, where both are normal numbers. A division of floats takes as long as all the rest of a
/// gate; two steps of Newton's method from the processor's guess, which has 8 bits at least, do not.
template <class D>
HWY_INLINE hn::Vec<D> reciprocal(D d, hn::Vec<D> x) {
  const auto one = hn::Set(d, 1);
  if constexpr (sizeof(hn::TFromD<D>) == sizeof(double)) {
    return hn::Div(one, x);
  } else {
    const auto guess = hn::ApproximateReciprocal(x);
    const auto better = hn::MulAdd(guess, hn::NegMulAdd(x, guess, one), guess);
    return hn::MulAdd(better, hn::NegMulAdd(x, better, one), better);
  }
}

/// s(z) and s(-z) = 1 - s(z), each to the last digits. Of NaN they are anything in [0, 1].
template <class D>
struct Logistic {
  using T = hn::TFromD<D>;

  HWY_INLINE Logistic(D d, hn::Vec<D> z) {
    const auto limit = hn::Set(d, static_cast<T>(sizeof(T) == 8 ? 700 : 87.3));  // e^limit has a normal reciprocal
    const auto lowest = hn::Neg(limit);
    const auto inverse = exp_up_to_88(d, hn::Neg(hn::Max(lowest, hn::Min(z, limit))));
    const auto quotient = reciprocal(d, hn::Add(hn::Set(d, 1), inverse));
    // Times a huge number, what is left at the limits would not be small.
    share = hn::IfThenZeroElse(hn::Lt(z, lowest), quotient);
    rest = hn::IfThenZeroElse(hn::Gt(z, limit), hn::Mul(inverse, quotient));
  }

  hn::Vec<D> share, rest;
};

template <class Gate, typename T>
HWY_INLINE void forward(const GatedRows<T>& rows, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r) {
    const T* const gate = rows.gate + r * rows.gate_stride;
    const T* const up = rows.up + r * rows.up_stride;
    T* const out = rows.out + r * rows.out_stride;
    for_each_vector<Wide<T>>(rows.width, [&](auto d, int64_t i) HWY_ATTR {
      const auto x = load(d, gate + i);
      auto activated = hn::Mul(x, Logistic(d, Gate::argument(d, x)).share);
      if constexpr (sizeof(T) == 2) activated = rounded_to_bfloat16(d, activated);
      store(hn::Mul(activated, load(d, up + i)), d, out + i);
    });
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
    for_each_vector<Wide<T>>(rows.width, [&](auto d, int64_t i) HWY_ATTR {
      const auto x = load(d, gate + i), g = load(d, grad + i);
      const Logistic s(d, Gate::argument(d, x));
      const auto activated = hn::Mul(x, s.share);
      const auto derivative = hn::MulAdd(hn::Mul(activated, s.rest), Gate::slope(d, x), s.share);
      store(hn::Mul(hn::Mul(g, load(d, up + i)), derivative), d, grad_gate + i);
      store(hn::Mul(g, activated), d, grad_up + i);
    });
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

// A row lies in the L1 cache when its second pass, which scales it, begins.
#include "cpu/rms_norm_vectors.h"

#include <cmath>

#include "cpu/highway_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/rms_norm_vectors.cpp"
#include <hwy/foreach_target.h>  // must come before highway.h
//
#include "cpu/float_lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace titer::cpu {
namespace HWY_NAMESPACE {

/// Sum of term(d, i) over [0, count) in four chains, so that no addition waits for the one before.
template <typename T, class Term>
HWY_INLINE T sum_of(int64_t count, const Term& term) {
  const hn::CappedTag<T, 16> d;
  const hn::CappedTag<T, 1> single;
  const auto n = static_cast<int64_t>(hn::Lanes(d));
  auto a = hn::Zero(d), b = hn::Zero(d), e = hn::Zero(d), f = hn::Zero(d);
  int64_t i = 0;
  for (; i + 4 * n <= count; i += 4 * n) {
    a = hn::Add(a, term(d, i));
    b = hn::Add(b, term(d, i + n));
    e = hn::Add(e, term(d, i + 2 * n));
    f = hn::Add(f, term(d, i + 3 * n));
  }
  for (; i + n <= count; i += n) a = hn::Add(a, term(d, i));
  T sum = hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(a, b), hn::Add(e, f))));
  for (; i < count; ++i) sum += hn::GetLane(term(single, i));
  return sum;
}

template <typename T>
HWY_INLINE Wide<T> inverse_rms(const T* x, int64_t d, double eps) {
  using W = Wide<T>;
  const W sum = sum_of<W>(d, [&](auto tag, int64_t i) HWY_ATTR {
    const auto v = load(tag, x + i);
    return hn::Mul(v, v);
  });
  return 1 / std::sqrt(sum / static_cast<W>(d) + static_cast<W>(eps));
}

template <typename T, bool kRoundsFirst>
HWY_INLINE void normalise_row(const T* x, const T* weight, const T* residual, T* out, int64_t d, double eps,
                              double weight_offset) {
  using W = Wide<T>;
  const W factor = inverse_rms(x, d, eps);
  const W offset = static_cast<W>(weight_offset);
  for_each_vector<W>(d, [&](auto tag, int64_t i) HWY_ATTR {
    auto normal = hn::Mul(load(tag, x + i), hn::Set(tag, factor));
    if constexpr (kRoundsFirst) normal = rounded_to_bfloat16(tag, normal);
    auto result = hn::Mul(normal, hn::Add(load(tag, weight + i), hn::Set(tag, offset)));
    if (residual != nullptr) {
      if constexpr (sizeof(T) == 2) result = rounded_to_bfloat16(tag, result);
      result = hn::Add(load(tag, residual + i), result);
    }
    store(result, tag, out + i);
  });
}

template <typename T>
HWY_INLINE void normalise(const RmsNormRows<T>& rows, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r) {
    const T* const x = rows.x + r * rows.x_stride;
    const T* const residual = rows.residual == nullptr ? nullptr : rows.residual + r * rows.residual_stride;
    T* const out = rows.out + r * rows.out_stride;
    if constexpr (sizeof(T) == 2) {
      if (rows.rounds_first) {
        normalise_row<T, true>(x, rows.weight, residual, out, rows.d, rows.eps, rows.weight_offset);
        continue;
      }
    }
    normalise_row<T, false>(x, rows.weight, residual, out, rows.d, rows.eps, rows.weight_offset);
  }
}

template <typename T>
HWY_INLINE void backward(const RmsNormGradRows<T>& all, int64_t begin, int64_t end) {
  using W = Wide<T>;
  const RmsNormRows<T>& rows = all.rows;
  const W offset = static_cast<W>(rows.weight_offset);
  for (int64_t r = begin; r < end; ++r) {
    const T* const x = rows.x + r * rows.x_stride;
    const T* const grad = all.grad + r * all.grad_stride;
    T* const out = rows.out + r * rows.out_stride;
    const auto scaled_grad = [&](auto tag, int64_t i) HWY_ATTR {
      return hn::Mul(load(tag, grad + i), hn::Add(load(tag, rows.weight + i), hn::Set(tag, offset)));
    };
    const W factor = inverse_rms(x, rows.d, rows.eps);
    const W dot =
        sum_of<W>(rows.d, [&](auto tag, int64_t i) HWY_ATTR { return hn::Mul(scaled_grad(tag, i), load(tag, x + i)); });
    const W along = factor * factor * (dot / static_cast<W>(rows.d));
    for_each_vector<W>(rows.d, [&](auto tag, int64_t i) HWY_ATTR {
      const auto across = hn::NegMulAdd(load(tag, x + i), hn::Set(tag, along), scaled_grad(tag, i));
      store(hn::Mul(across, hn::Set(tag, factor)), tag, out + i);
    });
  }
}

void NormaliseFloat(const RmsNormRows<float>& rows, int64_t begin, int64_t end) { normalise(rows, begin, end); }
void NormaliseDouble(const RmsNormRows<double>& rows, int64_t begin, int64_t end) { normalise(rows, begin, end); }
void NormaliseBFloat16(const RmsNormRows<uint16_t>& rows, int64_t begin, int64_t end) { normalise(rows, begin, end); }
void BackwardFloat(const RmsNormGradRows<float>& rows, int64_t begin, int64_t end) { backward(rows, begin, end); }
void BackwardDouble(const RmsNormGradRows<double>& rows, int64_t begin, int64_t end) { backward(rows, begin, end); }
void BackwardBFloat16(const RmsNormGradRows<uint16_t>& rows, int64_t begin, int64_t end) { backward(rows, begin, end); }

}  // namespace HWY_NAMESPACE
}  // namespace titer::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace titer::cpu {

HWY_EXPORT(NormaliseFloat);
HWY_EXPORT(NormaliseDouble);
HWY_EXPORT(NormaliseBFloat16);
HWY_EXPORT(BackwardFloat);
HWY_EXPORT(BackwardDouble);
HWY_EXPORT(BackwardBFloat16);

void normalise_rows(const RmsNormRows<float>& rows, int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(NormaliseFloat)(rows, begin, end);
}
void normalise_rows(const RmsNormRows<double>& rows, int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(NormaliseDouble)(rows, begin, end);
}
void normalise_rows(const RmsNormRows<uint16_t>& rows, int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(NormaliseBFloat16)(rows, begin, end);
}
void normalise_rows_backward(const RmsNormGradRows<float>& rows, int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(BackwardFloat)(rows, begin, end);
}
void normalise_rows_backward(const RmsNormGradRows<double>& rows, int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(BackwardDouble)(rows, begin, end);
}
void normalise_rows_backward(const RmsNormGradRows<uint16_t>& rows, int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(BackwardBFloat16)(rows, begin, end);
}

}  // namespace titer::cpu
#endif  // HWY_ONCE

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

/// Sum of term(d, x...) over the vectors x of the first `count` elements of each `in`, in four chains, so that no
/// addition waits for the one before.
template <typename T, class Term, typename... In>
HWY_INLINE Wide<T> sum_of(int64_t count, const Term& term, const In*... in) {
  const hn::CappedTag<Wide<T>, 16> d;
  const hn::CappedTag<Wide<T>, 1> single;
  const auto n = static_cast<int64_t>(hn::Lanes(d));
  auto a = hn::Zero(d), b = hn::Zero(d), e = hn::Zero(d), f = hn::Zero(d);
  int64_t i = 0;
#if HWY_TARGET != HWY_SCALAR
  if constexpr (sizeof(T) == 2) {
    const EvenAndOdd<decltype(d), true> both{};
    for (; i + 4 * n <= count; i += 4 * n) {
      const auto first = both.map(term, both.load(in + i)...), second = both.map(term, both.load(in + i + 2 * n)...);
      a = hn::Add(a, first[0]);
      b = hn::Add(b, first[1]);
      e = hn::Add(e, second[0]);
      f = hn::Add(f, second[1]);
    }
  }
#endif
  for (; i + 4 * n <= count; i += 4 * n) {
    a = hn::Add(a, term(d, load(d, in + i)...));
    b = hn::Add(b, term(d, load(d, in + i + n)...));
    e = hn::Add(e, term(d, load(d, in + i + 2 * n)...));
    f = hn::Add(f, term(d, load(d, in + i + 3 * n)...));
  }
  for (; i + n <= count; i += n) a = hn::Add(a, term(d, load(d, in + i)...));
  Wide<T> sum = hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(a, b), hn::Add(e, f))));
  for (; i < count; ++i) sum += hn::GetLane(term(single, load(single, in + i)...));
  return sum;
}

template <typename T>
HWY_INLINE Wide<T> inverse_rms(const T* x, int64_t d, double eps) {
  using W = Wide<T>;
  const W sum = sum_of<T>(
      d, [](auto /*tag*/, auto v) HWY_ATTR { return hn::Mul(v, v); }, x);
  return 1 / std::sqrt(sum / static_cast<W>(d) + static_cast<W>(eps));
}

template <typename T, bool kRoundsFirst>
HWY_INLINE void normalise_row(const T* x, const T* weight, const T* residual, T* out, int64_t d, double eps,
                              double weight_offset) {
  using W = Wide<T>;
  const W factor = inverse_rms(x, d, eps);
  const W offset = static_cast<W>(weight_offset);
  const auto scaled = [&](auto tag, auto v, auto w) HWY_ATTR {
    auto normal = hn::Mul(v, hn::Set(tag, factor));
    if constexpr (kRoundsFirst) normal = rounded_to_bfloat16(tag, normal);
    return hn::Mul(normal, hn::Add(w, hn::Set(tag, offset)));
  };
  if (residual == nullptr) {
    transform<T>(
        d, {out}, [&](auto tag, auto v, auto w) HWY_ATTR { return std::array{scaled(tag, v, w)}; }, x, weight);
  } else {
    transform<T>(
        d, {out},
        [&](auto tag, auto v, auto w, auto before) HWY_ATTR {
          auto result = scaled(tag, v, w);
          if constexpr (sizeof(T) == 2) result = rounded_to_bfloat16(tag, result);
          return std::array{hn::Add(before, result)};
        },
        x, weight, residual);
  }
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
    const auto scaled = [&](auto tag, auto g, auto w) HWY_ATTR { return hn::Mul(g, hn::Add(w, hn::Set(tag, offset))); };
    const W factor = inverse_rms(x, rows.d, rows.eps);
    const W dot = sum_of<T>(
        rows.d, [&](auto tag, auto g, auto w, auto v) HWY_ATTR { return hn::Mul(scaled(tag, g, w), v); }, grad,
        rows.weight, x);
    const W along = factor * factor * (dot / static_cast<W>(rows.d));
    transform<T>(
        rows.d, {out},
        [&](auto tag, auto g, auto w, auto v) HWY_ATTR {
          const auto across = hn::NegMulAdd(v, hn::Set(tag, along), scaled(tag, g, w));
          return std::array{hn::Mul(across, hn::Set(tag, factor))};
        },
        grad, rows.weight, x);
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

#include "cpu/attention_tile.h"

#include <cmath>
#include <limits>

#include "cpu/highway_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/attention_tile.cpp"
#include <hwy/foreach_target.h>  // must come before highway.h
//
#include "cpu/exp-inl.h"
#include "cpu/float_lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace titer::cpu {
namespace HWY_NAMESPACE {

template <typename T, typename P>
HWY_INLINE void softmax_row(T* scores, int64_t columns, Span span, ScoreScale<T> scale, T& max, T& sum, T& rescale,
                            P* probabilities) {
  const hn::CappedTag<T, kTileColumns> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  constexpr T kLowest = -std::numeric_limits<T>::infinity();
  const auto lowest = hn::Set(d, kLowest), factor = hn::Set(d, scale.scale), cap = hn::Set(d, scale.cap);
  const auto begin = hn::Set(d, static_cast<T>(span.begin)), end = hn::Set(d, static_cast<T>(span.end));

  auto largest = hn::Set(d, max);
  for (int64_t c = 0; c < columns; c += lanes) {
    const auto column = hn::Iota(d, static_cast<T>(c));
    auto x = hn::Mul(hn::LoadU(d, scores + c), factor);
    if (scale.cap != 0) x = hn::IfThenElse(hn::IsNaN(x), x, hn::Mul(cap, hn::Tanh(d, hn::Div(x, cap))));
    x = hn::IfThenElse(hn::And(hn::Ge(column, begin), hn::Lt(column, end)), x, lowest);
    largest = hn::IfThenElse(hn::Gt(x, largest), x, largest);
    hn::StoreU(x, d, scores + c);
  }
  const T old_max = max;
  max = hn::GetLane(hn::MaxOfLanes(d, largest));
  const T shift = max == kLowest ? 0 : max;  // -inf - (-inf) would be NaN
  auto total = hn::Zero(d);
  for (int64_t c = 0; c < columns; c += lanes) {
    const auto x = hn::LoadU(d, scores + c);
    const auto p = exp_up_to_88(d, hn::Sub(x, hn::Set(d, shift)));
    total = hn::Add(total, p);
    store(p, d, probabilities + c);
  }
  rescale = old_max == kLowest ? 0 : std::exp(old_max - shift);
  sum = sum * rescale + hn::GetLane(hn::SumOfLanes(d, total));
}

template <typename T, typename P>
HWY_INLINE void softmax_rows(T* scores, int64_t rows, int64_t columns, const Span* spans, ScoreScale<T> scale,
                             RunningSoftmax<T> state, P* probabilities) {
  for (int64_t r = 0; r < rows; ++r)
    softmax_row(scores + r * columns, columns, spans[r], scale, state.max[r], state.sum[r], state.rescale[r],
                probabilities + r * columns);
}

template <typename T>
HWY_INLINE void scale(T* x, int64_t rows, int64_t width, const T* factors) {
  for (int64_t r = 0; r < rows; ++r, x += width) {
    for_each_vector<T>(width, [&](auto d, int64_t i) HWY_ATTR {
      hn::StoreU(hn::Mul(hn::LoadU(d, x + i), hn::Set(d, factors[r])), d, x + i);
    });
  }
}

template <typename T, typename Out>
HWY_INLINE void divide(const T* x, int64_t width, T divisor, Out* out) {
  for_each_vector<T>(
      width, [&](auto d, int64_t i) HWY_ATTR { store(hn::Div(hn::LoadU(d, x + i), hn::Set(d, divisor)), d, out + i); });
}

void SoftmaxFloat(float* scores, int64_t rows, int64_t columns, const Span* spans, ScoreScale<float> scale,
                  RunningSoftmax<float> state, float* probabilities) {
  softmax_rows(scores, rows, columns, spans, scale, state, probabilities);
}
void SoftmaxDouble(double* scores, int64_t rows, int64_t columns, const Span* spans, ScoreScale<double> scale,
                   RunningSoftmax<double> state, double* probabilities) {
  softmax_rows(scores, rows, columns, spans, scale, state, probabilities);
}
void SoftmaxBFloat16(float* scores, int64_t rows, int64_t columns, const Span* spans, ScoreScale<float> scale,
                     RunningSoftmax<float> state, uint16_t* probabilities) {
  softmax_rows(scores, rows, columns, spans, scale, state, probabilities);
}
void ScaleFloat(float* x, int64_t rows, int64_t width, const float* factors) { scale(x, rows, width, factors); }
void ScaleDouble(double* x, int64_t rows, int64_t width, const double* factors) { scale(x, rows, width, factors); }
void DivideFloat(const float* x, int64_t width, float divisor, float* out) { divide(x, width, divisor, out); }
void DivideDouble(const double* x, int64_t width, double divisor, double* out) { divide(x, width, divisor, out); }
void DivideBFloat16(const float* x, int64_t width, float divisor, uint16_t* out) { divide(x, width, divisor, out); }

}  // namespace HWY_NAMESPACE
}  // namespace titer::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace titer::cpu {

HWY_EXPORT(SoftmaxFloat);
HWY_EXPORT(SoftmaxDouble);
HWY_EXPORT(SoftmaxBFloat16);
HWY_EXPORT(ScaleFloat);
HWY_EXPORT(ScaleDouble);
HWY_EXPORT(DivideFloat);
HWY_EXPORT(DivideDouble);
HWY_EXPORT(DivideBFloat16);

void softmax_tile(float* scores, int64_t rows, int64_t columns, const Span* spans, ScoreScale<float> scale,
                  RunningSoftmax<float> state, float* probabilities) {
  HWY_DYNAMIC_DISPATCH(SoftmaxFloat)(scores, rows, columns, spans, scale, state, probabilities);
}
void softmax_tile(double* scores, int64_t rows, int64_t columns, const Span* spans, ScoreScale<double> scale,
                  RunningSoftmax<double> state, double* probabilities) {
  HWY_DYNAMIC_DISPATCH(SoftmaxDouble)(scores, rows, columns, spans, scale, state, probabilities);
}
void softmax_tile(float* scores, int64_t rows, int64_t columns, const Span* spans, ScoreScale<float> scale,
                  RunningSoftmax<float> state, uint16_t* probabilities) {
  HWY_DYNAMIC_DISPATCH(SoftmaxBFloat16)(scores, rows, columns, spans, scale, state, probabilities);
}
void scale_rows(float* x, int64_t rows, int64_t width, const float* factors) {
  HWY_DYNAMIC_DISPATCH(ScaleFloat)(x, rows, width, factors);
}
void scale_rows(double* x, int64_t rows, int64_t width, const double* factors) {
  HWY_DYNAMIC_DISPATCH(ScaleDouble)(x, rows, width, factors);
}
void divide_row(const float* x, int64_t width, float divisor, float* out) {
  HWY_DYNAMIC_DISPATCH(DivideFloat)(x, width, divisor, out);
}
void divide_row(const double* x, int64_t width, double divisor, double* out) {
  HWY_DYNAMIC_DISPATCH(DivideDouble)(x, width, divisor, out);
}
void divide_row(const float* x, int64_t width, float divisor, uint16_t* out) {
  HWY_DYNAMIC_DISPATCH(DivideBFloat16)(x, width, divisor, out);
}

}  // namespace titer::cpu
#endif  // HWY_ONCE

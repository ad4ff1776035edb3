// Online softmax, softmax gradient and layout changes of a logits tile. Highway compiles the part below once per
// instruction set, see token_tile.h for the layout.
#include "cpu/linear_cross_entropy_tile.h"

#include <limits>

#include "cpu/highway_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/linear_cross_entropy_tile.cpp"
#include <hwy/foreach_target.h>  // must come before highway.h
//
#include "cpu/exp-inl.h"
#include "cpu/float_lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace titer::cpu {
namespace HWY_NAMESPACE {

template <typename T>
using Lanes = hn::CappedTag<T, kTileColumnAlign>;

template <typename T>
struct Maximum {
  hn::Vec<Lanes<T>> value;
  hn::Vec<Lanes<TokenIndex<T>>> token;
};

// First maximum over tokens [begin, end), starting from `maximum`. NaN never wins a comparison.
template <typename T>
HWY_INLINE Maximum<T> first_maximum(const T* logits, int64_t begin, int64_t end, int64_t ld, int64_t first_token,
                                    Maximum<T> maximum) {
  const Lanes<T> d;
  const Lanes<TokenIndex<T>> di;
  for (int64_t j = begin; j < end; ++j) {
    const auto x = hn::LoadU(d, logits + j * ld);
    const auto above = hn::Gt(x, maximum.value);
    maximum.value = hn::IfThenElse(above, x, maximum.value);
    maximum.token = hn::IfThenElse(hn::RebindMask(di, above), hn::Set(di, static_cast<TokenIndex<T>>(first_token + j)),
                                   maximum.token);
  }
  return maximum;
}

template <typename T, bool kKeep>
HWY_INLINE void update_columns(T* logits, int64_t num_tokens, int64_t ld, int64_t first_token, OnlineSoftmax<T> state,
                               T* rescale) {
  const Lanes<T> d;
  const Lanes<TokenIndex<T>> di;
  const auto lowest = hn::Set(d, -std::numeric_limits<T>::infinity());
  const auto old_max = hn::LoadU(d, state.max);

  // Two independent halves hide the latency of compare-and-select; the later half wins only if it is strictly larger.
  const int64_t half = num_tokens / 2;
  const Maximum<T> front = first_maximum<T>(logits, 0, half, ld, first_token, {old_max, hn::LoadU(di, state.argmax)});
  const Maximum<T> back = first_maximum<T>(logits, half, num_tokens, ld, first_token, {lowest, hn::Zero(di)});
  const auto back_wins = hn::Gt(back.value, front.value);
  const auto max = hn::IfThenElse(back_wins, back.value, front.value);

  // -inf - (-inf) would be NaN: while everything so far is -inf, shift by 0 instead.
  const auto shift = hn::IfThenZeroElse(hn::Eq(max, lowest), max);
  const auto factor = exp_up_to_88(d, hn::Sub(old_max, shift));
  auto sum = hn::Zero(d);
  for (int64_t j = 0; j < num_tokens; ++j) {
    const auto x = exp_up_to_88(d, hn::Sub(hn::LoadU(d, logits + j * ld), shift));
    if constexpr (kKeep) hn::StoreU(x, d, logits + j * ld);
    sum = hn::Add(sum, x);
  }
  if constexpr (kKeep) hn::StoreU(factor, d, rescale);
  hn::StoreU(max, d, state.max);
  hn::StoreU(hn::MulAdd(hn::LoadU(d, state.sum), factor, sum), d, state.sum);
  hn::StoreU(hn::IfThenElse(hn::RebindMask(di, back_wins), back.token, front.token), di, state.argmax);
}

template <typename T>
HWY_INLINE void update(T* logits, int64_t num_tokens, int64_t columns, int64_t ld, int64_t first_token,
                       OnlineSoftmax<T> state, T* rescale) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(Lanes<T>()));
  for (int64_t c = 0; c < columns; c += lanes) {
    const OnlineSoftmax<T> at{state.max + c, state.sum + c, state.argmax + c};
    if (rescale != nullptr) {
      update_columns<T, true>(logits + c, num_tokens, ld, first_token, at, rescale + c);
    } else {
      update_columns<T, false>(logits + c, num_tokens, ld, first_token, at, nullptr);
    }
  }
}

template <typename T>
HWY_INLINE void softmax(T* logits, int64_t num_tokens, int64_t columns, int64_t ld, const T* lse, const T* scale) {
  const Lanes<T> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t c = 0; c < columns; c += lanes) {
    const auto shift = hn::LoadU(d, lse + c);
    const auto factor = hn::LoadU(d, scale + c);
    for (int64_t j = 0; j < num_tokens; ++j) {
      T* const x = logits + j * ld + c;
      hn::StoreU(hn::Mul(factor, exp_up_to_88(d, hn::Sub(hn::LoadU(d, x), shift))), d, x);
    }
  }
}

template <typename T>
HWY_INLINE void transpose(const T* tile, int64_t num_tokens, int64_t columns, int64_t ld, T* out, int64_t out_ld) {
  const Lanes<T> d;
  const Lanes<TokenIndex<T>> di;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto offsets = hn::Mul(hn::Iota(di, 0), hn::Set(di, static_cast<TokenIndex<T>>(out_ld)));
  for (int64_t c = 0; c < columns; c += lanes) {
    for (int64_t j = 0; j < num_tokens; ++j) {
      hn::ScatterIndex(hn::LoadU(d, tile + j * ld + c), d, out + c * out_ld + j, offsets);
    }
  }
}

HWY_INLINE void transpose_to_bfloat16(const float* tile, int64_t num_tokens, int64_t columns, int64_t ld, uint16_t* out,
                                      int64_t out_ld) {
  const Lanes<float> d;
  const Lanes<uint32_t> du;
  const Lanes<int32_t> di;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto offsets = hn::Mul(hn::Iota(di, 0), hn::Set(di, static_cast<int32_t>(out_ld / 2)));  // in pairs
  uint32_t* const pairs = reinterpret_cast<uint32_t*>(out);
  for (int64_t c = 0; c < columns; c += lanes) {
    for (int64_t j = 0; j < num_tokens; j += 2) {
      const auto low = hn::ShiftRight<16>(round_to_bfloat16(d, hn::LoadU(d, tile + j * ld + c)));
      auto high = hn::Zero(du);
      if (j + 1 < num_tokens) {
        high = hn::And(round_to_bfloat16(d, hn::LoadU(d, tile + (j + 1) * ld + c)), hn::Set(du, 0xFFFF0000));
      }
      hn::ScatterIndex(hn::Or(high, low), du, pairs + (c * out_ld + j) / 2, offsets);
    }
  }
}

HWY_INLINE void round_tile_to_bfloat16(const float* tile, int64_t num_tokens, int64_t columns, int64_t ld,
                                       uint16_t* out, int64_t out_ld) {
  const Lanes<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t j = 0; j < num_tokens; ++j) {
    for (int64_t c = 0; c < columns; c += lanes) store(hn::LoadU(d, tile + j * ld + c), d, out + j * out_ld + c);
  }
}

void UpdateFloat(float* logits, int64_t num_tokens, int64_t columns, int64_t ld, int64_t first_token,
                 OnlineSoftmax<float> state, float* rescale) {
  update(logits, num_tokens, columns, ld, first_token, state, rescale);
}
void UpdateDouble(double* logits, int64_t num_tokens, int64_t columns, int64_t ld, int64_t first_token,
                  OnlineSoftmax<double> state, double* rescale) {
  update(logits, num_tokens, columns, ld, first_token, state, rescale);
}
void SoftmaxFloat(float* logits, int64_t num_tokens, int64_t columns, int64_t ld, const float* lse,
                  const float* scale) {
  softmax(logits, num_tokens, columns, ld, lse, scale);
}
void SoftmaxDouble(double* logits, int64_t num_tokens, int64_t columns, int64_t ld, const double* lse,
                   const double* scale) {
  softmax(logits, num_tokens, columns, ld, lse, scale);
}
void TransposeFloat(const float* tile, int64_t num_tokens, int64_t columns, int64_t ld, float* out, int64_t out_ld) {
  transpose(tile, num_tokens, columns, ld, out, out_ld);
}
void TransposeDouble(const double* tile, int64_t num_tokens, int64_t columns, int64_t ld, double* out, int64_t out_ld) {
  transpose(tile, num_tokens, columns, ld, out, out_ld);
}
void TransposeToBFloat16(const float* tile, int64_t num_tokens, int64_t columns, int64_t ld, uint16_t* out,
                         int64_t out_ld) {
  transpose_to_bfloat16(tile, num_tokens, columns, ld, out, out_ld);
}
void RoundToBFloat16(const float* tile, int64_t num_tokens, int64_t columns, int64_t ld, uint16_t* out,
                     int64_t out_ld) {
  round_tile_to_bfloat16(tile, num_tokens, columns, ld, out, out_ld);
}

}  // namespace HWY_NAMESPACE
}  // namespace titer::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace titer::cpu {

HWY_EXPORT(UpdateFloat);
HWY_EXPORT(UpdateDouble);
HWY_EXPORT(SoftmaxFloat);
HWY_EXPORT(SoftmaxDouble);
HWY_EXPORT(TransposeFloat);
HWY_EXPORT(TransposeDouble);
HWY_EXPORT(TransposeToBFloat16);
HWY_EXPORT(RoundToBFloat16);

void update_online_softmax(float* logits, int64_t num_tokens, int64_t columns, int64_t ld, int64_t first_token,
                           OnlineSoftmax<float> state, float* rescale) {
  HWY_DYNAMIC_DISPATCH(UpdateFloat)(logits, num_tokens, columns, ld, first_token, state, rescale);
}
void update_online_softmax(double* logits, int64_t num_tokens, int64_t columns, int64_t ld, int64_t first_token,
                           OnlineSoftmax<double> state, double* rescale) {
  HWY_DYNAMIC_DISPATCH(UpdateDouble)(logits, num_tokens, columns, ld, first_token, state, rescale);
}
void scaled_softmax(float* logits, int64_t num_tokens, int64_t columns, int64_t ld, const float* lse,
                    const float* scale) {
  HWY_DYNAMIC_DISPATCH(SoftmaxFloat)(logits, num_tokens, columns, ld, lse, scale);
}
void scaled_softmax(double* logits, int64_t num_tokens, int64_t columns, int64_t ld, const double* lse,
                    const double* scale) {
  HWY_DYNAMIC_DISPATCH(SoftmaxDouble)(logits, num_tokens, columns, ld, lse, scale);
}
void transpose_tile(const float* tile, int64_t num_tokens, int64_t columns, int64_t ld, float* out, int64_t out_ld) {
  HWY_DYNAMIC_DISPATCH(TransposeFloat)(tile, num_tokens, columns, ld, out, out_ld);
}
void transpose_tile(const double* tile, int64_t num_tokens, int64_t columns, int64_t ld, double* out, int64_t out_ld) {
  HWY_DYNAMIC_DISPATCH(TransposeDouble)(tile, num_tokens, columns, ld, out, out_ld);
}
void transpose_tile(const float* tile, int64_t num_tokens, int64_t columns, int64_t ld, uint16_t* out, int64_t out_ld) {
  HWY_DYNAMIC_DISPATCH(TransposeToBFloat16)(tile, num_tokens, columns, ld, out, out_ld);
}
void round_tile(const float* tile, int64_t num_tokens, int64_t columns, int64_t ld, uint16_t* out, int64_t out_ld) {
  HWY_DYNAMIC_DISPATCH(RoundToBFloat16)(tile, num_tokens, columns, ld, out, out_ld);
}

}  // namespace titer::cpu
#endif  // HWY_ONCE

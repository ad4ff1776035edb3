#include "cpu/attention_rows.h"

#include <algorithm>
#include <type_traits>

#include "cpu/highway_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/attention_rows.cpp"
#include <hwy/foreach_target.h>  // must come before highway.h
//
#include "cpu/float_lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace titer::cpu {
namespace HWY_NAMESPACE {

/// Calls function(n, q) for queries [q, q + n), with n a constant of at most 4: their sums stay in registers while keys
/// or values stream by.
template <class Function>
HWY_INLINE void for_few_queries(int64_t count, const Function& function) {
  int64_t q = 0;
  for (; q + 4 <= count; q += 4) function(std::integral_constant<int64_t, 4>(), q);
  if (count - q == 3) function(std::integral_constant<int64_t, 3>(), q);
  if (count - q == 2) function(std::integral_constant<int64_t, 2>(), q);
  if (count - q == 1) function(std::integral_constant<int64_t, 1>(), q);
}

template <typename T>
HWY_INLINE void prefetch(const SequenceRows<T>& rows, int64_t k, int64_t width) {
  constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(T));
  if (k >= rows.count()) return;
  const T* const row = rows[k];
  for (int64_t i = 0; i < width; i += kLine) __builtin_prefetch(row + i);
}

template <int64_t kQueries, typename T>
HWY_INLINE void products(const Wide<T>* queries, const SequenceRows<T>& keys, int64_t width, Wide<T>* scores,
                         int64_t ld, const SequenceRows<T>& next) {
  const hn::CappedTag<Wide<T>, 16> d;
  const hn::CappedTag<Wide<T>, 1> single;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t k = 0; k < keys.count(); ++k) {
    prefetch(next, k, width);
    const T* const key = keys[k];
    hn::Vec<decltype(d)> sums[kQueries];
    for (int64_t q = 0; q < kQueries; ++q) sums[q] = hn::Zero(d);
    int64_t i = 0;
    for (; i + lanes <= width; i += lanes) {
      const auto x = load(d, key + i);
      for (int64_t q = 0; q < kQueries; ++q) sums[q] = hn::MulAdd(hn::LoadU(d, queries + q * width + i), x, sums[q]);
    }
    for (int64_t q = 0; q < kQueries; ++q) scores[q * ld + k] = hn::GetLane(hn::SumOfLanes(d, sums[q]));
    for (; i < width; ++i) {
      const Wide<T> x = hn::GetLane(load(single, key + i));
      for (int64_t q = 0; q < kQueries; ++q) scores[q * ld + k] += queries[q * width + i] * x;
    }
  }
}

template <typename T>
HWY_INLINE void all_products(const Wide<T>* queries, int64_t count, const SequenceRows<T>& keys, int64_t width,
                             Wide<T>* scores, int64_t ld, const SequenceRows<T>& next) {
  for_few_queries(count, [&](auto n, int64_t q) HWY_ATTR {
    products<decltype(n)::value>(queries + q * width, keys, width, scores + q * ld, ld, next);
  });
}

template <int64_t kQueries, typename T>
HWY_INLINE void sum_values(const Wide<T>* weights, int64_t ld, const SequenceRows<T>& values, int64_t width,
                           Wide<T>* sums, const SequenceRows<T>& next) {
  constexpr int64_t kBlock = 16;  // values that stay in the nearest cache while they are walked vector by vector
  for (int64_t begin = 0; begin < values.count(); begin += kBlock) {
    const int64_t end = std::min(begin + kBlock, values.count());
    for (int64_t k = begin; k < end; ++k) prefetch(next, k, width);
    for_each_vector<Wide<T>>(width, [&](auto d, int64_t i) HWY_ATTR {
      hn::Vec<decltype(d)> sum[kQueries];
      for (int64_t q = 0; q < kQueries; ++q) sum[q] = begin == 0 ? hn::Zero(d) : hn::LoadU(d, sums + q * width + i);
      for (int64_t k = begin; k < end; ++k) {
        const auto x = load(d, values[k] + i);
        for (int64_t q = 0; q < kQueries; ++q) sum[q] = hn::MulAdd(hn::Set(d, weights[q * ld + k]), x, sum[q]);
      }
      for (int64_t q = 0; q < kQueries; ++q) hn::StoreU(sum[q], d, sums + q * width + i);
    });
  }
}

template <typename T>
HWY_INLINE void all_values(const Wide<T>* weights, int64_t ld, int64_t count, const SequenceRows<T>& values,
                           int64_t width, Wide<T>* sums, const SequenceRows<T>& next) {
  for_few_queries(count, [&](auto n, int64_t q) HWY_ATTR {
    sum_values<decltype(n)::value>(weights + q * ld, ld, values, width, sums + q * width, next);
  });
}

void ProductsFloat(const float* queries, int64_t count, const SequenceRows<float>& keys, int64_t width, float* scores,
                   int64_t ld, const SequenceRows<float>& next) {
  all_products(queries, count, keys, width, scores, ld, next);
}
void ProductsDouble(const double* queries, int64_t count, const SequenceRows<double>& keys, int64_t width,
                    double* scores, int64_t ld, const SequenceRows<double>& next) {
  all_products(queries, count, keys, width, scores, ld, next);
}
void ProductsBFloat16(const float* queries, int64_t count, const SequenceRows<uint16_t>& keys, int64_t width,
                      float* scores, int64_t ld, const SequenceRows<uint16_t>& next) {
  all_products(queries, count, keys, width, scores, ld, next);
}
void ValuesFloat(const float* weights, int64_t ld, int64_t count, const SequenceRows<float>& values, int64_t width,
                 float* sums, const SequenceRows<float>& next) {
  all_values(weights, ld, count, values, width, sums, next);
}
void ValuesDouble(const double* weights, int64_t ld, int64_t count, const SequenceRows<double>& values, int64_t width,
                  double* sums, const SequenceRows<double>& next) {
  all_values(weights, ld, count, values, width, sums, next);
}
void ValuesBFloat16(const float* weights, int64_t ld, int64_t count, const SequenceRows<uint16_t>& values,
                    int64_t width, float* sums, const SequenceRows<uint16_t>& next) {
  all_values(weights, ld, count, values, width, sums, next);
}

}  // namespace HWY_NAMESPACE
}  // namespace titer::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace titer::cpu {

HWY_EXPORT(ProductsFloat);
HWY_EXPORT(ProductsDouble);
HWY_EXPORT(ProductsBFloat16);
HWY_EXPORT(ValuesFloat);
HWY_EXPORT(ValuesDouble);
HWY_EXPORT(ValuesBFloat16);

void query_key_products(const float* queries, int64_t count, SequenceRows<float> keys, int64_t width, float* scores,
                        int64_t ld, SequenceRows<float> next) {
  HWY_DYNAMIC_DISPATCH(ProductsFloat)(queries, count, keys, width, scores, ld, next);
}
void query_key_products(const double* queries, int64_t count, SequenceRows<double> keys, int64_t width, double* scores,
                        int64_t ld, SequenceRows<double> next) {
  HWY_DYNAMIC_DISPATCH(ProductsDouble)(queries, count, keys, width, scores, ld, next);
}
void query_key_products(const float* queries, int64_t count, SequenceRows<uint16_t> keys, int64_t width, float* scores,
                        int64_t ld, SequenceRows<uint16_t> next) {
  HWY_DYNAMIC_DISPATCH(ProductsBFloat16)(queries, count, keys, width, scores, ld, next);
}
void weighted_values(const float* weights, int64_t ld, int64_t count, SequenceRows<float> values, int64_t width,
                     float* sums, SequenceRows<float> next) {
  HWY_DYNAMIC_DISPATCH(ValuesFloat)(weights, ld, count, values, width, sums, next);
}
void weighted_values(const double* weights, int64_t ld, int64_t count, SequenceRows<double> values, int64_t width,
                     double* sums, SequenceRows<double> next) {
  HWY_DYNAMIC_DISPATCH(ValuesDouble)(weights, ld, count, values, width, sums, next);
}
void weighted_values(const float* weights, int64_t ld, int64_t count, SequenceRows<uint16_t> values, int64_t width,
                     float* sums, SequenceRows<uint16_t> next) {
  HWY_DYNAMIC_DISPATCH(ValuesBFloat16)(weights, ld, count, values, width, sums, next);
}

}  // namespace titer::cpu
#endif  // HWY_ONCE

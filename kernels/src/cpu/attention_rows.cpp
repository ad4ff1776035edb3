#include "cpu/attention_rows.h"

#include "cpu/highway_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/attention_rows.cpp"
#include <hwy/foreach_target.h>  // must come before highway.h
//
#include "cpu/float_lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace titer::cpu {
namespace HWY_NAMESPACE {

template <typename T>
HWY_INLINE Wide<T> dot(const T* a, const T* b, int64_t width) {
  const hn::CappedTag<Wide<T>, 16> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  auto even = hn::Zero(d), odd = hn::Zero(d);  // two chains, so that additions overlap
  int64_t i = 0;
  for (; i + 2 * lanes <= width; i += 2 * lanes) {
    even = hn::MulAdd(load(d, a + i), load(d, b + i), even);
    odd = hn::MulAdd(load(d, a + i + lanes), load(d, b + i + lanes), odd);
  }
  for (; i + lanes <= width; i += lanes) even = hn::MulAdd(load(d, a + i), load(d, b + i), even);
  Wide<T> sum = hn::GetLane(hn::SumOfLanes(d, hn::Add(even, odd)));
  const hn::CappedTag<Wide<T>, 1> single;
  for (; i < width; ++i) sum += hn::GetLane(hn::Mul(load(single, a + i), load(single, b + i)));
  return sum;
}

template <typename T>
HWY_INLINE void products(StridedRows<T> queries, StridedRows<T> keys, int64_t width, Wide<T>* scores, int64_t ld) {
  for (int64_t k = 0; k < keys.count; ++k)
    for (int64_t q = 0; q < queries.count; ++q)
      scores[q * ld + k] = dot(queries.data + q * queries.stride, keys.data + k * keys.stride, width);
}

template <typename T>
HWY_INLINE void add_values(const Wide<T>* weights, int64_t ld, int64_t queries, StridedRows<T> values, int64_t width,
                           Wide<T>* sums) {
  for (int64_t k = 0; k < values.count; ++k) {
    for_each_vector<Wide<T>>(width, [&](auto d, int64_t i) HWY_ATTR {
      const auto value = load(d, values.data + k * values.stride + i);
      for (int64_t q = 0; q < queries; ++q) {
        Wide<T>* const sum = sums + q * width + i;
        hn::StoreU(hn::MulAdd(hn::Set(d, weights[q * ld + k]), value, hn::LoadU(d, sum)), d, sum);
      }
    });
  }
}

void ProductsFloat(StridedRows<float> queries, StridedRows<float> keys, int64_t width, float* scores, int64_t ld) {
  products(queries, keys, width, scores, ld);
}
void ProductsDouble(StridedRows<double> queries, StridedRows<double> keys, int64_t width, double* scores, int64_t ld) {
  products(queries, keys, width, scores, ld);
}
void ProductsBFloat16(StridedRows<uint16_t> queries, StridedRows<uint16_t> keys, int64_t width, float* scores,
                      int64_t ld) {
  products(queries, keys, width, scores, ld);
}
void AddValuesFloat(const float* weights, int64_t ld, int64_t queries, StridedRows<float> values, int64_t width,
                    float* sums) {
  add_values(weights, ld, queries, values, width, sums);
}
void AddValuesDouble(const double* weights, int64_t ld, int64_t queries, StridedRows<double> values, int64_t width,
                     double* sums) {
  add_values(weights, ld, queries, values, width, sums);
}
void AddValuesBFloat16(const float* weights, int64_t ld, int64_t queries, StridedRows<uint16_t> values, int64_t width,
                       float* sums) {
  add_values(weights, ld, queries, values, width, sums);
}

}  // namespace HWY_NAMESPACE
}  // namespace titer::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace titer::cpu {

HWY_EXPORT(ProductsFloat);
HWY_EXPORT(ProductsDouble);
HWY_EXPORT(ProductsBFloat16);
HWY_EXPORT(AddValuesFloat);
HWY_EXPORT(AddValuesDouble);
HWY_EXPORT(AddValuesBFloat16);

void query_key_products(StridedRows<float> queries, StridedRows<float> keys, int64_t width, float* scores, int64_t ld) {
  HWY_DYNAMIC_DISPATCH(ProductsFloat)(queries, keys, width, scores, ld);
}
void query_key_products(StridedRows<double> queries, StridedRows<double> keys, int64_t width, double* scores,
                        int64_t ld) {
  HWY_DYNAMIC_DISPATCH(ProductsDouble)(queries, keys, width, scores, ld);
}
void query_key_products(StridedRows<uint16_t> queries, StridedRows<uint16_t> keys, int64_t width, float* scores,
                        int64_t ld) {
  HWY_DYNAMIC_DISPATCH(ProductsBFloat16)(queries, keys, width, scores, ld);
}
void add_weighted_values(const float* weights, int64_t ld, int64_t queries, StridedRows<float> values, int64_t width,
                         float* sums) {
  HWY_DYNAMIC_DISPATCH(AddValuesFloat)(weights, ld, queries, values, width, sums);
}
void add_weighted_values(const double* weights, int64_t ld, int64_t queries, StridedRows<double> values, int64_t width,
                         double* sums) {
  HWY_DYNAMIC_DISPATCH(AddValuesDouble)(weights, ld, queries, values, width, sums);
}
void add_weighted_values(const float* weights, int64_t ld, int64_t queries, StridedRows<uint16_t> values, int64_t width,
                         float* sums) {
  HWY_DYNAMIC_DISPATCH(AddValuesBFloat16)(weights, ld, queries, values, width, sums);
}

}  // namespace titer::cpu
#endif  // HWY_ONCE

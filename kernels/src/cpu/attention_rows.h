// Attention of a few queries over keys and values as they lie in memory: bound by reading them once, where packing them
// for block products would take most of the time. Vectorised with Highway for the instruction set found at run time.
// Torch-free; bfloat16 values are passed as their bits.
#pragma once

#include <cstdint>

namespace titer::cpu {

/// Rows [count, width] at some distance.
template <typename T>
struct StridedRows {
  const T* data;
  int64_t stride;
  int64_t count;
};

/// scores[q, k] = query q · key k, at distances of `ld`.
void query_key_products(StridedRows<float> queries, StridedRows<float> keys, int64_t width, float* scores, int64_t ld);
void query_key_products(StridedRows<double> queries, StridedRows<double> keys, int64_t width, double* scores,
                        int64_t ld);
void query_key_products(StridedRows<uint16_t> queries, StridedRows<uint16_t> keys, int64_t width, float* scores,
                        int64_t ld);

/// sums[q, :] += weights[q, k] * value k, sums [queries, width].
void add_weighted_values(const float* weights, int64_t ld, int64_t queries, StridedRows<float> values, int64_t width,
                         float* sums);
void add_weighted_values(const double* weights, int64_t ld, int64_t queries, StridedRows<double> values, int64_t width,
                         double* sums);
void add_weighted_values(const float* weights, int64_t ld, int64_t queries, StridedRows<uint16_t> values, int64_t width,
                         float* sums);

}  // namespace titer::cpu

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

/// Keys or values in the order of their positions.
template <typename T>
struct SequenceRows {
  StridedRows<T> prefix, own;

  int64_t count() const { return prefix.count + own.count; }
  const T* operator[](int64_t k) const {
    return k < prefix.count ? prefix.data + k * prefix.stride : own.data + (k - prefix.count) * own.stride;
  }
};

/// scores[q, k] = query q · key k, of queries [count, width]. Rows of scores are at distances of `ld`. As each key is
/// read, the row at its place in `next` is prefetched: the rows of one head lie too far apart for the processor to do
/// it.
void query_key_products(const float* queries, int64_t count, SequenceRows<float> keys, int64_t width, float* scores,
                        int64_t ld, SequenceRows<float> next);
void query_key_products(const double* queries, int64_t count, SequenceRows<double> keys, int64_t width, double* scores,
                        int64_t ld, SequenceRows<double> next);
void query_key_products(const float* queries, int64_t count, SequenceRows<uint16_t> keys, int64_t width, float* scores,
                        int64_t ld, SequenceRows<uint16_t> next);

/// sums[q, :] = sum over k of weights[q, k] * value k, sums [count, width], of at least one value. Prefetches like the
/// other product.
void weighted_values(const float* weights, int64_t ld, int64_t count, SequenceRows<float> values, int64_t width,
                     float* sums, SequenceRows<float> next);
void weighted_values(const double* weights, int64_t ld, int64_t count, SequenceRows<double> values, int64_t width,
                     double* sums, SequenceRows<double> next);
void weighted_values(const float* weights, int64_t ld, int64_t count, SequenceRows<uint16_t> values, int64_t width,
                     float* sums, SequenceRows<uint16_t> next);

}  // namespace titer::cpu

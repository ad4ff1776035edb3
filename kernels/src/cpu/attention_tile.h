// The parts of attention around its two products: softmax of a tile of scores, results. Vectorised with Highway for the
// instruction set found at run time. Torch-free; bfloat16 values are passed as their bits.
//
// A tile has a query per row and a key per column; columns are padded to a multiple of kTileColumns.
#pragma once

#include <cstdint>

#include "cpu/packed_columns.h"

namespace titer::cpu {

inline constexpr int64_t kTileColumns = kPackedColumns;

/// Columns that a query sees.
struct Span {
  int64_t begin, end;
};

/// The running softmax of each query: largest score, sum of exponentials relative to it.
template <typename T>
struct RunningSoftmax {
  T* max;
  T* sum;
  T* rescale;  ///< what earlier, unnormalised results are multiplied by
};

template <typename T>
struct ScoreScale {
  T scale;
  T cap;  ///< scores become cap * tanh(score / cap); none: 0
};

/// Replaces scores [rows, columns] by exp(score - max) where a query sees the key and by 0 elsewhere, and updates the
/// running softmax. The last parameter, if it differs from the scores, gets them instead, rounded to bfloat16.
void softmax_tile(float* scores, int64_t rows, int64_t columns, const Span* spans, ScoreScale<float> scale,
                  RunningSoftmax<float> state, float* probabilities);
void softmax_tile(double* scores, int64_t rows, int64_t columns, const Span* spans, ScoreScale<double> scale,
                  RunningSoftmax<double> state, double* probabilities);
void softmax_tile(float* scores, int64_t rows, int64_t columns, const Span* spans, ScoreScale<float> scale,
                  RunningSoftmax<float> state, uint16_t* probabilities);

/// Row r of [rows, width] times factors[r].
void scale_rows(float* x, int64_t rows, int64_t width, const float* factors);
void scale_rows(double* x, int64_t rows, int64_t width, const double* factors);

/// x / divisor, rounded to the type of the result.
void divide_row(const float* x, int64_t width, float divisor, float* out);
void divide_row(const double* x, int64_t width, double divisor, double* out);
void divide_row(const float* x, int64_t width, float divisor, uint16_t* out);

}  // namespace titer::cpu

// The arithmetic of rms_norm, vectorised with Highway for the instruction set found at run time. Torch-free; bfloat16
// values are passed as their bits.
#pragma once

#include "rms_norm_rows.h"

namespace titer::cpu {

/// Rows [begin, end). out may be x or residual.
void normalise_rows(const RmsNormRows<float>& rows, int64_t begin, int64_t end);
void normalise_rows(const RmsNormRows<double>& rows, int64_t begin, int64_t end);
void normalise_rows(const RmsNormRows<uint16_t>& rows, int64_t begin, int64_t end);

/// The gradient of x for rows [begin, end).
void normalise_rows_backward(const RmsNormGradRows<float>& rows, int64_t begin, int64_t end);
void normalise_rows_backward(const RmsNormGradRows<double>& rows, int64_t begin, int64_t end);
void normalise_rows_backward(const RmsNormGradRows<uint16_t>& rows, int64_t begin, int64_t end);

}  // namespace titer::cpu

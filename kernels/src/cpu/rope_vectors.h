// The arithmetic of rope, vectorised with Highway for the instruction set found at run time. Torch-free; bfloat16
// values are passed as their bits.
#pragma once

#include "rope_rows.h"

namespace titer::cpu {

/// Rows [begin, end). out may be x.
void rotate_rows(const RopeRows<float, float>& heads, int64_t begin, int64_t end);
void rotate_rows(const RopeRows<double, double>& heads, int64_t begin, int64_t end);
void rotate_rows(const RopeRows<uint16_t, uint16_t>& heads, int64_t begin, int64_t end);
void rotate_rows(const RopeRows<uint16_t, float>& heads, int64_t begin, int64_t end);

}  // namespace titer::cpu

// The arithmetic of gated_activation, vectorised with Highway for the instruction set found at run time. Torch-free;
// bfloat16 values are passed as their bits.
#pragma once

#include "gated_activation_rows.h"

namespace titer::cpu {

/// SiLU, and GELU in its tanh form: both are x sigmoid(z(x)).
enum class SigmoidGate { kSilu, kGeluTanh };

/// Rows [begin, end). out may be gate or up.
void gate_rows(const GatedRows<float>& rows, SigmoidGate gate, int64_t begin, int64_t end);
void gate_rows(const GatedRows<double>& rows, SigmoidGate gate, int64_t begin, int64_t end);
void gate_rows(const GatedRows<uint16_t>& rows, SigmoidGate gate, int64_t begin, int64_t end);

/// The gradients for rows [begin, end).
void gate_rows_backward(const GatedGradRows<float>& rows, SigmoidGate gate, int64_t begin, int64_t end);
void gate_rows_backward(const GatedGradRows<double>& rows, SigmoidGate gate, int64_t begin, int64_t end);
void gate_rows_backward(const GatedGradRows<uint16_t>& rows, SigmoidGate gate, int64_t begin, int64_t end);

}  // namespace titer::cpu

// Products of bfloat16 matrices, row by row, on tiles of the processor's matrix unit (AMX), for linear layers. The left
// matrix is read where it lies; the right one is packed first. Torch-free; bfloat16 values are passed as their bits.
//
// oneDNN's products are general; these keep what they read again in the L2 cache, ask for what they read next, and
// round each result once, with what is added to it. See benchmarks/results/README.md for what that is worth.
#pragma once

#include <cstdint>

namespace titer::cpu {

/// Rows and inner dimensions are cut into these; a left matrix has at least one such block of rows.
inline constexpr int64_t kAmxBlock = 32;

/// Has the processor the matrix unit, and does the system let this process use it?
bool has_amx();

/// Every thread that multiplies holds one: it sets the unit up, and gives it back to the thread's other work.
class AmxScope {
 public:
  AmxScope();
  ~AmxScope();
  AmxScope(const AmxScope&) = delete;
  AmxScope& operator=(const AmxScope&) = delete;
};

/// Rows at some distance, of a length that is a multiple of kAmxBlock.
struct BFloat16Rows {
  const uint16_t* data;
  int64_t stride;
  int64_t count;
  int64_t inner;

  BFloat16Rows from(int64_t row) const { return {data + row * stride, stride, count - row, inner}; }
};

/// Size of packed rows: as many blocks as hold them.
constexpr int64_t amx_packed_size(int64_t count, int64_t inner) {
  return (count + kAmxBlock - 1) / kAmxBlock * kAmxBlock * inner;
}

/// Packs the first `count` rows; a block that is not full is filled with rows of zeros.
void amx_pack(BFloat16Rows rows, int64_t count, uint16_t* packed);

/// Where results go. `bias` and `residual` are null where there is none.
struct LinearOutput {
  const uint16_t* bias;
  const uint16_t* residual;
  int64_t residual_stride;
  uint16_t* out;
  int64_t out_stride;

  LinearOutput at(int64_t row, int64_t column) const {
    return {bias == nullptr ? nullptr : bias + column,
            residual == nullptr ? nullptr : residual + row * residual_stride + column, residual_stride,
            out + row * out_stride + column, out_stride};
  }
};

enum class AmxLeft {
  kInputs,   ///< out[l, r] = left row l · right row r + bias[r] + residual[l, r]
  kWeights,  ///< out[r, l] = left row l · right row r + bias[l] + residual[r, l]
};

/// Results of rows [begin, end) of the left matrix, begin a multiple of kAmxBlock, with all `right_count` packed rows.
/// out may be residual.
void amx_multiply(AmxLeft role, BFloat16Rows left, int64_t begin, int64_t end, const uint16_t* right,
                  int64_t right_count, const LinearOutput& to);

}  // namespace titer::cpu

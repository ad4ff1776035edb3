// Tokens that the CPU passes of linear_cross_entropy are given, which they check because they can read them.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

namespace titer::cpu {

inline void check_tokens(const at::Tensor& tokens, const char* name, int64_t vocab_size) {
  const int64_t* const data = tokens.const_data_ptr<int64_t>();
  for (int64_t r = 0; r < tokens.size(0); ++r) {
    TORCH_CHECK_INDEX(data[r] >= 0 && data[r] < vocab_size, "[linear_cross_entropy] ", name, " must be in [0, ",
                      vocab_size, "), got ", data[r], " in row ", r);
  }
}

}  // namespace titer::cpu

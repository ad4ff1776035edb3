// One continuation of shared_prefix_attention. Torch-free, shared by the backends.
#pragma once

#include <cstdint>

namespace titer {

struct Continuation {
  int64_t rows, queries, visible;
  int64_t first_row, first_query;  // in k and v, in q and out
};

}  // namespace titer

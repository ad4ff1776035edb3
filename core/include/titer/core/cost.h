// What an attack has spent, in units that can be compared between machines and methods.
#pragma once

#include <cstdint>

#include <titer/export.h>

namespace titer {

struct Cost {
  int64_t queries = 0;  ///< candidates scored or texts generated
  int64_t tokens = 0;   ///< nominal tokens of those: whole sequences, whatever was reused
  double flops = 0;     ///< executed, 2 per multiply-add, attention and backward included
  double seconds = 0;   ///< wall time inside the session
  int64_t peak_bytes =
      0;  ///< largest memory beyond what the process (CPU) or device (CUDA) held when the session opened
};

/// Memory of this process in bytes, from the kernel's accounting: now, and its highest value so far.
struct ResidentMemory {
  int64_t now = 0;
  int64_t peak = 0;
};
TITER_EXPORT ResidentMemory resident_memory();

}  // namespace titer

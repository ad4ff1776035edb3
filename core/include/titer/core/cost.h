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
  /// Largest memory beyond what was held when the session opened: of the process for models on the CPU, of torch's
  /// allocator for those on a device. Where more had been held before, the peak of that hides later ones, and this is
  /// the largest amount seen at the end of a call: what the session keeps, without what a call takes in between.
  int64_t peak_bytes = 0;
};

/// Memory in bytes: held now, and the most that was ever held.
struct Memory {
  int64_t now = 0;
  int64_t peak = 0;
};

/// Of this process, as the kernel counts it (VmRSS, VmHWM).
TITER_EXPORT Memory resident_memory();

}  // namespace titer

// Adds wall time and memory of a scope to a session's cost, also when the scope ends by an exception.
#pragma once

#include <titer/core/cost.h>

#include <algorithm>
#include <chrono>

namespace titer {

/// Memory of the process beyond what it was when the session opened.
class MemoryBaseline {
 public:
  /// Where the process has never held more, the kernel's high-water mark is exact; below an older peak, what is held at
  /// the end of each call is the best that can be known.
  int64_t growth() const {
    const ResidentMemory memory = resident_memory();
    const int64_t reached = memory.peak > at_open_.peak ? memory.peak : memory.now;
    return std::max<int64_t>(reached - at_open_.now, 0);
  }

 private:
  ResidentMemory at_open_ = resident_memory();
};

class CostMeter {
 public:
  CostMeter(Cost& cost, const MemoryBaseline& memory) : cost_(cost), memory_(memory) {}
  CostMeter(const CostMeter&) = delete;
  CostMeter& operator=(const CostMeter&) = delete;
  ~CostMeter() {
    cost_.seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
    cost_.peak_bytes = std::max(cost_.peak_bytes, memory_.growth());
  }

 private:
  Cost& cost_;
  const MemoryBaseline& memory_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace titer

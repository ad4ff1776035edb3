// Adds wall time and memory of a scope to a session's cost, also when the scope ends by an exception.
#pragma once

#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/Device.h>
#include <titer/core/cost.h>

#include <algorithm>
#include <chrono>

namespace titer {

/// Memory beyond what was held when the session opened.
class MemoryBaseline {
 public:
  explicit MemoryBaseline(at::Device device) : device_(device), at_open_(held()) {}

  /// Where more has never been held, the high-water mark is exact; below an older peak, what is held at the end of each
  /// call is the best that can be known.
  int64_t growth() const {
    const Memory memory = held();
    const int64_t reached = memory.peak > at_open_.peak ? memory.peak : memory.now;
    return std::max<int64_t>(reached - at_open_.now, 0);
  }

 private:
  Memory held() const {
    if (device_.is_cpu()) return resident_memory();
    const auto stats =
        at::getDeviceAllocator(device_.type())->getDeviceStats(std::max<c10::DeviceIndex>(device_.index(), 0));
    const auto& bytes = stats.allocated_bytes[static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE)];
    return {.now = bytes.current, .peak = bytes.peak};
  }

  at::Device device_;
  Memory at_open_;
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

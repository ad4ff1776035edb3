// Element-wise operations are bound by memory: they are measured in GB/s beside a copy of the same tensors in the same
// run, on a working set that no cache holds. benchmarks/python/kernels.py runs them.
#pragma once

#include <benchmark/benchmark.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <string>

namespace titer::test {

/// Four times the last level of cache, for all tensors of a benchmark together.
inline int64_t bytes_beyond_cache() {
  const int64_t last_level = std::max(sysconf(_SC_LEVEL3_CACHE_SIZE), sysconf(_SC_LEVEL2_CACHE_SIZE));
  return 4 * std::max(last_level, int64_t{32} << 20);
}

/// Times `function`, which reads and writes `bytes` in all.
template <typename Function>
void measure_bandwidth(benchmark::State& state, int64_t bytes, const Function& function) {
  function();  // page faults
  for (auto _ : state) {
    function();
    benchmark::ClobberMemory();
  }
  state.counters["GB/s"] =
      benchmark::Counter(static_cast<double>(bytes) * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
}

template <typename Function>
void register_bandwidth(const std::string& name, const Function& function) {
  benchmark::RegisterBenchmark(name.c_str(), function)->Unit(benchmark::kMillisecond)->UseRealTime();
}

}  // namespace titer::test

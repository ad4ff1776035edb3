// The state of a group of runs in one file, from which they go on as if never interrupted.
#pragma once

#include <titer/core/finetune.h>

#include <chrono>
#include <filesystem>
#include <string>
#include <vector>

#include "training/optimizer.h"
#include "training/run_parameters.h"

namespace titer {

/// What determines a fine-tuning: the model, and options and data of all runs.
std::string identity_of(const CausalLM& model, const std::vector<FinetuneSpec>& specs);

class FinetuneCheckpoint {
 public:
  /// @param path      empty: nothing is written or read
  /// @param identity  of the whole fine-tuning, which must be the same to go on
  FinetuneCheckpoint(std::filesystem::path path, std::string identity);

  /// Where the file exists, takes the state from it.
  /// @throws std::invalid_argument, std::system_error; ValueError if it is that of other runs
  void read(const RunParameters& parameters, const Optimizer& optimizer, std::vector<FinetuneResult>& results) const;

  /// @param now  otherwise only if the last time is long enough ago
  void write(bool now, const RunParameters& parameters, const Optimizer& optimizer,
             const std::vector<FinetuneResult>& results);

 private:
  using Clock = std::chrono::steady_clock;

  std::filesystem::path path_;
  std::string identity_;
  Clock::time_point written_ = Clock::now();
  Clock::duration taken_{};  // by the last write
};

}  // namespace titer

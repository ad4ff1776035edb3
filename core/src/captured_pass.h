// The same work on a device over and over: run as it is written at first, then captured once and replayed as a whole,
// so that the host no longer starts every kernel. Torch-free; cuda_graph.h is what captures.
#pragma once

#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <utility>

namespace titer {

/// Captures and replays work on one device.
class WorkRecorder {
 public:
  virtual ~WorkRecorder() = default;
  /// Runs the work where `capture` will later record it, so that what it sets up at first is set up by then.
  virtual void warm_up(const std::function<void()>& work) = 0;
  /// Records the work without running it, in place of what was recorded before. Where it throws, nothing is recorded
  /// and the device is as it was.
  virtual void capture(const std::function<void()>& work) = 0;
  /// Runs what is recorded.
  virtual void replay() = 0;
};

/// Work with one result. It must be the same at every run but for the contents of memory that it reads, write what it
/// gives into memory of its own, and never make the host wait for the device.
///
/// @tparam Result  tensors; once captured they are the same ones at every run, overwritten by the next
/// @tparam Key     what the work depends on beside that memory, such as shapes; another key captures anew
template <typename Result, typename Key>
class CapturedPass {
 public:
  /// Without a recorder every run is eager.
  explicit CapturedPass(std::unique_ptr<WorkRecorder> recorder) : recorder_(std::move(recorder)) {}

  Result run(const Key& key, const std::function<Result()>& work) {
    if (recorder_ == nullptr) return work();
    if (key_ != key) {
      key_ = key;
      warm_ups_ = 0;
      result_.reset();
    }
    std::optional<Result> fresh;
    const auto keep = [&] { fresh.emplace(work()); };
    if (!result_ && warm_ups_ < kWarmUps) {
      recorder_->warm_up(keep);
      ++warm_ups_;
      return *std::move(fresh);
    }
    if (!result_) {
      try {
        recorder_->capture(keep);
      } catch (const std::exception&) {  // an error of the work itself shows when it runs once more
        recorder_.reset();
        return work();
      }
      result_ = std::move(fresh);
    }
    recorder_->replay();
    return *result_;
  }

 private:
  static constexpr int kWarmUps = 3;

  std::unique_ptr<WorkRecorder> recorder_;
  std::optional<Key> key_;
  int warm_ups_ = 0;
  std::optional<Result> result_;  // of what is recorded
};

}  // namespace titer

#include "captured_pass.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <stdexcept>
#include <string>
#include <vector>

namespace titer::test {
namespace {

using testing::ElementsAre;

/// Writes down what it is asked for; a replay runs what was recorded last.
class FakeRecorder final : public WorkRecorder {
 public:
  explicit FakeRecorder(std::vector<std::string>& calls, bool fails = false) : calls_(calls), fails_(fails) {}

  void warm_up(const std::function<void()>& work) override {
    calls_.push_back("warm_up");
    work();
  }
  void capture(const std::function<void()>& work) override {
    calls_.push_back("capture");
    work();
    if (fails_) throw std::runtime_error("not permitted while capturing");
  }
  void replay() override { calls_.push_back("replay"); }

 private:
  std::vector<std::string>& calls_;
  bool fails_;
};

using Pass = CapturedPass<int, std::string>;

TEST(CapturedPass, warms_up_three_times_then_captures_once_and_replays) {
  std::vector<std::string> calls;
  Pass pass(std::make_unique<FakeRecorder>(calls));
  int runs = 0;
  std::vector<int> results;
  for (int i = 0; i < 6; ++i) results.push_back(pass.run("a", [&] { return ++runs; }));
  EXPECT_THAT(calls, ElementsAre("warm_up", "warm_up", "warm_up", "capture", "replay", "replay", "replay"));
  EXPECT_EQ(runs, 4);
  EXPECT_THAT(results, ElementsAre(1, 2, 3, 4, 4, 4));  // those of the capture, which replays overwrite in place
}

TEST(CapturedPass, another_key_captures_anew) {
  std::vector<std::string> calls;
  Pass pass(std::make_unique<FakeRecorder>(calls));
  for (const char* key : {"a", "a", "a", "a", "b", "b", "b", "b", "b", "a"}) pass.run(key, [] { return 0; });
  EXPECT_THAT(calls, ElementsAre("warm_up", "warm_up", "warm_up", "capture", "replay", "warm_up", "warm_up", "warm_up",
                                 "capture", "replay", "replay", "warm_up"));
}

TEST(CapturedPass, a_failed_capture_leaves_every_later_run_eager) {
  std::vector<std::string> calls;
  Pass pass(std::make_unique<FakeRecorder>(calls, /*fails=*/true));
  int runs = 0;
  std::vector<int> results;
  for (int i = 0; i < 6; ++i) results.push_back(pass.run("a", [&] { return ++runs; }));
  EXPECT_THAT(calls, ElementsAre("warm_up", "warm_up", "warm_up", "capture"));
  EXPECT_THAT(results, ElementsAre(1, 2, 3, 5, 6, 7));  // the fourth is what ran after the capture
}

TEST(CapturedPass, errors_of_the_work_reach_the_caller) {
  std::vector<std::string> calls;
  Pass pass(std::make_unique<FakeRecorder>(calls));
  const auto broken = []() -> int { throw std::invalid_argument("not finite"); };
  EXPECT_THROW(pass.run("a", broken), std::invalid_argument);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(pass.run("a", [] { return 1; }), 1);
  EXPECT_THROW(pass.run("a", broken), std::invalid_argument);  // in the capture, and again in the eager run behind it
  EXPECT_EQ(pass.run("a", [] { return 2; }), 2);
  EXPECT_THAT(calls, ElementsAre("warm_up", "warm_up", "warm_up", "warm_up", "capture"));
}

TEST(CapturedPass, without_a_recorder_every_run_is_eager) {
  Pass pass(nullptr);
  int runs = 0;
  for (int i = 1; i < 6; ++i) EXPECT_EQ(pass.run("a", [&] { return ++runs; }), i);
}

}  // namespace
}  // namespace titer::test

// Writes into the test report where the operations were tested: a GPU that was not found must not look like one that
// passed.
#include <gtest/gtest.h>

#include <string>

#include "backends.h"

namespace titer::test {
namespace {

TEST(Devices, are_named_in_the_report) {
  std::string names;
  for (const at::Device device : devices()) names += device.str() + " ";
  RecordProperty("devices", names);
  EXPECT_EQ(names.substr(0, 4), "cpu ");
}

}  // namespace
}  // namespace titer::test

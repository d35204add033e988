#include "storage/crash_point.h"

#include <csignal>
#include <cstdlib>
#include <set>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tensorforge::storage {
namespace {

TEST(CrashPoint, EachHasANameOfItsOwn) {
  std::set<std::string_view> names;
  for (const CrashPoint point : crash_points()) {
    EXPECT_NE(point, CrashPoint::kNone);
    names.insert(to_string(point));
  }
  EXPECT_EQ(names.size(), crash_points().size());
  EXPECT_GE(names.size(), 20U);
}

TEST(CrashPoint, RefusesWhatNamesNone) {
  for (const char* text : {"", "locked", "locked:", "locked:0", "locked:-1", "locked:1x", "elsewhere:1", "none:1"}) {
    SCOPED_TRACE(text);
    EXPECT_TRUE(absl::IsInvalidArgument(arm_crash_point(text)));
    EXPECT_EQ(armed_crash_point, CrashPoint::kNone);
  }
}

void pass(CrashPoint point, int times) {
  for (int i = 0; i < times; ++i) crash_point(point);
}

TEST(CrashPointDeathTest, EndsTheProcessAtThePassThatWasArmedAndAtNoOther) {
  const auto end_at_the_third = [] {
    if (!arm_crash_point("group-sealed:3").ok()) std::_Exit(1);
    pass(CrashPoint::kGroupSynced, 5);
    pass(CrashPoint::kGroupSealed, 3);
    std::_Exit(2);
  };
  EXPECT_EXIT(end_at_the_third(), testing::KilledBySignal(SIGKILL), "");
  const auto pass_twice = [] {
    if (!arm_crash_point("group-sealed:3").ok()) std::_Exit(1);
    pass(CrashPoint::kGroupSealed, 2);
    std::_Exit(0);
  };
  EXPECT_EXIT(pass_twice(), testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace tensorforge::storage

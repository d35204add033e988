#include "crashtest/shrink.h"

#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "crashtest/report.h"

namespace tensorforge::crashtest {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

TEST(Shrink, LeavesWhatAFailureNeeds) {
  int tries = 0;
  const auto needs = [&tries](const Portion& portion) {
    ++tries;
    return has_fault(portion, 2) && has_fault(portion, 37) && *portion.clients >= 2 && *portion.operations >= 5;
  };
  const Portion smallest = shrink({3, 16, all_faults(64)}, needs);
  EXPECT_EQ(smallest.clients, 2U);
  EXPECT_EQ(smallest.operations, 5U);
  EXPECT_THAT(*smallest.faults, ElementsAre(2U, 37U));
  EXPECT_LT(tries, 100);
}

TEST(Shrink, MayLeaveNoFaultAndOneOfEach) {
  const Portion smallest = shrink({3, 16, all_faults(5)}, [](const Portion&) { return true; });
  EXPECT_EQ(smallest.clients, 1U);
  EXPECT_EQ(smallest.operations, 1U);
  EXPECT_THAT(*smallest.faults, IsEmpty());
}

TEST(Shrink, LeavesAloneWhatCannotBeLeftOut) {
  const Portion whole{3, std::nullopt, all_faults(2)};
  EXPECT_EQ(shrink(whole, [&](const Portion& portion) { return portion == whole; }), whole);
}

TEST(Faults, AreReadAsTheyAreWritten) {
  for (const std::vector<std::uint64_t>& faults : {std::vector<std::uint64_t>{}, {0}, {0, 3, 12}}) {
    EXPECT_THAT(parse_faults(format_faults(faults)).value(), testing::ElementsAreArray(faults));
  }
  for (const char* text : {"", ",", "1,", "1,,2", "-1", "x", "1 2", "none,1", "99999999999999999999"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(parse_faults(text).status())) << text;
  }
}

}  // namespace
}  // namespace tensorforge::crashtest

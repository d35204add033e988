#include "protocol/group_commits.h"

#include <gtest/gtest.h>

namespace tensorforge::protocol {
namespace {

TEST(GroupCommits, AreNoneAtFirst) { EXPECT_EQ(GroupCommits().percentile(50), 0u); }

TEST(GroupCommits, TellHowLongMostTook) {
  GroupCommits commits;
  for (std::uint32_t us = 100; us > 0; --us) commits.add(us);
  EXPECT_EQ(commits.percentile(50), 50u);
  EXPECT_EQ(commits.percentile(99), 99u);
  EXPECT_EQ(commits.percentile(100), 100u);
}

TEST(GroupCommits, ForgetWhatIsLongPast) {
  GroupCommits commits;
  commits.add(1'000'000);
  for (std::uint32_t i = 0; i < 4'096; ++i) commits.add(7);
  EXPECT_EQ(commits.percentile(100), 7u);
}

}  // namespace
}  // namespace tensorforge::protocol

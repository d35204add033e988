// What was acknowledged is there, once, after any end of the process.
#include <random>

#include <gtest/gtest.h>

#include "tests/recovery/recovery_test.h"

namespace tensorforge {
namespace {

using test::Load;
using test::pool_creation;
using test::status_of;

class CrashTest : public test::RecoveryTest {};

TEST_F(CrashTest, ARestartKeepsEverything) {
  result::Status before;
  {
    const auto daemon = start();
    const auto client = connect();
    ASSERT_TRUE(client->call(pool_creation()).status.ok());
    Load load(*client, "m", 16);
    load.wait_for_answers(500);
    load.stop();
    before = status_of(*client);
    EXPECT_EQ(daemon->stop(), 0) << daemon->errors();
  }
  const auto daemon = start();
  EXPECT_EQ(daemon->ready()->events, before.sequence);
  const auto client = connect();
  const result::Status after = status_of(*client);
  EXPECT_EQ(after.sequence, before.sequence);
  EXPECT_EQ(after.state_digest, before.state_digest);
  EXPECT_EQ(after.root, before.root);
  EXPECT_EQ(after.incarnation, before.incarnation);
  EXPECT_EQ(after.log_id, before.log_id);
}

TEST_F(CrashTest, KillsUnderLoadLoseNothingAndDoNothingTwice) {
  constexpr int kRounds = 5;
  const std::uint32_t seed = std::random_device()();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  auto daemon = start();
  const auto first = connect(), second = connect();
  ASSERT_TRUE(first->call(pool_creation()).status.ok());
  Load light(*first, "light", 1), heavy(*second, "heavy", 64);
  for (int round = 0; round < kRounds; ++round) {
    heavy.wait_for_answers(static_cast<int>(50 + random() % 400));
    daemon->kill();
    daemon = start();
    ASSERT_TRUE(daemon->ready());
  }
  light.stop();
  heavy.stop();
  expect_all_there(*first, {&light, &heavy});
  const result::Status before = status_of(*first);
  EXPECT_EQ(daemon->stop(), 0) << daemon->errors();
  daemon = start();
  EXPECT_EQ(status_of(*first).state_digest, before.state_digest);
}

TEST_F(CrashTest, AStopUnderLoadIsCleanAndLosesNothing) {
  auto daemon = start();
  const auto client = connect();
  ASSERT_TRUE(client->call(pool_creation()).status.ok());
  Load load(*client, "m", 64);
  for (int round = 0; round < 2; ++round) {
    load.wait_for_answers(200);
    EXPECT_EQ(daemon->stop(), 0) << daemon->errors();
    daemon = start();
    ASSERT_TRUE(daemon->ready());
  }
  load.stop();
  expect_all_there(*client, {&load});
}

}  // namespace
}  // namespace tensorforge

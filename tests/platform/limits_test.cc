#include <cstdint>
#include <deque>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "platform/allocator.h"
#include "platform/queue.h"
#include "platform/resilience.h"

namespace tensorforge {
namespace {

constexpr std::uint64_t kMax = std::numeric_limits<std::uint64_t>::max();

TEST(CheckCapacity, ComparesWithoutOverflow) {
  const struct {
    std::uint64_t current, requested, limit;
    bool want;
  } cases[] = {
      {0, 0, 0, true},       {0, 1, 0, false},        {3, 4, 7, true},           {3, 5, 7, false},
      {8, 0, 7, false},      {kMax, 1, kMax, false},  {1, kMax, kMax, false},    {kMax, 0, kMax, true},
      {0, kMax, kMax, true}, {kMax, kMax, 10, false}, {kMax - 1, 1, kMax, true},
  };
  for (const auto& [current, requested, limit, want] : cases) {
    SCOPED_TRACE(testing::Message() << current << " + " << requested << " in " << limit);
    EXPECT_EQ(allocator::check_capacity(current, requested, limit), want);
  }
}

TEST(RollingWindowScheduler, AdmitsUpToTheLimitAndAgainWhenTheWindowHasPassed) {
  allocator::RollingWindowScheduler scheduler(100, 2);
  EXPECT_TRUE(scheduler.admit(1'000));
  EXPECT_TRUE(scheduler.admit(1'050));
  EXPECT_FALSE(scheduler.admit(1'099));
  EXPECT_TRUE(scheduler.admit(1'100));  // [1000, 1100) is over
  EXPECT_FALSE(scheduler.admit(1'149));
  EXPECT_TRUE(scheduler.admit(1'150));
}

TEST(RollingWindowScheduler, TellsHowLongToWait) {
  allocator::RollingWindowScheduler scheduler(100, 2);
  EXPECT_EQ(scheduler.wait_ms(), 0u);
  EXPECT_TRUE(scheduler.admit(1'000));
  EXPECT_EQ(scheduler.wait_ms(), 0u);
  EXPECT_TRUE(scheduler.admit(1'050));
  EXPECT_EQ(scheduler.wait_ms(), 50u);
  EXPECT_FALSE(scheduler.admit(1'099));
  EXPECT_EQ(scheduler.wait_ms(), 1u);
  EXPECT_TRUE(scheduler.admit(1'100));
  EXPECT_EQ(allocator::RollingWindowScheduler(100, 0).wait_ms(), 100u);
}

TEST(RollingWindowScheduler, DoesNotCountWhatItRefused) {
  allocator::RollingWindowScheduler scheduler(100, 1);
  EXPECT_TRUE(scheduler.admit(0));
  for (std::uint64_t now = 1; now < 100; ++now) EXPECT_FALSE(scheduler.admit(now));
  EXPECT_TRUE(scheduler.admit(100));
}

TEST(RollingWindowScheduler, TakesAnEarlierTimeAsTheLatestSeen) {
  allocator::RollingWindowScheduler scheduler(100, 2);
  EXPECT_TRUE(scheduler.admit(1'000));
  EXPECT_TRUE(scheduler.admit(10));  // counts at 1000
  EXPECT_FALSE(scheduler.admit(1'099));
  EXPECT_TRUE(scheduler.admit(1'100));
  EXPECT_TRUE(scheduler.admit(0));
  EXPECT_FALSE(scheduler.admit(1'150));
}

TEST(RollingWindowScheduler, WithALimitOfNothingAdmitsNothing) {
  allocator::RollingWindowScheduler scheduler(100, 0);
  EXPECT_FALSE(scheduler.admit(0));
  EXPECT_FALSE(scheduler.admit(kMax));
}

TEST(RollingWindowScheduler, WithAnEmptyWindowAdmitsEverything) {
  allocator::RollingWindowScheduler scheduler(0, 1);
  for (int i = 0; i < 10; ++i) EXPECT_TRUE(scheduler.admit(5));
}

TEST(RollingWindowScheduler, WorksAtTheEndOfTime) {
  allocator::RollingWindowScheduler scheduler(kMax, 1);
  EXPECT_TRUE(scheduler.admit(0));
  EXPECT_FALSE(scheduler.admit(kMax - 1));
  EXPECT_TRUE(scheduler.admit(kMax));
}

TEST(RollingWindowSchedulerProperty, NoWindowEverHoldsMoreThanTheLimitAndNoneIsRefusedForNothing) {
  for (std::uint32_t seed = 1; seed <= 100; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937 random(seed);
    const std::uint64_t window = 1 + random() % 20;
    const std::size_t limit = 1 + random() % 5;
    allocator::RollingWindowScheduler scheduler(window, limit);
    std::vector<std::uint64_t> admitted;
    std::uint64_t now = 0;
    for (int i = 0; i < 200; ++i) {
      now += random() % 4;
      std::size_t held = 0;  // in (now - window, now]
      for (const std::uint64_t at : admitted) held += at + window > now ? 1 : 0;
      ASSERT_EQ(scheduler.admit(now), held < limit) << "at " << now;
      if (held < limit) admitted.push_back(now);
    }
  }
}

TEST(QueuePressure, IsAShareBetweenNothingAndFull) {
  EXPECT_EQ(queue::queue_pressure(0, 10), 0);
  EXPECT_EQ(queue::queue_pressure(5, 10), 0.5);
  EXPECT_EQ(queue::queue_pressure(10, 10), 1);
  EXPECT_EQ(queue::queue_pressure(11, 10), 1);
  EXPECT_EQ(queue::queue_pressure(0, 0), 1);
}

TEST(BoundedQueue, GivesBackInOrderAndRefusesWhenFull) {
  queue::BoundedQueue<int> queue(2);
  EXPECT_TRUE(queue.try_push(1));
  EXPECT_TRUE(queue.try_push(2));
  EXPECT_FALSE(queue.try_push(3));
  EXPECT_EQ(queue.size(), 2u);
  EXPECT_EQ(queue.try_pop(), 1);
  EXPECT_TRUE(queue.try_push(4));
  EXPECT_EQ(queue.try_pop(), 2);
  EXPECT_EQ(queue.try_pop(), 4);
  EXPECT_EQ(queue.try_pop(), std::nullopt);
  EXPECT_EQ(queue.size(), 0u);
}

TEST(BoundedQueue, OfNoRoomTakesNothing) {
  queue::BoundedQueue<int> queue(0);
  EXPECT_FALSE(queue.try_push(1));
  EXPECT_EQ(queue.try_pop(), std::nullopt);
}

TEST(BoundedQueue, TakesWhatCannotBeCopied) {
  queue::BoundedQueue<std::unique_ptr<int>> queue(1);
  EXPECT_TRUE(queue.try_push(std::make_unique<int>(7)));
  EXPECT_EQ(**queue.try_pop(), 7);
}

TEST(CheckpointManager, IsDueWhenAWholeIntervalHasPassed) {
  const resilience::CheckpointManager every_hundred(100);
  EXPECT_FALSE(every_hundred.should_checkpoint(50, 149));
  EXPECT_TRUE(every_hundred.should_checkpoint(50, 150));
  EXPECT_TRUE(every_hundred.should_checkpoint(50, 1'000));
  EXPECT_FALSE(every_hundred.should_checkpoint(50, 50));
}

TEST(CheckpointManager, IsNeverDueBackwardsOrWithoutAnInterval) {
  EXPECT_FALSE(resilience::CheckpointManager(100).should_checkpoint(500, 100));
  EXPECT_FALSE(resilience::CheckpointManager(0).should_checkpoint(0, kMax));
  EXPECT_TRUE(resilience::CheckpointManager(kMax).should_checkpoint(0, kMax));
}

}  // namespace
}  // namespace tensorforge

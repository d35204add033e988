#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "checkpoint/checkpoint.h"
#include "tests/checkpoint/support.h"

namespace tensorforge::checkpoint {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

GcPolicy at_most(std::size_t count) { return {count, 0, 0, "", true}; }
GcPolicy older_than(std::uint64_t seconds) { return {0, seconds, 0, "", true}; }
GcPolicy keep_best(std::size_t n, bool ascending = true) { return {1, 0, n, "loss", ascending}; }

TEST(Gc, ShrinksAChainFromItsLeaves) {
  Training t(at_most(2));
  const std::string f0 = t.save(kFull, 0);
  const std::string i1 = t.save(kIncremental, 1);
  const std::string i2 = t.save(kIncremental, 2);
  const std::string f3 = t.save(kFull, 3);
  EXPECT_THAT(t.manager.gc(t.now), ElementsAre(i2, i1));
  EXPECT_THAT(t.live(), ElementsAre(f0, f3));
  EXPECT_THAT(t.manager.gc(t.now), IsEmpty());
}

TEST(Gc, WithAnAllZeroPolicyTakesOnlyCorruptedOnes) {
  Training t;
  const std::string a = t.save(kFull, 0);
  const std::string b = t.save(kFull, 1);
  const std::string c = t.save(kFull, 2);
  t.corrupt(b);
  t.now += 1'000'000'000'000;
  EXPECT_THAT(t.manager.gc(t.now), ElementsAre(b));
  EXPECT_THAT(t.live(), ElementsAre(a, c));
}

TEST(Gc, TakesACorruptedOneOnlyAfterWhatDescendsFromIt) {
  Training t;
  const std::string f0 = t.save(kFull, 0);
  const std::string i1 = t.save(kIncremental, 1);
  const std::string i2 = t.save(kIncremental, 2);
  const std::string f3 = t.save(kFull, 3);
  t.corrupt(i1);
  EXPECT_THAT(t.manager.gc(t.now), IsEmpty()) << "a live one, though lost, stands on it";
  t.corrupt(i2);
  EXPECT_THAT(t.manager.gc(t.now), ElementsAre(i2, i1));
  EXPECT_THAT(t.live(), ElementsAre(f0, f3));
}

TEST(Gc, KeepsExactlyTheAgeAndTakesOneMillisecondMore) {
  Training t(older_than(10));
  const std::string old = t.save(kFull, 0);
  const std::uint64_t created_at = t.now;
  const std::string latest = t.save(kFull, 1);
  EXPECT_THAT(t.manager.gc(created_at + 10'000), IsEmpty());
  EXPECT_THAT(t.manager.gc(created_at + 10'001), ElementsAre(old));
  EXPECT_THAT(t.manager.gc(created_at + 1'000'000'000), IsEmpty()) << "the latest restorable one is protected";
  EXPECT_THAT(t.live(), ElementsAre(latest));
}

TEST(Gc, CountsNoAgeUnderAClockThatWentBack) {
  Training t(older_than(1));
  t.save(kFull, 0);
  t.save(kFull, 1);
  EXPECT_THAT(t.manager.gc(0), IsEmpty());
}

TEST(Gc, ProtectsWhatIsBeingMadeAndItsChain) {
  Training t(at_most(1));
  const std::string f0 = t.save(kFull, 0);
  const std::string creating = t.start(kIncremental, 1).checkpoint_id;
  const std::string f2 = t.save(kFull, 2);
  const std::string f3 = t.save(kFull, 3);
  EXPECT_THAT(t.manager.gc(t.now), ElementsAre(f2));
  EXPECT_THAT(t.live(), ElementsAre(f0, creating, f3)) << "a save that died holds its chain ...";
  t.corrupt(creating);
  EXPECT_THAT(t.manager.gc(t.now), ElementsAre(creating, f0)) << "... until it is marked";
  EXPECT_THAT(t.live(), ElementsAre(f3));
}

TEST(Gc, ProtectsTheLatestAndTheMostRecentlyCreatedAfterARollback) {
  Training t(at_most(1));
  const std::string abandoned = t.save(kFull, 100);
  const std::string before = t.save(kFull, 10);
  const std::string again = t.save(kFull, 20);
  EXPECT_THAT(t.manager.gc(t.now), ElementsAre(before));
  EXPECT_THAT(t.live(), ElementsAre(again, abandoned));
}

TEST(Gc, ProtectsTheBestWithTheirAncestors) {
  Training t(keep_best(1));
  const std::string f0 = t.save(kFull, 0, "r", {{"loss", 0.9}});
  const std::string i1 = t.save(kIncremental, 1, "r", {{"loss", 0.1}});
  const std::string i2 = t.save(kIncremental, 2, "r", {{"loss", 0.5}});
  const std::string f3 = t.save(kFull, 3);
  EXPECT_THAT(t.manager.gc(t.now), ElementsAre(i2));
  EXPECT_THAT(t.live(), ElementsAre(f0, i1, f3));
}

TEST(Gc, RanksBestBothWaysAndNeverWhatHasNoMetric) {
  for (const bool ascending : {true, false}) {
    SCOPED_TRACE(ascending);
    Training t(keep_best(1, ascending));
    const std::string low = t.save(kFull, 0, "r", {{"loss", -1.0}});
    const std::string high = t.save(kFull, 1, "r", {{"loss", 2.0}});
    const std::string none = t.save(kFull, 2, "r", {{"accuracy", ascending ? -9.0 : 9.0}});
    const std::string latest = t.save(kFull, 3);
    t.manager.gc(t.now);
    EXPECT_THAT(t.live(), ElementsAre(ascending ? low : high, latest));
  }
}

TEST(Gc, BreaksTiesOfTheBestByTheLaterStepThenTheLaterCreation) {
  Training t(keep_best(2));
  const std::string early = t.save(kFull, 1, "r", {{"loss", 0.5}});
  const std::string first = t.save(kFull, 5, "r", {{"loss", 0.5}});
  const std::string second = t.save(kFull, 5, "r", {{"loss", 0.5}});
  const std::string third = t.save(kFull, 5, "r", {{"loss", 0.5}});
  const std::string latest = t.save(kFull, 9);
  EXPECT_THAT(t.manager.gc(t.now), ElementsAre(first, early));
  EXPECT_THAT(t.live(), ElementsAre(second, third, latest));
}

TEST(Gc, RanksNothingByAnEmptyKeyOrByWhatCannotBeRestored) {
  Training empty_key({1, 0, 5, "", true});
  const std::string a = empty_key.save(kFull, 0, "r", {{"loss", 0.1}});
  empty_key.save(kFull, 1);
  EXPECT_THAT(empty_key.manager.gc(empty_key.now), ElementsAre(a));

  Training lost(keep_best(1));
  const std::string f0 = lost.save(kFull, 0, "r", {{"loss", 0.5}});
  const std::string f1 = lost.save(kFull, 1, "r", {{"loss", 0.3}});
  const std::string i2 = lost.save(kIncremental, 2, "r", {{"loss", 0.1}});
  const std::string f3 = lost.save(kFull, 3);
  lost.corrupt(f1);
  EXPECT_THAT(lost.manager.gc(lost.now), ElementsAre(i2, f1));
  EXPECT_THAT(lost.live(), ElementsAre(f0, f3));
}

TEST(Gc, LetsTheProtectedPushARunOverItsLimit) {
  Training t(at_most(1));
  const std::string f0 = t.save(kFull, 0);
  const std::string i1 = t.save(kIncremental, 1);
  const std::string i2 = t.save(kIncremental, 2);
  EXPECT_THAT(t.manager.gc(t.now), IsEmpty());
  EXPECT_THAT(t.live(), ElementsAre(f0, i1, i2));
}

TEST(Gc, TakesAnOutlivedParentThatTheCountHasFreed) {
  // Neither phase alone gets to f0: it is old, but i1 stands on it, and i1 goes only by the count.
  Training t({2, 10, 0, "", true});
  const std::string f0 = t.save(kFull, 0);
  t.now += 60'000;
  const std::string i1 = t.save(kIncremental, 1);
  const std::string f2 = t.save(kFull, 2);
  EXPECT_THAT(t.manager.gc(t.now), ElementsAre(i1, f0));
  EXPECT_THAT(t.live(), ElementsAre(f2));
  EXPECT_THAT(t.manager.gc(t.now), IsEmpty());
}

TEST(Gc, NamesRunsByIdAndChildrenBeforeParents) {
  Training t(at_most(1));
  std::vector<std::string> want;
  for (const std::string run : {"b", "a", "c"}) {
    const std::string f0 = t.save(kFull, 0, run);
    const std::string i1 = t.save(kIncremental, 1, run);
    t.save(kFull, 2, run);
    want.insert(run == "a" ? want.begin() : want.end(), {i1, f0});
  }
  EXPECT_EQ(t.manager.gc(t.now), want);
}

TEST(Gc, LeavesTombstones) {
  Training t(at_most(1));
  const std::string f0 = t.save(kFull, 0);
  t.save(kFull, 1);
  t.manager.gc(t.now);
  ASSERT_TRUE(t.manager.get(f0).has_value());
  EXPECT_EQ(t.manager.get(f0)->state, CheckpointState::Deleted);
  EXPECT_EQ(t.manager.total_count(), 1u);
  EXPECT_EQ(t.manager.total_size(), 100u);
}

TEST(Gc, StaysNearlyLinearInALongChainAndInManyRoots) {
  // Were it quadratic, the timeout of the test program would end it.
  Training t(at_most(2));
  const std::string root = t.save(kFull, 0);
  for (std::uint64_t step = 1; step <= 20'000; ++step) t.save(kIncremental, step);
  for (std::uint64_t step = 20'001; step <= 40'000; ++step) t.save(kFull, step);
  const std::string latest = t.live().back();
  EXPECT_EQ(t.manager.gc(t.now).size(), 39'999u);
  EXPECT_EQ(t.manager.total_count(), 2u);
  EXPECT_EQ(t.live().back(), latest);
}

}  // namespace
}  // namespace tensorforge::checkpoint

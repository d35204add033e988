// Each level with a few seeds: in a moment, what `tensorforge crashtest` does for as long as one likes.
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "crashtest/level.h"
#include "crashtest/recovery.h"
#include "crashtest/world.h"
#include "storage/crash_point.h"
#include "tests/storage/log_fixture.h"

namespace tensorforge::crashtest {
namespace {

RunResult run(const char* level, std::uint64_t first_seed, std::uint64_t seeds, const Portion& portion = {}) {
  const storage::TemporaryDirectory directory;
  RunResult all;
  for (std::uint64_t seed = first_seed; seed < first_seed + seeds; ++seed) {
    const RunResult one = find_level(level)->run(seed, {directory.path().string(), TENSORFORGED_PATH}, portion);
    for (const std::string& failure : one.failures) ADD_FAILURE() << level << " --seed " << seed << ": " << failure;
    all.merge(one);
  }
  EXPECT_TRUE(std::filesystem::is_empty(directory.path())) << "a run cleans up behind itself";
  return all;
}

TEST(Power, LosesNothing) {
  // Seeds 2 and 3: the first start did not sync the name of the directory that it had made.
  const RunResult all = run("power", 1, 12);
  EXPECT_GT(all.faults.at("power cut"), 20U);
  EXPECT_GT(all.faults.at("power cut, --ack wal"), 20U);
  EXPECT_GT(all.acknowledged, 30U);
  EXPECT_GT(all.refused, 10U);
}

TEST(Power, OpensAnImageOnTheDiskUnderTestNowAndThen) {
  EXPECT_EQ(run("power", 57, 1).faults.at("power cut, opened under --data-dir"), 1U);
}

TEST(Kill, ComesToEveryPointAndLosesNothing) {
  const RunResult all = run("kill", 1, 10);  // as many as it takes to come to every end
  EXPECT_GT(all.acknowledged, 200U);
  for (const char* kind : {"SIGKILL", "SIGKILL while it starts", "SIGTERM under load", "SIGSTOP and SIGCONT"}) {
    EXPECT_TRUE(all.faults.contains(kind)) << kind;
  }
  for (const storage::CrashPoint point : storage::crash_points()) {
    const std::string name(to_string(point));
    EXPECT_TRUE(all.faults.contains("at " + name)) << name << " was not come to";
  }
  for (const auto& [kind, count] : all.faults) EXPECT_THAT(kind, testing::Not(testing::HasSubstr("did not come")));
}

TEST(Kill, IsMadeSmaller) {
  const RunResult all = run("kill", 2, 2, {1, 5, std::vector<std::uint64_t>{1, 3}});
  EXPECT_GT(all.acknowledged, 0U);
  EXPECT_LE(all.acknowledged + all.refused, 2 * 2 * 5U) << "five requests in each life but the last";
}

TEST(Errors, AreFinalAndLoseNothing) {
  // Each kind of fault, at some of the calls.
  const RunResult all = run("errors", 40, 8);
  EXPECT_GE(all.faults.size(), 7U);
  EXPECT_GT(all.acknowledged, 30U);
}

TEST(Errors, OfOpeningCurrentAreNotTakenForDamage) {
  // Of an I/O error there the library says that direct I/O is not supported, which passed for a damaged database.
  run("errors", 64, 1);
  run("errors", 72, 1);  // the call behind it
}

TEST(Rot, IsHarmlessOrRefused) {
  // Each kind of damage, to some of the files.
  const RunResult all = run("rot", 1, 30);
  EXPECT_GT(all.verdicts.at("refused"), 3U);
  EXPECT_GT(all.verdicts.at("harmless"), 0U);
  EXPECT_GT(all.verdicts.at("with --accept-loss, all is kept"), 0U);
}

TEST(Rot, ThatOnlyAReaderFindsIsNamed) {
  // A bit of a table that opening has no need of. The judge of what is named there once never came to its end.
  EXPECT_EQ(run("rot", 1'352, 1).verdicts.at("named while reading"), 1U);
}

TEST(Rot, OfTheWholeDirectoryIsToldToClientsThatKnowMore) {
  EXPECT_EQ(run("rot", 64, 1).faults.at("an older copy of the whole directory"), 1U);
}

TEST(World, GoesOnFromTheSnapshotOfItsLastStop) {
  const auto disk = std::make_shared<SimulatedDisk>();
  World world(1);
  World::Plan plan;
  plan.requests = 30;
  plan.takes_snapshots = true;
  ASSERT_EQ(world.live(disk, plan).end, World::End::kStopped);
  storage::OpenOptions options;
  options.data_dir = World::kDataDir;
  options.file_system = disk;
  options.check_in_process = true;
  const Result<Recovery> recovery = open_and_recover(options);
  ASSERT_TRUE(recovery.ok()) << recovery.status();
  EXPECT_GT(recovery->directory.snapshot.sequence(), 10U);
  EXPECT_EQ(recovery->directory.snapshot.sequence(), recovery->state.sequence);
}

TEST(Levels, CarryOutAPortionOfARun) {
  const storage::TemporaryDirectory directory;
  for (const Level& level : levels()) {
    if (level.whole == nullptr || !level.repeats_exactly) continue;
    SCOPED_TRACE(level.name);
    std::uint64_t seed = 1;
    while (level.whole(seed).faults->size() < 2) ++seed;
    const auto faults_of = [&](const Portion& portion) {
      const RunResult result = level.run(seed, {directory.path().string(), TENSORFORGED_PATH}, portion);
      EXPECT_THAT(result.failures, testing::IsEmpty());
      std::uint64_t sum = 0;
      for (const auto& [kind, count] : result.faults) sum += count;
      return std::pair(sum, result.acknowledged);
    };
    const Portion whole = level.whole(seed);
    EXPECT_EQ(faults_of(whole), faults_of({})) << "all of it, said or not";
    Portion part = whole;
    part.faults->pop_back();
    EXPECT_LE(faults_of(part).first, faults_of(whole).first);
    const Portion least{1, 1, std::vector<std::uint64_t>()};
    EXPECT_EQ(faults_of(least).first, 0U);
    EXPECT_LT(faults_of(least).second, faults_of(whole).second);
  }
}

TEST(Levels, DoTheSameWithTheSameSeed) {
  for (const Level& level : levels()) {
    if (!level.repeats_exactly) continue;
    SCOPED_TRACE(level.name);
    // `power`: with snapshots both, 14 with --ack wal.
    const RunResult one = run(level.name.data(), 13, 2), two = run(level.name.data(), 13, 2);
    EXPECT_EQ(one.faults, two.faults);
    EXPECT_EQ(one.acknowledged, two.acknowledged);
    EXPECT_EQ(one.refused, two.refused);
    EXPECT_EQ(one.recovery_ms.size(), two.recovery_ms.size());
  }
}

}  // namespace
}  // namespace tensorforge::crashtest

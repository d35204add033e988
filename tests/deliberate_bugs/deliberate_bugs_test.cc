// The tester tested: each mistake that is built in has to be found, by the level and within the runs that
// docs/crash_testing.md says, and the same runs find nothing where it is not made.
#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <ostream>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "crashtest/tester.h"
#include "platform/deliberate_bug.h"
#include "tests/storage/log_fixture.h"
#include "tests/support/daemon.h"
#include "tests/support/programs.h"

namespace tensorforge::crashtest {
namespace {

struct Case {
  DeliberateBug bug{};
  const char* level{};
  std::uint64_t first_seed{1};
};

/// Of one bug, and of no bug: what a level may take in CI.
constexpr double kSeconds = 40;
constexpr std::uint64_t kRuns = 4'096;

void PrintTo(const Case& each, std::ostream* out) { *out << to_string(each.bug) << " by " << each.level; }

Result<Report> run(const Case& each, std::uint64_t runs, double shrink_seconds = 0) {
  const storage::TemporaryDirectory directory;
  TesterOptions options;
  options.levels = {each.level};
  options.seed = each.first_seed;
  options.seconds = kSeconds;
  options.runs = runs;
  options.data_dir = (directory.path() / "test").string();
  options.jobs = std::max(1U, std::thread::hardware_concurrency());
  options.stop_at_failure = true;
  options.tensorforged = TENSORFORGED_PATH;
  options.shrink_seconds = shrink_seconds;
  return run_crash_test(options);
}

/// Which bug the processes that run the level make, while this is there.
class Made {
 public:
  explicit Made(DeliberateBug bug) { ::setenv(kDeliberateBugVariable, std::string(to_string(bug)).c_str(), 1); }
  ~Made() { ::unsetenv(kDeliberateBugVariable); }
  Made(const Made&) = delete;
  Made& operator=(const Made&) = delete;
};

class DeliberateBugTest : public testing::TestWithParam<Case> {};

TEST_P(DeliberateBugTest, IsFoundAndNothingElse) {
  const Case& each = GetParam();
  std::uint64_t needed = 0;
  {
    const Made made(each.bug);
    const Result<Report> report = run(each, kRuns);
    ASSERT_TRUE(report.ok()) << report.status();
    const LevelReport& level = report->levels.front();
    ASSERT_FALSE(level.failures.empty()) << "not found in " << level.runs << " runs, " << level.seconds << " s";
    const Failure& failure = level.failures.front();
    needed = failure.seed - each.first_seed + 1;
    fmt::print("{} is found by {} at seed {}, after {:.1f} s: {}\n", to_string(each.bug), each.level, failure.seed,
               level.seconds, failure.what.front());
  }
  const Result<Report> report = run(each, needed);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->levels.front().runs, needed);
  for (const Failure& failure : report->levels.front().failures) {
    ADD_FAILURE() << "without a bug, seed " << failure.seed << ": " << failure.what.front();
  }
}

constexpr Case kCases[] = {
    {DeliberateBug::kReplyBeforeDurable, "power"},
    {DeliberateBug::kRefusalBeforeDurable, "simulate"},
    {DeliberateBug::kReadBeforeDurable, "simulate"},
    {DeliberateBug::kSyncSkipped, "power"},
    {DeliberateBug::kFailedSyncRetried, "errors"},
    {DeliberateBug::kRenameWithoutDirectorySync, "power"},
    {DeliberateBug::kNewDirectoryNotSynced, "power"},
    {DeliberateBug::kAnchorTooHigh, "kill"},
    {DeliberateBug::kNoAnchor, "rot"},
    {DeliberateBug::kTolerateCorruptedTail, "power"},
    {DeliberateBug::kDatabaseCreatedAgain, "rot"},
    {DeliberateBug::kHalfACommand, "power"},
    {DeliberateBug::kAnswersForgotten, "simulate"},
    {DeliberateBug::kSnapshotOfWrongSequence, "simulate"},
    {DeliberateBug::kReplayOffByOne, "simulate"},
    {DeliberateBug::kApplyWithClock, "simulate"},
    {DeliberateBug::kLossThrownAway, "rot"},
    {DeliberateBug::kNothingRepaired, "rot"},
};

std::string name_of(const testing::TestParamInfo<Case>& each) {
  std::string name(to_string(each.param.bug));
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}
INSTANTIATE_TEST_SUITE_P(Each, DeliberateBugTest, testing::ValuesIn(kCases), name_of);

/// One for each level whose runs can be made smaller.
constexpr Case kShrunk[] = {
    {DeliberateBug::kHalfACommand, "power", 37},
    {DeliberateBug::kFailedSyncRetried, "errors", 33},
    {DeliberateBug::kAnchorTooHigh, "kill"},
    {DeliberateBug::kSnapshotOfWrongSequence, "simulate"},
};

class ShrunkFailureTest : public testing::TestWithParam<Case> {};

TEST_P(ShrunkFailureTest, IsSeenAgainByItsCommand) {
  const Case& each = GetParam();
  std::vector<std::string> command;
  {
    const Made made(each.bug);
    const Result<Report> report = run(each, 20, 30);
    ASSERT_TRUE(report.ok()) << report.status();
    ASSERT_FALSE(report->levels.front().failures.empty());
    const Failure& failure = report->levels.front().failures.front();
    const Portion whole = find_level(each.level)->whole(failure.seed);
    EXPECT_LT(failure.portion.faults->size(), whole.faults->size());
    EXPECT_LE(failure.portion.clients, whole.clients);
    EXPECT_LE(failure.portion.operations, whole.operations);
    fmt::print("{}\n", reproduce_command(failure));

    std::istringstream words(reproduce_command(failure));
    command.assign(std::istream_iterator<std::string>(words), {});
    command.front() = TENSORFORGE_PROGRAM;
    command.insert(command.end(), {"--tensorforged", TENSORFORGED_PATH});
    const test::Ran again = test::run_program(command);
    EXPECT_EQ(again.exit_code, 5) << again.out << again.err;
    EXPECT_THAT(again.out, testing::HasSubstr("A PROMISE WAS BROKEN."));
  }
  const test::Ran without = test::run_program(command);
  EXPECT_EQ(without.exit_code, 0) << without.out << without.err;
}

INSTANTIATE_TEST_SUITE_P(Each, ShrunkFailureTest, testing::ValuesIn(kShrunk), name_of);

TEST(DeliberateBugs, AreAllLookedFor) {
  for (const DeliberateBug bug : deliberate_bugs()) {
    const bool looked_for =
        std::any_of(std::begin(kCases), std::end(kCases), [bug](const Case& each) { return each.bug == bug; });
    EXPECT_TRUE(looked_for) << to_string(bug);
  }
}

TEST(DeliberateBugs, EndAServiceThatContradictsItsLogAtItsNextSnapshot) {
  const storage::TemporaryDirectory directory;
  const std::vector<std::string> arguments{"--data-dir", (directory.path() / "data").string(), "--listen",
                                           "127.0.0.1:0"};
  const auto ask = [](const test::Daemon& daemon, std::vector<std::string> command) {
    command.insert(command.begin(), TENSORFORGE_PROGRAM);
    command.insert(command.end(), {"--server", fmt::format("127.0.0.1:{}", daemon.ready()->port)});
    return test::run_program(command);
  };
  {
    const Made made(DeliberateBug::kApplyWithClock);
    test::Daemon wrong(arguments);
    ASSERT_TRUE(wrong.ready()) << wrong.errors();
    EXPECT_EQ(ask(wrong, {"model", "register", "resnet", "1.0.0"}).exit_code, 0);
    EXPECT_NE(ask(wrong, {"server", "snapshot"}).exit_code, 0);
    EXPECT_EQ(wrong.wait(), 2);
    EXPECT_THAT(wrong.errors(), testing::HasSubstr("is not the one that the log gives: registry"));
  }
  test::Daemon right(arguments);
  ASSERT_TRUE(right.ready()) << right.errors();
  EXPECT_EQ(ask(right, {"model", "get", "resnet"}).exit_code, 0) << "what the log says is served";
  EXPECT_EQ(ask(right, {"server", "snapshot"}).exit_code, 0);
  EXPECT_EQ(right.stop(), 0);
}

}  // namespace
}  // namespace tensorforge::crashtest

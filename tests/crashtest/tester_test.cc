#include "crashtest/tester.h"

#include <filesystem>
#include <fstream>
#include <string>

#include <gtest/gtest.h>

#include "tests/storage/log_fixture.h"

namespace tensorforge::crashtest {
namespace {

namespace fs = std::filesystem;

class TesterTest : public testing::Test {
 protected:
  TesterOptions options(std::uint64_t runs) const {
    TesterOptions options;
    options.levels = {"power", "rot"};
    options.seed = 5;
    options.seconds = 600;
    options.runs = runs;
    options.data_dir = (directory_.path() / "test").string();
    options.jobs = 2;
    return options;
  }
  storage::TemporaryDirectory directory_;
};

TEST_F(TesterTest, RunsEachLevelAsOftenAsAskedAndLeavesNothing) {
  TesterOptions asked = options(3);
  std::uint64_t told = 0;
  asked.progress = [&](const LevelReport&) { ++told; };
  const Result<Report> report = run_crash_test(asked);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_TRUE(report->passed());
  ASSERT_EQ(report->levels.size(), 2U);
  for (const LevelReport& level : report->levels) EXPECT_EQ(level.runs, 3U) << level.level;
  EXPECT_GT(told, 0U);
  EXPECT_TRUE(fs::is_empty(directory_.path()));
}

TEST_F(TesterTest, TouchesNothingThatItDidNotMake) {
  TesterOptions asked = options(1);
  fs::create_directory(asked.data_dir);
  std::ofstream(fs::path(asked.data_dir) / "thesis.txt") << "three years of work";
  const Result<Report> report = run_crash_test(asked);
  EXPECT_TRUE(absl::IsInvalidArgument(report.status())) << report.status();
  EXPECT_TRUE(fs::exists(fs::path(asked.data_dir) / "thesis.txt"));
  fs::remove(fs::path(asked.data_dir) / "thesis.txt");
  EXPECT_TRUE(run_crash_test(asked).ok());
  EXPECT_TRUE(fs::is_empty(asked.data_dir)) << "an empty directory stays";
}

TEST_F(TesterTest, KnowsItsLevels) {
  TesterOptions asked = options(1);
  asked.levels = {"weather"};
  EXPECT_TRUE(absl::IsInvalidArgument(run_crash_test(asked).status()));
}

TEST_F(TesterTest, MakesOnlyOneLevelSmaller) {
  TesterOptions asked = options(1);
  asked.portion.clients = 1;
  EXPECT_TRUE(absl::IsInvalidArgument(run_crash_test(asked).status())) << "two levels";
  asked.levels = {"rot"};
  EXPECT_TRUE(absl::IsInvalidArgument(run_crash_test(asked).status())) << "one damage is one damage";
  asked.levels = {"power"};
  EXPECT_TRUE(run_crash_test(asked).ok());
}

TEST_F(TesterTest, SaysThatThereIsNoService) {
  TesterOptions asked = options(1);
  asked.levels = {"kill"};
  asked.tensorforged = "/nowhere/tensorforged";
  const Result<Report> report = run_crash_test(asked);
  EXPECT_TRUE(absl::IsInvalidArgument(report.status())) << report.status();
  EXPECT_NE(report.status().message().find("/nowhere/tensorforged"), absl::string_view::npos);
  EXPECT_TRUE(fs::is_empty(directory_.path()));
}

TEST(ReportTest, CarriesEverything) {
  RunResult run;
  run.faults = {{"power cut", 2}};
  run.verdicts = {{"harmless", 1}};
  run.acknowledged = 5;
  run.refused = 4;
  run.lost = 1;
  run.unknown_kept = 2;
  run.unknown_dropped = 3;
  run.recovery_ms = {1, 3};
  run.failures = {"lost: command 1"};
  const RunResult same = run_result_of(Json::parse(to_json(run).dump()));
  EXPECT_EQ(to_json(same), to_json(run));

  Report report;
  LevelReport& level = report.levels.emplace_back();
  level.level = "power";
  level.runs = 1;
  level.total = run;
  EXPECT_TRUE(report.passed());
  level.failures.push_back({"power", 77, run.failures, {}});
  EXPECT_FALSE(report.passed());
  EXPECT_EQ(report.lost(), 1U);
  const Json json = to_json(report);
  EXPECT_EQ(json["levels"][0]["faults"]["power cut"], 2);
  EXPECT_EQ(json["levels"][0]["recoveries"]["p50_ms"], 2.0);
  EXPECT_EQ(json["levels"][0]["failures"][0]["reproduce"], "tensorforge crashtest power --seed 77 --runs 1");
  level.failures.front().portion = {2, 5, std::vector<std::uint64_t>{0, 3}};
  EXPECT_EQ(reproduce_command(level.failures.front()),
            "tensorforge crashtest power --seed 77 --runs 1 --clients 2 --operations 5 --faults 0,3");
  const Portion portion = level.failures.front().portion;
  EXPECT_EQ(portion_of(Json::parse(to_json(portion).dump())), portion);
  EXPECT_EQ(portion_of(to_json(Portion{})), Portion{});
  EXPECT_FALSE(Report{{LevelReport{}}}.passed()) << "a level that never ran proves nothing";
}

}  // namespace
}  // namespace tensorforge::crashtest

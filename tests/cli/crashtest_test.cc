// The verb `crashtest` from outside.
#include <filesystem>
#include <fstream>
#include <iterator>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/support/files.h"
#include "tests/support/programs.h"

namespace tensorforge::cli {
namespace {

using nlohmann::json;
using test::Ran;
using testing::HasSubstr;

Ran crash_test(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), {TENSORFORGE_PROGRAM, "crashtest"});
  return test::run_program(arguments);
}

TEST(CrashTestVerb, ReportsEachLevelAsJson) {
  const Ran ran = crash_test({"--runs", "1", "--seed", "5", "--json", "--tensorforged", TENSORFORGED_PATH});
  EXPECT_EQ(ran.exit_code, 0) << ran.out << ran.err;
  const json report = json::parse(ran.out, nullptr, false);
  EXPECT_EQ(report.value("passed", false), true);
  EXPECT_EQ(report.value("lost", -1), 0);
  ASSERT_EQ(report.at("levels").size(), 5U);
  for (const json& level : report.at("levels")) {
    SCOPED_TRACE(level.at("level"));
    EXPECT_EQ(level.at("runs"), 1);
    EXPECT_EQ(level.at("first_seed"), 5);
    for (const char* key : {"seconds", "faults", "verdicts", "acknowledged", "refused", "lost", "unknown_kept",
                            "unknown_dropped", "recoveries", "failures"}) {
      EXPECT_TRUE(level.contains(key)) << key;
    }
  }
}

TEST(CrashTestVerb, ShowsATableAndWritesAPage) {
  const test::TemporaryDirectory directory;
  const std::string page_path = (directory.path() / "report.html").string();
  const Ran ran = crash_test({"simulate", "--runs", "3", "--html", page_path});
  EXPECT_EQ(ran.exit_code, 0) << ran.err;
  EXPECT_THAT(ran.out, testing::StartsWith("LEVEL"));
  EXPECT_THAT(ran.out, HasSubstr("Nothing acknowledged was lost, and no other promise was broken."));
  std::ifstream file(page_path);
  const std::string page{std::istreambuf_iterator<char>(file), {}};
  EXPECT_THAT(page, testing::StartsWith("<!DOCTYPE html>"));
  EXPECT_THAT(page, HasSubstr("<td>simulate</td><td>3</td>"));
}

TEST(CrashTestVerb, RunsAPortionOfARun) {
  const Ran ran = crash_test(
      {"power", "--seed", "1", "--runs", "1", "--clients", "1", "--operations", "2", "--faults", "none", "--json"});
  EXPECT_EQ(ran.exit_code, 0) << ran.out << ran.err;
  const json report = json::parse(ran.out, nullptr, false);
  EXPECT_TRUE(report.at("levels").at(0).at("faults").empty());
}

TEST(CrashTestVerb, RefusesWhatItCannotDo) {
  const test::TemporaryDirectory directory;
  std::ofstream(directory.path() / "thesis.txt") << "three years of work";
  const struct {
    std::vector<std::string> arguments;
    const char* part;
  } cases[] = {
      {{"weather"}, "there is no level weather"},
      {{"power", "--seconds", "0"}, "--seconds"},
      {{"power", "--faults", "1,x"}, "--faults"},
      {{"power", "--clients", "0"}, "--clients"},
      {{"power", "errors", "--clients", "1"}, "name one"},
      {{"rot", "--operations", "1"}, "cannot be made smaller"},
      {{"kill", "--tensorforged", "/nowhere"}, "/nowhere"},
      {{"power", "--html", "/nowhere/report.html"}, "/nowhere/report.html"},
      {{"power", "--data-dir", directory.path().string()}, "is not empty"},
  };
  for (const auto& [arguments, part] : cases) {
    const Ran ran = crash_test(arguments);
    EXPECT_EQ(ran.exit_code, 2) << part;
    EXPECT_THAT(ran.err, HasSubstr(part));
    EXPECT_EQ(ran.out, "");
  }
}

}  // namespace
}  // namespace tensorforge::cli

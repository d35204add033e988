#include "crashtest/html_report.h"

#include <algorithm>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tensorforge::crashtest {
namespace {

using testing::HasSubstr;
using testing::Not;

Report example() {
  Report report;
  LevelReport& power = report.levels.emplace_back();
  power.level = "power";
  power.first_seed = 41;
  power.runs = 12;
  power.seconds = 3.25;
  power.total.faults = {{"power cut", 77}};
  power.total.acknowledged = 501;
  power.total.refused = 602;
  power.total.lost = 3;
  power.total.unknown_kept = 14;
  power.total.unknown_dropped = 15;
  power.total.recovery_ms = {4, 8, 250};
  power.failures.push_back({"power", 43, {"lost: <command> \"1\" & \x01 more"}, {2, 5, std::vector<std::uint64_t>{0}}});
  LevelReport& simulate = report.levels.emplace_back();
  simulate.level = "simulate";
  simulate.runs = 9;
  simulate.total.faults = {{"crash", 21}, {"disk slow", 22}};
  simulate.total.verdicts = {{"harmless", 31}};
  return report;
}

/// Where the tags do not fit each other; empty: nowhere. Enough XML for a page without comments.
std::string misfit(const std::string& page) {
  std::vector<std::string> open;
  std::size_t at = page.find("<html");
  while ((at = page.find('<', at)) != std::string::npos) {
    const std::size_t end = page.find('>', at);
    if (end == std::string::npos) return "a tag has no end";
    const std::string tag = page.substr(at + 1, end - at - 1);
    const std::string name = tag.substr(0, tag.find_first_of(" /", 1));
    if (std::count(tag.begin(), tag.end(), '"') % 2 != 0) return "a quote is open in <" + tag + ">";
    if (tag.starts_with('/')) {
      if (open.empty() || open.back() != tag.substr(1)) return "<" + tag + "> closes nothing";
      open.pop_back();
    } else if (!tag.ends_with('/')) {
      open.push_back(name);
    }
    at = end;
  }
  return open.empty() ? "" : "<" + open.back() + "> stays open";
}

TEST(HtmlReport, IsAWellFormedPageOfItsOwn) {
  EXPECT_EQ(misfit("<html><b></html>"), "</html> closes nothing") << "the check itself";
  for (const Report& report : {example(), Report{}}) {
    const std::string page = to_html(report);
    EXPECT_EQ(misfit(page), "");
    EXPECT_THAT(page, Not(HasSubstr("<script")));
    EXPECT_THAT(page, Not(HasSubstr("http")));
    EXPECT_THAT(page, Not(HasSubstr("@import")));
    EXPECT_THAT(page, Not(HasSubstr("url(")));
  }
}

TEST(HtmlReport, ShowsWhatTheJsonShows) {
  const Report report = example();
  const std::string page = to_html(report);
  const Json json = to_json(report);
  for (const Json& level : json.at("levels")) {
    SCOPED_TRACE(level.at("level").get<std::string>());
    EXPECT_THAT(page, HasSubstr("<td>" + level.at("level").get<std::string>() + "</td>"));
    for (const char* key : {"runs", "acknowledged", "refused", "lost", "unknown_kept", "unknown_dropped"}) {
      EXPECT_THAT(page, HasSubstr("<td>" + level.at(key).dump() + "</td>")) << key;
    }
    EXPECT_THAT(page, HasSubstr("from " + level.at("first_seed").dump()));
    for (const char* counts : {"faults", "verdicts"}) {
      for (const auto& [kind, count] : level.at(counts).items()) {
        EXPECT_THAT(page, HasSubstr(kind + "</td><td>" + count.dump() + "</td>"));
      }
    }
    for (const Json& failure : level.at("failures")) {
      EXPECT_THAT(page, HasSubstr("<pre>" + failure.at("reproduce").get<std::string>() + "</pre>"));
    }
  }
  EXPECT_THAT(page, HasSubstr("lost: &lt;command&gt; &quot;1&quot; &amp; ? more"));
  EXPECT_THAT(page, HasSubstr("3 recoveries; p50 8.0 ms, p99 "));
  EXPECT_THAT(page, HasSubstr("max 250 ms"));
  EXPECT_THAT(page, HasSubstr("3 acknowledged changes were lost"));
  EXPECT_THAT(page, HasSubstr("<svg "));
  EXPECT_THAT(to_html(Report{}), Not(HasSubstr("<svg "))) << "nothing was measured";
}

}  // namespace
}  // namespace tensorforge::crashtest

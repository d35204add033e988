// tensorforge crashtest: hurts the service on purpose, and judges what it recovers.
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "crashtest/html_report.h"
#include "crashtest/tester.h"
#include "program.h"

namespace tensorforge::cli {
namespace {

constexpr std::uint64_t kMaxSeconds = 30ULL * 86'400, kMaxJobs = 256, kMaxClients = 100, kMaxOperations = 100'000;

struct CrashTest {
  std::vector<std::string> levels;
  std::uint64_t seed{1}, seconds{10}, jobs{std::max(1U, std::thread::hardware_concurrency())};
  std::optional<std::uint64_t> runs;
  std::string data_dir, tensorforged, html;
  crashtest::Portion portion;
};

/// A new directory under the one for temporary files, gone with this.
class TemporaryPlace {
 public:
  TemporaryPlace() : path_((std::filesystem::temp_directory_path() / "tensorforge-crashtest-XXXXXX").string()) {
    if (::mkdtemp(path_.data()) == nullptr) throw wrong_usage(fmt::format("cannot make {}", path_));
  }
  ~TemporaryPlace() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryPlace(const TemporaryPlace&) = delete;
  TemporaryPlace& operator=(const TemporaryPlace&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

std::uint64_t sum(const std::map<std::string, std::uint64_t>& counts) {
  std::uint64_t all = 0;
  for (const auto& [kind, count] : counts) all += count;
  return all;
}

void show(Context& context, const crashtest::Report& report) {
  if (context.out().format() != Format::Text) return context.out().object(to_json(report));
  List list(context.out(), {{"level", "LEVEL"},
                            {"runs", "RUNS"},
                            {"faults", "FAULTS"},
                            {"acknowledged", "ACKNOWLEDGED"},
                            {"refused", "REFUSED"},
                            {"lost", "LOST"},
                            {"failed", "FAILED RUNS"},
                            {"recoveries", "RECOVERIES"},
                            {"p50", "P50 MS"},
                            {"p99", "P99 MS"},
                            {"took", "SECONDS"}});
  const Json levels = to_json(report).at("levels");
  for (std::size_t i = 0; i < report.levels.size(); ++i) {
    const crashtest::LevelReport& level = report.levels[i];
    const Json& recoveries = levels[i].at("recoveries");
    const auto rounded = [&](const char* key) {
      return recoveries.contains(key) ? fmt::format("{:.1f}", recoveries.at(key).get<double>()) : std::string("-");
    };
    list.add({{"level", level.level},
              {"runs", level.runs},
              {"faults", sum(level.total.faults)},
              {"acknowledged", level.total.acknowledged},
              {"refused", level.total.refused},
              {"lost", level.total.lost},
              {"failed", level.failures.size()},
              {"recoveries", level.total.recovery_ms.size()},
              {"p50", rounded("p50_ms")},
              {"p99", rounded("p99_ms")},
              {"took", fmt::format("{:.1f}", level.seconds)}});
  }
  list.finish();
  for (const crashtest::LevelReport& level : report.levels) {
    for (const auto& [kind, count] : level.total.faults) {
      context.out().line(fmt::format("{}: {} x {}", level.level, count, kind));
    }
    for (const auto& [verdict, count] : level.total.verdicts) {
      context.out().line(fmt::format("{}: {} x {}", level.level, count, verdict));
    }
  }
  for (const crashtest::LevelReport& level : report.levels) {
    for (const crashtest::Failure& failure : level.failures) {
      context.out().line(fmt::format("FAILED {} seed {}; again: {}", failure.level, failure.seed,
                                     crashtest::reproduce_command(failure)));
      for (const std::string& what : failure.what) context.out().line("  " + what);
    }
  }
  context.out().line(report.passed() ? "Nothing acknowledged was lost, and no other promise was broken."
                                     : "A PROMISE WAS BROKEN.");
}

/// Before the test, which may take long.
std::optional<std::ofstream> open_html(const std::string& path) {
  if (path.empty()) return std::nullopt;
  std::ofstream file(path, std::ios::binary);
  if (!file) throw wrong_usage(fmt::format("cannot write --html {}", path));
  return file;
}

void crash_test(Context& context, const CrashTest& asked) {
  std::optional<std::ofstream> html = open_html(asked.html);
  std::optional<TemporaryPlace> temporary;
  crashtest::TesterOptions options;
  options.levels = asked.levels;
  if (options.levels.empty()) {
    for (const crashtest::Level& level : crashtest::levels()) options.levels.emplace_back(level.name);
  }
  options.seed = asked.seed;
  options.seconds = static_cast<double>(asked.seconds);
  options.runs = asked.runs;
  options.jobs = static_cast<unsigned>(asked.jobs);
  options.tensorforged = asked.tensorforged;
  options.portion = asked.portion;
  options.data_dir = asked.data_dir.empty() ? temporary.emplace().path() : asked.data_dir;
  std::string level;
  std::optional<Progress> progress;
  options.progress = [&](const crashtest::LevelReport& so_far) {
    if (level != so_far.level) progress.emplace(so_far.level + ": runs", asked.runs.value_or(0));
    level = so_far.level;
    progress->update(so_far.runs);
  };
  const Result<crashtest::Report> report = run_crash_test(options);
  progress.reset();
  if (!report.ok()) throw wrong_usage(std::string(report.status().message()));
  show(context, *report);
  if (html && !(*html << crashtest::to_html(*report)).flush()) {
    throw wrong_usage(fmt::format("cannot write --html {}", asked.html));
  }
  if (report->passed()) return;
  std::size_t failed = 0;
  for (const crashtest::LevelReport& each : report->levels) failed += each.failures.size();
  throw Failure{Exit::LossFound,
                absl::DataLossError(fmt::format("{} of the runs broke a promise; {} acknowledged changes were lost",
                                                failed, report->lost()))};
}

template <std::uint64_t largest>
Result<std::uint64_t> parse_positive(std::string_view text) {
  const Result<std::uint64_t> value = parse_whole(text);
  if (!value.ok()) return value.status();
  if (*value >= 1 && *value <= largest) return *value;
  return absl::InvalidArgumentError(fmt::format("{} is not from 1 to {}", *value, largest));
}

Result<std::string> parse_level(std::string_view text) {
  if (crashtest::find_level(text) != nullptr) return std::string(text);
  std::vector<std::string_view> names;
  for (const crashtest::Level& level : crashtest::levels()) names.push_back(level.name);
  return absl::InvalidArgumentError(fmt::format("there is no level {}; there are {}", text, fmt::join(names, ", ")));
}

}  // namespace

void add_crashtest(CLI::App& app, Program& program) {
  auto asked = std::make_shared<CrashTest>();
  CLI::App& command =
      *app.add_subcommand("crashtest", "Test that nothing acknowledged is lost, whatever happens to process and disk");
  std::string footer = "Levels, all of them by default:\n";
  for (const crashtest::Level& level : crashtest::levels()) {
    footer += fmt::format("  {:10}{}\n", level.name, level.description);
  }
  footer +=
      "\nExit code 5: a promise was broken. The first such runs of each level are made smaller, to what still fails, "
      "and\n"
      "the report has the command that repeats each: --clients, --operations and --faults leave something out of "
      "it.\n\n"
      "Example:\n  tensorforge crashtest power rot --seconds 60 --data-dir /mnt/new-disk/test";
  command.fallthrough()->footer(footer);
  command
      .add_option_function<std::vector<std::string>>(
          "LEVEL",
          [asked](const std::vector<std::string>& given) {
            for (const std::string& text : given) {
              Result<std::string> level = parse_level(text);
              if (!level.ok()) throw CLI::ValidationError("LEVEL", std::string(level.status().message()));
              asked->levels.push_back(*std::move(level));
            }
          },
          "Which to run")
      ->type_name("");
  Verb verb(command, program);
  verb.whole("--seed", asked->seed, "Of the first run of each level; the next count up; default 1");
  verb.value("--seconds", asked->seconds, parse_positive<kMaxSeconds>, "Of all levels together; default 10");
  verb.whole("--runs", asked->runs, "At most so many of each level");
  verb.value("--jobs", asked->jobs, parse_positive<kMaxJobs>, "Processes at a time; default: one for each core");
  verb.text("--data-dir", asked->data_dir,
            "Test the disk under DIR, which is empty or not there yet; default: a temporary directory");
  verb.text("--tensorforged", asked->tensorforged,
            "The program that `kill` runs; default: $TENSORFORGED, or else the one beside this program");
  verb.text("--html", asked->html, "Write the report to FILE too, as one page with a plot of the times of recovery");
  verb.value("--clients", asked->portion.clients, parse_positive<kMaxClients>,
             "So many clients, in runs of one LEVEL that are made smaller");
  verb.value("--operations", asked->portion.operations, parse_positive<kMaxOperations>,
             "So many requests: in `simulate` of each client, else in each life of the service");
  verb.value("--faults", asked->portion.faults, crashtest::parse_faults,
             "Only these of its faults, by number from 0 (0,3), or none");
  verb.run([asked](Context& context) { crash_test(context, *asked); });
}

}  // namespace tensorforge::cli

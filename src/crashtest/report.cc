#include "crashtest/report.h"

#include <algorithm>
#include <charconv>
#include <system_error>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "platform/statistics.h"

namespace tensorforge::crashtest {
namespace {

Json recoveries(const std::vector<double>& ms) {
  Json json = {{"count", ms.size()}};
  if (ms.empty()) return json;
  json["p50_ms"] = *statistics::percentile(ms, 50);
  json["p99_ms"] = *statistics::percentile(ms, 99);
  json["max_ms"] = *std::max_element(ms.begin(), ms.end());
  return json;
}

Json to_json(const LevelReport& level) {
  Json failures = Json::array();
  for (const Failure& failure : level.failures) {
    failures.push_back({{"seed", failure.seed}, {"what", failure.what}, {"reproduce", reproduce_command(failure)}});
  }
  const RunResult& total = level.total;
  return {{"level", level.level},
          {"first_seed", level.first_seed},
          {"runs", level.runs},
          {"seconds", level.seconds},
          {"faults", total.faults},
          {"verdicts", total.verdicts},
          {"acknowledged", total.acknowledged},
          {"refused", total.refused},
          {"lost", total.lost},
          {"unknown_kept", total.unknown_kept},
          {"unknown_dropped", total.unknown_dropped},
          {"recoveries", recoveries(total.recovery_ms)},
          {"failures", failures}};
}

}  // namespace

bool Report::passed() const {
  return std::all_of(levels.begin(), levels.end(),
                     [](const LevelReport& level) { return level.runs > 0 && level.failures.empty(); });
}

std::uint64_t Report::lost() const {
  std::uint64_t lost = 0;
  for (const LevelReport& level : levels) lost += level.total.lost;
  return lost;
}

std::string format_faults(const std::vector<std::uint64_t>& faults) {
  return faults.empty() ? "none" : fmt::format("{}", fmt::join(faults, ","));
}

Result<std::vector<std::uint64_t>> parse_faults(std::string_view text) {
  std::vector<std::uint64_t> faults;
  if (text == "none") return faults;
  for (const char *at = text.data(), *const end = at + text.size();; ++at) {
    std::uint64_t number = 0;
    const auto [behind, error] = std::from_chars(at, end, number);
    if (error != std::errc()) break;
    faults.push_back(number);
    if (behind == end) return faults;
    if (*behind != ',') break;
    at = behind;
  }
  return absl::InvalidArgumentError(fmt::format("\"{}\" is not numbers with commas between them, nor none", text));
}

std::string reproduce_command(const Failure& failure) {
  std::string command = fmt::format("tensorforge crashtest {} --seed {} --runs 1", failure.level, failure.seed);
  const Portion& portion = failure.portion;
  if (portion.clients) command += fmt::format(" --clients {}", *portion.clients);
  if (portion.operations) command += fmt::format(" --operations {}", *portion.operations);
  if (portion.faults) command += " --faults " + format_faults(*portion.faults);
  return command;
}

Json to_json(const Report& report) {
  Json levels = Json::array();
  for (const LevelReport& level : report.levels) levels.push_back(to_json(level));
  return {{"passed", report.passed()}, {"lost", report.lost()}, {"levels", levels}};
}

Json to_json(const Portion& portion) {
  Json json = Json::object();
  if (portion.clients) json["clients"] = *portion.clients;
  if (portion.operations) json["operations"] = *portion.operations;
  if (portion.faults) json["faults"] = *portion.faults;
  return json;
}

Portion portion_of(const Json& json) {
  Portion portion;
  if (json.contains("clients")) portion.clients = json["clients"].get<std::uint64_t>();
  if (json.contains("operations")) portion.operations = json["operations"].get<std::uint64_t>();
  if (json.contains("faults")) portion.faults = json["faults"].get<std::vector<std::uint64_t>>();
  return portion;
}

Json to_json(const RunResult& result) {
  return {{"faults", result.faults},
          {"verdicts", result.verdicts},
          {"acknowledged", result.acknowledged},
          {"refused", result.refused},
          {"lost", result.lost},
          {"unknown_kept", result.unknown_kept},
          {"unknown_dropped", result.unknown_dropped},
          {"recovery_ms", result.recovery_ms},
          {"failures", result.failures}};
}

RunResult run_result_of(const Json& json) {
  RunResult result;
  json.at("faults").get_to(result.faults);
  json.at("verdicts").get_to(result.verdicts);
  json.at("acknowledged").get_to(result.acknowledged);
  json.at("refused").get_to(result.refused);
  json.at("lost").get_to(result.lost);
  json.at("unknown_kept").get_to(result.unknown_kept);
  json.at("unknown_dropped").get_to(result.unknown_dropped);
  json.at("recovery_ms").get_to(result.recovery_ms);
  json.at("failures").get_to(result.failures);
  return result;
}

}  // namespace tensorforge::crashtest

#include "crashtest/level.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <utility>

#include <fmt/format.h>

namespace tensorforge::crashtest {
namespace {

/// Of one run; the rest would only say the same again.
constexpr std::size_t kMaxFailures = 20;

constexpr std::array kLevels = {
    Level{"power", "the power goes at any write, and the disk keeps any part of what was not synced", run_power,
          whole_power},
    Level{"errors", "a call of the disk fails, or a full or slow disk", run_errors, whole_errors},
    Level{"rot", "a file of a stopped data directory is damaged, lost or older", run_rot, nullptr, true, false, true},
    Level{"kill", "the real service under load is killed at any place and moment, and while it recovers", run_kill,
          whole_kill, false, true},
    Level{"simulate", "clients, network and service on a virtual clock, and whatever can happen to each", run_simulate,
          whole_simulate},
};

}  // namespace

bool has_fault(const Portion& portion, std::uint64_t number) {
  if (!portion.faults) return true;
  return std::find(portion.faults->begin(), portion.faults->end(), number) != portion.faults->end();
}

std::vector<std::uint64_t> all_faults(std::uint64_t count) {
  std::vector<std::uint64_t> all(count);
  std::iota(all.begin(), all.end(), std::uint64_t{0});
  return all;
}

void RunResult::add_failure(std::string what) {
  if (failures.size() < kMaxFailures) failures.push_back(std::move(what));
}

void RunResult::add_recovery(double ms) {
  if (ms > 0) recovery_ms.push_back(ms);
}

void RunResult::add_findings(const Verdict& verdict, const std::string& where) {
  lost += verdict.lost;
  for (const Finding& finding : verdict.findings) {
    add_failure(fmt::format("{}: {}: {}", where, to_string(finding.violation), finding.what));
  }
}

void RunResult::count(const Verdict& verdict) {
  acknowledged += verdict.acknowledged;
  refused += verdict.refused;
  unknown_kept += verdict.unknown_kept;
  unknown_dropped += verdict.unknown_dropped;
}

void RunResult::merge(const RunResult& other) {
  for (const auto& [kind, count] : other.faults) faults[kind] += count;
  for (const auto& [verdict, count] : other.verdicts) verdicts[verdict] += count;
  acknowledged += other.acknowledged;
  refused += other.refused;
  lost += other.lost;
  unknown_kept += other.unknown_kept;
  unknown_dropped += other.unknown_dropped;
  recovery_ms.insert(recovery_ms.end(), other.recovery_ms.begin(), other.recovery_ms.end());
  for (const std::string& failure : other.failures) add_failure(failure);
}

std::span<const Level> levels() { return kLevels; }

const Level* find_level(std::string_view name) {
  const auto found =
      std::find_if(kLevels.begin(), kLevels.end(), [&](const Level& level) { return level.name == name; });
  return found == kLevels.end() ? nullptr : &*found;
}

}  // namespace tensorforge::crashtest

#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "crashtest/oracle.h"

namespace tensorforge::crashtest {

/// What one run of a level did and found.
struct RunResult {
  std::map<std::string, std::uint64_t> faults;  ///< injected, by kind
  std::uint64_t acknowledged{}, refused{}, lost{};
  std::uint64_t unknown_kept{}, unknown_dropped{};  ///< commands without an answer, found in the log or not
  std::vector<double> recovery_ms;                  ///< of each opening, with its replay
  std::vector<std::string> failures;                ///< each promise that was broken

  void add_failure(std::string what);
  /// Notes what is wrong. `where` says what was done before.
  void add_findings(const Verdict&, const std::string& where);
  /// Counts what the clients know at the end of a history.
  void count(const Verdict&);
  void merge(const RunResult& other);
};

/// Where a run may write: an empty directory of its own on the disk that is tested, and removed behind it.
struct Scratch {
  std::string directory;
};

/// A way to hurt the service. Each run makes a history of its own from nothing but its seed.
struct Level {
  std::string_view name, description;
  RunResult (*run)(std::uint64_t seed, const Scratch&);
  /// The seed decides everything; else only what is asked and what is done, and real processes take their time.
  bool repeats_exactly{true};
  bool damages_files{};  ///< what a library writes to standard error before a damaged file ends its process is no news
};

/// In the order in which they are run.
std::span<const Level> levels();
/// nullptr: there is no such level.
const Level* find_level(std::string_view name);

// One file each.
RunResult run_power(std::uint64_t seed, const Scratch&);
RunResult run_kill(std::uint64_t seed, const Scratch&);
RunResult run_errors(std::uint64_t seed, const Scratch&);
RunResult run_rot(std::uint64_t seed, const Scratch&);
RunResult run_simulate(std::uint64_t seed, const Scratch&);

}  // namespace tensorforge::crashtest

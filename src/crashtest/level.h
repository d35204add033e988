#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "crashtest/oracle.h"

namespace tensorforge::crashtest {

/// What one run of a level did and found.
struct RunResult {
  std::map<std::string, std::uint64_t> faults;    ///< injected, by kind
  std::map<std::string, std::uint64_t> verdicts;  ///< on them, where there are several that are right
  std::uint64_t acknowledged{}, refused{}, lost{};
  std::uint64_t unknown_kept{}, unknown_dropped{};  ///< commands without an answer, found in the log or not
  std::vector<double> recovery_ms;                  ///< of each opening, with its replay
  std::vector<std::string> failures;                ///< each promise that was broken

  void add_failure(std::string what);
  /// How long an opening took with its replay; 0: it did not come so far, and does not count.
  void add_recovery(double ms);
  /// Notes what is wrong. `where` says what was done before.
  void add_findings(const Verdict&, const std::string& where);
  /// Counts what the clients know at the end of a history.
  void count(const Verdict&);
  void merge(const RunResult& other);
};

/// What a run has of the machine.
struct Scratch {
  std::string directory;       ///< an empty one of its own on the disk that is tested, removed behind it
  std::string tensorforged{};  ///< the program, for `kill`
};

/// What of the history that a seed gives is carried out; what is not said: all of it. The same portion of the same seed
/// is the same history.
struct Portion {
  std::optional<std::uint64_t> clients;
  std::optional<std::uint64_t> operations;  ///< that they begin: `simulate`: each; else in each life of the service
  std::optional<std::vector<std::uint64_t>> faults;  ///< that happen, by number from 0
  bool operator==(const Portion&) const = default;
};
/// Whether the fault is part of it.
bool has_fault(const Portion&, std::uint64_t number);
/// 0, 1, ..., `count` - 1
std::vector<std::uint64_t> all_faults(std::uint64_t count);

/// A way to hurt the service. Each run makes a history of its own from nothing but its seed.
struct Level {
  std::string_view name, description;
  RunResult (*run)(std::uint64_t seed, const Scratch&, const Portion&);
  /// All that the seed gives, to leave something out of it; nullptr: a run of this level cannot be made smaller.
  Portion (*whole)(std::uint64_t seed){};
  /// The seed decides everything; else only what is asked and what is done, and real processes take their time.
  bool repeats_exactly{true};
  bool runs_service{};   ///< the program, not its parts
  bool damages_files{};  ///< what a library writes to standard error before a damaged file ends its process is no news
};

/// In the order in which they are run.
std::span<const Level> levels();
/// nullptr: there is no such level.
const Level* find_level(std::string_view name);

// One file each.
RunResult run_power(std::uint64_t seed, const Scratch&, const Portion&);
RunResult run_kill(std::uint64_t seed, const Scratch&, const Portion&);
RunResult run_errors(std::uint64_t seed, const Scratch&, const Portion&);
RunResult run_rot(std::uint64_t seed, const Scratch&, const Portion&);
RunResult run_simulate(std::uint64_t seed, const Scratch&, const Portion&);
Portion whole_power(std::uint64_t seed);
Portion whole_kill(std::uint64_t seed);
Portion whole_errors(std::uint64_t seed);
Portion whole_simulate(std::uint64_t seed);

}  // namespace tensorforge::crashtest

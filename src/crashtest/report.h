#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "crashtest/level.h"
#include "platform/result.h"

namespace tensorforge::crashtest {

/// Keeps the order of the fields.
using Json = nlohmann::ordered_json;

/// A run in which a promise was broken.
struct Failure {
  std::string level;
  std::uint64_t seed{};
  std::vector<std::string> what;  ///< each broken promise
  Portion portion{};              ///< that is enough for it
};

struct LevelReport {
  std::string level;
  std::uint64_t first_seed{}, runs{};
  double seconds{};
  RunResult total;  ///< of all runs; its own failures are in `failures`
  std::vector<Failure> failures;
};

struct Report {
  std::vector<LevelReport> levels;

  /// No run failed, and at least one was made of each level.
  bool passed() const;
  std::uint64_t lost() const;
};

/// "0,3,4"; "none"
std::string format_faults(const std::vector<std::uint64_t>&);
/// kInvalidArgument: not what format_faults() gives.
Result<std::vector<std::uint64_t>> parse_faults(std::string_view);

/// What one types to see a failure again.
std::string reproduce_command(const Failure&);

/// `{"passed","lost","levels":[{"level","first_seed","runs","seconds","faults":{…},"verdicts":{…},"acknowledged","refused","lost",
/// "unknown_kept","unknown_dropped","recoveries":{"count","p50_ms","p99_ms","max_ms"},"failures":[{"seed","what",
/// "reproduce"}]}]}`
Json to_json(const Report&);

// How a process tells another what to run, and of a run.
Json to_json(const Portion&);
Portion portion_of(const Json&);
Json to_json(const RunResult&);
/// Throws what nlohmann::json throws where it is none.
RunResult run_result_of(const Json&);

}  // namespace tensorforge::crashtest

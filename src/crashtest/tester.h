#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "crashtest/report.h"
#include "platform/result.h"

namespace tensorforge::crashtest {

struct TesterOptions {
  std::vector<std::string> levels;    ///< by name, run in this order
  std::uint64_t seed{1};              ///< of the first run of each level; the next ones count up
  double seconds{10};                 ///< of all levels together; a run that has begun is finished
  std::optional<std::uint64_t> runs;  ///< of each level, at most
  /// Where files are made, on the disk under test: missing, or an empty directory. Nothing else is touched.
  std::string data_dir;
  std::string tensorforged;  ///< the program, for `kill`; empty: service_path()
  unsigned jobs{1};          ///< processes at a time
  bool stop_at_failure{};    ///< a level ends with its first run that fails
  Portion portion;           ///< of each run
  /// How long it may take, of each level, to make the first of its failed runs smaller; 0: they stay as they are.
  double shrink_seconds{30};
  /// Told after each run; may be empty.
  std::function<void(const LevelReport& so_far)> progress;
};

/// Runs levels, each run in a process of its own or after another in one: what a damaged file does to a process is then
/// one of the findings. Directories that were made are removed.
///
/// kInvalidArgument  an unknown level; a portion of more than one level, or of one that cannot be made smaller;
/// data_dir
///                   holds something or cannot be made; there is no program tensorforged for `kill`
/// kInternal         main() does not call run_crash_worker_if_asked(), or no process can be started
Result<Report> run_crash_test(const TesterOptions&);

/// The processes of run_crash_test() are this same program: main() has to call this before anything else and return
/// what it gives.
std::optional<int> run_crash_worker_if_asked(int argc, char** argv);

}  // namespace tensorforge::crashtest

#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "crashtest/call_journal.h"
#include "crashtest/level.h"
#include "crashtest/oracle.h"
#include "crashtest/simulated_disk.h"

namespace tensorforge::crashtest {

/// What was found in a data directory that was opened as the service opens it, and closed again.
struct Inspection {
  absl::Status opening;  ///< also of the replay; ok: `verdict` says what was found
  Verdict verdict;
  double recovery_ms{};
};

/// What it is held against.
struct Witness {
  const CallJournal& calls;
  Moment until{kForever};
  service::Config config;
  const std::vector<Digest>& before;  ///< as check_history()
  bool disk_was_full{};
};

/// Opens World::kDataDir of a simulated disk, which changes it.
Inspection inspect(const std::shared_ptr<SimulatedDisk>&, const Witness&);
/// Opens a directory of the machine's file system, with the check in a child process, as tensorforged does.
Inspection inspect_directory(const std::string& data_dir, const Witness&);
/// Lays World::kDataDir of the disk out in a directory of the machine's file system, and inspects it there.
Inspection inspect_on_disk(const SimulatedDisk&, const Scratch&, const Witness&);

}  // namespace tensorforge::crashtest

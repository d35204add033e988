#include "crashtest/inspection.h"

#include <chrono>
#include <filesystem>
#include <utility>

#include "crashtest/recovery.h"
#include "crashtest/world.h"

namespace tensorforge::crashtest {
namespace {

using SteadyClock = std::chrono::steady_clock;

Inspection inspect(const storage::OpenOptions& options, const Witness& witness) {
  Inspection inspection;
  const auto begin = SteadyClock::now();
  const Result<Recovery> found = open_and_recover(options);
  inspection.recovery_ms = std::chrono::duration<double, std::milli>(SteadyClock::now() - begin).count();
  inspection.opening = found.status();
  if (!found.ok()) return inspection;
  storage::Journal& journal = *found->directory.journal;
  const Recovered recovered{journal, found->state.digest(), witness.config, witness.disk_was_full,
                            digest_of_everything(found->state)};
  inspection.verdict = check_history(witness.calls, witness.until, recovered, witness.before);
  journal.close().IgnoreError();
  return inspection;
}

/// No opening reads what RocksDB notes there of its options, and one where that fails goes on; but to write the file
/// and parse it again is most of the time that an opening takes.
SimulatedDisk::Fault keep_options_out(const SimulatedDisk::Call& call) {
  const bool is_options =
      call.operation == SimulatedDisk::Operation::kCreate && call.path.find("/OPTIONS-") != std::string::npos;
  return is_options ? SimulatedDisk::Fault{rocksdb::IOStatus::NoSpace("not while it is inspected"), 0}
                    : SimulatedDisk::Fault{};
}

}  // namespace

Inspection inspect(const std::shared_ptr<SimulatedDisk>& disk, const Witness& witness) {
  storage::OpenOptions options;
  options.data_dir = World::kDataDir;
  options.file_system = disk;
  options.check_in_process = true;
  disk->set_hook(keep_options_out);
  return inspect(options, witness);
}

Inspection inspect_directory(const std::string& data_dir, const Witness& witness) {
  storage::OpenOptions options;
  options.data_dir = data_dir;
  return inspect(options, witness);
}

Inspection inspect_on_disk(const SimulatedDisk& disk, const Scratch& scratch, const Witness& witness) {
  const std::string data_dir = scratch.directory + "/data";
  Inspection inspection;
  inspection.opening = disk.write_to(World::kDataDir, data_dir);
  if (inspection.opening.ok()) inspection = inspect_directory(data_dir, witness);
  std::error_code ignored;
  std::filesystem::remove_all(data_dir, ignored);
  return inspection;
}

}  // namespace tensorforge::crashtest

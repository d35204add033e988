#include "crashtest/inspection.h"

#include <chrono>
#include <filesystem>
#include <utility>

#include "crashtest/world.h"
#include "service/recover.h"
#include "storage/data_directory.h"

namespace tensorforge::crashtest {
namespace {

using SteadyClock = std::chrono::steady_clock;

Inspection inspect(const storage::OpenOptions& options, const Witness& witness) {
  Inspection inspection;
  const auto begin = SteadyClock::now();
  const Result<storage::OpenedDirectory> opened = storage::open_data_directory(options);
  const Result<service::State> state = opened.ok() ? service::recover(*opened->journal) : opened.status();
  inspection.recovery_ms = std::chrono::duration<double, std::milli>(SteadyClock::now() - begin).count();
  inspection.opening = state.status();
  if (!state.ok()) return inspection;
  const Recovered recovered{*opened->journal, state->digest(), witness.config, witness.disk_was_full};
  inspection.verdict = check_history(witness.calls, witness.until, recovered, witness.before);
  opened->journal->close().IgnoreError();
  return inspection;
}

}  // namespace

Inspection inspect(const std::shared_ptr<SimulatedDisk>& disk, const Witness& witness) {
  storage::OpenOptions options;
  options.data_dir = World::kDataDir;
  options.file_system = disk;
  options.check_in_process = true;
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

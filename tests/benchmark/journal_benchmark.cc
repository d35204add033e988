// What the journal costs: groups of records of 256 bytes, on the disk under $TMPDIR with every group synced, and in
// memory (the cost of chunks, checksums and the tree alone).
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <random>
#include <semaphore>
#include <string>
#include <system_error>
#include <utility>

#include <benchmark/benchmark.h>
#include <stdlib.h>

#include "storage/data_directory.h"
#include "storage/memory_journal.h"

namespace tensorforge::storage {
namespace {

constexpr std::size_t kRecordBytes = 256;

/// What no compression makes short: several chunks of it.
std::string noise() {
  std::mt19937_64 random(1);
  std::string bytes(std::size_t{1} << 20U, '\0');
  for (char& c : bytes) c = static_cast<char>(random());
  return bytes;
}

/// `count` commands of one record of noise each.
Group group_of(Sequence first, std::size_t count) {
  static const std::string bytes = noise();
  Group group;
  group.first = first;
  group.incarnation = 1;
  for (std::size_t i = 0; i < count; ++i) {
    group.add({bytes.substr((first + i) * kRecordBytes % bytes.size(), kRecordBytes)});
  }
  return group;
}

class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string pattern = (std::filesystem::temp_directory_path() / "tensorforge-bench.XXXXXX").string();
    path_ = ::mkdtemp(pattern.data());
  }
  ~TemporaryDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

void append_durably(benchmark::State& bench, Ack ack) {
  const auto count = static_cast<std::size_t>(bench.range(0));
  const TemporaryDirectory directory;
  Result<OpenedDirectory> opened = open_data_directory({directory.path() + "/data", ack, false, nullptr});
  if (!opened.ok()) return bench.SkipWithError(std::string(opened.status().message()).c_str());
  Journal& journal = *opened->journal;

  std::counting_semaphore<> synced(0), durable(0);
  journal.start({[&](Sequence, std::size_t) { synced.release(); }, [&](Sequence) { durable.release(); }, {}});
  Sequence next = 1;
  for (auto _ : bench) {
    journal.submit(group_of(next, count));
    next += count;
    synced.acquire();
    durable.acquire();
  }
  bench.SetItemsProcessed(bench.iterations() * bench.range(0));
  if (!journal.close().ok()) bench.SkipWithError("the disk failed");
}
void AppendAckAnchor(benchmark::State& bench) { append_durably(bench, Ack::kAnchor); }
void AppendAckWal(benchmark::State& bench) { append_durably(bench, Ack::kWal); }

void AppendInMemory(benchmark::State& bench) {
  const auto count = static_cast<std::size_t>(bench.range(0));
  MemoryJournal journal(LogId{1});
  journal.start({});
  Sequence next = 1;
  for (auto _ : bench) {
    journal.submit(group_of(next, count));
    journal.complete_sync();
    next += count;
  }
  bench.SetItemsProcessed(bench.iterations() * bench.range(0));
}

void ReadInMemory(benchmark::State& bench) {
  constexpr Sequence kRecords = 100'000;
  MemoryJournal journal(LogId{1});
  journal.start({});
  for (Sequence next = 1; next <= kRecords; next += 1'000) {
    journal.submit(group_of(next, 1'000));
    journal.complete_sync();
  }
  journal.complete_anchor();
  for (auto _ : bench) {
    for (Sequence next = 1; next <= kRecords;) next += journal.read(next, 10'000, 4U << 20U)->records.size();
  }
  bench.SetItemsProcessed(bench.iterations() * static_cast<std::int64_t>(kRecords));
}

BENCHMARK(AppendAckAnchor)->Arg(1)->Arg(64)->Arg(1'024)->UseRealTime()->Unit(benchmark::kMicrosecond);
BENCHMARK(AppendAckWal)->Arg(1)->Arg(64)->Arg(1'024)->UseRealTime()->Unit(benchmark::kMicrosecond);
BENCHMARK(AppendInMemory)->Arg(1)->Arg(64)->Arg(1'024)->Unit(benchmark::kMicrosecond);
BENCHMARK(ReadInMemory)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace tensorforge::storage

int main(int argc, char** argv) {
  // Opening a directory checks its log in a child process, which is this program again.
  if (const auto exit_code = tensorforge::storage::run_log_check_if_asked(argc, argv)) return *exit_code;
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}

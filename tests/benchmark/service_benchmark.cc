// What a start does with the log and with a snapshot, in memory: to decode records, to apply them, to take them through
// both threads; to write the pages of a state and to build it from them. The log is that of recovery_log.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <benchmark/benchmark.h>

#include "service/recover.h"
#include "service/snapshot.h"
#include "storage/data_directory.h"

namespace tensorforge::service {
namespace {

/// The records of the log in the directory that the environment names; empty: there is none.
const std::vector<std::string>& records() {
  static const std::vector<std::string> all = [] {
    std::vector<std::string> read;
    const char* data_dir = std::getenv("TENSORFORGE_BENCHMARK_LOG");
    if (data_dir == nullptr) return read;
    const auto log = storage::open_read_only(data_dir);
    if (!log.ok()) return read;
    (*log)
        ->scan(1,
               [&](std::span<const std::string_view> some) {
                 read.insert(read.end(), some.begin(), some.end());
                 return true;
               })
        .IgnoreError();
    return read;
  }();
  return all;
}

bool has_records(benchmark::State& bench) {
  if (!records().empty()) return true;
  bench.SkipWithError("TENSORFORGE_BENCHMARK_LOG names no log: tools/bench/recovery --keep makes one");
  return false;
}

Result<Record> decoded(const std::string& record) { return codec::decode_record(std::as_bytes(std::span(record))); }

State replayed() {
  State state;
  for (const std::string& record : records()) apply_record(state, decoded(record).value()).IgnoreError();
  return state;
}

void per_item(benchmark::State& bench, std::size_t items) {
  bench.SetItemsProcessed(static_cast<std::int64_t>(items) * static_cast<std::int64_t>(bench.iterations()));
}

void decode(benchmark::State& bench) {
  if (!has_records(bench)) return;
  for (auto _ : bench) {
    for (const std::string& record : records()) benchmark::DoNotOptimize(decoded(record));
  }
  per_item(bench, records().size());
}

void apply(benchmark::State& bench) {
  if (!has_records(bench)) return;
  for (auto _ : bench) {
    bench.PauseTiming();
    std::vector<Record> all;
    all.reserve(records().size());
    for (const std::string& record : records()) all.push_back(decoded(record).value());
    auto state = std::make_unique<State>();
    bench.ResumeTiming();
    for (Record& record : all) apply_record(*state, std::move(record)).IgnoreError();
    bench.PauseTiming();
    state.reset();
    all = {};
    bench.ResumeTiming();
  }
  per_item(bench, records().size());
}

void save(benchmark::State& bench) {
  if (!has_records(bench)) return;
  const State state = replayed();
  std::uint64_t bytes = 0;
  for (auto _ : bench) {
    save_state(state, [&](std::string_view page) {
      bytes += page.size();
      return absl::OkStatus();
    }).IgnoreError();
  }
  per_item(bench, live_entities(state));
  bench.SetBytesProcessed(static_cast<std::int64_t>(bytes));
}

void load(benchmark::State& bench) {
  if (!has_records(bench)) return;
  std::vector<std::string> pages;
  std::uint64_t entities = 0;
  {
    const State state = replayed();
    entities = live_entities(state);
    save_state(state, [&](std::string_view page) {
      pages.emplace_back(page);
      return absl::OkStatus();
    }).IgnoreError();
  }
  for (auto _ : bench) {
    auto next = [at = pages.begin(), &pages]() mutable -> Result<std::optional<std::string_view>> {
      return at == pages.end() ? std::nullopt : std::optional<std::string_view>(*at++);
    };
    auto state = std::make_unique<Result<State>>(load_state(next));
    benchmark::DoNotOptimize(state->ok());
    bench.PauseTiming();
    state.reset();
    bench.ResumeTiming();
  }
  per_item(bench, entities);
}

BENCHMARK(decode)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK(apply)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK(save)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK(load)->Unit(benchmark::kMillisecond)->UseRealTime();

}  // namespace
}  // namespace tensorforge::service

BENCHMARK_MAIN();

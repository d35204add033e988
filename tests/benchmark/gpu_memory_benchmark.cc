// What a placement and a command of the GPU memory domain cost, beside a plain std::set best fit.
// One iteration of a churn frees a random block and allocates one of random size.
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <benchmark/benchmark.h>

#include "gpu_memory/free_space.h"
#include "gpu_memory/state_machine.h"

namespace tensorforge::gpu_memory {
namespace {

constexpr std::size_t kAlignment = 256;
constexpr std::size_t kChanges = 300'000;  ///< fixed, or each benchmark would fill its pool anew to guess a number

std::size_t random_size(std::mt19937_64& random) { return kAlignment * (1 + random() % 256); }
std::size_t roomy_total(std::size_t blocks) { return blocks * kAlignment * 128 / 4 * 5; }  // 4/5 of it in use

/// The textbook: holes by (size, offset) and by offset, and a scan over the holes that are large enough.
class SetBestFit {
 public:
  void add(Extent extent) {
    auto next = by_offset_.lower_bound(extent.offset);
    if (next != by_offset_.end() && next->first == extent.end()) {
      extent.size += next->second;
      by_size_.erase({next->second, next->first});
      next = by_offset_.erase(next);
    }
    if (next != by_offset_.begin()) {
      const auto before = std::prev(next);
      if (before->first + before->second == extent.offset) {
        extent = {before->first, before->second + extent.size};
        by_size_.erase({before->second, before->first});
        by_offset_.erase(before);
      }
    }
    by_offset_.emplace(extent.offset, extent.size);
    by_size_.emplace(extent.size, extent.offset);
  }
  void remove(Extent extent) {
    const auto found = std::prev(by_offset_.upper_bound(extent.offset));
    const Extent hole{found->first, found->second};
    by_size_.erase({hole.size, hole.offset});
    by_offset_.erase(found);
    if (hole.offset < extent.offset) add({hole.offset, extent.offset - hole.offset});
    if (extent.end() < hole.end()) add({extent.end(), hole.end() - extent.end()});
  }
  std::optional<Extent> best_fit(std::size_t size, std::size_t alignment) const {
    for (auto at = by_size_.lower_bound({size, 0}); at != by_size_.end(); ++at) {
      if (align_up(at->second, alignment) + size <= at->first + at->second) return Extent{at->second, at->first};
    }
    return std::nullopt;
  }

 private:
  std::set<std::pair<std::size_t, std::size_t>> by_size_;
  std::map<std::size_t, std::size_t> by_offset_;
};

template <class Space>
void churn_of_holes(benchmark::State& run) {
  const auto count = static_cast<std::size_t>(run.range(0));
  std::mt19937_64 random(1);
  Space space;
  space.add({0, roomy_total(count)});
  std::vector<Extent> live(count);
  const auto place = [&](Extent& block) {
    const std::size_t size = random_size(random);
    const std::optional<Extent> hole = space.best_fit(size, kAlignment);
    if (!hole) return block = {};
    block = {align_up(hole->offset, kAlignment), size};
    space.remove(block);
    return block;
  };
  for (Extent& block : live) place(block);
  for (std::size_t i = 0; i < 2 * count; ++i) {  // until the holes are those of a pool that has run for long
    Extent& block = live[random() % count];
    if (block.size > 0) space.add(block);
    place(block);
  }
  for (auto _ : run) {
    Extent& block = live[random() % count];
    if (block.size > 0) space.add(block);
    benchmark::DoNotOptimize(place(block));
  }
}
BENCHMARK_TEMPLATE(churn_of_holes, SetBestFit)->Arg(1'000)->Arg(100'000)->Arg(1'000'000)->Iterations(kChanges);
BENCHMARK_TEMPLATE(churn_of_holes, FreeSpace)->Arg(1'000)->Arg(100'000)->Arg(1'000'000)->Iterations(kChanges);

template <class Space>
void misaligned_holes(benchmark::State& run) {
  Space space;
  for (std::size_t i = 0; i < 100'000; ++i) space.add({i * 8192 + 1, 4096});
  for (auto _ : run) benchmark::DoNotOptimize(space.best_fit(4096, 4096));
}
BENCHMARK_TEMPLATE(misaligned_holes, SetBestFit);
BENCHMARK_TEMPLATE(misaligned_holes, FreeSpace);

/// A state with one pool, driven by commands as the service drives it.
class Machine {
 public:
  explicit Machine(std::size_t total) { apply(state_, PoolCreated{{"gpu0", total, 0, {}}}); }

  const Event* run(const Command& command) {
    ++context_.now;
    last_ = decide(state_, command, context_);
    if (!last_.ok() || last_->empty()) return nullptr;
    for (const Event& event : *last_) apply(state_, event);
    return &last_->front();
  }
  /// The id of the new block; empty: refused.
  std::string place(std::size_t size, std::int32_t priority = 0) {
    const Event* const event = run(Allocate{"gpu0", {"tensor", size, kAlignment, false, priority}});
    const auto* const placed = event == nullptr ? nullptr : std::get_if<BlockAllocated>(event);
    return placed == nullptr ? "" : format_entity_id(kBlockIdPrefix, placed->block);
  }

 private:
  State state_;
  Context context_;
  Result<Events> last_{Events{}};
};

void churn_of_commands(benchmark::State& run) {
  const auto count = static_cast<std::size_t>(run.range(0));
  std::mt19937_64 random(1);
  Machine machine(roomy_total(count));
  std::vector<std::string> live(count);
  const auto replace = [&] {
    std::string& id = live[random() % count];
    if (!id.empty()) machine.run(FreeBlock{"gpu0", id});
    id = machine.place(random_size(random));
  };
  for (std::string& id : live) id = machine.place(random_size(random));
  for (std::size_t i = 0; i < count; ++i) replace();
  for (auto _ : run) replace();
}
BENCHMARK(churn_of_commands)->Arg(1'000)->Arg(100'000)->Arg(1'000'000)->Iterations(kChanges);

/// `count` Cached blocks of 256 bytes, with an Allocated one behind every eighth.
void fill_with_cached(Machine& machine, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    machine.run(CacheBlock{"gpu0", machine.place(kAlignment)});
    if (i % 8 == 7) machine.place(kAlignment);
  }
}

void refusal_over_cached_blocks(benchmark::State& run) {
  const auto count = static_cast<std::size_t>(run.range(0));
  Machine machine((count + count / 8) * kAlignment);
  fill_with_cached(machine, count);
  for (auto _ : run) benchmark::DoNotOptimize(machine.run(Allocate{"gpu0", {"tensor", 16 * kAlignment}}));
}
BENCHMARK(refusal_over_cached_blocks)->Arg(1'000)->Arg(1'000'000)->Iterations(kChanges);

void allocation_that_evicts_eight(benchmark::State& run) {
  const auto count = static_cast<std::size_t>(run.range(0));
  Machine machine((count + count / 8) * kAlignment);
  fill_with_cached(machine, count);
  for (auto _ : run) machine.run(CacheBlock{"gpu0", machine.place(8 * kAlignment)});
}
BENCHMARK(allocation_that_evicts_eight)->Arg(1'000)->Arg(1'000'000)->Iterations(kChanges);

}  // namespace
}  // namespace tensorforge::gpu_memory

BENCHMARK_MAIN();

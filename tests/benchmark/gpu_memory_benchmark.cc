// What a placement and a command of the GPU memory domain cost, beside a plain std::set best fit. tools/bench/allocator
// runs all of it and prints a table.
//
// Churn: N live blocks fill 80 % of a pool; a step frees a random one and allocates one of random size in its stead.
// Times are per step; the items per second are operations, of which a step has two. `p99.9` is that of single steps in
// ns, timed one by one in a second round; both kinds of placement run the same steps and must place alike.
#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <sstream>
#include <string>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include <benchmark/benchmark.h>

#include "gpu_memory/placement.h"
#include "gpu_memory/state_machine.h"
#include "platform/huge_pages.h"
#include "platform/prefetch.h"

namespace tensorforge::gpu_memory {
namespace {

constexpr std::size_t kAlignment = 256;
constexpr std::size_t kSteps = 200'000;  ///< fixed: a churn goes on where it stopped, never begins anew
constexpr double kLeast = 512, kMost = 64.0 * 1024 * 1024;

/// Log-uniform from 512 bytes to 64 MiB.
std::size_t random_size(std::mt19937_64& random) {
  std::uniform_real_distribution<double> exponent(std::log(kLeast), std::log(kMost));
  return align_up(static_cast<std::size_t>(std::exp(exponent(random))), kAlignment);
}
std::size_t roomy_total(std::size_t blocks) {  // 4/5 of it in use
  return static_cast<std::size_t>(static_cast<double>(blocks) * (kMost - kLeast) / std::log(kMost / kLeast) * 1.25);
}

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

/// The baseline and the placement core behind one face: a live block is what `allocate` fills and `free` empties.
class SetPlacement {
 public:
  using Live = Extent;
  explicit SetPlacement(std::size_t total) { space_.add({0, total}); }
  bool allocate(Live& live, std::size_t size, std::size_t alignment) {
    const std::optional<Extent> hole = space_.best_fit(size, alignment);
    if (!hole) return false;
    live = {align_up(hole->offset, alignment), size};
    space_.remove(live);
    return true;
  }
  void free(Live& live) { space_.add(live); }

 private:
  SetBestFit space_;
};
class CorePlacement {
 public:
  using Live = Place;
  explicit CorePlacement(std::size_t total) : placement_(total) {}
  bool allocate(Live& live, std::size_t size, std::size_t alignment) {
    const auto hole = placement_.best_fit(size, alignment);
    if (!hole) return false;
    placement_.occupy(live, {align_up(hole->offset, alignment), size}, *hole);
    return true;
  }
  void free(Live& live) { placement_.vacate(live); }

 private:
  Placement placement_;
};

struct Step {
  std::size_t victim{}, size{};
};

using Steps = std::vector<Step>;

/// p99.9 of running so many steps, in ns.
template <class Run>
double p999(std::size_t steps, const Run& run_step) {
  using Clock = std::chrono::steady_clock;
  std::vector<std::int64_t> times;
  times.reserve(steps);
  for (std::size_t step = 0; step < steps; ++step) {
    const auto begin = Clock::now();
    run_step(step);
    times.push_back(std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - begin).count());
  }
  const auto at = times.begin() + static_cast<std::ptrdiff_t>(times.size() - 1 - times.size() / 1'000);
  std::nth_element(times.begin(), at, times.end());
  return static_cast<double>(*at);
}

/// A pool of `count` blocks that has run for long.
template <class Placement>
class Churn {
 public:
  explicit Churn(std::size_t count) : random_(count), placement_(roomy_total(count)), live_(count) {
    for (std::size_t i = 0; i < count; ++i) run({i, random_size(random_)});
    for (std::size_t i = 0; i < 2 * count; ++i) run(random_step());
  }
  Steps random_steps(std::size_t count) {
    Steps steps(count);
    for (Step& step : steps) step = random_step();
    return steps;
  }
  void run(const Step& step) {
    Live& live = live_[step.victim];
    if (live.size > 0) placement_.free(live);
    if (!placement_.allocate(live, step.size, kAlignment)) live = {};
    sum_of_offsets_ = sum_of_offsets_ * 31 + live.offset;
  }
  std::size_t sum_of_offsets() const { return sum_of_offsets_; }

 private:
  Step random_step() { return {random_() % live_.size(), random_size(random_)}; }

  std::mt19937_64 random_;
  Placement placement_;
  using Live = typename Placement::Live;
  std::vector<Live, HugePageAllocator<Live>> live_;  ///< as a pool has its blocks; size 0: nothing was large enough
  std::size_t sum_of_offsets_{};
};

/// The one churn of its kind and size: filling a pool takes longer than measuring in it.
template <class Kind>
Kind& churn_of(std::size_t count) {
  static std::map<std::size_t, std::unique_ptr<Kind>> made;
  auto& churn = made[count];
  if (churn == nullptr) churn = std::make_unique<Kind>(count);
  return *churn;
}

template <class Kind, class Run>
void measure_churn(benchmark::State& run, Kind& churn, const Run& run_step) {
  auto steps = churn.random_steps(kSteps);
  std::size_t next = 0;
  for (auto _ : run) run_step(steps, next++);
  run.SetItemsProcessed(2 * run.iterations());
  steps = churn.random_steps(kSteps);
  run.counters["p99.9"] = p999(steps.size(), [&](std::size_t step) { run_step(steps, step); });
}

template <class Placement>
void churn_of_holes(benchmark::State& run) {
  auto& churn = churn_of<Churn<Placement>>(static_cast<std::size_t>(run.range(0)));
  measure_churn(run, churn, [&](const Steps& steps, std::size_t next) { churn.run(steps[next]); });
  run.counters["offsets"] = static_cast<double>(churn.sum_of_offsets() % 1'000'003);
}
BENCHMARK_TEMPLATE(churn_of_holes, SetPlacement)->Arg(1'000)->Arg(100'000)->Arg(1'000'000)->Iterations(kSteps);
BENCHMARK_TEMPLATE(churn_of_holes, CorePlacement)->Arg(1'000)->Arg(100'000)->Arg(1'000'000)->Iterations(kSteps);

/// 100,000 holes of the right size, none of them aligned.
template <class Placement>
void misaligned_holes(benchmark::State& run) {
  constexpr std::size_t kHoles = 100'000;
  Placement placement(kHoles * 8192);
  std::vector<typename Placement::Live> live(2 * kHoles + 1);
  placement.allocate(live[0], 1, 1);
  for (std::size_t i = 1; i < live.size(); ++i) placement.allocate(live[i], i + 1 == live.size() ? 4095 : 4096, 1);
  for (std::size_t i = 1; i < live.size() - 1; i += 2) placement.free(live[i]);
  typename Placement::Live never;
  for (auto _ : run) {
    if (placement.allocate(never, 4096, 4096)) run.SkipWithError("a hole is aligned");
  }
}
BENCHMARK_TEMPLATE(misaligned_holes, SetPlacement);
BENCHMARK_TEMPLATE(misaligned_holes, CorePlacement);

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
  std::string place(std::size_t size, std::string tensor = "tensor") {
    const Event* const event = run(Allocate{"gpu0", {std::move(tensor), size, kAlignment, false, 0}});
    const auto* const placed = event == nullptr ? nullptr : std::get_if<BlockAllocated>(event);
    return placed == nullptr ? "" : format_entity_id(kBlockIdPrefix, placed->block);
  }

 private:
  State state_;
  Context context_;
  Result<Events> last_{Events{}};
};

/// The churn by commands: each block is of a tensor of its own, or all are of one.
template <bool kOneTensor>
class CommandChurn {
 public:
  explicit CommandChurn(std::size_t count) : random_(count), machine_(roomy_total(count)), live_(count) {
    for (std::size_t i = 0; i < count; ++i) run({i, random_size(random_)});
    for (std::size_t i = 0; i < count; ++i) run(random_step());
  }
  Steps random_steps(std::size_t count) {
    Steps steps(count);
    for (Step& step : steps) step = random_step();
    return steps;
  }
  void run(const Step& step) {
    Id& id = live_[step.victim];
    if (id.size > 0) machine_.run(FreeBlock{"gpu0", std::string(id.text.data(), id.size)});
    std::string tensor = kOneTensor ? "tensor" : "t" + std::to_string(step.victim);
    const std::string made = machine_.place(step.size, std::move(tensor));
    id.size = static_cast<std::uint8_t>(made.copy(id.text.data(), id.text.size()));
  }
  /// A command comes with the id in it: waiting for the client's list is not what is measured.
  void prefetch_id(const Step& step) const { prefetch_object(&live_[step.victim]); }

 private:
  /// What the client knows a block by. Empty: nothing was large enough.
  struct Id {
    std::array<char, 31> text{};
    std::uint8_t size{};
  };

  Step random_step() { return {random_() % live_.size(), random_size(random_)}; }

  std::mt19937_64 random_;
  Machine machine_;
  std::vector<Id, HugePageAllocator<Id>> live_;
};

template <bool kOneTensor>
void churn_of_commands(benchmark::State& run) {
  constexpr std::size_t kAhead = 4;
  auto& churn = churn_of<CommandChurn<kOneTensor>>(static_cast<std::size_t>(run.range(0)));
  measure_churn(run, churn, [&](const Steps& steps, std::size_t next) {
    if (next + kAhead < steps.size()) churn.prefetch_id(steps[next + kAhead]);
    churn.run(steps[next]);
  });
}
BENCHMARK_TEMPLATE(churn_of_commands, false)->Arg(1'000)->Arg(100'000)->Arg(1'000'000)->Iterations(kSteps);
BENCHMARK_TEMPLATE(churn_of_commands, true)->Arg(1'000'000)->Iterations(kSteps);

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
BENCHMARK(refusal_over_cached_blocks)->Arg(1'000)->Arg(1'000'000)->Iterations(kSteps);

void allocation_that_evicts_eight(benchmark::State& run) {
  const auto count = static_cast<std::size_t>(run.range(0));
  Machine machine((count + count / 8) * kAlignment);
  fill_with_cached(machine, count);
  for (auto _ : run) machine.run(CacheBlock{"gpu0", machine.place(8 * kAlignment)});
}
BENCHMARK(allocation_that_evicts_eight)->Arg(1'000)->Arg(1'000'000)->Iterations(kSteps);

}  // namespace
}  // namespace tensorforge::gpu_memory

BENCHMARK_MAIN();

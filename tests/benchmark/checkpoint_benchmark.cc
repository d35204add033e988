// What the commands of the checkpoint domain cost, decide and apply, by the number of checkpoints in one training run.
// `bytes` is what a checkpoint takes in memory, with two metrics and an object store's path.
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <variant>

#include <benchmark/benchmark.h>

#include "checkpoint/state_machine.h"
#include "tests/benchmark/memory_use.h"

namespace tensorforge::checkpoint {
namespace {

constexpr const char* kRun = "team/llama-7b/sft-3";

/// range(0) Complete checkpoints of one run: a Full one, then nine Incremental ones that stand on each other, and so
/// on.
class Checkpoints : public benchmark::Fixture {
 public:
  void SetUp(benchmark::State& bench) override {
    const std::size_t before = test::allocated_bytes();
    state_ = State();
    step_ = 0;
    for (std::int64_t i = 0; i < bench.range(0); ++i) complete(create(), step_);
    bench.counters["bytes"] =
        static_cast<double>(test::allocated_bytes() - before) / static_cast<double>(bench.range(0));
  }
  void TearDown(benchmark::State&) override { state_ = State(); }

 protected:
  Events run(const Command& command) {
    Events events = decide(state_, command, {.now = 1'772'366'400'000 + step_}).value();
    for (const Event& event : events) apply(state_, event);
    return events;
  }
  std::string create() {
    const CheckpointType type = step_ % 10 == 0 ? CheckpointType::Full : CheckpointType::Incremental;
    const auto epoch = static_cast<std::uint32_t>(step_ / 1'000);
    const double loss =
        static_cast<double>((step_ * 0x9E3779B97F4A7C15U) >> 32U) / 4e9;  // up and down, no two the same
    const Events events =
        run(CreateCheckpoint{{kRun, epoch, step_++, type, {{"eval_loss", loss + 0.12}, {"loss", loss}}}});
    return format_entity_id(kCheckpointIdPrefix, std::get<CheckpointCreated>(events.front()).checkpoint);
  }
  void complete(std::string id, std::uint64_t step) {
    run(CompleteCheckpoint{std::move(id), 13'958'643'712, "s3://checkpoints/llama-7b/sft-3/" + std::to_string(step)});
  }

  State state_;
  std::uint64_t step_{};
};

BENCHMARK_DEFINE_F(Checkpoints, CreateAndComplete)(benchmark::State& bench) {
  for (auto _ : bench) complete(create(), step_);
}

BENCHMARK_DEFINE_F(Checkpoints, FindRestorePoint)(benchmark::State& bench) {
  const auto count = static_cast<std::uint64_t>(bench.range(0));
  std::uint64_t step = 0;
  for (auto _ : bench) {
    step = (step + 7'919) % count;  // a prime: all over the run
    benchmark::DoNotOptimize(state_.find_restore_point({kRun, std::nullopt, step, true, true}));
  }
}

/// The best hundred.
BENCHMARK_DEFINE_F(Checkpoints, FindByMetric)(benchmark::State& bench) {
  for (auto _ : bench) benchmark::DoNotOptimize(state_.find_by_metric(kRun, "loss", 9, true, std::nullopt, 100));
}

void sizes(benchmark::internal::Benchmark* bench) {
  bench->Arg(1'000)->Arg(100'000)->Arg(1'000'000)->Iterations(100'000);
}
BENCHMARK_REGISTER_F(Checkpoints, CreateAndComplete)->Apply(sizes);
BENCHMARK_REGISTER_F(Checkpoints, FindRestorePoint)->Apply(sizes);
BENCHMARK_REGISTER_F(Checkpoints, FindByMetric)->Arg(1'000)->Arg(100'000)->Arg(1'000'000);

}  // namespace
}  // namespace tensorforge::checkpoint

BENCHMARK_MAIN();

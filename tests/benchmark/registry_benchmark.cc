// What the commands of the model registry cost, decide and apply, by the number of models and of versions of each.
// `bytes` is what a version takes in memory, with the fields of a published model; `longest_ms` is what the longest
// registration took while the state was made, when tables grew.
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <random>
#include <string>

#include <benchmark/benchmark.h>

#include "registry/state_machine.h"
#include "tests/benchmark/memory_use.h"

namespace tensorforge::registry {
namespace {

ModelMetadata resnet50(std::size_t model, std::uint32_t version) {
  ModelMetadata metadata;
  metadata.model_id = "team/vision/resnet50-" + std::to_string(model);
  metadata.name = "ResNet-50";
  metadata.version = {1, 0, version};
  metadata.framework = "pytorch";
  metadata.input_shape = {1, 3, 224, 224};
  metadata.output_shape = {1, 1000};
  metadata.size_bytes = 102'540'000;
  metadata.registered_at = 1'772'366'400'000 + version;
  metadata.tags = {{"accuracy_top1", "80.858"}};
  return metadata;
}

void run(State& state, const Command& command) {
  const Events events = decide(state, command).value();
  for (const Event& event : events) apply(state, event);
}

/// range(0) models of range(1) versions each.
class Registry : public benchmark::Fixture {
 public:
  void SetUp(benchmark::State& bench) override {
    models_ = static_cast<std::size_t>(bench.range(0));
    versions_ = static_cast<std::uint32_t>(bench.range(1));
    const std::size_t before = test::allocated_bytes();
    state_ = State();
    using Clock = std::chrono::steady_clock;
    std::chrono::duration<double, std::milli> longest{};
    for (std::uint32_t version = 0; version < versions_; ++version) {
      for (std::size_t model = 0; model < models_; ++model) {
        const RegisterModel command{resnet50(model, version)};
        const Clock::time_point begin = Clock::now();
        run(state_, command);
        longest = std::max<decltype(longest)>(longest, Clock::now() - begin);
      }
    }
    bench.counters["longest_ms"] = longest.count();
    bench.counters["bytes"] =
        static_cast<double>(test::allocated_bytes() - before) / static_cast<double>(models_ * versions_);
  }
  void TearDown(benchmark::State&) override { state_ = State(); }

 protected:
  std::size_t random_model() { return random_() % models_; }

  std::size_t models_{};
  std::uint32_t versions_{};
  State state_;
  std::mt19937_64 random_{1};
};

BENCHMARK_DEFINE_F(Registry, Register)(benchmark::State& bench) {
  std::size_t model = 0;
  std::uint32_t version = versions_;
  for (auto _ : bench) {
    run(state_, RegisterModel{resnet50(model, version)});
    if (++model == models_) model = 0, ++version;
  }
}

BENCHMARK_DEFINE_F(Registry, Find)(benchmark::State& bench) {
  for (auto _ : bench) {
    const std::string id = "team/vision/resnet50-" + std::to_string(random_model());
    const ModelVersion version{1, 0, static_cast<std::uint32_t>(random_() % versions_)};
    benchmark::DoNotOptimize(state_.find(id, version));
  }
}

BENCHMARK_DEFINE_F(Registry, Transition)(benchmark::State& bench) {
  for (auto _ : bench) {
    const std::string id = "team/vision/resnet50-" + std::to_string(random_model());
    const ModelVersion version{1, 0, static_cast<std::uint32_t>(random_() % versions_)};
    const bool registered = state_.find(id, version)->state == DeploymentState::Registered;
    const DeploymentState to = registered ? DeploymentState::Validating : DeploymentState::Registered;
    run(state_, TransitionState{id, version, to});
  }
}

void sizes(benchmark::internal::Benchmark* bench) {
  bench->Args({1'000, 1})->Args({1'000'000, 1})->Args({1, 10'000})->Args({10'000, 1})->Args({1'000, 1'000});
  bench->Iterations(100'000);
}
BENCHMARK_REGISTER_F(Registry, Register)->Apply(sizes);
BENCHMARK_REGISTER_F(Registry, Find)->Apply(sizes);
BENCHMARK_REGISTER_F(Registry, Transition)->Apply(sizes);

}  // namespace
}  // namespace tensorforge::registry

BENCHMARK_MAIN();

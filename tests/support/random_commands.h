#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "codec/request.h"
#include "service/state.h"
#include "tests/support/commands.h"

namespace tensorforge::test {

/// Commands of all domains that mostly hit what is there: few models, pools and runs, so that histories are dense.
///
/// The same seed and the same states give the same commands.
class RandomCommands {
 public:
  explicit RandomCommands(std::uint32_t seed) : random_(seed) {}

  Command next(const service::State& state) {
    if (below(20) > 0) return single(state);
    std::vector<SingleCommand> items;
    for (std::size_t i = 1 + below(4); i > 0; --i) items.push_back(single(state, true));
    return batch(std::move(items));
  }
  std::uint64_t below(std::uint64_t bound) { return random_() % bound; }

 private:
  SingleCommand single(const service::State& state, bool in_batch = false) {
    switch (below(3)) {
      case 0:
        return of_models();
      case 1:
        return of_pools(state, in_batch);
      default:
        return of_checkpoints(state, in_batch);
    }
  }

  registry::ModelVersion version() {
    return {1, static_cast<std::uint32_t>(below(3)), static_cast<std::uint32_t>(below(3))};
  }
  SingleCommand of_models() {
    const std::string id = "model-" + std::to_string(below(4));
    switch (below(3)) {
      case 0: {
        registry::ModelMetadata model;
        model.model_id = id;
        model.version = version();
        model.name = std::string(below(5), 'n');
        model.input_shape.assign(below(4), 7);
        if (below(2) == 0) model.tags["tag"] = std::to_string(below(9));
        return registry::Command(registry::RegisterModel{model});
      }
      case 1:
        return transition(id, static_cast<registry::DeploymentState>(below(7)), version());
      default: {
        registry::ValidationResult validation;
        validation.model_id = id;
        validation.version = version();
        validation.passed = below(2) == 0;
        validation.latency_p99_ms = static_cast<double>(below(100));
        validation.errors.assign(below(3), "drift");
        return registry::Command(registry::RecordValidation{std::move(validation)});
      }
    }
  }

  SingleCommand of_pools(const service::State& state, bool in_batch) {
    const std::string device = "gpu" + std::to_string(below(3));
    const auto blocks = state.gpu_memory.blocks(device, 0, 1'000);
    const std::string block = blocks.empty() ? "b-00000000-1" : blocks[below(blocks.size())].block_id;
    switch (below(in_batch ? 8 : 10)) {
      case 0:
        return create_pool(device, 65'536);
      case 1:
      case 2: {
        gpu_memory::AllocationRequest request{"tensor-" + std::to_string(below(5)), 1 + below(9'000), 1, false, 0};
        request.alignment = std::size_t{1} << below(9);
        request.pinned = below(8) == 0;
        request.priority = static_cast<std::int32_t>(below(5)) - 2;
        return gpu_memory::Command(gpu_memory::Allocate{device, std::move(request)});
      }
      case 3:
        return free_block(device, block);
      case 4:
      case 5:
        return cache(device, block);
      case 6:
        if (below(2) == 0) return gpu_memory::Command(gpu_memory::PinBlock{device, block});
        return gpu_memory::Command(gpu_memory::UnpinBlock{device, block});
      case 7:
        return touch(device, block);
      case 8:
        return evict(device, below(10'000));
      default:
        return defragment(device);
    }
  }

  SingleCommand of_checkpoints(const service::State& state, bool in_batch) {
    const std::string run = "run-" + std::to_string(below(3));
    const auto live = state.checkpoint.list_for_run(run, std::nullopt, 1'000);
    const std::string id = live.empty() ? "ck-00000000-1" : live[below(live.size())].checkpoint_id;
    switch (below(in_batch ? 7 : 9)) {
      case 0:
      case 1: {
        checkpoint::CreateCheckpointRequest request{run, static_cast<std::uint32_t>(below(3)), below(50), {}, {}};
        request.checkpoint_type = static_cast<checkpoint::CheckpointType>(below(3));
        if (below(2) == 0) request.metrics["loss"] = static_cast<double>(below(10)) / 4;
        return checkpoint::Command(checkpoint::CreateCheckpoint{std::move(request)});
      }
      case 2:
      case 3:
      case 4:
        return complete(id, below(1'000));
      case 5:
        return below(4) == 0 ? corrupt(id) : complete(id, below(1'000));
      case 6:
        return remove_checkpoint(id);
      case 7: {
        checkpoint::GcPolicy policy;
        policy.max_checkpoints_per_run = 3 + below(4);
        policy.keep_best_n = below(2);
        policy.metric_key = "loss";
        if (below(2) == 0) return checkpoint::Command(checkpoint::SetPolicy{std::nullopt, policy});
        return checkpoint::Command(checkpoint::SetPolicy{run, policy});
      }
      default:
        return collect_garbage();
    }
  }

  std::mt19937 random_;
};

}  // namespace tensorforge::test

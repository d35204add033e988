#include "crashtest/workload.h"

#include <utility>

#include <fmt/format.h>

namespace tensorforge::crashtest {
namespace {

using Random = std::mt19937_64;

constexpr std::size_t kPoolBytes = 1U << 16U;
constexpr std::size_t kRemembered = 64;  ///< ids, of each kind

std::uint64_t below(Random& random, std::uint64_t limit) { return random() % limit; }
bool one_in(Random& random, std::uint64_t n) { return below(random, n) == 0; }

std::string model(Random& random) { return fmt::format("team/model-{}", below(random, 4)); }
std::string device(Random& random) { return fmt::format("node/gpu{}", below(random, 2)); }
std::string run_of(Random& random) { return fmt::format("run-{}", below(random, 3)); }
registry::ModelVersion version(Random& random) { return {1, static_cast<std::uint32_t>(below(random, 12)), 0}; }
double real(Random& random) { return static_cast<double>(below(random, 10'000)) / 100; }

void remember(std::vector<std::string>& ids, std::string id) {
  if (ids.size() == kRemembered) ids.erase(ids.begin());
  ids.push_back(std::move(id));
}
const std::string& any_of(Random& random, const std::vector<std::string>& ids, const std::string& otherwise) {
  return ids.empty() ? otherwise : ids[below(random, ids.size())];
}

}  // namespace

void Workload::learn(const Reply& reply) {
  if (const auto* allocated = std::get_if<result::Allocated>(&reply.result)) {
    if (reply.status.ok()) remember(blocks_, allocated->block_id);
  }
  if (const auto* found = std::get_if<result::Checkpoints>(&reply.result)) {
    for (const checkpoint::CheckpointMeta& meta : found->checkpoints) remember(checkpoints_, meta.checkpoint_id);
  }
  if (const auto* batch = std::get_if<result::BatchResult>(&reply.result)) {
    for (const Reply& item : batch->replies) learn(item);
  }
}

std::string Workload::block(Random& random) const { return any_of(random, blocks_, "b-00000000-1"); }
std::string Workload::checkpoint(Random& random) const { return any_of(random, checkpoints_, "ck-00000000-1"); }

SingleCommand Workload::of_registry(Random& random) {
  switch (below(random, 5)) {
    case 0:
    case 1: {
      registry::ModelMetadata made;
      made.model_id = model(random);
      made.version = {1, static_cast<std::uint32_t>(below(random, 10)), 0};
      made.framework = "onnx";
      made.input_shape = {1, 3, 224, 224};
      made.output_shape = {1, 1'000};
      made.size_bytes = random() >> 32U;
      made.checksum = fmt::format("{:064x}", random());
      // Up to 15 KiB of noise, which does not compress: one command then covers several pages of the write-ahead log.
      const std::uint64_t tags = one_in(random, 6) ? below(random, 60) : below(random, 3);
      std::mt19937_64 noise(made.size_bytes);
      for (std::uint64_t i = 0; i < tags; ++i) {
        std::string& text = made.tags[fmt::format("tag-{}", i)];
        text.resize(below(random, 240));
        for (char& c : text) c = static_cast<char>('a' + below(noise, 26));
      }
      return registry::Command(registry::RegisterModel{made});
    }
    case 2:
      return registry::Command(registry::TransitionState{model(random), version(random),
                                                         static_cast<registry::DeploymentState>(below(random, 7))});
    case 3:
      // The first step of every life, so that many of these are legal.
      return registry::Command(registry::TransitionState{
          model(random), version(random),
          one_in(random, 2) ? registry::DeploymentState::Validating : registry::DeploymentState::Staging});
    default: {
      registry::ValidationResult validation;
      validation.model_id = model(random);
      validation.version = version(random);
      validation.passed = !one_in(random, 3);
      validation.latency_p50_ms = real(random);
      validation.latency_p99_ms = validation.latency_p50_ms * 2;
      validation.accuracy_score = real(random);
      if (!validation.passed) validation.errors = {"too slow"};
      return registry::Command(registry::RecordValidation{std::move(validation)});
    }
  }
}

SingleCommand Workload::of_pool(Random& random) {
  using namespace gpu_memory;
  const auto command = [&]() -> gpu_memory::Command {
    switch (below(random, 11)) {
      case 0:
      case 1:
      case 2:
      case 3: {
        AllocationRequest request;
        request.tensor_id = fmt::format("tensor-{}", below(random, 5));
        request.size = 1 + below(random, kPoolBytes / 8);
        request.alignment = std::size_t{1} << below(random, 9);
        request.pinned = one_in(random, 10);
        request.priority = static_cast<std::int32_t>(below(random, 3));
        return Allocate{device(random), std::move(request)};
      }
      case 4:
      case 5:
        return CacheBlock{device(random), block(random)};
      case 6:
        return PinBlock{device(random), block(random)};
      case 7:
        return UnpinBlock{device(random), block(random)};
      case 8:
        return TouchBlock{device(random), block(random)};
      case 9:
        return FreeBlock{device(random), block(random)};
      default:
        return CreatePool{{device(random), kPoolBytes, 1'000, {8, 6}}};
    }
  };
  return command();
}

SingleCommand Workload::of_checkpoint(Random& random) {
  using namespace tensorforge::checkpoint;
  const auto command = [&]() -> tensorforge::checkpoint::Command {
    switch (below(random, 9)) {
      case 0:
      case 1:
      case 2: {
        CreateCheckpointRequest request;
        request.training_run_id = run_of(random);
        request.epoch = static_cast<std::uint32_t>(below(random, 3));
        request.step = below(random, 100);
        request.checkpoint_type = static_cast<CheckpointType>(below(random, 3));
        request.metrics = {{"loss", real(random)}};
        return CreateCheckpoint{std::move(request)};
      }
      case 3:
      case 4:
      case 5:
        return CompleteCheckpoint{this->checkpoint(random), below(random, 1U << 20U), "s3://bucket/checkpoint"};
      case 6:
        return CorruptCheckpoint{this->checkpoint(random)};
      case 7:
        return RemoveCheckpoint{this->checkpoint(random)};
      default: {
        GcPolicy policy;
        policy.max_checkpoints_per_run = below(random, 4);
        policy.keep_best_n = below(random, 2);
        policy.metric_key = "loss";
        return SetPolicy{one_in(random, 2) ? std::nullopt : std::optional(run_of(random)), policy};
      }
    }
  };
  return command();
}

SingleCommand Workload::single(Random& random) {
  switch (below(random, 3)) {
    case 0:
      return of_registry(random);
    case 1:
      return of_pool(random);
    default:
      return of_checkpoint(random);
  }
}

Command Workload::command(Random& random) {
  if (!std::exchange(began_, true)) {
    return SingleCommand(gpu_memory::Command(gpu_memory::CreatePool{{"node/gpu0", kPoolBytes, 1'000, {8, 6}}}));
  }
  switch (below(random, 16)) {
    case 0:
    case 1: {
      Batch batch;
      for (std::uint64_t i = 1 + below(random, 4); i > 0; --i) batch.items.push_back({single(random), std::nullopt});
      return batch;
    }
    case 2:
      return SingleCommand(gpu_memory::Command(gpu_memory::Evict{device(random), below(random, kPoolBytes / 2)}));
    case 3:
      return SingleCommand(gpu_memory::Command(gpu_memory::Defragment{device(random)}));
    case 4:
      return SingleCommand(tensorforge::checkpoint::Command(tensorforge::checkpoint::CollectGarbage{}));
    default:
      return single(random);
  }
}

Query Workload::query(Random& random) {
  switch (below(random, 16)) {
    case 0:
      return query::GetModel{model(random), std::nullopt};
    case 1:
      return query::ListModels{{20, {}}};
    case 2:
      return query::FindModels{static_cast<registry::DeploymentState>(below(random, 7)), {}};
    case 3:
      return query::GetValidation{model(random), version(random)};
    case 4:
      return query::BestModel{{model(random), model(random)}};
    case 5:
      return query::ListPools{{}};
    case 6:
      return query::GetPoolStats{device(random)};
    case 7:
      return query::ListBlocks{device(random), {}};
    case 8:
      return query::GetBlock{device(random), block(random)};
    case 9:
      return query::PlanDefragment{device(random)};
    case 10:
      return query::GetCheckpoint{checkpoint(random)};
    case 11:
      return query::ListCheckpoints{run_of(random), {}};
    case 12:
      return query::FindRestorePoint{{run_of(random), std::nullopt, std::nullopt, true, one_in(random, 2)}};
    case 13:
      return query::RestorationChain{checkpoint(random), {}};
    case 14:
      return query::ReadLog{1 + below(random, 40), 20};
    default:
      return query::GetStatus{};
  }
}

}  // namespace tensorforge::crashtest

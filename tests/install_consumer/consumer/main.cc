// Uses one facade and the state of each domain and one shared part, as a program outside this repository would.
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "checkpoint/state_machine.h"
#include "gpu_memory/gpu_memory.h"
#include "gpu_memory/state_machine.h"
#include "platform/statistics.h"
#include "registry/registry.h"
#include "registry/state_machine.h"

namespace {

void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "failed: %s\n", what);
  std::exit(1);
}

}  // namespace

int main() {
  using namespace tensorforge;

  registry::ModelRegistry models;
  registry::ModelMetadata model;
  model.model_id = "resnet50";
  model.version = {1, 0, 0};
  require(models.register_model(model).ok(), "register a model");
  require(models.get_latest("resnet50") == model, "get it back");

  gpu_memory::MemoryPool pool({"gpu0", 4096, 0, {}});
  require(pool.allocate({"weights", 1000, 256, false, 0}, 1).success, "allocate");
  require(pool.stats().allocated_bytes == 1024, "the size is aligned");

  checkpoint::CheckpointManager checkpoints(checkpoint::GcPolicy{});
  const auto created = checkpoints.create({"run", 1, 100, checkpoint::CheckpointType::Full, {}}, 1);
  require(created.ok(), "create a checkpoint");
  require(checkpoints.complete(created->checkpoint_id, 10, "s3://bucket/ck").ok(), "complete it");

  registry::State state;
  apply(state, registry::ModelRegistered{model});
  require(state.version_count() == 1, "a state machine without its facade");
  require(gpu_memory::State().live_block_count() == 0, "of the blocks too");
  require(checkpoint::State().total_count() == 0, "and of the checkpoints");

  const std::vector<double> samples{1, 2, 3};
  require(statistics::percentile(samples, 50) == 2.0, "percentile");
  std::puts("consumer: ok");
}

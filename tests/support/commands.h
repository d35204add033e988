#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "codec/request.h"

namespace tensorforge::test {

// Commands in short, for tests.

inline SingleCommand register_model(std::string id, registry::ModelVersion version = {1, 0, 0}) {
  registry::ModelMetadata model;
  model.model_id = std::move(id);
  model.version = version;
  return registry::Command(registry::RegisterModel{model});
}
inline SingleCommand transition(std::string id, registry::DeploymentState to,
                                registry::ModelVersion version = {1, 0, 0}) {
  return registry::Command(registry::TransitionState{std::move(id), version, to});
}
inline SingleCommand create_pool(std::string device, std::size_t bytes) {
  return gpu_memory::Command(gpu_memory::CreatePool{{std::move(device), bytes, 0, {}}});
}
inline SingleCommand allocate(std::string device, std::size_t size, std::string tensor = "t") {
  return gpu_memory::Command(gpu_memory::Allocate{std::move(device), {std::move(tensor), size, 1, false, 0}});
}
inline SingleCommand cache(std::string device, std::string block) {
  return gpu_memory::Command(gpu_memory::CacheBlock{std::move(device), std::move(block)});
}
inline SingleCommand touch(std::string device, std::string block) {
  return gpu_memory::Command(gpu_memory::TouchBlock{std::move(device), std::move(block)});
}
inline SingleCommand free_block(std::string device, std::string block) {
  return gpu_memory::Command(gpu_memory::FreeBlock{std::move(device), std::move(block)});
}
inline SingleCommand evict(std::string device, std::size_t bytes) {
  return gpu_memory::Command(gpu_memory::Evict{std::move(device), bytes});
}
inline SingleCommand defragment(std::string device) {
  return gpu_memory::Command(gpu_memory::Defragment{std::move(device)});
}
inline SingleCommand create_checkpoint(std::string run, std::uint64_t step,
                                       checkpoint::CheckpointType type = checkpoint::CheckpointType::Full) {
  return checkpoint::Command(checkpoint::CreateCheckpoint{{std::move(run), 1, step, type, {}}});
}
inline SingleCommand complete(std::string id, std::uint64_t size = 100, std::string path = "s3://bucket/ck") {
  return checkpoint::Command(checkpoint::CompleteCheckpoint{std::move(id), size, std::move(path)});
}
inline SingleCommand corrupt(std::string id) {
  return checkpoint::Command(checkpoint::CorruptCheckpoint{std::move(id)});
}
inline SingleCommand remove_checkpoint(std::string id) {
  return checkpoint::Command(checkpoint::RemoveCheckpoint{std::move(id)});
}
inline SingleCommand collect_garbage() { return checkpoint::Command(checkpoint::CollectGarbage{}); }

inline Batch batch(std::vector<SingleCommand> commands) {
  Batch all;
  for (SingleCommand& command : commands) all.items.push_back({std::move(command), std::nullopt});
  return all;
}

}  // namespace tensorforge::test

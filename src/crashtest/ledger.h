#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "codec/record.h"
#include "service/state.h"

namespace tensorforge::crashtest {

/// A second, simple model of the three domains: it only writes down what the events say, and knows the rules that no
/// history may break. It shares no code with the projections but the table of the model's lifecycle.
///
/// Threads: none.
class Ledger {
 public:
  /// What is illegal about this event at this place; empty: nothing.
  std::string add(const Event&);
  /// Where the service's state and this ledger differ, or the state breaks an invariant of its own; empty: nowhere.
  std::string compare(const service::State&) const;

 private:
  struct Block {
    std::size_t size{};
    EntityId id;
    gpu_memory::BlockStatus status{};
  };
  struct Pool {
    std::size_t total{};
    std::map<std::size_t, Block> blocks;  ///< live ones, by offset
  };
  struct Checkpoint {
    std::string run;
    std::optional<EntityId> parent;
    checkpoint::CheckpointType type{};
    checkpoint::CheckpointState state{};
    std::uint64_t step{};
    std::uint32_t epoch{};
  };
  using ModelKey = std::pair<std::string, registry::ModelVersion>;

  std::string add_one(const registry::ModelRegistered&);
  std::string add_one(const registry::StateTransitioned&);
  std::string add_one(const registry::ValidationRecorded&);
  std::string add_one(const gpu_memory::PoolCreated&);
  std::string add_one(const gpu_memory::BlockAllocated&);
  std::string add_one(const gpu_memory::AllocationRefused&);
  std::string add_one(const gpu_memory::BlockFreed&);
  std::string add_one(const gpu_memory::BlockCached&);
  std::string add_one(const gpu_memory::BlockPinned&);
  std::string add_one(const gpu_memory::BlockUnpinned&);
  std::string add_one(const gpu_memory::BlockTouched&);
  std::string add_one(const gpu_memory::BlockEvicted&);
  std::string add_one(const gpu_memory::BlockMoved&);
  std::string add_one(const checkpoint::CheckpointCreated&);
  std::string add_one(const checkpoint::CheckpointCompleted&);
  std::string add_one(const checkpoint::CheckpointCorrupted&);
  std::string add_one(const checkpoint::CheckpointDeleted&);
  std::string add_one(const checkpoint::PolicySet&) { return ""; }
  std::string add_one(const IncarnationStarted&) { return ""; }
  std::string add_one(const ClockAccepted&) { return ""; }

  std::string place(Pool&, std::size_t offset, const Block&);
  std::string take(const std::string& device_id, EntityId, std::optional<gpu_memory::BlockStatus> only = {});
  std::string change(const std::string& device_id, EntityId, std::initializer_list<gpu_memory::BlockStatus> from,
                     gpu_memory::BlockStatus to);
  std::string change(EntityId, std::initializer_list<checkpoint::CheckpointState> from, checkpoint::CheckpointState to);
  std::string compare_models(const registry::State&) const;
  std::string compare_pools(const gpu_memory::State&) const;
  std::string compare_checkpoints(const checkpoint::State&) const;

  std::map<ModelKey, registry::DeploymentState> models_;
  std::map<std::string, Pool> pools_;
  std::map<EntityId, std::pair<std::string, std::size_t>> block_places_;  ///< device and offset of each live block
  std::map<EntityId, Checkpoint> checkpoints_;
};

}  // namespace tensorforge::crashtest

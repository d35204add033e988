#include "gpu_memory/snapshot.h"

#include <algorithm>

#include <fmt/format.h>

#include "gpu_memory/pool.h"
#include "platform/names.h"

namespace tensorforge::gpu_memory {

/// Puts back what a snapshot holds, and keeps the totals over all pools.
class Restoration {
 public:
  explicit Restoration(State& state) : state_(state) {}

  Pool* find(std::string_view device_id) {
    const auto found = state_.pools_.find(device_id);
    return found == state_.pools_.end() ? nullptr : found->second.get();
  }
  void insert(Pool& pool, const LiveBlock& block) {
    state_.next_block_number_ = std::max(state_.next_block_number_, block.id.number + 1);
    ++state_.live_block_count_;
    state_.digest_ -= pool.digest();
    pool.insert(block);
    state_.digest_ += pool.digest();
  }
  void set_next_block_number(std::uint64_t number) { state_.next_block_number_ = number; }

 private:
  State& state_;
};

namespace {

/// Why the block cannot stand behind those that the pool has; nullptr: it can.
const char* fault_of(const Pool& pool, const LiveBlock& block) {
  if (block.status == BlockStatus::Free || block.size == 0) return "is no live block";
  if (pool.find(block.id) != nullptr) return "is given twice";
  const Block* const last = pool.last_live();
  const std::size_t free_from = last == nullptr ? 0 : last->end();
  if (block.offset < free_from) return "overlaps the one before";
  const std::size_t total = pool.device().total_memory;
  if (block.offset > total || block.size > total - block.offset) return "ends beyond the memory";
  return nullptr;
}

}  // namespace

void for_each_live_block(const State& state, std::string_view device_id,
                         const std::function<void(const LiveBlock&)>& visit) {
  const Pool& pool = *state.pool(device_id);
  for (const Block* block = pool.first_live(); block != nullptr; block = pool.next_live(*block)) {
    visit(to_live_block(*block));
  }
}

absl::Status restore(State& state, const GpuDevice& device) {
  if (state.has_pool(device.device_id) || device.total_memory == 0) {
    return absl::DataLossError(
        fmt::format("pool {} is given twice, or has no memory", names::quoted(device.device_id)));
  }
  apply(state, PoolCreated{device});
  return absl::OkStatus();
}

absl::Status restore(State& state, std::string_view device_id, const LiveBlock& block) {
  Restoration restoration(state);
  Pool* const pool = restoration.find(device_id);
  const char* const fault = pool == nullptr ? "is in a pool that is not there" : fault_of(*pool, block);
  if (fault != nullptr) {
    return absl::DataLossError(fmt::format("block \"{}\" of pool {} {}", format_entity_id(kBlockIdPrefix, block.id),
                                           names::quoted(device_id), fault));
  }
  restoration.insert(*pool, block);
  return absl::OkStatus();
}

absl::Status restore_next_block_number(State& state, std::uint64_t number) {
  if (number < state.next_block_number()) {
    return absl::DataLossError(fmt::format("the next block is number {}, and one has number {} already", number,
                                           state.next_block_number() - 1));
  }
  Restoration(state).set_next_block_number(number);
  return absl::OkStatus();
}

}  // namespace tensorforge::gpu_memory

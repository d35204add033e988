#include "crashtest/ledger.h"

#include <algorithm>
#include <limits>
#include <variant>

#include <fmt/format.h>

#include "platform/names.h"

namespace tensorforge::crashtest {
namespace {

using checkpoint::CheckpointState;
using checkpoint::CheckpointType;
using gpu_memory::BlockStatus;
using names::quoted;

constexpr std::size_t kAll = std::numeric_limits<std::size_t>::max();

std::string block_name(EntityId id) { return format_entity_id(gpu_memory::kBlockIdPrefix, id); }
std::string checkpoint_name(EntityId id) { return format_entity_id(checkpoint::kCheckpointIdPrefix, id); }
std::string model_name(std::string_view id, const registry::ModelVersion& version) {
  return fmt::format("model {} {}", quoted(id), registry::format_version(version));
}

}  // namespace

std::string Ledger::add(const Event& event) {
  const auto one = [this](const auto& e) { return add_one(e); };
  return std::visit([&](const auto& domain) { return std::visit(one, domain); }, event);
}

// ---- models

std::string Ledger::add_one(const registry::ModelRegistered& e) {
  const registry::ModelView model = e.model.view();
  const std::string name = model_name(model.model_id, model.version);
  if (model.state != registry::DeploymentState::Registered) return name + " begins in another state than Registered";
  if (models_.try_emplace({std::string(model.model_id), model.version}, model.state).second) return "";
  return name + " is registered twice";
}

std::string Ledger::add_one(const registry::StateTransitioned& e) {
  const std::string name = model_name(e.model_id, e.version);
  const auto found = models_.find({e.model_id, e.version});
  if (found == models_.end()) return name + " changes its state and was never registered";
  if (found->second != e.from) {
    return fmt::format("{} leaves {}, and is in {}", name, to_string(e.from), to_string(found->second));
  }
  found->second = e.to;
  if (registry::can_transition_state(e.from, e.to)) return "";
  return fmt::format("{} goes from {} to {}, which the lifecycle does not allow", name, to_string(e.from),
                     to_string(e.to));
}

std::string Ledger::add_one(const registry::ValidationRecorded& e) {
  if (models_.count({e.validation.model_id, e.validation.version}) != 0) return "";
  return model_name(e.validation.model_id, e.validation.version) + " is validated and was never registered";
}

std::string Ledger::compare_models(const registry::State& state) const {
  const auto all = state.list(std::nullopt, kAll);
  if (all.size() != models_.size()) {
    return fmt::format("the state has {} model versions, the log registered {}", all.size(), models_.size());
  }
  for (const registry::ModelView& model : all) {
    const auto found = models_.find({std::string(model.model_id), model.version});
    if (found == models_.end() || found->second != model.state) {
      return model_name(model.model_id, model.version) + " is in another state than the log says";
    }
  }
  return "";
}

// ---- pools

std::string Ledger::place(Pool& pool, std::size_t offset, const Block& block) {
  const std::string name = block_name(block.id);
  if (block.size == 0 || block.size > pool.total || offset > pool.total - block.size) {
    return fmt::format("block {} at {} of {} bytes does not lie in its pool of {}", name, offset, block.size,
                       pool.total);
  }
  const auto next = pool.blocks.lower_bound(offset);
  const bool hits_next = next != pool.blocks.end() && next->first < offset + block.size;
  const bool hits_previous =
      next != pool.blocks.begin() && std::prev(next)->first + std::prev(next)->second.size > offset;
  if (hits_next || hits_previous) return fmt::format("block {} at {} lies over another one", name, offset);
  pool.blocks.emplace(offset, block);
  return "";
}

std::string Ledger::take(const std::string& device_id, EntityId id, std::optional<BlockStatus> only) {
  const auto found = block_places_.find(id);
  if (found == block_places_.end() || found->second.first != device_id) {
    return fmt::format("block {} goes and is not there", block_name(id));
  }
  auto& blocks = pools_.at(device_id).blocks;
  const auto block = blocks.find(found->second.second);
  if (only && block->second.status != *only) {
    return fmt::format("block {} is evicted and is {}", block_name(id), to_string(block->second.status));
  }
  blocks.erase(block);
  block_places_.erase(found);
  return "";
}

std::string Ledger::change(const std::string& device_id, EntityId id, std::initializer_list<BlockStatus> from,
                           BlockStatus to) {
  const auto found = block_places_.find(id);
  if (found == block_places_.end() || found->second.first != device_id) {
    return fmt::format("block {} becomes {} and is not there", block_name(id), to_string(to));
  }
  Block& block = pools_.at(device_id).blocks.at(found->second.second);
  const BlockStatus before = std::exchange(block.status, to);
  if (std::find(from.begin(), from.end(), before) != from.end()) return "";
  return fmt::format("block {} goes from {} to {}", block_name(id), to_string(before), to_string(to));
}

std::string Ledger::add_one(const gpu_memory::PoolCreated& e) {
  if (pools_.try_emplace(e.device.device_id, Pool{e.device.total_memory, {}}).second) return "";
  return fmt::format("pool {} is created twice", quoted(e.device.device_id));
}

std::string Ledger::add_one(const gpu_memory::BlockAllocated& e) {
  const auto pool = pools_.find(e.device_id);
  if (pool == pools_.end()) return fmt::format("a block is allocated in {}, which is no pool", quoted(e.device_id));
  for (const std::size_t offset : e.evicted) {
    const auto evicted = pool->second.blocks.find(offset);
    if (evicted == pool->second.blocks.end()) return fmt::format("nothing is at {} that was evicted there", offset);
    if (std::string problem = take(e.device_id, evicted->second.id, BlockStatus::Cached); !problem.empty()) {
      return problem;
    }
  }
  const BlockStatus status = e.request.pinned ? BlockStatus::Pinned : BlockStatus::Allocated;
  if (!block_places_.try_emplace(e.block, e.device_id, e.offset).second) {
    return fmt::format("block id {} is given out twice", block_name(e.block));
  }
  if (e.request.alignment > 1 && e.offset % e.request.alignment != 0) {
    return fmt::format("block {} at {} is not aligned to {}", block_name(e.block), e.offset, e.request.alignment);
  }
  return place(pool->second, e.offset, {e.actual_size, e.block, status});
}

std::string Ledger::add_one(const gpu_memory::AllocationRefused& e) {
  const auto pool = pools_.find(e.device_id);
  if (pool == pools_.end()) return fmt::format("an allocation is refused in {}, which is no pool", quoted(e.device_id));
  std::size_t used = 0;
  for (const auto& [offset, block] : pool->second.blocks) used += block.size;
  if (pool->second.total - used == e.free_bytes && pool->second.total == e.total_bytes) return "";
  return fmt::format("an allocation is refused with {} of {} bytes free, and {} of {} are", e.free_bytes, e.total_bytes,
                     pool->second.total - used, pool->second.total);
}

std::string Ledger::add_one(const gpu_memory::BlockFreed& e) { return take(e.device_id, e.block); }
std::string Ledger::add_one(const gpu_memory::BlockEvicted& e) {
  return take(e.device_id, e.block, BlockStatus::Cached);
}
std::string Ledger::add_one(const gpu_memory::BlockCached& e) {
  return change(e.device_id, e.block, {BlockStatus::Allocated}, BlockStatus::Cached);
}
std::string Ledger::add_one(const gpu_memory::BlockPinned& e) {
  return change(e.device_id, e.block, {BlockStatus::Allocated, BlockStatus::Cached}, BlockStatus::Pinned);
}
std::string Ledger::add_one(const gpu_memory::BlockUnpinned& e) {
  return change(e.device_id, e.block, {BlockStatus::Pinned}, BlockStatus::Allocated);
}
std::string Ledger::add_one(const gpu_memory::BlockTouched& e) {
  const auto found = block_places_.find(e.block);
  if (found != block_places_.end() && found->second.first == e.device_id) return "";
  return fmt::format("block {} is touched and is not there", block_name(e.block));
}

std::string Ledger::add_one(const gpu_memory::BlockMoved& e) {
  const auto found = block_places_.find(e.block);
  if (found == block_places_.end() || found->second != std::pair(e.device_id, e.from)) {
    return fmt::format("block {} moves from {} and is not there", block_name(e.block), e.from);
  }
  Pool& pool = pools_.at(e.device_id);
  const Block block = pool.blocks.at(e.from);
  if (block.status == BlockStatus::Pinned) return fmt::format("block {} moves and is pinned", block_name(e.block));
  pool.blocks.erase(e.from);
  found->second.second = e.to;
  return place(pool, e.to, block);
}

std::string Ledger::compare_pools(const gpu_memory::State& state) const {
  if (state.pool_count() != pools_.size()) {
    return fmt::format("the state has {} pools, the log created {}", state.pool_count(), pools_.size());
  }
  for (const auto& [device_id, pool] : pools_) {
    std::size_t end = 0, live = 0;
    bool was_free = false;
    for (const gpu_memory::MemoryBlock& block : state.blocks(device_id, 0, kAll)) {
      if (block.offset != end) return fmt::format("pool {} has a gap or an overlap at {}", quoted(device_id), end);
      end += block.size;
      const bool is_free = block.status == BlockStatus::Free;
      if (is_free && was_free) return fmt::format("pool {} has two free blocks at {}", quoted(device_id), block.offset);
      was_free = is_free;
      if (is_free) continue;
      ++live;
      const auto known = pool.blocks.find(block.offset);
      if (known == pool.blocks.end() || known->second.size != block.size || known->second.status != block.status ||
          block_name(known->second.id) != block.block_id) {
        return fmt::format("block {} of pool {} is not where and what the log says", block.block_id, quoted(device_id));
      }
    }
    if (end != pool.total)
      return fmt::format("the blocks of pool {} end at {}, not {}", quoted(device_id), end, pool.total);
    if (live != pool.blocks.size()) {
      return fmt::format("pool {} has {} live blocks, the log says {}", quoted(device_id), live, pool.blocks.size());
    }
  }
  return "";
}

// ---- checkpoints

std::string Ledger::change(EntityId id, std::initializer_list<CheckpointState> from, CheckpointState to) {
  const auto found = checkpoints_.find(id);
  if (found == checkpoints_.end()) {
    return fmt::format("checkpoint {} becomes {} and was never created", checkpoint_name(id), to_string(to));
  }
  const CheckpointState before = std::exchange(found->second.state, to);
  if (std::find(from.begin(), from.end(), before) != from.end()) return "";
  return fmt::format("checkpoint {} goes from {} to {}", checkpoint_name(id), to_string(before), to_string(to));
}

std::string Ledger::add_one(const checkpoint::CheckpointCreated& e) {
  const std::string name = "checkpoint " + checkpoint_name(e.checkpoint);
  const checkpoint::CreateCheckpointRequest& request = e.request;
  const bool incremental = request.checkpoint_type == CheckpointType::Incremental;
  if (incremental != e.parent.has_value()) return name + ": an Incremental has a parent, and nothing else has one";
  if (e.parent) {
    const auto parent = checkpoints_.find(*e.parent);
    if (parent == checkpoints_.end() || parent->second.run != request.training_run_id) {
      return name + " has a parent that is not in its run";
    }
    if (parent->second.state != CheckpointState::Complete) return name + " has a parent that is not Complete";
    if (parent->second.step > request.step || parent->second.epoch > request.epoch) {
      return name + " has a parent that is later than itself";
    }
  }
  const Checkpoint made{request.training_run_id,   e.parent,     request.checkpoint_type,
                        CheckpointState::Creating, request.step, request.epoch};
  return checkpoints_.try_emplace(e.checkpoint, made).second ? "" : name + " is created twice";
}

std::string Ledger::add_one(const checkpoint::CheckpointCompleted& e) {
  std::string problem = change(e.checkpoint, {CheckpointState::Creating}, CheckpointState::Complete);
  if (!problem.empty()) return problem;
  std::optional<EntityId> parent = checkpoints_.at(e.checkpoint).parent;
  for (; parent; parent = checkpoints_.at(*parent).parent) {
    if (checkpoints_.at(*parent).state == CheckpointState::Complete) continue;
    return fmt::format("checkpoint {} completes on a broken chain: {} is {}", checkpoint_name(e.checkpoint),
                       checkpoint_name(*parent), to_string(checkpoints_.at(*parent).state));
  }
  return "";
}

std::string Ledger::add_one(const checkpoint::CheckpointCorrupted& e) {
  return change(e.checkpoint, {CheckpointState::Creating, CheckpointState::Complete}, CheckpointState::Corrupted);
}

std::string Ledger::add_one(const checkpoint::CheckpointDeleted& e) {
  for (const auto& [id, other] : checkpoints_) {
    if (other.parent != e.checkpoint || other.state == CheckpointState::Deleted) continue;
    return fmt::format("checkpoint {} is deleted, and {} descends from it", checkpoint_name(e.checkpoint),
                       checkpoint_name(id));
  }
  return change(e.checkpoint, {CheckpointState::Creating, CheckpointState::Complete, CheckpointState::Corrupted},
                CheckpointState::Deleted);
}

std::string Ledger::compare_checkpoints(const checkpoint::State& state) const {
  std::size_t live = 0;
  for (const auto& [id, known] : checkpoints_) {
    const std::string name = checkpoint_name(id);
    const std::optional<checkpoint::CheckpointMeta> found = state.find(name);
    const std::string parent = known.parent ? checkpoint_name(*known.parent) : "";
    if (!found || found->state != known.state || found->training_run_id != known.run ||
        found->parent_id.value_or("") != parent) {
      return fmt::format("checkpoint {} is not what the log says", name);
    }
    if (known.state != CheckpointState::Deleted) ++live;
  }
  if (live == state.total_count()) return "";
  return fmt::format("the state has {} checkpoints, the log says {}", state.total_count(), live);
}

std::string Ledger::compare(const service::State& state) const {
  std::string problem = compare_models(state.registry);
  if (problem.empty()) problem = compare_pools(state.gpu_memory);
  if (problem.empty()) problem = compare_checkpoints(state.checkpoint);
  return problem;
}

}  // namespace tensorforge::crashtest

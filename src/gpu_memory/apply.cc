#include <algorithm>
#include <iterator>
#include <utility>

#include "gpu_memory/pool.h"
#include "gpu_memory/state_machine.h"

namespace tensorforge::gpu_memory {

/// Changes a State: every change of a pool goes through change(), which keeps the totals over all pools.
class Mutation {
 public:
  Mutation(State& state, Undo* undo) : state_(state), undo_(undo) {
    if (undo_ != nullptr && !undo_->next_block_number) undo_->next_block_number = state.next_block_number_;
  }

  void operator()(const PoolCreated& event) {
    if (undo_ != nullptr) undo_->created_pools.push_back(event.device.device_id);
    auto pool = std::make_unique<Pool>(event.device);
    state_.digest_ += pool->digest();
    state_.pools_.emplace(event.device.device_id, std::move(pool));
  }
  void operator()(const BlockAllocated& event) {
    Pool& pool = pool_of(event.device_id);
    for (const std::size_t offset : event.evicted) erase(pool, pool.at_offset(offset).id);
    const LiveBlock block{event.block,
                          event.offset,
                          event.actual_size,
                          event.request.pinned ? BlockStatus::Pinned : BlockStatus::Allocated,
                          event.request.tensor_id,
                          event.at,
                          event.at,
                          event.request.alignment,
                          event.request.priority};
    if (undo_ != nullptr) undo_->blocks.push_back({event.device_id, event.block, std::nullopt});
    change(pool, [&] { pool.insert(block); });
    state_.next_block_number_ = std::max(state_.next_block_number_, event.block.number + 1);
  }
  void operator()(const AllocationRefused&) {}
  void operator()(const BlockFreed& event) { erase(pool_of(event.device_id), event.block); }
  void operator()(const BlockEvicted& event) { erase(pool_of(event.device_id), event.block); }
  void operator()(const BlockCached& event) { set_status(event, BlockStatus::Cached); }
  void operator()(const BlockPinned& event) { set_status(event, BlockStatus::Pinned); }
  void operator()(const BlockUnpinned& event) { set_status(event, BlockStatus::Allocated); }
  void operator()(const BlockTouched& event) {
    Pool& pool = pool_of(event.device_id);
    note(pool, event.block);
    change(pool, [&] { pool.set_last_accessed(event.block, event.at); });
  }
  void operator()(const BlockMoved& event) {
    Pool& pool = pool_of(event.device_id);
    note(pool, event.block);
    change(pool, [&] { pool.move(event.block, event.to); });
  }

  void take_back(const Undo& undo) {
    for (auto former = undo.blocks.rbegin(); former != undo.blocks.rend(); ++former) put_back(*former);
    for (const std::string& device_id : undo.created_pools) {
      state_.digest_ -= pool_of(device_id).digest();
      state_.pools_.erase(device_id);
    }
    if (undo.next_block_number) state_.next_block_number_ = *undo.next_block_number;
  }

 private:
  Pool& pool_of(const std::string& device_id) { return *state_.pools_.at(device_id); }

  template <class Change>
  void change(Pool& pool, const Change& what) {
    state_.digest_ -= pool.digest();
    state_.live_block_count_ -= pool.live_count();
    what();
    state_.digest_ += pool.digest();
    state_.live_block_count_ += pool.live_count();
  }
  void note(const Pool& pool, EntityId block) {
    if (undo_ == nullptr) return;
    undo_->blocks.push_back({pool.device().device_id, block, to_live_block(pool.at(block))});
  }
  void erase(Pool& pool, EntityId block) {
    note(pool, block);
    change(pool, [&] { pool.erase(block); });
  }
  template <class Event>
  void set_status(const Event& event, BlockStatus status) {
    Pool& pool = pool_of(event.device_id);
    note(pool, event.block);
    change(pool, [&] { pool.set_status(event.block, status); });
  }
  void put_back(const Undo::Former& former) {
    Pool& pool = pool_of(former.device_id);
    change(pool, [&] {
      if (pool.find(former.block) != nullptr) pool.erase(former.block);
      if (former.value) pool.insert(*former.value);
    });
  }

  State& state_;
  Undo* undo_;
};

void apply(State& state, const Event& event, Undo* undo) { std::visit(Mutation(state, undo), event); }

void undo(State& state, Undo&& undo) { Mutation(state, nullptr).take_back(undo); }

}  // namespace tensorforge::gpu_memory

#include <iterator>
#include <utility>

#include "gpu_memory/defragment.h"
#include "gpu_memory/pool.h"
#include "gpu_memory/state_machine.h"

namespace tensorforge::gpu_memory {

State::State() = default;
State::State(State&&) noexcept = default;
State& State::operator=(State&&) noexcept = default;
State::~State() = default;

const Pool* State::pool(std::string_view device_id) const {
  const auto found = pools_.find(device_id);
  return found == pools_.end() ? nullptr : found->second.get();
}

bool State::has_pool(std::string_view device_id) const { return pool(device_id) != nullptr; }

const GpuDevice* State::device(std::string_view device_id) const {
  const Pool* const found = pool(device_id);
  return found == nullptr ? nullptr : &found->device();
}

std::vector<const GpuDevice*> State::pools(const std::optional<std::string>& after, std::size_t limit) const {
  std::vector<const GpuDevice*> out;
  for (auto at = after ? pools_.upper_bound(*after) : pools_.begin(); at != pools_.end() && out.size() < limit; ++at) {
    out.push_back(&at->second->device());
  }
  return out;
}

std::optional<PoolStats> State::stats(std::string_view device_id) const {
  const Pool* const found = pool(device_id);
  if (found == nullptr) return std::nullopt;
  return found->stats();
}

std::optional<MemoryBlock> State::block(std::string_view device_id, std::string_view block_id) const {
  const Pool* const found = pool(device_id);
  return found == nullptr ? std::nullopt : found->block(block_id);
}

Prefetch::Prefetch(const State& state, std::string_view device_id, std::string_view block_id) {
  const auto id = parse_entity_id(kBlockIdPrefix, block_id);
  if (!id) return;
  pool_ = state.pool(device_id);
  of_ = *id;
}

void Prefetch::operator()(PrefetchStep step) const {
  if (pool_ == nullptr || step == PrefetchStep::Further) return;  // neither leads to more
  std::visit([this, step](auto of) { pool_->prefetch(step, of); }, of_);
}

std::vector<MemoryBlock> State::blocks(std::string_view device_id, std::size_t from_offset, std::size_t limit) const {
  const Pool* const found = pool(device_id);
  return found == nullptr ? std::vector<MemoryBlock>() : found->blocks(from_offset, limit);
}

std::vector<MemoryBlock> State::blocks_for_tensor(std::string_view device_id, std::string_view tensor_id,
                                                  std::size_t from_offset, std::size_t limit) const {
  const Pool* const found = pool(device_id);
  return found == nullptr ? std::vector<MemoryBlock>() : found->blocks_for_tensor(tensor_id, from_offset, limit);
}

std::vector<Move> State::plan_defragment(std::string_view device_id, std::size_t limit) const {
  std::vector<Move> out;
  const Pool* const found = pool(device_id);
  if (found == nullptr) return out;
  for (const auto& [block, to] : plan_moves(*found, limit)) {
    out.push_back({format_entity_id(kBlockIdPrefix, block->id), block->offset, to, block->size});
  }
  return out;
}

std::size_t State::pool_count() const { return pools_.size(); }
std::size_t State::live_block_count() const { return live_block_count_; }
Digest State::digest() const { return digest_; }
std::uint64_t State::next_block_number() const { return next_block_number_; }

}  // namespace tensorforge::gpu_memory

#include "gpu_memory/pool.h"

#include <algorithm>
#include <charconv>
#include <system_error>
#include <utility>

#include <fmt/format.h>

#include "gpu_memory/defragment.h"
#include "gpu_memory/state_machine.h"

namespace tensorforge::gpu_memory {
namespace {

constexpr std::string_view kFreePrefix = "free-";

std::string free_block_id(std::size_t offset) { return fmt::format("{}{}", kFreePrefix, offset); }

MemoryBlock free_block(Extent hole) {
  MemoryBlock block;
  block.block_id = free_block_id(hole.offset);
  block.offset = hole.offset;
  block.size = hole.size;
  return block;
}

Digest device_digest(const GpuDevice& device) {
  return CanonicalBytes("pool")
      .text(device.device_id)
      .number(device.total_memory)
      .number(device.memory_clock_mhz)
      .number(device.compute_capability.first)
      .number(device.compute_capability.second)
      .digest();
}

Digest block_digest(const std::string& device_id, const Block& block) {
  return CanonicalBytes("block")
      .text(device_id)
      .text(format_entity_id(kBlockIdPrefix, block.id))
      .number(block.offset)
      .number(block.size)
      .number(static_cast<std::uint64_t>(block.status))
      .number(1)  // a live block has a tensor
      .text(block.tensor_id)
      .number(block.allocated_at)
      .number(block.last_accessed)
      .number(block.alignment)
      .number(static_cast<std::uint64_t>(std::int64_t{block.priority}))
      .digest();
}

std::optional<std::size_t> free_block_offset(std::string_view block_id) {
  if (!names_free_place(block_id)) return std::nullopt;
  std::size_t offset = 0;
  const std::string_view digits = block_id.substr(kFreePrefix.size());
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), offset);
  if (error != std::errc() || free_block_id(offset) != block_id) return std::nullopt;  // too large, leading zeros
  return offset;
}

}  // namespace

bool names_free_place(std::string_view block_id) {
  if (!block_id.starts_with(kFreePrefix)) return false;
  const std::string_view digits = block_id.substr(kFreePrefix.size());
  return !digits.empty() && digits.find_first_not_of("0123456789") == std::string_view::npos;
}

double fragmentation(std::size_t largest_free, std::size_t free_bytes) {
  if (free_bytes == 0) return 0;
  return 1.0 - static_cast<double>(largest_free) / static_cast<double>(free_bytes);
}

MemoryBlock to_memory_block(const Block& block) {
  return {format_entity_id(kBlockIdPrefix, block.id),
          block.offset,
          block.size,
          block.status,
          block.tensor_id,
          block.allocated_at,
          block.last_accessed,
          block.alignment,
          block.priority};
}

Block to_block(EntityId id, const MemoryBlock& block) {
  return {id,
          block.offset,
          block.size,
          block.status,
          block.tensor_id.value(),
          block.allocated_at,
          block.last_accessed,
          block.alignment,
          block.priority,
          {}};
}

CachedBlock to_cached_block(const Block& block) {
  return {block.last_accessed, block.offset, block.size, block.priority};
}

Pool::Pool(GpuDevice device) : device_(std::move(device)), digest_(device_digest(device_)) {
  free_.add({0, device_.total_memory});
}

PoolStats Pool::stats() const {
  PoolStats stats;
  stats.total_bytes = device_.total_memory;
  stats.allocated_bytes = bytes(BlockStatus::Allocated);
  stats.pinned_bytes = bytes(BlockStatus::Pinned);
  stats.cached_bytes = bytes(BlockStatus::Cached);
  stats.free_bytes = free_.bytes();
  stats.largest_free_block = free_.largest();
  stats.fragmentation_ratio = fragmentation(stats.largest_free_block, stats.free_bytes);
  stats.allocation_count = live_count();
  stats.block_count = live_count() + free_.count();
  return stats;
}

const Block* Pool::find(EntityId id) const {
  const auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : found->second;
}

const Block& Pool::at(EntityId id) const { return *by_id_.at(id); }

const Block& Pool::at_offset(std::size_t offset) const { return *by_offset_.at(offset); }

std::optional<MemoryBlock> Pool::block(std::string_view block_id) const {
  if (const auto id = parse_entity_id(kBlockIdPrefix, block_id)) {
    const Block* const found = find(*id);
    if (found == nullptr) return std::nullopt;
    return to_memory_block(*found);
  }
  if (const auto offset = free_block_offset(block_id)) {
    if (const auto hole = free_.hole_at(*offset)) return free_block(*hole);
  }
  return std::nullopt;
}

std::vector<MemoryBlock> Pool::blocks(std::size_t from_offset, std::size_t limit) const {
  std::vector<MemoryBlock> out;
  auto live = by_offset_.lower_bound(from_offset);
  auto hole = free_.holes().lower_bound(from_offset);
  while (out.size() < limit) {
    const bool no_live = live == by_offset_.end();
    const bool no_hole = hole == free_.holes().end();
    if (no_live && no_hole) break;
    if (no_hole || (!no_live && live->first < hole->first)) {
      out.push_back(to_memory_block(*live->second));
      ++live;
    } else {
      out.push_back(free_block({hole->first, hole->second}));
      ++hole;
    }
  }
  return out;
}

std::vector<MemoryBlock> Pool::blocks_for_tensor(std::string_view tensor_id, std::size_t from_offset,
                                                 std::size_t limit) const {
  std::vector<MemoryBlock> out;
  const auto found = by_tensor_.find(std::string(tensor_id));
  if (found == by_tensor_.end()) return out;
  const auto& offsets = found->second;
  for (auto at = offsets.lower_bound(from_offset); at != offsets.end() && out.size() < limit; ++at) {
    out.push_back(to_memory_block(at_offset(*at)));
  }
  return out;
}

std::size_t Pool::cached_bytes(std::int32_t max_priority) const {
  if (cached_bytes_.empty() || cached_bytes_.rbegin()->first <= max_priority) return bytes(BlockStatus::Cached);
  std::size_t sum = 0;
  for (const auto& [priority, bytes] : cached_bytes_) {
    if (priority > max_priority) break;
    sum += bytes;
  }
  return sum;
}

std::optional<CachedBlock> Pool::next_cached(const std::optional<CachedBlock>& after, std::int32_t max_priority) const {
  CachedBlock from{0, 0, 0, std::numeric_limits<std::int32_t>::min()};
  if (after) {
    from.last_accessed = after->last_accessed;
    from.offset = after->offset + 1;
  }
  return cached_.first(from, [max_priority](std::int32_t lowest) { return lowest <= max_priority; });
}

void Pool::insert(Block block) {
  unsettle(block.offset);
  auto owned = std::make_unique<Block>(std::move(block));
  Block& placed = *owned;
  by_id_.emplace(placed.id, &placed);
  by_offset_.emplace(placed.offset, std::move(owned));
  by_tensor_[placed.tensor_id].insert(placed.offset);
  occupy(placed.extent(), placed.status);
  index(placed);
}

void Pool::erase(EntityId id) {
  Block& block = mutable_at(id);
  unsettle(block.offset);
  unindex(block);
  vacate(block.extent(), block.status);
  const auto tensor = by_tensor_.find(block.tensor_id);
  tensor->second.erase(block.offset);
  if (tensor->second.empty()) by_tensor_.erase(tensor);
  by_id_.erase(id);
  by_offset_.erase(block.offset);
}

void Pool::set_status(EntityId id, BlockStatus status) {
  Block& block = mutable_at(id);
  if (status == BlockStatus::Pinned || block.status == BlockStatus::Pinned) unsettle(block.offset);
  unindex(block);
  const bool was_cached = block.status == BlockStatus::Cached;
  block.status = status;
  index(block);
  const bool is_cached = status == BlockStatus::Cached;
  if (is_cached) track_reclaimable();
  if (is_cached && !was_cached) reclaimable_->add(block.extent());
  if (!is_cached && was_cached) reclaimable_->remove(block.extent());
}

void Pool::set_last_accessed(EntityId id, std::uint64_t at) {
  Block& block = mutable_at(id);
  unindex(block);
  block.last_accessed = at;
  index(block);
}

void Pool::move(EntityId id, std::size_t to) {
  Block& block = mutable_at(id);
  unsettle(std::min(block.offset, to));
  unindex(block);
  vacate(block.extent(), block.status);
  auto& offsets = by_tensor_.find(block.tensor_id)->second;
  offsets.erase(block.offset);
  offsets.insert(to);
  const auto found = by_offset_.find(block.offset);
  auto owned = std::move(found->second);
  by_offset_.erase(found);
  by_offset_.emplace(to, std::move(owned));
  block.offset = to;
  occupy(block.extent(), block.status);
  index(block);
  settled_ = next_unsettled(*this);
}

void Pool::occupy(Extent extent, BlockStatus status) {
  if (status == BlockStatus::Cached) track_reclaimable();
  free_.remove(extent);
  if (status != BlockStatus::Cached && reclaimable_) reclaimable_->remove(extent);
}

void Pool::vacate(Extent extent, BlockStatus status) {
  free_.add(extent);
  if (status != BlockStatus::Cached && reclaimable_) reclaimable_->add(extent);
}

void Pool::track_reclaimable() {
  if (reclaimable_) return;
  reclaimable_.emplace();
  for (const auto& [offset, size] : free_.holes()) reclaimable_->add({offset, size});
}

// What depends on a block's fields but not on where the free space is.
void Pool::index(Block& block) {
  block.digest = block_digest(device_.device_id, block);
  digest_ += block.digest;
  bytes(block.status) += block.size;
  if (block.status != BlockStatus::Cached) return;
  cached_.insert(to_cached_block(block));
  cached_bytes_[block.priority] += block.size;
}

void Pool::unindex(Block& block) {
  digest_ -= block.digest;
  bytes(block.status) -= block.size;
  if (block.status != BlockStatus::Cached) return;
  cached_.erase(to_cached_block(block));
  const auto by_priority = cached_bytes_.find(block.priority);
  by_priority->second -= block.size;
  if (by_priority->second == 0) cached_bytes_.erase(by_priority);
}

}  // namespace tensorforge::gpu_memory

#include "gpu_memory/pool.h"

#include <algorithm>
#include <cassert>
#include <charconv>
#include <memory>
#include <stdexcept>
#include <system_error>
#include <utility>

#include <fmt/format.h>

#include "gpu_memory/defragment.h"

namespace tensorforge::gpu_memory {
namespace {

constexpr std::string_view kFreePrefix = "free-";
constexpr std::size_t kLongestChain = 1'024;

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
      .text(block.tensor_id())
      .number(block.allocated_at)
      .number(block.last_accessed)
      .number(block.alignment)
      .number(static_cast<std::uint64_t>(std::int64_t{block.priority}))
      .digest();
}

/// The first piece that begins at or behind `from_offset`; none: there is none.
Link first_piece(const Placement& placement, std::size_t from_offset) {
  const Link piece = placement.containing(from_offset);
  return !piece || piece.place()->offset == from_offset ? piece : piece.place()->behind;
}

const Block* to_block(const Place* live) { return static_cast<const Block*>(live); }
/// The block of this piece, or of the next one if it is a hole: two holes never touch. nullptr: there is none.
const Block* live_at_or_behind(Link piece) {
  return to_block(piece.is_hole() ? piece.place()->behind.live() : piece.live());
}
/// Likewise, of the piece before.
const Block* live_at_or_before(Link piece) {
  return to_block(piece.is_hole() ? piece.place()->before.live() : piece.live());
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
          block.tensor_id(),
          block.allocated_at,
          block.last_accessed,
          block.alignment,
          block.priority};
}

LiveBlock to_live_block(const Block& block) {
  return {block.id,           block.offset,        block.size,      block.status,  block.tensor_id(),
          block.allocated_at, block.last_accessed, block.alignment, block.priority};
}

CachedBlock to_cached_block(const Block& block) { return {block.last_accessed, block.offset, block.priority, &block}; }

Pool::Pool(GpuDevice device)
    : device_(std::move(device)), digest_(device_digest(device_)), placement_(device_.total_memory) {}

Pool::~Pool() {  // a slab does not know which of its objects are in use
  for (const Block* block = first_live(); block != nullptr; block = next_live(*block)) {
    if (block->tensor_before == nullptr) std::destroy_at(block->tensor);
  }
}

PoolStats Pool::stats() const {
  PoolStats stats;
  stats.total_bytes = device_.total_memory;
  stats.allocated_bytes = bytes(BlockStatus::Allocated);
  stats.pinned_bytes = bytes(BlockStatus::Pinned);
  stats.cached_bytes = bytes(BlockStatus::Cached);
  stats.free_bytes = placement_.free_bytes();
  stats.largest_free_block = placement_.largest_hole();
  stats.fragmentation_ratio = fragmentation(stats.largest_free_block, stats.free_bytes);
  stats.allocation_count = live_count();
  stats.block_count = live_count() + placement_.hole_count();
  return stats;
}

const Block* Pool::find(EntityId id) const { return by_id_.find(id); }

void Pool::prefetch(PrefetchStep step, EntityId id) const {
  if (step == PrefetchStep::Index) return by_id_.prefetch(id);
  const Block* const block = by_id_.likely(id);
  if (block == nullptr) return;
  if (step == PrefetchStep::Entity) return prefetch_object(block);
  if (step == PrefetchStep::Related) prefetch_around(*block);
}

void Pool::prefetch_around(const Block& block) const {
  prefetch_object(&block);  // the second line of it
  prefetch_object(block.before.place());
  prefetch_object(block.behind.place());
  prefetch_object(block.tensor);
  by_tensor_id_.prefetch_hash(block.tensor_hash);  // it goes with its last block
}

void Pool::prefetch(PrefetchStep step, std::string_view tensor_id) const {
  if (step == PrefetchStep::Index) return by_tensor_id_.prefetch(tensor_id);
  const Tensor* const tensor = by_tensor_id_.likely(tensor_id);
  if (tensor == nullptr) return;
  if (step == PrefetchStep::Entity) return prefetch_object(tensor);
  if (step == PrefetchStep::Related) prefetch_bytes(&tensor->first->tensor_before, 1);
}

Block& Pool::mutable_at(EntityId id) const {
  if (Block* const found = by_id_.find(id)) return *found;
  throw std::out_of_range(format_entity_id(kBlockIdPrefix, id));
}

const Block& Pool::at(EntityId id) const { return mutable_at(id); }

const Block& Pool::at_offset(std::size_t offset) const {
  const Block* const found = first_live(offset);
  if (found == nullptr || found->offset != offset) throw std::out_of_range(fmt::format("no block at {}", offset));
  return *found;
}

const Block* Pool::first_live(std::size_t from_offset) const {
  return live_at_or_behind(first_piece(placement_, from_offset));
}

const Block* Pool::next_live(const Block& block) const { return live_at_or_behind(block.behind); }

const Block* Pool::previous_live(const Block& block) const { return live_at_or_before(block.before); }

const Block* Pool::last_live(std::size_t offset) const {
  return live_at_or_before(offset < device_.total_memory ? placement_.containing(offset) : placement_.last());
}

std::optional<MemoryBlock> Pool::block(std::string_view block_id) const {
  if (const auto id = parse_entity_id(kBlockIdPrefix, block_id)) {
    const Block* const found = find(*id);
    if (found == nullptr) return std::nullopt;
    return to_memory_block(*found);
  }
  if (const auto offset = free_block_offset(block_id)) {
    const Place* const hole = placement_.containing(*offset).hole();
    if (hole != nullptr && hole->offset == *offset) return free_block(hole->extent());
  }
  return std::nullopt;
}

std::vector<MemoryBlock> Pool::blocks(std::size_t from_offset, std::size_t limit) const {
  std::vector<MemoryBlock> out;
  for (Link at = first_piece(placement_, from_offset); at && out.size() < limit; at = at.place()->behind) {
    out.push_back(at.is_hole() ? free_block(at.place()->extent()) : to_memory_block(*to_block(at.place())));
  }
  return out;
}

std::vector<MemoryBlock> Pool::blocks_for_tensor(std::string_view tensor_id, std::size_t from_offset,
                                                 std::size_t limit) const {
  std::vector<MemoryBlock> out;
  const Tensor* const tensor = by_tensor_id_.find(tensor_id);
  if (tensor == nullptr) return out;
  if (tensor->by_offset != nullptr) {
    for (auto at = tensor->by_offset->lower_bound(from_offset); at != tensor->by_offset->end() && out.size() < limit;
         ++at) {
      out.push_back(to_memory_block(*at->second));
    }
    return out;
  }
  std::vector<const Block*> blocks;
  for (const Block* block = tensor->first; block != nullptr; block = block->tensor_behind) {
    if (block->offset >= from_offset) blocks.push_back(block);
  }
  std::sort(blocks.begin(), blocks.end(), [](const Block* a, const Block* b) { return a->offset < b->offset; });
  if (blocks.size() > limit) blocks.resize(limit);
  for (const Block* const block : blocks) out.push_back(to_memory_block(*block));
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
  Lru::Key from;
  if (after) from = {after->last_accessed, after->offset + 1};
  const auto found = cached_.first(from, [max_priority](std::int32_t lowest) { return lowest <= max_priority; });
  if (!found) return std::nullopt;
  return CachedBlock{found->key.last_accessed, found->key.offset, found->value.priority, found->value.block};
}

bool Pool::fits_without_cached(std::size_t size, std::size_t alignment) const {
  if (reclaimable_) return reclaimable_->best_fit(size, alignment).has_value();
  return placement_.best_fit(size, alignment).has_value();
}

void Pool::insert(const LiveBlock& live) {
  unsettle(live.offset);
  by_id_.prefetch(live.id);  // it is needed last
  Block& block = *blocks_.make();
  block.id = live.id;
  block.status = live.status;
  block.priority = live.priority;
  block.allocated_at = live.allocated_at;
  block.last_accessed = live.last_accessed;
  block.alignment = live.alignment;
  Tensor& tensor = tensor_of(live.tensor_id);
  occupy(block, {live.offset, live.size});
  join_tensor(block, tensor);
  by_id_.insert(block);
  index(block);
}

void Pool::erase(EntityId id) {
  Block& block = mutable_at(id);
  unsettle(block.offset);
  unindex(block);
  by_id_.erase(block);
  leave_tensor(block);
  if (Tensor* const tensor = block.tensor; tensor->count == 0) {
    by_tensor_id_.erase(*tensor);
    tensors_.destroy(tensor);
  }
  vacate(block);
  blocks_.destroy(&block);
}

Tensor& Pool::tensor_of(std::string_view tensor_id) {
  if (Tensor* const known = by_tensor_id_.find(tensor_id)) return *known;
  Tensor& made = *tensors_.make();
  made.id = tensor_id;
  made.hash = ByTensorId::hash_of(tensor_id);
  by_tensor_id_.insert(made);
  return made;
}

void Pool::join_tensor(Block& block, Tensor& tensor) {
  block.tensor = &tensor;
  block.tensor_hash = tensor.hash;
  block.tensor_before = nullptr;
  block.tensor_behind = tensor.first;
  if (tensor.first != nullptr) tensor.first->tensor_before = &block;
  tensor.first = &block;
  ++tensor.count;
  if (tensor.by_offset != nullptr) {
    tensor.by_offset->emplace(block.offset, &block);
  } else if (tensor.count > kLongestChain) {
    tensor.by_offset = std::make_unique<absl::btree_map<std::size_t, Block*>>();
    for (Block* at = tensor.first; at != nullptr; at = at->tensor_behind) tensor.by_offset->emplace(at->offset, at);
  }
}

void Pool::leave_tensor(Block& block) {
  Tensor& tensor = *block.tensor;
  (block.tensor_before == nullptr ? tensor.first : block.tensor_before->tensor_behind) = block.tensor_behind;
  if (block.tensor_behind != nullptr) block.tensor_behind->tensor_before = block.tensor_before;
  --tensor.count;
  if (tensor.by_offset == nullptr) return;
  tensor.by_offset->erase(block.offset);
  if (tensor.count < kLongestChain / 2) tensor.by_offset.reset();
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
  leave_tensor(block);
  const Extent moved{to, block.size};
  vacate(block);
  occupy(block, moved);
  join_tensor(block, *block.tensor);
  index(block);
  settled_ = next_unsettled(*this);
}

// An event says where, and not in which hole; most are placed where a best fit would be, or, when a pool is filled or
// restored, behind all others. A log may have been written by another strategy: then the hole is searched.
Placement::Hole Pool::hole_for(Extent extent, std::size_t alignment) const {
  const auto is_in = [extent](Extent hole) {
    return hole.offset <= extent.offset && extent.offset - hole.offset < hole.size &&
           extent.size <= hole.end() - extent.offset;
  };
  if (Place* const last = placement_.last().hole(); last != nullptr && is_in(last->extent())) {
    return Placement::to_hole(*last);
  }
  if (is_power_of_two(alignment) && extent.size % alignment == 0) {
    if (const auto best = placement_.best_fit(extent.size, alignment); best && is_in(best->extent())) return *best;
  }
  Place* const hole = placement_.containing(extent.offset).hole();
  assert(hole != nullptr && is_in(hole->extent()));
  return Placement::to_hole(*hole);
}

void Pool::occupy(Block& block, Extent extent) {
  if (block.status == BlockStatus::Cached) track_reclaimable();
  placement_.occupy(block, extent, hole_for(extent, block.alignment));
  if (block.status != BlockStatus::Cached && reclaimable_) reclaimable_->remove(extent);
}

void Pool::vacate(Block& block) {
  if (block.status != BlockStatus::Cached && reclaimable_) reclaimable_->add(block.extent());
  placement_.vacate(block);
}

void Pool::track_reclaimable() {
  if (reclaimable_) return;
  reclaimable_.emplace();
  for (Link at = placement_.first(); at; at = at.place()->behind) {
    if (at.is_hole()) reclaimable_->add(at.place()->extent());
  }
}

// What depends on a block's fields but not on where the free space is.
void Pool::index(Block& block) {
  block.digest = block_digest(device_.device_id, block);
  digest_ += block.digest;
  bytes(block.status) += block.size;
  if (block.status != BlockStatus::Cached) return;
  cached_.insert(cached_nodes_, {block.last_accessed, block.offset}, {block.priority, &block});
  cached_bytes_[block.priority] += block.size;
}

void Pool::unindex(Block& block) {
  digest_ -= block.digest;
  bytes(block.status) -= block.size;
  if (block.status != BlockStatus::Cached) return;
  cached_.erase(cached_nodes_, {block.last_accessed, block.offset});
  const auto by_priority = cached_bytes_.find(block.priority);
  by_priority->second -= block.size;
  if (by_priority->second == 0) cached_bytes_.erase(by_priority);
}

}  // namespace tensorforge::gpu_memory

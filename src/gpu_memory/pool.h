#pragma once

#include <algorithm>
#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/btree_set.h"
#include "absl/container/flat_hash_map.h"
#include "gpu_memory/free_space.h"
#include "gpu_memory/gpu_memory.h"
#include "gpu_memory/summary_tree.h"
#include "platform/digest.h"
#include "platform/entity_id.h"

namespace tensorforge::gpu_memory {

/// A live block: Allocated, Pinned or Cached.
struct Block {
  EntityId id;
  std::size_t offset{}, size{};
  BlockStatus status{};
  std::string tensor_id;
  std::uint64_t allocated_at{}, last_accessed{};
  std::size_t alignment{1};
  std::int32_t priority{};
  Digest digest;  ///< kept up by the Pool

  Extent extent() const { return {offset, size}; }
};
MemoryBlock to_memory_block(const Block&);
/// The inverse, for a block that is not Free.
Block to_block(EntityId, const MemoryBlock&);

/// Whether this is the id of a Free block, there or not: `free-` and a decimal number.
bool names_free_place(std::string_view block_id);
/// 1 - largest / all; 0 with nothing free.
double fragmentation(std::size_t largest_free, std::size_t free_bytes);

/// What eviction needs to know of a Cached block; in LRU order: least recently accessed first, ties by offset.
struct CachedBlock {
  std::uint64_t last_accessed{};
  std::size_t offset{}, size{};
  std::int32_t priority{};
  friend auto operator<=>(const CachedBlock&, const CachedBlock&) = default;
};

CachedBlock to_cached_block(const Block&);

/// One device's memory: its live blocks, the free space between them, and the indexes over both.
///
/// Cost: a change or a look-up is O(log blocks), plus one step per priority for cached_bytes(); lists are O(log blocks)
/// and their length.
/// Threads: none.
class Pool {
 public:
  explicit Pool(GpuDevice device);

  const GpuDevice& device() const { return device_; }
  PoolStats stats() const;
  /// Sum of the hashes of the pool and its live blocks.
  const Digest& digest() const { return digest_; }
  std::size_t live_count() const { return by_id_.size(); }

  const Block* find(EntityId) const;          ///< nullptr: no live block has this id
  const Block& at(EntityId) const;            ///< throws std::out_of_range instead
  const Block& at_offset(std::size_t) const;  ///< the live block that begins there, or throws
  std::optional<MemoryBlock> block(std::string_view block_id) const;
  std::vector<MemoryBlock> blocks(std::size_t from_offset, std::size_t limit) const;
  std::vector<MemoryBlock> blocks_for_tensor(std::string_view tensor_id, std::size_t from_offset,
                                             std::size_t limit) const;

  /// The live blocks by offset.
  using ByOffset = absl::btree_map<std::size_t, std::unique_ptr<Block>>;
  const ByOffset& live() const { return by_offset_; }

  const FreeSpace& free_space() const { return free_; }
  /// The bytes of Free and Cached blocks: what eviction could make of them at the very most.
  const FreeSpace& reclaimable_space() const { return reclaimable_ ? *reclaimable_ : free_; }
  /// Bytes that no eviction can free: those of Allocated and Pinned blocks.
  std::size_t uncached_bytes() const { return bytes(BlockStatus::Allocated) + bytes(BlockStatus::Pinned); }
  /// Bytes of the Cached blocks with a priority of at most `max_priority`.
  std::size_t cached_bytes(std::int32_t max_priority) const;
  /// The Cached block behind `after` in LRU order (nullopt: the first) with a priority of at most `max_priority`.
  std::optional<CachedBlock> next_cached(const std::optional<CachedBlock>& after,
                                         std::int32_t max_priority = std::numeric_limits<std::int32_t>::max()) const;

  /// No block that begins below this offset would be moved by a defragmentation: what is known of that, so that one
  /// in many steps does not look at all blocks again in each.
  std::size_t settled() const { return settled_; }

  /// Places a live block, all of whose bytes must be free.
  void insert(Block);
  void erase(EntityId);
  void set_status(EntityId, BlockStatus);
  void set_last_accessed(EntityId, std::uint64_t at);
  /// Moves a block; the bytes at `to` must be free or its own.
  void move(EntityId, std::size_t to);

 private:
  struct Lru {
    using Key = CachedBlock;
    using Summary = std::int32_t;  ///< the lowest priority
    static Summary of(const Key& block) { return block.priority; }
    static Summary join(Summary a, Summary b) { return a < b ? a : b; }
  };

  Block& mutable_at(EntityId id) { return *by_id_.at(id); }
  void index(Block&);
  void unindex(Block&);
  void occupy(Extent, BlockStatus);
  void vacate(Extent, BlockStatus);
  void track_reclaimable();
  /// A change at `offset` can make blocks move that lie behind it, and no others.
  void unsettle(std::size_t offset) { settled_ = std::min(settled_, offset); }
  std::size_t& bytes(BlockStatus status) { return bytes_[static_cast<std::size_t>(status)]; }
  std::size_t bytes(BlockStatus status) const { return bytes_[static_cast<std::size_t>(status)]; }

  GpuDevice device_;
  Digest digest_;
  ByOffset by_offset_;
  absl::flat_hash_map<EntityId, Block*, std::hash<EntityId>> by_id_;
  absl::flat_hash_map<std::string, absl::btree_set<std::size_t>> by_tensor_;
  std::array<std::size_t, 4> bytes_{};  ///< of the live blocks, by status

  FreeSpace free_;
  /// Made when the first block of this pool becomes Cached: up to then it is the same as `free_`.
  std::optional<FreeSpace> reclaimable_;
  SummaryTree<Lru> cached_;
  std::map<std::int32_t, std::size_t> cached_bytes_;  ///< by priority
  std::size_t settled_{};
};

}  // namespace tensorforge::gpu_memory

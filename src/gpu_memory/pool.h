#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/hash/hash.h"
#include "gpu_memory/free_space.h"
#include "gpu_memory/gpu_memory.h"
#include "gpu_memory/placement.h"
#include "gpu_memory/slab.h"
#include "gpu_memory/state_machine.h"
#include "gpu_memory/summary_tree.h"
#include "platform/digest.h"
#include "platform/entity_id.h"
#include "platform/prefetch.h"
#include "platform/sharded_index.h"

namespace tensorforge::gpu_memory {

struct Block;

/// A tensor that has blocks: up to 1,024 of them in a chain without order, which costs nothing to keep; more are in a
/// tree too, so that a page of them is found without looking at all. It fills a cache line, and never lies in two.
struct alignas(64) Tensor {
  std::string id;
  std::size_t hash{};  ///< of the id
  Block* first{};
  std::size_t count{};
  std::unique_ptr<absl::btree_map<std::size_t, Block*>> by_offset;  ///< nullptr: the chain is short
};
static_assert(sizeof(Tensor) == 64);

/// A live block: Allocated, Pinned or Cached. Its fields belong to the Pool, its Place to the Placement in that. It
/// fills two cache lines, and never lies in three.
struct alignas(64) Block : Place {
  EntityId id;
  Tensor* tensor{};
  std::size_t tensor_hash{};  ///< as the tensor has it: who frees a block need not wait for that
  BlockStatus status{};
  std::int32_t priority{};
  std::uint64_t allocated_at{}, last_accessed{};
  std::size_t alignment{1};
  Block* tensor_before{};
  Block* tensor_behind{};
  Digest digest;

  const std::string& tensor_id() const { return tensor->id; }
};
static_assert(sizeof(Block) == 128);
MemoryBlock to_memory_block(const Block&);
LiveBlock to_live_block(const Block&);

/// Whether this is the id of a Free block, there or not: `free-` and a decimal number.
bool names_free_place(std::string_view block_id);
/// 1 - largest / all; 0 with nothing free.
double fragmentation(std::size_t largest_free, std::size_t free_bytes);

/// A Cached block in LRU order: least recently accessed first, ties by offset.
struct CachedBlock {
  std::uint64_t last_accessed{};
  std::size_t offset{};
  std::int32_t priority{};
  const Block* block{};
  friend bool operator<(const CachedBlock& a, const CachedBlock& b) {
    return a.last_accessed != b.last_accessed ? a.last_accessed < b.last_accessed : a.offset < b.offset;
  }
};

CachedBlock to_cached_block(const Block&);

/// One device's memory: its live blocks, the free space between them, and the indexes over both.
///
/// Cost: a change costs a few look-ups by hash and what Placement says; where some block is Cached, and for one of a
/// tensor with thousands, O(log blocks). Lists are O(log blocks) and their length (of a tensor: up to 1,024 more).
/// cached_bytes() takes one step per priority.
/// Threads: none.
class Pool {
 public:
  explicit Pool(GpuDevice device);
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

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

  /// The live blocks by offset: the first that begins at or behind `from_offset`, and the next one; nullptr: none.
  const Block* first_live(std::size_t from_offset = 0) const;
  const Block* next_live(const Block&) const;
  const Block* previous_live(const Block&) const;
  /// The last live block that begins at or before `offset`.
  const Block* last_live(std::size_t offset = std::numeric_limits<std::size_t>::max()) const;

  /// For a look at this block, or a change.
  void prefetch(PrefetchStep, EntityId) const;
  /// For what freeing this block looks at.
  void prefetch_around(const Block&) const;
  /// For an allocation for this tensor.
  void prefetch(PrefetchStep, std::string_view tensor_id) const;
  const Placement& placement() const { return placement_; }
  /// Whether the request would fit if all Cached blocks went: best_fit() over the bytes of Free and Cached blocks.
  bool fits_without_cached(std::size_t size, std::size_t alignment) const;
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
  void insert(const LiveBlock&);
  void erase(EntityId);
  void set_status(EntityId, BlockStatus);
  void set_last_accessed(EntityId, std::uint64_t at);
  /// Moves a block; the bytes at `to` must be free or its own.
  void move(EntityId, std::size_t to);

 private:
  struct Lru {
    struct Key {
      std::uint64_t last_accessed{};
      std::size_t offset{};
      friend auto operator<=>(const Key&, const Key&) = default;
    };
    struct Value {
      std::int32_t priority{};
      const Block* block{};
    };
    using Summary = std::int32_t;  ///< the lowest priority
    static Summary of(const Key&, const Value& block) { return block.priority; }
    static Summary join(Summary a, Summary b) { return a < b ? a : b; }
  };

  struct ById {
    using Key = EntityId;
    static Key key_of(const Block& block) { return block.id; }
    static std::size_t hash_of(Key id) { return std::hash<EntityId>()(id); }
  };

  struct ByTensorId {
    using Key = std::string_view;
    static Key key_of(const Tensor& tensor) { return tensor.id; }
    static std::size_t hash_of(Key id) { return absl::HashOf(id); }
    static std::size_t hash_of(const Tensor& tensor) { return tensor.hash; }
  };

  Block& mutable_at(EntityId) const;
  void index(Block&);
  void unindex(Block&);
  Placement::Hole hole_for(Extent, std::size_t alignment) const;
  void occupy(Block&, Extent);
  void vacate(Block&);
  Tensor& tensor_of(std::string_view tensor_id);
  void join_tensor(Block&, Tensor&);
  void leave_tensor(Block&);
  void track_reclaimable();
  /// A change at `offset` can make blocks move that lie behind it, and no others.
  void unsettle(std::size_t offset) { settled_ = std::min(settled_, offset); }
  std::size_t& bytes(BlockStatus status) { return bytes_[static_cast<std::size_t>(status)]; }
  std::size_t bytes(BlockStatus status) const { return bytes_[static_cast<std::size_t>(status)]; }

  GpuDevice device_;
  Digest digest_;
  Slab<Block> blocks_;
  ShardedIndex<Block, ById> by_id_;
  Slab<Tensor> tensors_;
  ShardedIndex<Tensor, ByTensorId> by_tensor_id_;
  std::array<std::size_t, 4> bytes_{};  ///< of the live blocks, by status

  Placement placement_;
  /// The bytes of Free and Cached blocks; made when the first block of this pool becomes Cached.
  std::optional<FreeSpace> reclaimable_;
  SummaryTree<Lru>::Nodes cached_nodes_;
  SummaryTree<Lru> cached_;
  std::map<std::int32_t, std::size_t> cached_bytes_;  ///< by priority
  std::size_t settled_{};
};

}  // namespace tensorforge::gpu_memory

#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "gpu_memory/gpu_memory.h"
#include "platform/digest.h"
#include "platform/entity_id.h"
#include "platform/prefetch.h"
#include "platform/result.h"

namespace tensorforge::gpu_memory {

inline constexpr std::string_view kBlockIdPrefix = "b";

class Pool;  // pool.h

// Commands order.
struct CreatePool {
  GpuDevice device;
  bool operator==(const CreatePool&) const = default;
};
struct Allocate {
  std::string device_id;
  AllocationRequest request;
  bool operator==(const Allocate&) const = default;
};
struct FreeBlock {
  std::string device_id, block_id;
  bool operator==(const FreeBlock&) const = default;
};
struct CacheBlock {
  std::string device_id, block_id;
  bool operator==(const CacheBlock&) const = default;
};
struct PinBlock {
  std::string device_id, block_id;
  bool operator==(const PinBlock&) const = default;
};
struct UnpinBlock {
  std::string device_id, block_id;
  bool operator==(const UnpinBlock&) const = default;
};
struct TouchBlock {
  std::string device_id, block_id;
  bool operator==(const TouchBlock&) const = default;
};
struct Evict {
  std::string device_id;
  std::size_t needed{};
  bool operator==(const Evict&) const = default;
};
struct Defragment {
  std::string device_id;
  bool operator==(const Defragment&) const = default;
};
using Command =
    std::variant<CreatePool, Allocate, FreeBlock, CacheBlock, PinBlock, UnpinBlock, TouchBlock, Evict, Defragment>;

/// Why an allocation found no place.
enum class AllocationFailure { LargerThanPool, OutOfMemory, Fragmented };
std::string_view to_string(AllocationFailure);
std::optional<AllocationFailure> parse_allocation_failure(std::string_view name);

// Events tell.
struct PoolCreated {
  GpuDevice device;
  bool operator==(const PoolCreated&) const = default;
};
struct BlockAllocated {
  std::string device_id;
  AllocationRequest request;
  EntityId block;
  std::size_t offset{}, actual_size{};
  std::vector<std::size_t> evicted;  ///< offsets of the Cached blocks that went for it, in the order of eviction
  std::uint64_t at{};
  bool operator==(const BlockAllocated&) const = default;
};
struct AllocationRefused {
  std::string device_id;
  AllocationRequest request;
  AllocationFailure cause{};
  std::size_t actual_size{}, total_bytes{}, free_bytes{}, evictable_bytes{}, largest_free_block{};
  bool operator==(const AllocationRefused&) const = default;
};
struct BlockFreed {
  std::string device_id;
  EntityId block;
  bool operator==(const BlockFreed&) const = default;
};
struct BlockCached {
  std::string device_id;
  EntityId block;
  bool operator==(const BlockCached&) const = default;
};
struct BlockPinned {
  std::string device_id;
  EntityId block;
  bool operator==(const BlockPinned&) const = default;
};
struct BlockUnpinned {
  std::string device_id;
  EntityId block;
  bool operator==(const BlockUnpinned&) const = default;
};
struct BlockTouched {
  std::string device_id;
  EntityId block;
  std::uint64_t at{};
  bool operator==(const BlockTouched&) const = default;
};
struct BlockEvicted {
  std::string device_id;
  EntityId block;
  std::size_t size{};
  bool more{};  ///< in the command's last event: the limit ended it and there is more to evict
  bool operator==(const BlockEvicted&) const = default;
};
struct BlockMoved {
  std::string device_id;
  EntityId block;
  std::size_t from{}, to{}, size{};
  bool more{};  ///< in the command's last event: the limit ended it and there is more to move
  bool operator==(const BlockMoved&) const = default;
};
using Event = std::variant<PoolCreated, BlockAllocated, AllocationRefused, BlockFreed, BlockCached, BlockPinned,
                           BlockUnpinned, BlockTouched, BlockEvicted, BlockMoved>;
using Events = absl::InlinedVector<Event, 1>;  // of most commands one

/// What decide() may not find out for itself.
struct Context {
  std::uint64_t now{};                                                 ///< ms since the Unix epoch
  std::uint32_t incarnation{};                                         ///< goes into new block ids
  std::size_t max_changes{std::numeric_limits<std::size_t>::max()};    ///< of one Evict or Defragment
  std::size_t max_evictions{std::numeric_limits<std::size_t>::max()};  ///< for one Allocate; more is kResourceExhausted
  std::uint64_t touch_granularity_ms{};  ///< a touch nearer than this to the recorded one makes no event
};

/// A block that is not Free.
struct LiveBlock {
  EntityId id;
  std::size_t offset{}, size{};
  BlockStatus status{BlockStatus::Allocated};
  std::string tensor_id;
  std::uint64_t allocated_at{}, last_accessed{};
  std::size_t alignment{1};
  std::int32_t priority{};
  bool operator==(const LiveBlock&) const = default;
};

/// All pools and their blocks.
///
/// Threads: none; the facade locks, the service has one writer. Pointers are valid until the next apply() or undo().
/// Cost: allocate, free, evict one and the statistics are O(log blocks of the pool); best fit is exact.
class State {
 public:
  State();
  State(State&&) noexcept;
  State& operator=(State&&) noexcept;
  ~State();

  bool has_pool(std::string_view device_id) const;
  const GpuDevice* device(std::string_view device_id) const;  ///< nullptr: unknown
  std::vector<const GpuDevice*> pools(const std::optional<std::string>& after, std::size_t limit) const;  ///< by id
  std::optional<PoolStats> stats(std::string_view device_id) const;  ///< nullopt: unknown pool; O(1)
  std::optional<MemoryBlock> block(std::string_view device_id, std::string_view block_id) const;  ///< Free ones too
  /// All blocks, Free ones too, that begin at or behind `from_offset`, by offset.
  std::vector<MemoryBlock> blocks(std::string_view device_id, std::size_t from_offset, std::size_t limit) const;
  std::vector<MemoryBlock> blocks_for_tensor(std::string_view device_id, std::string_view tensor_id,
                                             std::size_t from_offset, std::size_t limit) const;
  /// The first `limit` moves of a defragmentation, in the order of the contract.
  std::vector<Move> plan_defragment(std::string_view device_id, std::size_t limit) const;
  std::size_t pool_count() const;
  std::size_t live_block_count() const;
  /// Sum of the hashes of all pools and live blocks; O(1).
  Digest digest() const;

  /// What the next block is called; counts over all pools, so that no id is ever given out twice.
  std::uint64_t next_block_number() const;
  /// For decide(); nullptr: unknown.
  const Pool* pool(std::string_view device_id) const;

 private:
  friend class Mutation;     // apply() and undo()
  friend class Restoration;  // restore()

  std::map<std::string, std::unique_ptr<Pool>, std::less<>> pools_;
  std::uint64_t next_block_number_{1};
  std::size_t live_block_count_{};
  Digest digest_;
};

/// Asks the memory for what a look at a block, a change of it, or an allocation will look at.
///
/// For one after another of kPrefetchSteps; the pool may not go in between. Threads: as a look at the state.
class Prefetch {
 public:
  Prefetch(const State&, std::string_view device_id, std::string_view block_id);
  Prefetch(const State& state, std::string_view device_id, EntityId block) : pool_(state.pool(device_id)), of_(block) {}
  /// For an allocation. The request has to stay.
  Prefetch(const State& state, std::string_view device_id, const AllocationRequest& request)
      : pool_(state.pool(device_id)), of_(std::string_view(request.tensor_id)) {}
  void operator()(PrefetchStep step) const;

 private:
  const Pool* pool_{};                           // nullptr: nothing is there
  std::variant<EntityId, std::string_view> of_;  // a block, or a tensor
};

/// The former values of what some events touched, so that undo() can put them back.
struct Undo {
  struct Former {
    std::string device_id;
    EntityId block;
    std::optional<LiveBlock> value;  ///< nullopt: there was no such block
  };
  std::vector<Former> blocks;              ///< in the order of the changes
  std::vector<std::string> created_pools;  ///< their blocks are among `blocks`
  std::optional<std::uint64_t> next_block_number;
};

/// What `command` would do: its events, none for a no-op. Changes nothing.
///
/// Errors as the contract says; beside them
/// kResourceExhausted  an allocation would have to evict more than context.max_evictions blocks.
/// An allocation refused as larger than the pool, out of memory or fragmented is no error but an AllocationRefused.
Result<Events> decide(const State&, const Command&, const Context&);
/// Never refuses: what it is told has happened.
void apply(State&, const Event&, Undo* undo = nullptr);
/// Puts everything back as it was before the first apply() with this `undo`.
void undo(State&, Undo&&);

/// The error text of a refused allocation, from its event: the same at the first answer and at every retry.
std::string refusal_message(const AllocationRefused&);

}  // namespace tensorforge::gpu_memory

#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "platform/result.h"

namespace tensorforge::gpu_memory {

// The memory of GPU devices as pools of blocks. Sizes and offsets are bytes; times are ms since the Unix epoch.

/// Free memory, held, held and never moved or evicted, or kept for reuse until somebody needs the place.
enum class BlockStatus { Free, Allocated, Pinned, Cached };
std::string_view to_string(BlockStatus);
std::optional<BlockStatus> parse_block_status(std::string_view name);

/// The blocks of a pool tile it: each byte is in exactly one, and no two Free ones touch.
struct MemoryBlock {
  std::string block_id;  ///< unique for ever; a Free block's is `free-<offset>`, the name of a place
  std::size_t offset{}, size{};
  BlockStatus status{};
  std::optional<std::string> tensor_id;  ///< absent: Free
  std::uint64_t allocated_at{}, last_accessed{};
  std::size_t alignment{1};
  std::int32_t priority{};  ///< a Cached block is evicted only for a request whose priority is not lower
  bool operator==(const MemoryBlock&) const = default;
};
struct GpuDevice {
  std::string device_id;
  std::size_t total_memory{};
  std::uint32_t memory_clock_mhz{};
  std::pair<std::uint32_t, std::uint32_t> compute_capability;  ///< major, minor
  bool operator==(const GpuDevice&) const = default;
};
struct AllocationRequest {
  std::string tensor_id;
  std::size_t size{}, alignment{1};  ///< the alignment is a power of two
  bool pinned{};
  std::int32_t priority{};
  bool operator==(const AllocationRequest&) const = default;
};
struct AllocationResult {
  bool success{};
  std::optional<std::string> block_id;             ///< present on success
  std::optional<std::size_t> offset, actual_size;  ///< present on success
  std::optional<std::string> error;                ///< present on failure
  bool operator==(const AllocationResult&) const = default;
};
/// allocated + pinned + cached + free = total.
struct PoolStats {
  std::size_t total_bytes{}, allocated_bytes{}, free_bytes{}, pinned_bytes{}, cached_bytes{};
  double fragmentation_ratio{};
  std::size_t largest_free_block{};
  std::size_t block_count{};       ///< all blocks
  std::size_t allocation_count{};  ///< those that are not Free
  bool operator==(const PoolStats&) const = default;
};
struct Move {
  std::string block_id;
  std::size_t from{}, to{}, size{};
  bool operator==(const Move&) const = default;
};

/// The smallest multiple of `alignment` (any number, 0 counting as 1) from `size` on; where none fits, the largest
/// std::size_t.
std::size_t align_up(std::size_t size, std::size_t alignment);
bool is_power_of_two(std::size_t n);
/// 1 - largest Free block / all Free bytes; 0 with nothing free.
double fragmentation_ratio(std::span<const MemoryBlock>);
/// The id of the smallest Free block in which `size` bytes fit at a multiple of `alignment`, padding included; the
/// lower of two equally small ones. Nothing for size 0 or an alignment that is no power of two.
std::optional<std::string> best_fit_block(std::span<const MemoryBlock>, std::size_t size, std::size_t alignment);
/// The ids of the Cached blocks, least recently accessed first, ties by offset.
std::vector<std::string> eviction_candidates(std::span<const MemoryBlock>);
/// allocated / total within [0, 1]; 1 for a total of 0.
double memory_pressure(std::size_t allocated, std::size_t total);
/// More fragmented than the threshold, and the largest Free block below `min_block_size`. A NaN is false.
bool should_defragment(const PoolStats&, double frag_threshold, std::size_t min_block_size);
/// Until nothing is free at this rate; +infinity where the rate is not positive.
double estimate_oom_seconds(std::size_t free_bytes, double alloc_rate_bytes_per_sec);
/// Peak times headroom (at least 1) to the nearest byte, then up to a multiple of `page_size` (0: left as it is);
/// saturates.
std::size_t optimal_pool_size(std::size_t peak_usage, double headroom_factor, std::size_t page_size);

/// One device's memory, kept in this process: the state machine of state_machine.h behind a lock.
///
/// Placement is exact best fit; where nothing fits, Cached blocks go in LRU order.
/// Errors:  kNotFound: no block has this id (any more). kFailedPrecondition: the block's status does not allow it, or
///          the id is a Free block's. Nothing is changed then.
/// Cost:    O(log blocks) per call and block changed; lists are O(their length), defragment O(blocks).
/// Threads: any, at any time. What it returns is a copy.
class MemoryPool {
 public:
  /// One Free block over all memory; no block where the device has 0 bytes.
  explicit MemoryPool(GpuDevice device);
  ~MemoryPool();
  MemoryPool(const MemoryPool&) = delete;
  MemoryPool& operator=(const MemoryPool&) = delete;

  /// Takes `align_up(size, alignment)` bytes at the lowest aligned offset of the smallest hole; evicts Cached blocks of
  /// no higher priority where none is large enough. A refusal changes nothing, and its `error` says whether the request
  /// is malformed or the pool is `larger than the pool`, `out of memory` or `fragmented`, with the figures.
  AllocationResult allocate(const AllocationRequest& request, std::uint64_t now);
  /// Frees a block, a Pinned one too.
  absl::Status free(std::string_view block_id);
  absl::Status mark_cached(std::string_view block_id);  ///< Allocated -> Cached
  absl::Status pin(std::string_view block_id);          ///< Allocated or Cached -> Pinned
  absl::Status unpin(std::string_view block_id);        ///< Pinned -> Allocated
  /// Moves `last_accessed` forward to `now`, never back.
  absl::Status touch(std::string_view block_id, std::uint64_t now);
  /// Frees Cached blocks in LRU order, whatever their priority, until at least `needed` bytes are freed; returns the
  /// bytes freed.
  std::size_t evict(std::size_t needed);
  /// Slides Allocated and Cached blocks down, around the Pinned ones; returns the number moved.
  std::size_t defragment();
  PoolStats stats() const;
  std::optional<MemoryBlock> get_block(std::string_view block_id) const;         ///< a Free block's too
  std::vector<MemoryBlock> blocks_for_tensor(std::string_view tensor_id) const;  ///< by offset
  /// What defragment would do, in an order in which copying one block at a time (as memmove does) overwrites no live
  /// data.
  std::vector<Move> plan_defragment() const;
  /// All, by offset.
  std::vector<MemoryBlock> blocks() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tensorforge::gpu_memory

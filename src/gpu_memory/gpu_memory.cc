#include "gpu_memory/gpu_memory.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <mutex>
#include <tuple>
#include <utility>
#include <variant>

#include "gpu_memory/pool.h"
#include "gpu_memory/state_machine.h"
#include "platform/enum_names.h"
#include "platform/queue.h"

namespace tensorforge::gpu_memory {
namespace {

constexpr std::size_t kMax = std::numeric_limits<std::size_t>::max();
constexpr auto kStatusNames = enum_names<BlockStatus>("Free", "Allocated", "Pinned", "Cached");

bool fits(const MemoryBlock& block, std::size_t size, std::size_t alignment) {
  const std::size_t padding = (std::size_t{0} - block.offset) & (alignment - 1);
  return padding <= block.size && size <= block.size - padding && padding <= kMax - block.offset;
}

}  // namespace

std::string_view to_string(BlockStatus status) { return kStatusNames.to_string(status); }
std::optional<BlockStatus> parse_block_status(std::string_view name) { return kStatusNames.parse(name); }

std::size_t align_up(std::size_t size, std::size_t alignment) {
  if (alignment <= 1 || size % alignment == 0) return size;
  const std::size_t missing = alignment - size % alignment;
  return size > kMax - missing ? kMax : size + missing;
}

bool is_power_of_two(std::size_t n) { return std::has_single_bit(n); }

double fragmentation_ratio(std::span<const MemoryBlock> blocks) {
  std::size_t largest = 0;
  std::size_t all = 0;
  for (const MemoryBlock& block : blocks) {
    if (block.status != BlockStatus::Free) continue;
    largest = std::max(largest, block.size);
    all = block.size > kMax - all ? kMax : all + block.size;
  }
  return fragmentation(largest, all);
}

std::optional<std::string> best_fit_block(std::span<const MemoryBlock> blocks, std::size_t size,
                                          std::size_t alignment) {
  if (size == 0 || !is_power_of_two(alignment)) return std::nullopt;
  const MemoryBlock* best = nullptr;
  for (const MemoryBlock& block : blocks) {
    if (block.status != BlockStatus::Free || !fits(block, size, alignment)) continue;
    if (best == nullptr || std::tie(block.size, block.offset) < std::tie(best->size, best->offset)) best = &block;
  }
  if (best == nullptr) return std::nullopt;
  return best->block_id;
}

std::vector<std::string> eviction_candidates(std::span<const MemoryBlock> blocks) {
  std::vector<const MemoryBlock*> cached;
  for (const MemoryBlock& block : blocks) {
    if (block.status == BlockStatus::Cached) cached.push_back(&block);
  }
  std::sort(cached.begin(), cached.end(), [](const MemoryBlock* a, const MemoryBlock* b) {
    return std::tie(a->last_accessed, a->offset) < std::tie(b->last_accessed, b->offset);
  });
  std::vector<std::string> ids;
  ids.reserve(cached.size());
  for (const MemoryBlock* block : cached) ids.push_back(block->block_id);
  return ids;
}

double memory_pressure(std::size_t allocated, std::size_t total) { return queue::queue_pressure(allocated, total); }

bool should_defragment(const PoolStats& stats, double frag_threshold, std::size_t min_block_size) {
  return stats.fragmentation_ratio > frag_threshold && stats.largest_free_block < min_block_size;
}

double estimate_oom_seconds(std::size_t free_bytes, double alloc_rate_bytes_per_sec) {
  if (!(alloc_rate_bytes_per_sec > 0)) return std::numeric_limits<double>::infinity();
  return static_cast<double>(free_bytes) / alloc_rate_bytes_per_sec;
}

std::size_t optimal_pool_size(std::size_t peak_usage, double headroom_factor, std::size_t page_size) {
  if (peak_usage == 0) return 0;
  std::size_t size = peak_usage;
  if (headroom_factor > 1) {
    const long double wanted = static_cast<long double>(peak_usage) * static_cast<long double>(headroom_factor);
    const long double below = std::floor(wanted);
    const long double nearest = wanted - below >= 0.5L ? below + 1 : below;  // adding 0.5 would round above 2^63
    constexpr long double kLimit = 18446744073709551616.0L;                  // 2^64
    static_assert(std::numeric_limits<std::size_t>::digits == 64);
    size = nearest >= kLimit ? kMax : std::max(peak_usage, static_cast<std::size_t>(nearest));
  }
  return align_up(size, page_size);
}

struct MemoryPool::Impl {
  explicit Impl(GpuDevice device) : device_id(device.device_id) { apply(state, PoolCreated{std::move(device)}); }

  /// Decides `command` and applies its events. The caller holds the lock.
  Result<Events> run(const Command& command, std::uint64_t now = 0) {
    Context context;
    context.now = now;
    Result<Events> events = decide(state, command, context);
    if (events.ok()) {
      for (const Event& event : *events) apply(state, event);
    }
    return events;
  }
  absl::Status change(const Command& command, std::uint64_t now = 0) {
    const std::lock_guard lock(mutex);
    return run(command, now).status();
  }

  const std::string device_id;
  mutable std::mutex mutex;
  State state;
};

MemoryPool::MemoryPool(GpuDevice device) : impl_(std::make_unique<Impl>(std::move(device))) {}
MemoryPool::~MemoryPool() = default;

AllocationResult MemoryPool::allocate(const AllocationRequest& request, std::uint64_t now) {
  const std::lock_guard lock(impl_->mutex);
  const Result<Events> events = impl_->run(Allocate{impl_->device_id, request}, now);
  AllocationResult result;
  if (!events.ok()) {
    result.error = std::string(events.status().message());
  } else if (const auto* const placed = std::get_if<BlockAllocated>(&events->front())) {
    result.success = true;
    result.block_id = format_entity_id(kBlockIdPrefix, placed->block);
    result.offset = placed->offset;
    result.actual_size = placed->actual_size;
  } else {
    result.error = refusal_message(std::get<AllocationRefused>(events->front()));
  }
  return result;
}

absl::Status MemoryPool::free(std::string_view block_id) {
  return impl_->change(FreeBlock{impl_->device_id, std::string(block_id)});
}
absl::Status MemoryPool::mark_cached(std::string_view block_id) {
  return impl_->change(CacheBlock{impl_->device_id, std::string(block_id)});
}
absl::Status MemoryPool::pin(std::string_view block_id) {
  return impl_->change(PinBlock{impl_->device_id, std::string(block_id)});
}
absl::Status MemoryPool::unpin(std::string_view block_id) {
  return impl_->change(UnpinBlock{impl_->device_id, std::string(block_id)});
}
absl::Status MemoryPool::touch(std::string_view block_id, std::uint64_t now) {
  return impl_->change(TouchBlock{impl_->device_id, std::string(block_id)}, now);
}

std::size_t MemoryPool::evict(std::size_t needed) {
  const std::lock_guard lock(impl_->mutex);
  const Result<Events> events = impl_->run(Evict{impl_->device_id, needed});
  std::size_t freed = 0;
  for (const Event& event : *events) freed += std::get<BlockEvicted>(event).size;
  return freed;
}

std::size_t MemoryPool::defragment() {
  const std::lock_guard lock(impl_->mutex);
  return impl_->run(Defragment{impl_->device_id})->size();
}

PoolStats MemoryPool::stats() const {
  const std::lock_guard lock(impl_->mutex);
  return *impl_->state.stats(impl_->device_id);
}

std::optional<MemoryBlock> MemoryPool::get_block(std::string_view block_id) const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->state.block(impl_->device_id, block_id);
}

std::vector<MemoryBlock> MemoryPool::blocks_for_tensor(std::string_view tensor_id) const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->state.blocks_for_tensor(impl_->device_id, tensor_id, 0, kMax);
}

std::vector<Move> MemoryPool::plan_defragment() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->state.plan_defragment(impl_->device_id, kMax);
}

std::vector<MemoryBlock> MemoryPool::blocks() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->state.blocks(impl_->device_id, 0, kMax);
}

}  // namespace tensorforge::gpu_memory

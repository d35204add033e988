#include <algorithm>
#include <bit>
#include <limits>
#include <type_traits>
#include <utility>

#include <fmt/format.h>

#include "gpu_memory/defragment.h"
#include "gpu_memory/eviction.h"
#include "gpu_memory/pool.h"
#include "gpu_memory/state_machine.h"
#include "platform/allocator.h"
#include "platform/enum_names.h"
#include "platform/names.h"
#include "platform/workflow.h"

namespace tensorforge::gpu_memory {
namespace {

std::string pool_name(std::string_view device_id) { return fmt::format("pool {}", names::quoted(device_id)); }

std::string block_name(std::string_view device_id, std::string_view block_id) {
  return fmt::format("{}: block {}", pool_name(device_id), names::quoted(block_id));
}

Result<const Pool*> find_pool(const State& state, std::string_view device_id) {
  if (const Pool* const pool = state.pool(device_id)) return pool;
  return absl::NotFoundError(fmt::format("{} is unknown", pool_name(device_id)));
}

template <class BlockCommand>
Result<const Block*> find_block(const State& state, const BlockCommand& command) {
  const auto pool = find_pool(state, command.device_id);
  if (!pool.ok()) return pool.status();
  if (names_free_place(command.block_id)) {
    return absl::FailedPreconditionError(
        fmt::format("{} is the name of a free place; the command needs a block that is Allocated, Pinned or Cached",
                    block_name(command.device_id, command.block_id)));
  }
  if (const auto id = parse_entity_id(kBlockIdPrefix, command.block_id)) {
    if (const Block* const block = (*pool)->find(*id)) {
      // Until apply() there is time for all of that to be brought at once.
      if constexpr (std::is_same_v<BlockCommand, FreeBlock>) (*pool)->prefetch_around(*block);
      return block;
    }
  }
  return absl::NotFoundError(fmt::format("{} is unknown", block_name(command.device_id, command.block_id)));
}

const workflow::TransitionTable<BlockStatus>& lifecycle() {
  using enum BlockStatus;
  static const workflow::TransitionTable<BlockStatus> table{
      {Allocated, Cached}, {Allocated, Pinned}, {Cached, Pinned}, {Pinned, Allocated},
      {Allocated, Free},   {Pinned, Free},      {Cached, Free},
  };
  return table;
}

/// The one event of a command that takes a block to the status `to`.
template <class Event, class BlockCommand>
Result<Events> change_status(const State& state, const BlockCommand& command, BlockStatus to) {
  const auto block = find_block(state, command);
  if (!block.ok()) return block.status();
  const BlockStatus from = (*block)->status;
  if (lifecycle().can_transition(from, to)) return Events{Event{command.device_id, (*block)->id}};
  std::string allowed;
  for (const BlockStatus status : lifecycle().allowed_from(from)) {
    allowed += fmt::format("{}{}", allowed.empty() ? "" : ", ", to_string(status));
  }
  return absl::FailedPreconditionError(fmt::format("{}: cannot go from {} to {}; allowed: {}",
                                                   block_name(command.device_id, command.block_id), to_string(from),
                                                   to_string(to), allowed));
}

absl::Status check_request(const AllocationRequest& request) {
  if (absl::Status status = names::check_id("tensor id", request.tensor_id); !status.ok()) return status;
  const auto invalid = [&](std::string_view rule) {
    return absl::InvalidArgumentError(fmt::format("allocation of tensor {}: size {}, alignment {}: {}",
                                                  names::quoted(request.tensor_id), request.size, request.alignment,
                                                  rule));
  };
  if (request.size == 0) return invalid("the size must be at least 1 byte");
  if (!is_power_of_two(request.alignment)) return invalid("the alignment must be a power of two");
  if (align_up(request.size, request.alignment) % request.alignment != 0) {
    return invalid(fmt::format("no multiple of the alignment from the size on is below 2^{}",
                               std::numeric_limits<std::size_t>::digits));
  }
  return absl::OkStatus();
}

AllocationRefused refused(const Pool& pool, const Allocate& command, std::size_t actual_size, AllocationFailure cause) {
  return {command.device_id,
          command.request,
          cause,
          actual_size,
          pool.device().total_memory,
          pool.placement().free_bytes(),
          pool.cached_bytes(command.request.priority),
          pool.placement().largest_hole()};
}

Result<Events> decide_one(const State& state, const CreatePool& command, const Context&) {
  const GpuDevice& device = command.device;
  if (absl::Status status = names::check_id("device id", device.device_id); !status.ok()) return status;
  if (device.total_memory == 0) {
    return absl::InvalidArgumentError(
        fmt::format("{}: total_memory is 0 bytes; the least is 1", pool_name(device.device_id)));
  }
  if (state.has_pool(device.device_id)) {
    return absl::AlreadyExistsError(
        fmt::format("{} exists already; a pool is created once", pool_name(device.device_id)));
  }
  return Events{PoolCreated{device}};
}

/// Without the copy that an initializer list makes.
Events one(BlockAllocated&& event) {
  Events events;
  events.emplace_back(std::move(event));
  return events;
}

Result<Events> decide_one(const State& state, const Allocate& command, const Context& context) {
  const AllocationRequest& request = command.request;
  if (absl::Status status = check_request(request); !status.ok()) return status;
  const auto found = find_pool(state, command.device_id);
  if (!found.ok()) return found.status();
  const Pool& pool = **found;
  const std::size_t total = pool.device().total_memory;
  const std::size_t actual_size = align_up(request.size, request.alignment);
  const auto refuse = [&](AllocationFailure cause) { return Events{refused(pool, command, actual_size, cause)}; };

  if (actual_size > total) return refuse(AllocationFailure::LargerThanPool);
  if (!allocator::check_capacity(pool.uncached_bytes(), actual_size, total)) {
    return refuse(AllocationFailure::OutOfMemory);
  }
  BlockAllocated event{command.device_id, request, {context.incarnation, state.next_block_number()}, 0, actual_size, {},
                       context.now};
  if (const auto hole = pool.placement().best_fit(actual_size, request.alignment)) {
    event.offset = align_up(hole->offset, request.alignment);
    return one(std::move(event));
  }
  const std::size_t available = pool.placement().free_bytes() + pool.cached_bytes(request.priority);
  if (available < actual_size) return refuse(AllocationFailure::OutOfMemory);
  const auto plan = plan_eviction(pool, actual_size, request.alignment, request.priority);
  if (!plan) return refuse(AllocationFailure::Fragmented);
  if (plan->evicted.size() > context.max_evictions) {
    return absl::ResourceExhaustedError(
        fmt::format("{}: an allocation of {} bytes would evict {} Cached blocks; the limit of one allocation is {}: "
                    "evict first",
                    pool_name(command.device_id), actual_size, plan->evicted.size(), context.max_evictions));
  }
  event.offset = plan->offset;
  event.evicted.reserve(plan->evicted.size());
  for (const CachedBlock& block : plan->evicted) event.evicted.push_back(block.offset);
  return one(std::move(event));
}

Result<Events> decide_one(const State& state, const FreeBlock& command, const Context&) {
  return change_status<BlockFreed>(state, command, BlockStatus::Free);
}
Result<Events> decide_one(const State& state, const CacheBlock& command, const Context&) {
  return change_status<BlockCached>(state, command, BlockStatus::Cached);
}
Result<Events> decide_one(const State& state, const PinBlock& command, const Context&) {
  return change_status<BlockPinned>(state, command, BlockStatus::Pinned);
}
Result<Events> decide_one(const State& state, const UnpinBlock& command, const Context&) {
  return change_status<BlockUnpinned>(state, command, BlockStatus::Allocated);
}

Result<Events> decide_one(const State& state, const TouchBlock& command, const Context& context) {
  const auto block = find_block(state, command);
  if (!block.ok()) return block.status();
  const std::uint64_t last = (*block)->last_accessed;
  if (context.now <= last || context.now - last < context.touch_granularity_ms) return Events{};
  return Events{BlockTouched{command.device_id, (*block)->id, context.now}};
}

Result<Events> decide_one(const State& state, const Evict& command, const Context& context) {
  const auto pool = find_pool(state, command.device_id);
  if (!pool.ok()) return pool.status();
  Events events;
  std::size_t freed = 0;
  auto next = (*pool)->next_cached(std::nullopt);
  while (next && freed < command.needed && events.size() < context.max_changes) {
    events.emplace_back(BlockEvicted{command.device_id, next->block->id, next->block->size, false});
    freed += next->block->size;
    next = (*pool)->next_cached(next);
  }
  if (!events.empty()) std::get<BlockEvicted>(events.back()).more = next && freed < command.needed;
  return events;
}

Result<Events> decide_one(const State& state, const Defragment& command, const Context& context) {
  const auto pool = find_pool(state, command.device_id);
  if (!pool.ok()) return pool.status();
  const std::size_t limit = context.max_changes;
  const bool unlimited = limit == std::numeric_limits<std::size_t>::max();
  const std::vector<BlockMove> moves = plan_moves(**pool, unlimited ? limit : limit + 1);
  Events events;
  events.reserve(std::min(moves.size(), limit));
  for (const auto& [block, to] : moves) {
    if (events.size() == limit) break;
    events.emplace_back(BlockMoved{command.device_id, block->id, block->offset, to, block->size, false});
  }
  if (!events.empty()) std::get<BlockMoved>(events.back()).more = moves.size() > events.size();
  return events;
}

}  // namespace

Result<Events> decide(const State& state, const Command& command, const Context& context) {
  return std::visit([&](const auto& one) { return decide_one(state, one, context); }, command);
}

namespace {
constexpr auto kFailureNames = enum_names<AllocationFailure>("LargerThanPool", "OutOfMemory", "Fragmented");
}  // namespace
std::string_view to_string(AllocationFailure failure) { return kFailureNames.to_string(failure); }
std::optional<AllocationFailure> parse_allocation_failure(std::string_view name) { return kFailureNames.parse(name); }

std::string refusal_message(const AllocationRefused& event) {
  std::string what = fmt::format("{}: allocation of {} bytes at alignment {} for tensor {}", pool_name(event.device_id),
                                 event.actual_size, event.request.alignment, names::quoted(event.request.tensor_id));
  const std::string figures = fmt::format(
      "{} of {} bytes are free, {} more are Cached with a priority of at most {}; the largest hole has {}",
      event.free_bytes, event.total_bytes, event.evictable_bytes, event.request.priority, event.largest_free_block);
  switch (event.cause) {
    case AllocationFailure::LargerThanPool:
      return fmt::format("{}: larger than the pool, which has {} bytes", what, event.total_bytes);
    case AllocationFailure::OutOfMemory:
      return fmt::format("{}: out of memory: {}; free blocks first", what, figures);
    case AllocationFailure::Fragmented:
      return fmt::format("{}: fragmented: enough bytes but no hole: {}; defragment first", what, figures);
  }
  return what;
}

}  // namespace tensorforge::gpu_memory

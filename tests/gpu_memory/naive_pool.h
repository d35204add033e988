#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "gpu_memory/gpu_memory.h"

namespace tensorforge::gpu_memory {

/// The contract's pool, read literally: one vector of blocks and linear scans. It shares no code with the real one.
class NaivePool {
 public:
  explicit NaivePool(std::size_t total) : total_(total) {
    if (total > 0) blocks_.push_back(free_block(0, total));
  }

  const std::vector<MemoryBlock>& blocks() const { return blocks_; }

  struct Allocation {
    std::string block_id, refusal;  ///< one of the two
    std::size_t offset{}, actual_size{};
    std::vector<std::string> evicted;
  };
  Allocation allocate(const AllocationRequest& request, std::uint64_t now) {
    std::size_t size = request.size;
    while (size % request.alignment != 0) ++size;
    if (size > total_) return {"", "larger than the pool", 0, 0, {}};
    if (bytes(BlockStatus::Allocated) + bytes(BlockStatus::Pinned) + size > total_) {
      return {"", "out of memory", 0, 0, {}};
    }
    const std::vector<MemoryBlock> before = blocks_;
    std::vector<std::string> evicted;
    if (!best_fit(blocks_, size, request.alignment)) {
      std::size_t available = bytes(BlockStatus::Free);
      for (const MemoryBlock& block : blocks_) available += evictable(block, request) ? block.size : 0;
      const auto plan = plan_eviction(size, request);
      if (!plan) return {"", available < size ? "out of memory" : "fragmented", 0, 0, {}};
      evicted = *plan;
      blocks_ = without(blocks_, {evicted.begin(), evicted.end()});
    }
    const auto hole = *best_fit(blocks_, size, request.alignment);
    std::size_t offset = blocks_[hole].offset;
    while (offset % request.alignment != 0) ++offset;
    const MemoryBlock old = blocks_[hole];
    MemoryBlock block;
    block.block_id = fmt::format("b-00000000-{}", next_number_++);
    block.offset = offset;
    block.size = size;
    block.status = request.pinned ? BlockStatus::Pinned : BlockStatus::Allocated;
    block.tensor_id = request.tensor_id;
    block.allocated_at = block.last_accessed = now;
    block.alignment = request.alignment;
    block.priority = request.priority;
    std::vector<MemoryBlock> pieces;
    if (offset > old.offset) pieces.push_back(free_block(old.offset, offset - old.offset));
    pieces.push_back(block);
    const std::size_t end = old.offset + old.size;
    if (offset + size < end) pieces.push_back(free_block(offset + size, end - offset - size));
    const auto at = blocks_.erase(blocks_.begin() + static_cast<std::ptrdiff_t>(hole));
    blocks_.insert(at, pieces.begin(), pieces.end());
    return {block.block_id, "", offset, size, evicted};
  }

  /// The name of the status code.
  std::string free(std::string_view id) {
    MemoryBlock* const block = find(id);
    if (block == nullptr) return missing(id);
    blocks_ = without(blocks_, {std::string(id)});
    return "OK";
  }
  std::string change(std::string_view id, const std::set<BlockStatus>& from, BlockStatus to) {
    MemoryBlock* const block = find(id);
    if (block == nullptr) return missing(id);
    if (!from.contains(block->status)) return "FAILED_PRECONDITION";
    block->status = to;
    return "OK";
  }
  std::string touch(std::string_view id, std::uint64_t now) {
    MemoryBlock* const block = find(id);
    if (block == nullptr) return missing(id);
    block->last_accessed = std::max(block->last_accessed, now);
    return "OK";
  }

  std::size_t evict(std::size_t needed) {
    std::size_t freed = 0;
    while (freed < needed) {
      const std::vector<MemoryBlock> cached = lru([](const MemoryBlock&) { return true; });
      if (cached.empty()) break;
      freed += cached.front().size;
      blocks_ = without(blocks_, {cached.front().block_id});
    }
    return freed;
  }

  std::vector<Move> defragment() {
    std::vector<Move> moves;
    std::vector<MemoryBlock> placed, pinned;
    for (const MemoryBlock& block : blocks_) {
      if (block.status == BlockStatus::Pinned) pinned.push_back(block);
    }
    std::size_t end = 0;
    for (MemoryBlock block : blocks_) {
      if (block.status == BlockStatus::Free || block.status == BlockStatus::Pinned) continue;
      std::size_t to = end;
      const auto overlaps = [&](const MemoryBlock& other) {
        return to < other.offset + other.size && other.offset < to + block.size;
      };
      while (to % block.alignment != 0 || std::any_of(pinned.begin(), pinned.end(), overlaps)) ++to;
      if (to != block.offset) moves.push_back({block.block_id, block.offset, to, block.size});
      block.offset = to;
      end = to + block.size;
      placed.push_back(block);
    }
    placed.insert(placed.end(), pinned.begin(), pinned.end());
    blocks_ = tiled(placed);
    return moves;
  }

  PoolStats stats() const {
    PoolStats stats;
    stats.total_bytes = total_;
    stats.allocated_bytes = bytes(BlockStatus::Allocated);
    stats.free_bytes = bytes(BlockStatus::Free);
    stats.pinned_bytes = bytes(BlockStatus::Pinned);
    stats.cached_bytes = bytes(BlockStatus::Cached);
    stats.block_count = blocks_.size();
    for (const MemoryBlock& block : blocks_) {
      if (block.status != BlockStatus::Free) {
        ++stats.allocation_count;
      } else {
        stats.largest_free_block = std::max(stats.largest_free_block, block.size);
      }
    }
    if (stats.free_bytes > 0) {
      stats.fragmentation_ratio =
          1.0 - static_cast<double>(stats.largest_free_block) / static_cast<double>(stats.free_bytes);
    }
    return stats;
  }

 private:
  static MemoryBlock free_block(std::size_t offset, std::size_t size) {
    MemoryBlock block;
    block.block_id = fmt::format("free-{}", offset);
    block.offset = offset;
    block.size = size;
    return block;
  }

  /// `live`, and Free blocks wherever there is nothing.
  std::vector<MemoryBlock> tiled(std::vector<MemoryBlock> live) const {
    std::sort(live.begin(), live.end(), [](const auto& a, const auto& b) { return a.offset < b.offset; });
    std::vector<MemoryBlock> out;
    std::size_t end = 0;
    for (const MemoryBlock& block : live) {
      if (end < block.offset) out.push_back(free_block(end, block.offset - end));
      out.push_back(block);
      end = block.offset + block.size;
    }
    if (end < total_) out.push_back(free_block(end, total_ - end));
    return out;
  }
  std::vector<MemoryBlock> without(const std::vector<MemoryBlock>& blocks, const std::set<std::string>& gone) const {
    std::vector<MemoryBlock> live;
    for (const MemoryBlock& block : blocks) {
      if (block.status != BlockStatus::Free && !gone.contains(block.block_id)) live.push_back(block);
    }
    return tiled(live);
  }

  static std::optional<std::size_t> best_fit(const std::vector<MemoryBlock>& blocks, std::size_t size,
                                             std::size_t alignment) {
    std::optional<std::size_t> best;
    for (std::size_t i = 0; i < blocks.size(); ++i) {
      if (blocks[i].status != BlockStatus::Free) continue;
      std::size_t offset = blocks[i].offset;
      while (offset % alignment != 0) ++offset;
      if (offset + size > blocks[i].offset + blocks[i].size) continue;
      if (!best || blocks[i].size < blocks[*best].size) best = i;
    }
    return best;
  }

  static bool evictable(const MemoryBlock& block, const AllocationRequest& request) {
    return block.status == BlockStatus::Cached && block.priority <= request.priority;
  }
  template <class Condition>
  std::vector<MemoryBlock> lru(const Condition& condition) const {
    std::vector<MemoryBlock> cached;
    for (const MemoryBlock& block : blocks_) {
      if (block.status == BlockStatus::Cached && condition(block)) cached.push_back(block);
    }
    std::sort(cached.begin(), cached.end(), [](const auto& a, const auto& b) {
      return std::tie(a.last_accessed, a.offset) < std::tie(b.last_accessed, b.offset);
    });
    return cached;
  }
  std::optional<std::vector<std::string>> plan_eviction(std::size_t size, const AllocationRequest& request) const {
    const std::vector<MemoryBlock> candidates =
        lru([&](const MemoryBlock& block) { return evictable(block, request); });
    const auto fit_without = [&](const std::set<std::string>& taken) {
      return best_fit(without(blocks_, taken), size, request.alignment).has_value();
    };
    std::set<std::string> taken;
    std::vector<std::string> order;
    for (const MemoryBlock& block : candidates) {
      if (fit_without(taken)) break;
      taken.insert(block.block_id);
      order.push_back(block.block_id);
    }
    if (!fit_without(taken)) return std::nullopt;
    for (auto id = order.rbegin(); id != order.rend(); ++id) {
      taken.erase(*id);
      if (!fit_without(taken)) taken.insert(*id);
    }
    std::erase_if(order, [&](const std::string& id) { return !taken.contains(id); });
    return order;
  }

  std::size_t bytes(BlockStatus status) const {
    std::size_t sum = 0;
    for (const MemoryBlock& block : blocks_) sum += block.status == status ? block.size : 0;
    return sum;
  }
  MemoryBlock* find(std::string_view id) {
    for (MemoryBlock& block : blocks_) {
      if (block.block_id == id && block.status != BlockStatus::Free) return &block;
    }
    return nullptr;
  }
  static std::string missing(std::string_view id) {
    return id.starts_with("free-") ? "FAILED_PRECONDITION" : "NOT_FOUND";
  }

  std::size_t total_;
  std::uint64_t next_number_{1};
  std::vector<MemoryBlock> blocks_;
};

}  // namespace tensorforge::gpu_memory

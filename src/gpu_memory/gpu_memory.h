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

enum class BlockStatus { Free, Allocated, Pinned, Cached };
std::string_view to_string(BlockStatus);
std::optional<BlockStatus> parse_block_status(std::string_view name);

struct MemoryBlock {
  std::string block_id;
  std::size_t offset{}, size{};
  BlockStatus status{};
  std::optional<std::string> tensor_id;
  std::uint64_t allocated_at{}, last_accessed{};
  std::size_t alignment{1};
  std::int32_t priority{};
  bool operator==(const MemoryBlock&) const = default;
};
struct GpuDevice {
  std::string device_id;
  std::size_t total_memory{};
  std::uint32_t memory_clock_mhz{};
  std::pair<std::uint32_t, std::uint32_t> compute_capability;
  bool operator==(const GpuDevice&) const = default;
};
struct AllocationRequest {
  std::string tensor_id;
  std::size_t size{}, alignment{1};
  bool pinned{};
  std::int32_t priority{};
  bool operator==(const AllocationRequest&) const = default;
};
struct AllocationResult {
  bool success{};
  std::optional<std::string> block_id;
  std::optional<std::size_t> offset, actual_size;
  std::optional<std::string> error;
  bool operator==(const AllocationResult&) const = default;
};
struct PoolStats {
  std::size_t total_bytes{}, allocated_bytes{}, free_bytes{}, pinned_bytes{}, cached_bytes{};
  double fragmentation_ratio{};
  std::size_t largest_free_block{}, block_count{}, allocation_count{};
  bool operator==(const PoolStats&) const = default;
};
struct Move {
  std::string block_id;
  std::size_t from{}, to{}, size{};
  bool operator==(const Move&) const = default;
};

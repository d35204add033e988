#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "gpu_memory/pool.h"

namespace tensorforge::gpu_memory {

/// What to evict for one allocation, and where it then goes.
struct EvictionPlan {
  std::vector<CachedBlock> evicted;  ///< in LRU order
  std::size_t offset{};
};

/// How to make room for `size` bytes (a multiple of the power of two `alignment`) that fit in no hole of `pool`, from
/// the Cached blocks with a priority of at most `max_priority`; nullopt: not even all of them would do.
///
/// The rule: blocks are taken in LRU order until a fit exists; then, in the reverse of that order, each is given back
/// if with it in place a fit still exists; the request takes the best fit of what is then free.
///
/// Cost: O(log blocks) where the bytes of all Free and Cached blocks together have no fit; else O(taken * log blocks).
std::optional<EvictionPlan> plan_eviction(const Pool& pool, std::size_t size, std::size_t alignment,
                                          std::int32_t max_priority);

}  // namespace tensorforge::gpu_memory

#pragma once

#include <cstddef>
#include <vector>

#include "gpu_memory/pool.h"

namespace tensorforge::gpu_memory {

struct BlockMove {
  const Block* block{};
  std::size_t to{};
};

/// The first `limit` moves of a defragmentation of `pool`, by ascending offset: in this order, copying one block at a
/// time (as memmove does) never overwrites live data, and stopping after any move leaves a legal pool, from which a
/// later plan goes on with the next one.
///
/// Cost: O(limit and the blocks in between), from pool.settled() on.
std::vector<BlockMove> plan_moves(const Pool& pool, std::size_t limit);

/// The offset of the first block that a defragmentation would move; the largest number where there is none.
std::size_t next_unsettled(const Pool& pool);

}  // namespace tensorforge::gpu_memory

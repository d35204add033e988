#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "gpu_memory/state_machine.h"

namespace tensorforge::gpu_memory {

// What a snapshot holds of this domain, and the way back. A restored state is equal to the one that was saved in
// everything that can be seen of it, the order of eviction and the ids to come too.

/// The live blocks of a pool that is there, by offset.
void for_each_live_block(const State&, std::string_view device_id, const std::function<void(const LiveBlock&)>& visit);

/// kDataLoss: the pool is there already, or has no bytes.
absl::Status restore(State&, const GpuDevice&);
/// Blocks come by offset. kDataLoss: the pool is not there, the id is taken, or the block is Free, empty, not behind
/// the one before, or beyond the end of the memory.
absl::Status restore(State&, std::string_view device_id, const LiveBlock&);
/// After the blocks. kDataLoss: a live block has this number, or a higher one.
absl::Status restore_next_block_number(State&, std::uint64_t number);

}  // namespace tensorforge::gpu_memory

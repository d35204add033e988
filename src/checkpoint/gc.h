#pragma once

#include <cstdint>
#include <functional>

#include "checkpoint/projection.h"

namespace tensorforge::checkpoint {

/// What one checkpoint's own fields say of its end: is_gc_eligible() without the copies.
bool is_outlived(CheckpointState state, std::uint64_t step, std::uint64_t created_at, const GcPolicy& policy,
                 std::uint64_t latest_step, std::uint64_t now, bool is_best);

/// Calls `take` with each checkpoint that the collection of one run deletes, in the order of deletion, until `take`
/// says false: then that one stays, too, and the result is false. O(n log n), or O(n) where nothing goes.
bool collect_run(const Run& run, const GcPolicy& policy, std::uint64_t now,
                 const std::function<bool(const Node&)>& take);

}  // namespace tensorforge::checkpoint

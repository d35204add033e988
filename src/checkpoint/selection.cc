#include <algorithm>
#include <bit>
#include <cstdint>
#include <limits>

#include "checkpoint/checkpoint.h"

namespace tensorforge::checkpoint {
namespace {

bool is_within(const CheckpointMeta& checkpoint, const RestoreCriteria& criteria) {
  return checkpoint.training_run_id == criteria.training_run_id &&
         (!criteria.max_epoch || checkpoint.epoch <= *criteria.max_epoch) &&
         (!criteria.max_step || checkpoint.step <= *criteria.max_step);
}

std::uint64_t type_rank(CheckpointType type) {
  switch (type) {
    case CheckpointType::Full:
      return 2;
    case CheckpointType::Emergency:
      return 1;
    case CheckpointType::Incremental:
      break;
  }
  return 0;
}

}  // namespace

// Positive doubles are in the order of their bits read as a number (IEEE 754), so the factors are laid out as one
// number, the weightiest on top: Complete (bit 62), the type (61 and 60), the step (59 to 1), no parent (0).
double selection_score(const CheckpointMeta& checkpoint, const RestoreCriteria& criteria) {
  static_assert(std::numeric_limits<double>::is_iec559);
  constexpr std::uint64_t kTopStep = (std::uint64_t{1} << 59U) - 1;
  // Added to every key: the smallest normal number, since denormals may be flushed to zero. The sum stays below
  // infinity, because no type fills both of its bits.
  constexpr std::uint64_t kSmallestNormal = std::bit_cast<std::uint64_t>(std::numeric_limits<double>::min());

  if (!is_within(checkpoint, criteria)) return -std::numeric_limits<double>::infinity();
  const std::uint64_t complete = checkpoint.state == CheckpointState::Complete ? 1 : 0;
  const std::uint64_t type = criteria.prefer_full ? type_rank(checkpoint.checkpoint_type) : 0;
  const std::uint64_t step = std::min(checkpoint.step, kTopStep);
  // Steps that no longer fit all look the same, and then the parent must not turn their order round.
  const std::uint64_t no_parent = !checkpoint.parent_id || step == kTopStep ? 1 : 0;
  return std::bit_cast<double>(kSmallestNormal + (complete << 62U | type << 60U | step << 1U | no_parent));
}

}  // namespace tensorforge::checkpoint

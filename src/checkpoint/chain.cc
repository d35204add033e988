#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include <fmt/format.h>

#include "checkpoint/checkpoint.h"
#include "platform/names.h"
#include "platform/workflow.h"

namespace tensorforge::checkpoint {
namespace {

using names::quoted;

/// Checkpoints of a span by id, the first holder of each.
class ById {
 public:
  explicit ById(std::span<const CheckpointMeta> checkpoints) {
    index_.reserve(checkpoints.size());
    for (const CheckpointMeta& checkpoint : checkpoints) index_.try_emplace(checkpoint.checkpoint_id, &checkpoint);
  }
  const CheckpointMeta* find(std::string_view id) const {
    const auto found = index_.find(id);
    return found == index_.end() ? nullptr : found->second;
  }
  std::size_t size() const { return index_.size(); }

 private:
  std::unordered_map<std::string_view, const CheckpointMeta*> index_;
};

/// From the target up to its root, both included; empty: unknown, an ancestor is missing, or a cycle.
std::vector<const CheckpointMeta*> ancestry(std::span<const CheckpointMeta> checkpoints, std::string_view target_id) {
  const ById by_id(checkpoints);
  std::vector<const CheckpointMeta*> chain;
  for (const CheckpointMeta* at = by_id.find(target_id); at != nullptr; at = by_id.find(*at->parent_id)) {
    // A way longer than there are ids has met one of them twice.
    if (chain.size() == by_id.size()) return {};
    chain.push_back(at);
    if (!at->parent_id) return chain;
  }
  return {};
}

std::uint64_t add(std::uint64_t a, std::uint64_t b) {
  const std::uint64_t sum = a + b;
  return sum < a ? std::numeric_limits<std::uint64_t>::max() : sum;
}

std::uint64_t multiply(std::uint64_t a, std::uint64_t b) {
  constexpr std::uint64_t kMax = std::numeric_limits<std::uint64_t>::max();
  return a != 0 && b > kMax / a ? kMax : a * b;
}

/// Not negative or NaN; up to the next whole number.
std::uint64_t round_up(double value) {
  constexpr double kTwoTo64 = 18446744073709551616.0;
  return value >= kTwoTo64 ? std::numeric_limits<std::uint64_t>::max() : static_cast<std::uint64_t>(std::ceil(value));
}

std::string name_of(const CheckpointMeta& checkpoint) {
  return fmt::format("checkpoint {}", quoted(checkpoint.checkpoint_id));
}

absl::Status broken(const CheckpointMeta& checkpoint, std::string_view fault) {
  return absl::FailedPreconditionError(fmt::format("{}: {}", name_of(checkpoint), fault));
}

absl::Status missing_ancestor(const CheckpointMeta& checkpoint, const CheckpointMeta& child) {
  return absl::NotFoundError(fmt::format("{}: the parent {} of {} does not exist", name_of(checkpoint),
                                         quoted(*child.parent_id), quoted(child.checkpoint_id)));
}

absl::Status check_parent(const CheckpointMeta& checkpoint, const CheckpointMeta& parent) {
  const std::string parent_name = fmt::format("its parent {}", quoted(parent.checkpoint_id));
  if (parent.training_run_id != checkpoint.training_run_id) {
    return broken(checkpoint, fmt::format("{} belongs to run {}, not {}", parent_name, quoted(parent.training_run_id),
                                          quoted(checkpoint.training_run_id)));
  }
  if (parent.state == CheckpointState::Deleted || parent.state == CheckpointState::Corrupted) {
    return broken(checkpoint, fmt::format("{} is {}", parent_name, to_string(parent.state)));
  }
  if (parent.step > checkpoint.step) {
    return broken(checkpoint,
                  fmt::format("{} is at step {}, above its own {}", parent_name, parent.step, checkpoint.step));
  }
  if (parent.epoch > checkpoint.epoch) {
    return broken(checkpoint,
                  fmt::format("{} is in epoch {}, above its own {}", parent_name, parent.epoch, checkpoint.epoch));
  }
  return absl::OkStatus();
}

/// "a" → "b" → "a": the circle that `start` is on, the first few of a long one.
std::string describe_circle(const CheckpointMeta& start, const ById& by_id) {
  constexpr std::size_t kShown = 8;
  workflow::Edges parents;
  for (const CheckpointMeta* at = &start;; at = by_id.find(*at->parent_id)) {
    parents[at->checkpoint_id] = {*at->parent_id};
    if (*at->parent_id == start.checkpoint_id) break;
  }
  std::string text = quoted(start.checkpoint_id);
  const std::vector<std::string> way = workflow::shortest_path(parents, *start.parent_id, start.checkpoint_id);
  for (std::size_t i = 0; i < way.size() && i < kShown; ++i) text += fmt::format(" → {}", quoted(way[i]));
  return way.size() > kShown ? fmt::format("{} → … ({} in all)", text, way.size()) : text;
}

absl::Status check_chain(const CheckpointMeta& checkpoint, const ById& by_id) {
  const CheckpointMeta* at = &checkpoint;
  for (std::size_t steps = 0; at->parent_id; ++steps) {
    // The checkpoint itself need not be in the span, so a way without a cycle has at most one step more than ids.
    if (*at->parent_id == checkpoint.checkpoint_id || steps > by_id.size()) {
      const CheckpointMeta& on_cycle = *at->parent_id == checkpoint.checkpoint_id ? checkpoint : *at;
      return broken(checkpoint, fmt::format("its chain runs in a circle: {}", describe_circle(on_cycle, by_id)));
    }
    const CheckpointMeta* const parent = by_id.find(*at->parent_id);
    if (parent == nullptr) return missing_ancestor(checkpoint, *at);
    at = parent;
  }
  if (at->checkpoint_type != CheckpointType::Incremental) return absl::OkStatus();
  return broken(checkpoint,
                fmt::format("its chain ends in {}, an Incremental without a parent", quoted(at->checkpoint_id)));
}

}  // namespace

std::size_t chain_length(std::span<const CheckpointMeta> checkpoints, std::string_view checkpoint_id) {
  return ancestry(checkpoints, checkpoint_id).size();
}

std::optional<std::string> find_chain_root(std::span<const CheckpointMeta> checkpoints,
                                           std::string_view checkpoint_id) {
  const auto chain = ancestry(checkpoints, checkpoint_id);
  if (chain.empty()) return std::nullopt;
  return chain.back()->checkpoint_id;
}

std::vector<std::string> restoration_chain(std::span<const CheckpointMeta> checkpoints, std::string_view target_id) {
  const auto chain = ancestry(checkpoints, target_id);
  std::vector<std::string> ids;
  ids.reserve(chain.size());
  for (auto at = chain.rbegin(); at != chain.rend(); ++at) ids.push_back((*at)->checkpoint_id);
  return ids;
}

std::uint64_t chain_size(std::span<const CheckpointMeta> checkpoints, std::string_view target_id) {
  std::uint64_t size_bytes = 0;
  for (const CheckpointMeta* checkpoint : ancestry(checkpoints, target_id)) {
    size_bytes = add(size_bytes, checkpoint->size_bytes);
  }
  return size_bytes;
}

std::uint64_t estimate_restore_time(std::span<const CheckpointMeta> chain, std::uint64_t base_ms,
                                    std::uint64_t per_checkpoint_ms, double bytes_per_ms) {
  if (!(bytes_per_ms > 0)) return std::numeric_limits<std::uint64_t>::max();  // NaN too
  std::uint64_t size_bytes = 0;
  for (const CheckpointMeta& checkpoint : chain) size_bytes = add(size_bytes, checkpoint.size_bytes);
  const std::uint64_t transfer_ms = round_up(static_cast<double>(size_bytes) / bytes_per_ms);
  return add(add(base_ms, multiply(chain.size(), per_checkpoint_ms)), transfer_ms);
}

absl::Status validate_checkpoint(const CheckpointMeta& checkpoint, std::span<const CheckpointMeta> all_checkpoints) {
  if (checkpoint.state == CheckpointState::Complete && checkpoint.storage_path.empty()) {
    return broken(checkpoint, "is Complete without a storage path");
  }
  const ById by_id(all_checkpoints);
  if (checkpoint.parent_id && *checkpoint.parent_id != checkpoint.checkpoint_id) {
    const CheckpointMeta* const parent = by_id.find(*checkpoint.parent_id);
    if (parent == nullptr) return missing_ancestor(checkpoint, checkpoint);
    if (absl::Status status = check_parent(checkpoint, *parent); !status.ok()) return status;
  }
  return check_chain(checkpoint, by_id);
}

}  // namespace tensorforge::checkpoint

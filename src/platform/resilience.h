#pragma once

#include <cstdint>
#include <string>

namespace tensorforge::resilience {

/// A place in a sequence from which work can go on: the service's snapshots, not a training run's checkpoints.
struct Checkpoint {
  std::string name;
  std::uint64_t sequence{}, created_at{};
  bool operator==(const Checkpoint&) const = default;
};

/// When the next checkpoint is due, in units of the caller's (events, steps).
class CheckpointManager {
 public:
  /// 0: never.
  explicit CheckpointManager(std::uint64_t interval) : interval_(interval) {}

  /// Whether a whole interval has passed between `last` and `current`. A `current` behind `last` is no interval.
  bool should_checkpoint(std::uint64_t last, std::uint64_t current) const {
    return interval_ != 0 && current >= last && current - last >= interval_;
  }

 private:
  std::uint64_t interval_;
};

}  // namespace tensorforge::resilience

#pragma once

#include <cstdint>
#include <deque>

namespace tensorforge::service {

/// How fast the bytes in use of a pool grew over the last minute. Measured, not folded from the log: after a start it
/// knows nothing of the minute before, so the rate begins at 0.
///
/// Threads: one.
class AllocationRate {
 public:
  static constexpr std::uint64_t kWindowMs = 60'000;

  /// `used_before` are the bytes in use before the first change that it is told.
  explicit AllocationRate(std::uint64_t used_before) : base_(used_before) {}

  void note(std::uint64_t now_ms, std::uint64_t used_bytes);
  /// Negative while the pool empties.
  double bytes_per_second(std::uint64_t now_ms) const;

 private:
  struct Sample {
    std::uint64_t time{}, used{};
  };
  std::uint64_t base_;          ///< in use when the window began
  std::deque<Sample> samples_;  ///< the last of each second, oldest first
};

}  // namespace tensorforge::service

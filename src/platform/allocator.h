#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>

namespace tensorforge::allocator {

/// Whether `current + requested <= limit`, in numbers that do not wrap.
bool check_capacity(std::uint64_t current, std::uint64_t requested, std::uint64_t limit);

/// Admits at most `limit` requests in any window [t, t + window_ms): a rate limit without a burst at the seam.
///
/// Time comes from the caller; one that goes back counts as the latest seen. Memory is O(min(limit, window_ms)).
/// Threads: safe to call from any.
class RollingWindowScheduler {
 public:
  RollingWindowScheduler(std::uint64_t window_ms, std::size_t limit) : window_ms_(window_ms), limit_(limit) {}

  /// Whether the request may go now; one that may is counted, one that may not is not. Amortised O(1).
  bool admit(std::uint64_t now_ms);
  /// Milliseconds from the latest time seen until a request may go, if no other goes first. With a limit of 0 none ever
  /// may, and this is the window.
  std::uint64_t wait_ms() const;

 private:
  struct Admitted {
    std::uint64_t at_ms{};
    std::size_t count{};
  };
  const std::uint64_t window_ms_;
  const std::size_t limit_;
  mutable std::mutex mutex_;
  std::deque<Admitted> recent_;  // by time, each once
  std::size_t recent_count_{};
  std::uint64_t latest_ms_{};
};

}  // namespace tensorforge::allocator

#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "service/config.h"

namespace tensorforge::service {

/// Watches for a wall clock that cannot be right, since one jump to 2038 would freeze time in the log for ever.
///
/// A step is a change of the wall clock against the boot clock. One of over 60 s is told; one of over 24 h forward,
/// or at start a wall clock over 366 days past the log's last time, makes the clock suspect until it is set back or
/// accepted. Threads: one.
class ClockGuard {
 public:
  static constexpr std::uint64_t kToldStepMs = 60'000;
  static constexpr std::uint64_t kMaxStepMs = 24ULL * 3'600'000;
  static constexpr std::uint64_t kMaxGapAtStartMs = 366ULL * 24 * 3'600'000;

  /// `last_time` is that of the log; 0: it is empty.
  ClockGuard(Now now, std::uint64_t last_time);

  /// A warning, if there is something to tell.
  std::optional<std::string> on_tick(Now now);
  bool suspect() const { return suspect_; }
  /// Takes the clock as it is.
  void accept(Now now);

 private:
  std::int64_t offset_;   ///< wall - boot, as last seen
  std::int64_t highest_;  ///< an offset over this is suspect
  bool suspect_;
};

}  // namespace tensorforge::service

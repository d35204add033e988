#include "service/clock_guard.h"

#include <cstdlib>

#include "fmt/format.h"

namespace tensorforge::service {
namespace {

std::int64_t offset_of(Now now) { return static_cast<std::int64_t>(now.wall_ms - now.boot_ms); }

}  // namespace

ClockGuard::ClockGuard(Now now, std::uint64_t last_time) : offset_(offset_of(now)) {
  suspect_ = last_time != 0 && now.wall_ms > last_time + kMaxGapAtStartMs;
  const std::uint64_t latest = suspect_ ? last_time + kMaxGapAtStartMs : now.wall_ms + kMaxStepMs;
  highest_ = offset_of({latest, now.boot_ms});
}

std::optional<std::string> ClockGuard::on_tick(Now now) {
  const std::int64_t offset = offset_of(now);
  const std::int64_t step = offset - offset_;
  offset_ = offset;
  const bool was_suspect = suspect_;
  suspect_ = offset > highest_;
  if (!suspect_) highest_ = offset + static_cast<std::int64_t>(kMaxStepMs);
  if (suspect_ && !was_suspect) {
    return fmt::format(
        "the wall clock jumped forward by {} s: changes are refused until it is set back or accepted "
        "(server accept-clock)",
        step / 1000);
  }
  if (was_suspect && !suspect_) return "the wall clock was set back: changes are accepted again";
  if (std::abs(step) <= static_cast<std::int64_t>(kToldStepMs)) return std::nullopt;
  return fmt::format("the wall clock stepped by {} s", step / 1000);
}

void ClockGuard::accept(Now now) {
  offset_ = offset_of(now);
  highest_ = offset_ + static_cast<std::int64_t>(kMaxStepMs);
  suspect_ = false;
}

}  // namespace tensorforge::service

#include "platform/allocator.h"

#include <algorithm>

namespace tensorforge::allocator {

bool check_capacity(std::uint64_t current, std::uint64_t requested, std::uint64_t limit) {
  return current <= limit && requested <= limit - current;
}

bool RollingWindowScheduler::admit(std::uint64_t now_ms) {
  const std::lock_guard lock(mutex_);
  latest_ms_ = std::max(latest_ms_, now_ms);
  while (!recent_.empty() && latest_ms_ - recent_.front().at_ms >= window_ms_) {
    recent_count_ -= recent_.front().count;
    recent_.pop_front();
  }
  if (recent_count_ >= limit_) return false;
  if (recent_.empty() || recent_.back().at_ms != latest_ms_) recent_.push_back({latest_ms_, 0});
  ++recent_.back().count;
  ++recent_count_;
  return true;
}

std::uint64_t RollingWindowScheduler::wait_ms() const {
  const std::lock_guard lock(mutex_);
  if (recent_count_ < limit_) return 0;
  return recent_.empty() ? window_ms_ : window_ms_ - (latest_ms_ - recent_.front().at_ms);
}

}  // namespace tensorforge::allocator

#include "service/allocation_rate.h"

namespace tensorforge::service {

void AllocationRate::note(std::uint64_t now_ms, std::uint64_t used_bytes) {
  while (!samples_.empty() && samples_.front().time + kWindowMs <= now_ms) {
    base_ = samples_.front().used;
    samples_.pop_front();
  }
  if (!samples_.empty() && samples_.back().time / 1000 == now_ms / 1000) {
    samples_.back().used = used_bytes;
  } else {
    samples_.push_back({now_ms, used_bytes});
  }
}

double AllocationRate::bytes_per_second(std::uint64_t now_ms) const {
  std::uint64_t base = base_;
  for (const Sample& sample : samples_) {
    if (sample.time + kWindowMs > now_ms) break;
    base = sample.used;
  }
  const double used = static_cast<double>(samples_.empty() ? base_ : samples_.back().used);
  return (used - static_cast<double>(base)) * 1000.0 / static_cast<double>(kWindowMs);
}

}  // namespace tensorforge::service

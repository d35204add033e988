#include "server/heap_ahead.h"

#include <algorithm>
#include <chrono>
#include <cstdint>

#include <malloc.h>
#include <sys/mman.h>
#include <unistd.h>

namespace tensorforge::server {
namespace {

using Clock = std::chrono::steady_clock;

// What is smaller is of the heap, and the heap shrinks when so much is free at its end: what malloc() comes to by
// itself when it has got back a large block, which it no longer does where a size is set for it.
constexpr int kMappedFrom = 32 << 20;
constexpr int kShrinksFrom = 64 << 20;

/// Mapped by one call. Who maps or grows something meanwhile waits for it, so it is little, and not a huge page.
constexpr std::uintptr_t kStepBytes = std::uintptr_t{256} << 10U;
/// After so much of the time since the heap grew last, it is looked at again.
constexpr int kLookedAtPerGrowth = 16;
constexpr Clock::duration kShortestPause = std::chrono::milliseconds(1);
constexpr Clock::duration kLongestPause = std::chrono::milliseconds(100);

/// Where the heap ends, down to a whole step.
std::uintptr_t end_of_heap() { return reinterpret_cast<std::uintptr_t>(::sbrk(0)) / kStepBytes * kStepBytes; }

/// What has been touched already stays as it is.
bool map_step(std::uintptr_t at) {
  // NOLINTNEXTLINE(performance-no-int-to-ptr): it came from one
  return ::madvise(reinterpret_cast<void*>(at), kStepBytes, MADV_POPULATE_WRITE) == 0;
}

}  // namespace

HeapAhead::HeapAhead() {
  ::mallopt(M_TOP_PAD, static_cast<int>(kAheadBytes));
  ::mallopt(M_MMAP_THRESHOLD, kMappedFrom);
  ::mallopt(M_TRIM_THRESHOLD, kShrinksFrom);
  mapper_ = std::thread([this] { map(); });
}

HeapAhead::~HeapAhead() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  ended_.notify_one();
  mapper_.join();
}

void HeapAhead::map() {
  std::uintptr_t mapped = end_of_heap();
  Clock::time_point grew = Clock::now();
  std::unique_lock lock(mutex_);
  const auto ends_within = [&](Clock::duration pause) {
    return ended_.wait_for(lock, pause, [this] { return ending_; });
  };
  while (!ends_within(std::clamp((Clock::now() - grew) / kLookedAtPerGrowth, kShortestPause, kLongestPause))) {
    const std::uintptr_t end = end_of_heap();
    if (end > mapped) grew = Clock::now();
    for (; mapped < end; mapped += kStepBytes) {
      const Clock::time_point begin = Clock::now();
      if (!map_step(mapped)) break;
      // Half of the time is for others: a core that clears pages serves nobody.
      if (ends_within(Clock::now() - begin)) return;
    }
    mapped = end;  // it may have shrunk, and what could not be mapped is left to who touches it
  }
}

}  // namespace tensorforge::server

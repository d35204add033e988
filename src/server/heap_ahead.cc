#include "server/heap_ahead.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include <malloc.h>
#include <sys/mman.h>
#include <unistd.h>

namespace tensorforge::server {
namespace {

using Clock = std::chrono::steady_clock;

// malloc() adapts these to what it gets back until one of its sizes is set. From so many bytes on a block is mapped by
// itself, which is the most that it would adapt to, and a heap shrinks when so many are free at its end, which lets
// those of other threads shrink: they end at 64 MiB.
constexpr int kOwnMappingBytes = 32 << 20;
constexpr int kTrimBytes = 32 << 20;

/// After such a part of the time since the heap was last seen to have grown, it is looked at again.
constexpr int kLookedAtPerGrowth = 16;
constexpr Clock::duration kShortestPause = std::chrono::milliseconds(1);
constexpr Clock::duration kLongestPause = std::chrono::milliseconds(100);

/// Makes malloc() grow its heap by much at a time.
HeapAhead::Heap heap_of_malloc() {
  // With the block size that malloc() begins with, tables would leave the heap for good.
  if (::mallopt(M_MMAP_THRESHOLD, kOwnMappingBytes) == 1) {
    ::mallopt(M_TRIM_THRESHOLD, kTrimBytes);
    ::mallopt(M_TOP_PAD, static_cast<int>(HeapAhead::kAheadBytes));
  }
  return {.end = [] { return reinterpret_cast<std::uintptr_t>(::sbrk(0)); },
          .populate =
              [](std::uintptr_t begin, std::size_t bytes) {
                // NOLINTNEXTLINE(performance-no-int-to-ptr): sbrk() gave it
                return ::madvise(reinterpret_cast<void*>(begin), bytes, MADV_POPULATE_WRITE) == 0;
              }};
}

}  // namespace

HeapAhead::HeapAhead() : HeapAhead(heap_of_malloc()) {}

HeapAhead::HeapAhead(Heap heap) : heap_(std::move(heap)) {
  thread_ = std::thread([this, from = heap_.end()] { populate(from); });
}

HeapAhead::~HeapAhead() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  ended_.notify_one();
  thread_.join();
}

void HeapAhead::populate(std::uintptr_t from) {
  Clock::time_point grew = Clock::now();
  std::unique_lock lock(mutex_);
  const auto ends_within = [&](Clock::duration pause) {
    return ended_.wait_for(lock, pause, [this] { return ending_; });
  };
  while (!ends_within(std::clamp((Clock::now() - grew) / kLookedAtPerGrowth, kShortestPause, kLongestPause))) {
    const std::uintptr_t end = heap_.end();
    if (end > from) grew = Clock::now();
    while (from < end) {
      const std::size_t bytes = std::min<std::size_t>(kStepBytes, end - from);
      const Clock::time_point begin = Clock::now();
      if (!heap_.populate(from, bytes)) break;
      from += bytes;
      // Half of the time is for others: a core that clears pages serves nobody.
      if (ends_within(Clock::now() - begin)) return;
    }
    from = end;  // it may have shrunk, and what could not be populated is left to who touches it
  }
}

}  // namespace tensorforge::server

#pragma once

#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <thread>

namespace tensorforge::server {

/// Maps the memory that malloc() will give out next before somebody touches it: where a state grows, each new page
/// stops who writes to it for as long as the kernel takes to find and clear one, and here a thread of its own waits.
///
/// The heap of the main thread then grows by kAheadBytes at a time, so up to so many bytes are resident that nobody
/// uses. It is about the heap that brk() moves, glibc's for the main thread; the heaps of other threads, and what is
/// too large for a heap, stay as they are. On a kernel before Linux 5.14, which has no MADV_POPULATE_WRITE, nothing is
/// mapped ahead.
///
/// Threads: one of them at a time in a process, made by the main thread.
class HeapAhead {
 public:
  static constexpr std::size_t kAheadBytes = std::size_t{16} << 20U;

  HeapAhead();
  ~HeapAhead();
  HeapAhead(const HeapAhead&) = delete;
  HeapAhead& operator=(const HeapAhead&) = delete;

 private:
  void map();

  std::mutex mutex_;
  std::condition_variable ended_;
  bool ending_{};
  std::thread mapper_;
};

}  // namespace tensorforge::server

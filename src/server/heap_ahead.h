#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>

namespace tensorforge::server {

/// Populates the memory that malloc() will give out next before somebody touches it: where a state grows, each new page
/// stops who writes to it for as long as the kernel takes to find and clear one, and here a thread of its own waits.
///
/// It is about the heap that brk() moves, glibc's for the main thread. That grows by kAheadBytes more than is asked for
/// at a time, all of which becomes resident, used or not. Where it is not there, as in the sanitizers' builds, or the
/// kernel is older than Linux 5.14, nothing is populated.
///
/// The sizes that malloc() is given for that are the whole process's, stay after it, and go before GLIBC_TUNABLES.
///
/// Threads: made by the main thread, one of them in a process.
class HeapAhead {
 public:
  static constexpr std::size_t kAheadBytes = std::size_t{16} << 20U;
  /// Populated by one call, and waited for at the end.
  static constexpr std::size_t kStepBytes = std::size_t{256} << 10U;

  /// A heap that grows at its end. Called by who makes a HeapAhead, and then on the thread that populates.
  struct Heap {
    std::function<std::uintptr_t()> end;
    /// False: it cannot. What was touched before stays as it is.
    std::function<bool(std::uintptr_t begin, std::size_t bytes)> populate;
  };

  /// Of malloc().
  HeapAhead();
  /// Of another heap: for tests.
  explicit HeapAhead(Heap heap);
  ~HeapAhead();
  HeapAhead(const HeapAhead&) = delete;
  HeapAhead& operator=(const HeapAhead&) = delete;

 private:
  void populate(std::uintptr_t from);

  const Heap heap_;
  std::mutex mutex_;
  std::condition_variable ended_;
  bool ending_{};
  std::thread thread_;
};

}  // namespace tensorforge::server

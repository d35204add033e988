#pragma once

#include <condition_variable>
#include <mutex>
#include <random>
#include <string>
#include <vector>

#include "crashtest/simulated_disk.h"
#include "storage/journal.h"

namespace tensorforge::crashtest {

/// Runs a journal on a SimulatedDisk so that the same random numbers give the same order of what its threads do: each
/// write and fsync of the write-ahead log and of HEAD waits until it is let through, one at a time.
///
/// Threads: pass() and the journal's callbacks by the journal's threads, all else by one that drives.
class JournalDriver {
 public:
  struct Event {
    enum class Kind { kSynced, kDurable, kFailed };
    Kind kind{};
    Sequence last{};
    std::size_t groups{};  ///< of kSynced
    absl::Status why;      ///< of kFailed
  };

  ~JournalDriver() { let_all_through(); }

  /// What the disk's hook does for each call: waits, then asks `hook`.
  SimulatedDisk::Fault pass(const SimulatedDisk::Call&, const SimulatedDisk::Hook& hook);

  /// Starts the journal, which has to be closed before this ends.
  void start(storage::Journal&);
  /// From the next group on the journal acknowledges what is synced (`--ack wal`), and is waited for that.
  void expect_durable_when_synced();
  void submit(storage::Group group);
  bool busy() const;
  /// Lets one thread do the next thing, by chance, and waits until all of them wait again. What was reported.
  std::vector<Event> step(std::mt19937_64& random);
  void let_all_through();

 private:
  enum Lane : std::size_t { kLog, kHead, kLanes };
  static Lane lane_of(const std::string& path);
  void report(Event event);
  bool quiet() const;  // under mutex_

  mutable std::mutex mutex_;
  std::condition_variable changed_;      ///< whoever drives waits for it
  std::condition_variable let_through_;  ///< the journal's threads wait for it
  storage::Journal* journal_{};
  bool closed_{};  ///< calls wait
  bool waiting_[kLanes]{};
  std::size_t in_flight_{};
  bool head_failed_{}, failed_{};
  bool durable_when_synced_{};
  Sequence synced_{}, durable_{}, anchored_{};
  std::uint64_t reports_{};
  std::vector<Event> events_;
};

}  // namespace tensorforge::crashtest

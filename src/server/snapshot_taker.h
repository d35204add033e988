#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>

#include <asio/thread_pool.hpp>

#include "platform/result.h"
#include "service/fold.h"
#include "storage/journal.h"
#include "storage/snapshot_file.h"

namespace tensorforge::server {

struct SnapshotOptions {
  storage::SnapshotStore store;
  std::uint64_t events{1'000'000};     ///< since the last one, when the next is due; 0: none by itself
  std::uint64_t memory_limit_bytes{};  ///< of the process, beyond which no fold goes on; 0: no limit
  std::uint64_t reserve_bytes{};       ///< free disk, likewise
  Sequence newest{};                   ///< that is known to be whole; 0: none
};

/// Takes the service's snapshots, one at a time, on a thread that gets out of everybody's way: the writer is never
/// waited for and never waits.
///
/// Threads: one calls it; what it is told to call runs on its own.
class SnapshotTaker {
 public:
  using Done = std::function<void(Result<service::Folded>)>;

  SnapshotTaker(SnapshotOptions options, storage::Journal& journal);
  /// Gives up what is under way.
  ~SnapshotTaker();

  /// Takes one where the digests were noted, if it is time and none is under way. Durable up to there.
  void consider(const service::NotedDigest& noted, std::uint64_t live_entities, Done done);
  /// Takes one, after those that were asked for before.
  void take(const service::NotedDigest& noted, Done done);
  /// At a clean stop: takes one here and now, if that is cheap and worth it. nullopt: it is not. Nothing comes after.
  std::optional<Result<service::Folded>> take_at_stop(const service::NotedDigest& noted, std::uint64_t live_entities);
  /// Gives up what is under way, and takes none any more.
  void end();

 private:
  Result<service::Folded> fold(const service::NotedDigest& noted);
  absl::Status may_go_on() const;

  const SnapshotOptions options_;
  storage::Journal& journal_;
  std::atomic<Sequence> newest_;      ///< snapshot
  std::atomic<Sequence> given_up_{};  ///< where there was no room for the last one: then a whole interval is waited
  std::atomic<int> asked_for_{};      ///< and not done
  std::atomic<bool> ending_{};
  asio::thread_pool thread_{1};  ///< the last: it uses the others
};

}  // namespace tensorforge::server

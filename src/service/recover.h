#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "codec/record.h"
#include "service/state.h"
#include "storage/journal.h"

namespace tensorforge::service {

/// Builds a State from the records of a log, in order, whole commands only.
///
/// Threads: one.
class Replay {
 public:
  /// Stops at the end of the last command that ends at or before `until`.
  explicit Replay(Sequence until = std::numeric_limits<Sequence>::max(), const SessionLimits& limits = {});
  /// Goes on from a state at the end of a command, at or before `until`.
  explicit Replay(State from, Sequence until = std::numeric_limits<Sequence>::max());

  /// Takes the next record. kDataLoss: it is damaged, or not the one that comes next. kUnimplemented: a newer version
  /// wrote it.
  absl::Status add(std::span<const std::byte> record);
  absl::Status add(Record&& record);
  /// After the last record. kDataLoss: the log ends inside a command, before `until`.
  absl::Status finish() const;

  /// Further records would change nothing.
  bool done() const { return done_; }
  const State& state() const { return state_; }
  State take() { return std::move(state_); }

 private:
  State state_;
  std::vector<Record> command_;  ///< the records so far of the command that has not ended
  Sequence until_;
  bool done_{};
};

/// Told now and then how far a recovery is. False: it is to give up.
using Progress = std::function<bool(Sequence done, Sequence end)>;

/// What the writer noted of its state at a sequence, and what the log gives there: two that should be the same.
struct Contradiction {
  NotedDigest noted, replayed;
};

/// What replay_log() does beside replaying.
struct ReplayOptions {
  Sequence until{std::numeric_limits<Sequence>::max()};  ///< the end of a command
  Progress progress;
  /// Where a noted digest on the way is not that of the state. Empty: the digests are not looked at.
  std::function<void(const Contradiction&)> on_contradiction;
};

/// Goes on from `from` with the records that `scan` gives, which are those behind it. They are decoded on a thread of
/// their own, beside the one that applies them.
///
/// Errors as Replay's, and those of `scan`. kDataLoss: its records end before the log does.
/// kCancelled: `progress` said so.
using Scan = std::function<absl::Status(const storage::VisitRecords&)>;
Result<State> replay_log(State from, const storage::Log&, const Scan& scan, const ReplayOptions&);

/// Replays records beside whoever has them: they are decoded where they are given, and applied on a thread of its own.
///
/// Threads: one.
class ReplayBeside {
 public:
  explicit ReplayBeside(State from);
  ~ReplayBeside();
  ReplayBeside(const ReplayBeside&) = delete;
  ReplayBeside& operator=(const ReplayBeside&) = delete;

  /// The sequence of the record that is to be given next.
  Sequence next() const { return next_; }
  /// Records of whole commands. False: no more are wanted, and finish() says why.
  bool take(std::span<const std::string_view> records);

  struct Replayed {
    State state;
    std::vector<NotedDigest> digests;  ///< of the state, where the writer of the log noted its own
  };
  /// After the last record, once: the state there. Errors as Replay's.
  Result<Replayed> finish();

 private:
  class Impl;
  Sequence next_;
  std::unique_ptr<Impl> impl_;
};

/// Tells where another digest is noted in the log than one of `replayed`, if `options` want to hear of that.
absl::Status compare_digests(const storage::Log&, const std::vector<NotedDigest>& replayed,
                             const ReplayOptions& options);

/// Replays the whole durable log. Errors as replay_log().
Result<State> recover(const storage::Log&, const Progress& progress = {}, const SessionLimits& limits = {});
/// Replays what of it lies behind `from`.
Result<State> recover_from(State from, const storage::Log&, const ReplayOptions& options = {});

/// Begins a new life of the log: applies IncarnationStarted to `state` and gives the group that records it. At the
/// first start it is sequence 1. It has to be durable before anything is served.
///
/// `root` is that of the tree over the log so far. `incarnation` is random, not 0 and not the log's before.
storage::Group start_incarnation(State& state, IncarnationCause cause, const Hash& root, std::uint32_t incarnation,
                                 std::uint64_t wall_ms);

}  // namespace tensorforge::service

#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string_view>

#include "platform/result.h"
#include "service/state.h"
#include "storage/journal.h"
#include "storage/snapshot_file.h"

namespace tensorforge::service {

/// Asked now and then by work that takes long: anything but ok ends it with that.
using MayGoOn = std::function<absl::Status()>;

/// Builds the state that a snapshot holds: for OpenOptions::load_snapshot. Errors as load_state(), and the reader's.
Result<State> load_snapshot(storage::SnapshotReader& reader, const SessionLimits& limits = {},
                            const MayGoOn& may_go_on = {});

/// For storage::OpenOptions::load_snapshot: the state of the snapshot that was loaded last is kept in `loaded`.
std::function<absl::Status(storage::SnapshotReader&)> keep_snapshot(std::optional<State>& loaded);

struct FoldOptions {
  MayGoOn may_go_on;                           ///< on the thread of the fold alone
  std::function<void(std::string_view)> warn;  ///< told of each snapshot that is passed over, and why
  SessionLimits limits;
};

struct Folded {
  Sequence sequence{};
  std::uint64_t bytes{};  ///< of the file
  bool is_new{};          ///< false: it was there already
  bool operator==(const Folded&) const = default;
};

/// Makes the snapshot of `noted.sequence`, where a command and a chunk end: the newest snapshot before it, and the
/// durable records since, from the log alone. So each one also proves that the log gives the state that was served.
/// What a snapshot says against the log counts for nothing: where the fold from one fails, the log is folded from its
/// start, and that is the verdict.
///
/// kDataLoss     the log does not verify, or the state that it gives is not the noted one: what is served contradicts
///               the log. No snapshot is kept.
/// kUnavailable  the disk fails
/// otherwise     what `may_go_on` said; nothing is left behind
///
/// Threads: any; beside the appender. One at a time.
Result<Folded> fold(const storage::Log&, const storage::SnapshotStore&, const NotedDigest& noted,
                    const FoldOptions& options = {});

/// Checks the log in full up to `until`, where it was not read at the start. `progress` is told how far it is, and may
/// end it (kCancelled). kDataLoss: it does not verify, or is not the log that `until` is a place in.
absl::Status check_older(const storage::Log&, const storage::LogPoint& until,
                         const std::function<bool(Sequence verified)>& progress);

}  // namespace tensorforge::service

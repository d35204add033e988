#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <rocksdb/file_system.h>

#include "platform/log_types.h"
#include "platform/result.h"
#include "storage/chunk.h"
#include "storage/journal.h"

namespace tensorforge::storage {

/// What is to be checked.
struct LogCheck {
  std::string database;         ///< its directory
  std::optional<LogId> log_id;  ///< that its meta data have to name; nullopt: HEAD cannot be read
  TreeHead anchor;
  /// A place up to which the log was verified before; not beyond the anchor. Behind the log's start, notes are not
  /// looked at.
  LogPoint start;
  /// The number of the last chunk to look at; nothing but chunks is then looked at. nullopt: all there is.
  std::optional<std::uint64_t> last_chunk{};
  /// The database is one that link_database() made, and is repaired first.
  bool repair_first{};
};

struct LogVerdict {
  /// kDataLoss: what is missing, and what to do. kFailedPrecondition: a newer version wrote it. kUnavailable: the disk
  /// fails, or the check was killed or had no memory. kCancelled: the caller gave up.
  absl::Status problem;
  bool crashed{};  ///< the check did, behind `end`: what it had not yet come to is not known
  LogPoint end;    ///< of the chunks that verify
  std::uint64_t bytes{}, notes{};
  std::optional<LogId> log_id;        ///< as the database names it
  std::vector<std::string> warnings;  ///< what the library left out, as of a torn tail
};

/// Checks a database that nobody writes to, and writes nothing itself, but for a repair. What is damaged may end the
/// process. `on_chunk` is told of each chunk that verifies, and where it ends.
LogVerdict check_log(const std::shared_ptr<rocksdb::FileSystem>&, const LogCheck&,
                     const std::function<void(const LogPoint& end, const Chunk&)>& on_chunk = {});

using CheckProgress = std::function<void(Sequence verified)>;

/// The same in a child process. If that crashes, the chunks which it had verified are what the verdict is about; if it
/// is killed, there is none. main() has called run_log_check_if_asked(); kInternal otherwise. `cancelled` is asked
/// several times a second, and ends the check with kCancelled; so is `progress` told up to which sequence it is
/// verified. `take` gets the records from where the check starts while it goes on, in the calling thread. All of them,
/// where it wants them and the log is whole; else some, perhaps none, without a gap.
LogVerdict check_log_in_child(const LogCheck&, const std::function<bool()>& cancelled = {},
                              const CheckProgress& progress = {}, const TakeVerified& take = {});

}  // namespace tensorforge::storage

#pragma once

#include <cstdint>
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
  LogPoint start;  ///< a place up to which the log was verified before; not beyond the anchor
};

struct LogVerdict {
  /// kDataLoss: what is missing, and what to do. kFailedPrecondition: a newer version wrote it. kUnavailable: the disk
  /// fails, or the check was killed.
  absl::Status problem;
  LogPoint end;  ///< of the chunks that verify
  std::uint64_t bytes{}, notes{};
  std::optional<LogId> log_id;        ///< as the database names it
  std::vector<std::string> warnings;  ///< what the library left out, as of a torn tail
};

/// Checks a database that nobody writes to, and writes nothing itself. What is damaged may end the process.
LogVerdict check_log(const std::shared_ptr<rocksdb::FileSystem>&, const LogCheck&);

/// The same in a child process, whose end is a verdict too. main() has called run_log_check_if_asked(); kInternal
/// otherwise.
LogVerdict check_log_in_child(const LogCheck&);

}  // namespace tensorforge::storage

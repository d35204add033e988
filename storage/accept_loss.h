#pragma once

#include <memory>
#include <string>

#include <rocksdb/file_system.h>

#include "storage/head.h"
#include "storage/log_check.h"

namespace tensorforge::storage {

/// Puts a log that does not verify aside, whole, and begins a new life of it with the events that do.
///
/// `anchor` names the log, and the incarnation of the new life; `verdict` is of the database `from`: the one that is
/// there now, or a repaired one. What was there ends up in `data_dir`/lost-<last verified sequence>.
/// A crash on the way loses nothing: the next opening refuses again, and the same call then goes on.
absl::Status accept_loss(const std::shared_ptr<rocksdb::FileSystem>&, const std::string& data_dir, const Anchor& anchor,
                         const LogVerdict& verdict, const std::string& from);

/// In a data directory.
inline constexpr const char* kRepaired = "/db.repaired";
/// Makes `data_dir`/db.repaired, with second names for the tables and write-ahead logs of db/, as Database::repair()
/// wants them: db/ stays as it is. Its path.
Result<std::string> link_database(rocksdb::FileSystem&, const std::string& data_dir);
/// Removes that, if it is there. Nothing is lost by it.
absl::Status remove_repaired(rocksdb::FileSystem&, const std::string& data_dir);

/// After such a crash: the new database may be complete while no other is in its place. Puts it there.
absl::Status finish_accept_loss(rocksdb::FileSystem&, const std::string& data_dir);

/// Makes `data_dir`/lost-<sequence>, or with a further number where that is taken. Its path.
Result<std::string> make_lost_directory(rocksdb::FileSystem&, const std::string& data_dir, Sequence sequence);

}  // namespace tensorforge::storage

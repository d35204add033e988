#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "platform/log_types.h"
#include "platform/result.h"
#include "storage/journal.h"
#include "storage/snapshot_file.h"

namespace rocksdb {
class FileSystem;
}

namespace tensorforge::storage {

/// When a change is answered.
enum class Ack {
  kAnchor,  ///< synced and anchored: a later opening proves that it is still there
  kWal,     ///< synced: damage to the last groups may then pass for a torn tail
};

struct OpenOptions {
  std::string data_dir;
  Ack ack{Ack::kAnchor};
  bool accept_loss{};
  /// Everything durable goes through it; nullptr: the machine's. (The checking child has its own in any case.)
  std::shared_ptr<rocksdb::FileSystem> file_system;
  /// Asked several times a second while the log is checked, which may take long: whether to give up.
  std::function<bool()> cancelled{};
  /// The log is checked in this process, through `file_system`: for one that a child would not see. A damaged file may
  /// then end the process.
  bool check_in_process{};
  /// Where log ids and incarnations come from; empty: random bytes of the system.
  std::function<void(std::span<std::uint8_t>)> random{};
  /// Takes a snapshot, of this log and not beyond the anchor, to its last page; newest first, until one is taken: the
  /// check of the log then begins where that ends. Runs beside the check, which waits for it where `take_verified`
  /// is set and a few MiB lie behind the snapshot. Empty: snapshots are not looked at.
  std::function<absl::Status(SnapshotReader&)> load_snapshot{};
  /// Takes the records of the log while it is checked, each once its chunk is verified, in order: from the end of the
  /// snapshot that was taken last, or from 1; where a check begins anew so do they. What was made of them is worth
  /// nothing unless the opening succeeds, and where it goes beyond the end of the log that was opened: an interrupted
  /// first start begins again. It need not go to that end, and perhaps none came: so it is where the check runs in this
  /// process, and with `accept_loss`. One thread at a time.
  TakeVerified take_verified{};
  /// Told several times a second how far the check of the log is, and where it ends at least. Any thread.
  std::function<void(Sequence verified, Sequence end)> checking{};
};

/// A data directory, opened to be served.
struct OpenedDirectory {
  std::unique_ptr<Journal> journal;  ///< not started; holds the directory until it is destroyed
  /// Set until a group is durable: the first record to append is the IncarnationStarted of this life.
  struct Incarnation {
    IncarnationCause cause{};
    std::uint32_t incarnation{};
  };
  std::optional<Incarnation> to_start;
  Sequence anchored_before{};  ///< the anchor as it was found; what lies beyond it was kept
  /// The end of the snapshot that load_snapshot took; at 0: none. The log before it was counted and not read: whoever
  /// serves has to check it, by Log::check().
  LogPoint snapshot;
};

/// Opens `data_dir` to be served: design, section "Opening a data directory"; docs/journal_format.md has the steps.
/// Creates the directory if it is missing or empty. Nothing on disk changes before the log is verified.
///
/// kFailedPrecondition  not a directory of ours, or written by a newer version: untouched
/// kDataLoss            the log does not verify: says what is missing and what to do; untouched
/// kUnavailable         the disk failed
/// kAborted             another process holds the directory: untouched
/// kCancelled           OpenOptions::cancelled said so: untouched
Result<OpenedDirectory> open_data_directory(const OpenOptions&);

/// What tensorforged exits with for an error of open_data_directory(): 1, 2, 3 and 4 in the order above.
int exit_code(const absl::Status&);

/// The log of a stopped service, to be read: nothing is written, and the directory is held until it is destroyed.
/// The anchor is checked at once, each chunk when it is read; verify() reads all.
///
/// kNotFound            there is no log
/// otherwise            as open_data_directory()
Result<std::unique_ptr<Log>> open_read_only(const std::string& data_dir);

/// Everything that opening checks, in full, on a stopped directory and in a child process: a damaged file may end it.
/// Writes nothing. Errors as open_read_only().
Result<LogVerified> verify_data_directory(const std::string& data_dir);

/// Opening checks the log in a child process, which is this same program: main() has to call this before anything else
/// and return what it gives.
///
/// `files` is for tests, which thereby decide what the child finds; nullptr: the machine's.
std::optional<int> run_log_check_if_asked(int argc, char** argv, std::shared_ptr<rocksdb::FileSystem> files = nullptr);

}  // namespace tensorforge::storage

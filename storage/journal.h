#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "platform/log_types.h"
#include "platform/result.h"
#include "storage/log_point.h"

namespace tensorforge::storage {

inline constexpr std::size_t kMaxRecordBytes = 65'535;
inline constexpr std::size_t kMaxCommandBytes = std::size_t{16} << 20U;

/// What a record refers to by SHA-256(salt ‖ bytes), kept beside it so that it can be erased.
struct Note {
  Sequence sequence{};
  Salt salt{};
  std::string bytes;
};

/// The records of some whole commands, in order, to be made durable by one atomic write. A group without any may note a
/// digest where the log ends.
///
/// Threads: belongs to one thread at a time.
struct Group {
  /// Where a command ends: `bytes` and `count` are totals from the start of the group.
  struct CommandEnd {
    std::size_t bytes{};
    std::uint32_t count{};
  };
  Sequence first{};  ///< sequence of the first record; one after the last of the group before
  std::uint32_t incarnation{};
  std::string bytes;  ///< the records, each behind its length in 4 bytes, little endian
  std::vector<CommandEnd> commands;
  std::vector<Note> notes;
  std::size_t note_bytes{};  ///< memory of `notes`
  /// What goes into `meta` in the same batch, for the last sequence of the group (without commands: the one before
  /// `first`); empty: nothing.
  std::string noted_digest;

  bool empty() const { return commands.empty() && noted_digest.empty(); }
  std::uint32_t count() const { return commands.empty() ? 0 : commands.back().count; }
  Sequence last() const { return first + count() - 1; }
  /// Appends one command of 1 or more records.
  void add(const std::vector<std::string>& records);
  /// Likewise; `records` is what stands in `bytes`: `record_count` of them, by put_record().
  void add(std::string_view records, std::uint32_t record_count);
  /// `more` follows it, and becomes a part of it. Nothing follows a noted digest.
  void append(Group&& more);
};

/// Takes from the front of `waiting` what is written together: all of it, but nothing behind a noted digest.
std::vector<Group> take_together(std::deque<Group>& waiting);
/// One group of all of them, at least one.
Group join(std::vector<Group> groups);

/// Appends `record` behind its length.
void put_record(std::string& bytes, std::string_view record);

/// How far the log is durable, and the RFC 6962 root of the tree over its records up to there.
struct TreeHead {
  Sequence sequence{};
  Hash root{};
  std::uint32_t incarnation{};
  bool operator==(const TreeHead&) const = default;
};

/// A piece of the log as it was read: records `first`, `first + 1`, ...
struct Records {
  Sequence first{};
  std::vector<std::string> records;
};

/// Takes some records of the log, one after another; they are valid during the call. False: no more are wanted.
using VisitRecords = std::function<bool(std::span<const std::string_view> records)>;
/// Likewise of a log that is being checked, once they verify: `first`, `first + 1`, ...
using TakeVerified = std::function<bool(Sequence first, std::span<const std::string_view> records)>;

/// What Group::noted_digest said, and for which sequence.
struct NotedAt {
  Sequence sequence{};
  std::string digest;
};

/// What a reading of the whole log found.
struct LogVerified {
  TreeHead end;  ///< `end.incarnation` is the anchor's
  std::uint64_t chunks{};
  std::uint64_t bytes{};  ///< of the records
  std::uint64_t notes{};
};

/// The append-only, totally ordered log of events, to be read: the one source of truth.
///
/// Shape:   sequences run 1, 2, 3, ... without gaps; 0 means "before the first event".
///          A record is opaque here, 1 to 65,535 bytes, in a chunk under a CRC-32C that every read checks.
/// Threads: any number of readers beside the one appender, each seeing a whole prefix.
/// On disk: docs/journal_format.md.
class Log {
 public:
  virtual ~Log() = default;

  /// The end of what is durable.
  virtual TreeHead durable_head() const = 0;
  virtual LogId log_id() const = 0;

  /// Records from `first` on, durable ones only: at least one if there is one, then as many as fit into both limits.
  /// kDataLoss: what is stored does not verify; the message names the chunk and its sequences.
  virtual Result<Records> read(Sequence first, std::size_t max_records, std::size_t max_bytes) const = 0;
  /// All records from `first` on, durable ones only. Errors as read().
  virtual absl::Status scan(Sequence first, const VisitRecords& visit) const = 0;
  /// The same from `at` on, each chunk checked in full before its records are given to `visit` (number, sequences,
  /// checksum, tree), and `at` moved behind it.
  virtual absl::Status check(LogPoint& at, const VisitRecords& visit) const = 0;
  /// nullopt: the record has none, or it was erased.
  virtual Result<std::optional<Note>> note(Sequence) const = 0;
  /// What Group::noted_digest said at this sequence; nullopt: nothing was noted there.
  virtual Result<std::optional<std::string>> noted_digest(Sequence) const = 0;
  /// The last of them that is durable; nullopt: there is none.
  virtual Result<std::optional<NotedAt>> newest_noted_digest() const = 0;
  /// Reads all that is durable in full: chunks, checksums, the tree from its first leaf, notes. Takes as long as that.
  /// kDataLoss: as read().
  virtual Result<LogVerified> verify() const = 0;
};

/// The log, to be appended to.
///
/// Threads: one appender, which closes and destroys it too.
class Journal : public Log {
 public:
  /// All run on the journal's threads, each in the order of the log, and never inside submit().
  struct Callbacks {
    /// What ends here was written and synced by one atomic write: the oldest `groups` of those submitted. Those that
    /// waited behind them are being written now. Unless `ack` is `wal`, nothing may be answered yet; the anchor may be
    /// done, though, and durable() have run.
    std::function<void(Sequence last, std::size_t groups)> synced;
    /// Everything up to here would survive a power cut and is anchored (`ack wal`: synced): answer it.
    std::function<void(Sequence last)> durable;
    /// The disk failed: final. Groups that were not reported durable may or may not be there at the next open, and
    /// every later one fails. Runs once.
    std::function<void(absl::Status)> failed;
    /// The anchor covers everything up to here. Nobody is answered for it: it tells how far the anchor is behind where
    /// `ack` is `wal`.
    std::function<void(Sequence last)> anchored{};
  };

  /// Once, before the first submit(), with the journal idle.
  virtual void start(Callbacks) = 0;
  /// Appends `group`, whole or not at all, and returns at once. What is submitted while others are written waits, and
  /// then becomes one write with all that waits, up to a noted digest; how much that is, is the caller's to bound.
  /// A group that breaks a rule of its shape (first sequence, empty or oversized record) is a bug, and asserted.
  virtual void submit(Group group) = 0;

  /// Free bytes where the log lies, as last looked at (before each group and on refresh_free_bytes()).
  virtual std::uint64_t free_bytes() const = 0;
  virtual void refresh_free_bytes() = 0;

  /// Waits for what was submitted, anchors it and stops the threads. The status of that.
  virtual absl::Status close() = 0;
};

}  // namespace tensorforge::storage

#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include <rocksdb/file_system.h>
#include <rocksdb/listener.h>

#include "storage/chunk.h"
#include "storage/data_directory.h"
#include "storage/database.h"
#include "storage/files.h"
#include "storage/head.h"
#include "storage/journal.h"

namespace tensorforge::storage {

/// Where RocksDB tells of errors on its own threads, before and after there is a journal.
class BackgroundErrors final : public rocksdb::EventListener {
 public:
  void OnBackgroundError(rocksdb::BackgroundErrorReason, rocksdb::Status*) override;
  void OnErrorRecoveryBegin(rocksdb::BackgroundErrorReason, rocksdb::Status, bool* auto_recovery) override;
  /// `hear` is called at once for an error that already came; an empty one ends it.
  void hear_by(std::function<void(absl::Status)> hear);

 private:
  std::mutex mutex_;
  absl::Status first_;
  std::function<void(absl::Status)> hear_;
};

/// The parts of an opened data directory: who opens it makes them, the journal owns them.
struct JournalParts {
  std::shared_ptr<rocksdb::FileSystem> files;
  std::string data_dir;
  DirectoryLock lock;
  std::shared_ptr<BackgroundErrors> background_errors;
  std::unique_ptr<Database> database;
  std::unique_ptr<HeadWriter> head;  ///< its last() is the end of the log
  LogPoint end;
  bool to_start{};  ///< the meta data say that a life of the log is to start
  Ack ack{};
};

/// The journal on disk: one thread writes and syncs groups, another anchors them.
///
/// Neither waits for who submits: what was submitted while a group was written is the next one. While the anchor of a
/// group is written the next group is; the anchor then covers all that was synced meanwhile. The first error of either,
/// or of RocksDB's own threads, is final.
class RocksDbJournal final : public Journal {
 public:
  explicit RocksDbJournal(JournalParts);
  ~RocksDbJournal() override;

  void start(Callbacks) override;
  void submit(Group group) override;
  TreeHead durable_head() const override;
  LogId log_id() const override { return log_id_; }
  Result<Records> read(Sequence first, std::size_t max_records, std::size_t max_bytes) const override;
  absl::Status scan(Sequence first, const VisitRecords& visit) const override;
  absl::Status check(LogPoint& at, const VisitRecords& visit) const override;
  Result<std::optional<Note>> note(Sequence) const override;
  Result<std::optional<std::string>> noted_digest(Sequence) const override;
  Result<std::optional<NotedAt>> newest_noted_digest() const override;
  Result<LogVerified> verify() const override;
  std::uint64_t free_bytes() const override { return free_bytes_; }
  void refresh_free_bytes() override;
  absl::Status close() override;

 private:
  void write_groups();
  absl::Status write(const Group&);
  void anchor_heads();
  void fail(const absl::Status& why);
  void wake_all();
  void report_failure();
  void report_durable(const TreeHead&);

  JournalParts parts_;
  const LogId log_id_;
  LogPoint end_;  ///< of the journal's thread
  std::atomic<std::uint64_t> free_bytes_{};
  Callbacks callbacks_;

  /// Held while durable and failed are called, so that nothing is reported durable after the failure.
  std::mutex reports_;
  bool failure_reported_{};  ///< under reports_

  mutable std::mutex mutex_;                      ///< of all below
  std::condition_variable to_write_, to_anchor_;  ///< what the two threads wait for
  std::deque<Group> waiting_;
  Sequence submitted_{};
  bool writing_{};
  TreeHead synced_, durable_;
  absl::Status failed_;
  bool closing_{};

  std::thread writer_, anchorer_;
};

}  // namespace tensorforge::storage

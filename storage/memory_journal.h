#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <limits>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "storage/chunk.h"
#include "storage/journal.h"

namespace tensorforge::storage {

/// The journal without a disk, for simulations and tests: the same chunks and the same tree in memory, and the caller
/// is the disk. Nothing happens by itself: submit() waits for complete_sync(), and that for complete_anchor(). A group
/// that is submitted while none is there is being written; others wait until that is done.
///
/// Threads: any; callbacks run inside the call that completes, with no lock held.
class MemoryJournal final : public Journal {
 public:
  explicit MemoryJournal(const LogId& log_id, bool acknowledge_synced = false);

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
  std::uint64_t free_bytes() const override;
  void refresh_free_bytes() override {}
  /// Completes what waits, unless it failed.
  absl::Status close() override;

  // The disk.

  /// What is being written is synced, and what waits is being written. False: there is nothing, or the disk failed.
  bool complete_sync();
  /// What was synced is anchored. False: nothing new is there, or the disk failed.
  bool complete_anchor();
  /// The disk fails, for good.
  void fail(absl::Status why);
  void set_free_bytes(std::uint64_t bytes);
  bool sync_waits() const;
  bool anchor_waits() const;

  /// The power goes and comes back: callbacks are forgotten, and what was synced is there and anchored, as after an
  /// opening. What was being written is there too if `keep_writing`: either may happen. start() may be called again.
  void restart(bool keep_writing);
  /// Flips a bit of the chunk that holds `sequence`.
  void damage(Sequence sequence);

 private:
  std::size_t write();
  /// The chunks from the one that holds `first` on, as they are now, so that nobody waits for who reads them.
  std::map<Sequence, std::string> chunks_from(Sequence first, Sequence& durable) const;

  const LogId log_id_;
  const bool acknowledge_synced_;
  mutable std::mutex mutex_;
  Callbacks callbacks_;
  Sequence submitted_{};
  std::vector<Group> writing_;  ///< as one
  std::deque<Group> waiting_;
  std::map<Sequence, std::string> chunks_;  ///< by first sequence
  std::map<Sequence, Note> notes_;
  std::map<Sequence, std::string> noted_digests_;
  LogPoint end_;
  TreeHead synced_, durable_;
  absl::Status failed_;
  std::uint64_t free_bytes_{std::numeric_limits<std::uint64_t>::max()};
};

}  // namespace tensorforge::storage

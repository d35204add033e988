#include "storage/rocksdb_journal.h"

#include <cassert>
#include <exception>
#include <utility>

#include <rocksdb/write_batch.h>

#include "storage/crash_point.h"

namespace tensorforge::storage {
namespace {

absl::Status final_error(const absl::Status& why) {
  return absl::UnavailableError("the disk failed: " + std::string(why.message()));
}

/// Usually more than a batch takes beside chunks and notes: keys and lengths.
constexpr std::size_t kBatchHeadBytes = 4'096;

}  // namespace

void BackgroundErrors::OnBackgroundError(rocksdb::BackgroundErrorReason, rocksdb::Status* error) {
  const std::lock_guard lock(mutex_);
  if (!first_.ok()) return;
  first_ = to_status(*error, "write in the background");
  if (hear_) hear_(first_);
}

void BackgroundErrors::OnErrorRecoveryBegin(rocksdb::BackgroundErrorReason, rocksdb::Status, bool* auto_recovery) {
  *auto_recovery = false;  // a failed write may have taken pages with it that a second try would miss
}

void BackgroundErrors::hear_by(std::function<void(absl::Status)> hear) {
  const std::lock_guard lock(mutex_);
  hear_ = std::move(hear);
  if (hear_ && !first_.ok()) hear_(first_);
}

RocksDbJournal::RocksDbJournal(JournalParts parts)
    : parts_(std::move(parts)),
      log_id_(parts_.head->last().log_id),
      end_(std::move(parts_.end)),
      submitted_(parts_.head->last().head.sequence),
      synced_(parts_.head->last().head),
      durable_(synced_) {
  assert(end_.sequence() == synced_.sequence);
  parts_.background_errors->hear_by([this](const absl::Status& why) { fail(why); });
  refresh_free_bytes();
}

RocksDbJournal::~RocksDbJournal() { close().IgnoreError(); }

void RocksDbJournal::start(Callbacks callbacks) {
  assert(!writer_.joinable());
  callbacks_ = std::move(callbacks);
  writer_ = std::thread([this] { write_groups(); });
  anchorer_ = std::thread([this] { anchor_heads(); });
}

void RocksDbJournal::submit(Group group) {
  {
    const std::lock_guard lock(mutex_);
    assert(writer_.joinable() && !closing_);
    assert(!group.empty() && group.first == submitted_ + 1);
    submitted_ = group.last();
    waiting_.push_back(std::move(group));
  }
  to_write_.notify_one();
}

TreeHead RocksDbJournal::durable_head() const {
  const std::lock_guard lock(mutex_);
  return durable_;
}

Result<Records> RocksDbJournal::read(Sequence first, std::size_t max_records, std::size_t max_bytes) const {
  const Sequence end = durable_head().sequence;
  return read_records(*parts_.database->chunks(), end, first, max_records, max_bytes);
}

absl::Status RocksDbJournal::scan(Sequence first, const VisitRecords& visit) const {
  const Sequence end = durable_head().sequence;
  return scan_records(*parts_.database->chunks(), end, first, visit);
}

absl::Status RocksDbJournal::check(LogPoint& at, const VisitRecords& visit) const {
  const Sequence end = durable_head().sequence;
  return check_records(*parts_.database->chunks(), end, at, visit);
}

Result<std::optional<Note>> RocksDbJournal::note(Sequence sequence) const {
  if (sequence > durable_head().sequence) return std::nullopt;
  return parts_.database->note(sequence);
}

Result<std::optional<std::string>> RocksDbJournal::noted_digest(Sequence sequence) const {
  if (sequence > durable_head().sequence) return std::nullopt;
  return parts_.database->noted_digest(sequence);
}

Result<std::optional<NotedAt>> RocksDbJournal::newest_noted_digest() const {
  return parts_.database->newest_noted_digest(durable_head().sequence);
}

Result<LogVerified> RocksDbJournal::verify() const { return parts_.database->verify(durable_head()); }

void RocksDbJournal::refresh_free_bytes() {
  const Result<std::uint64_t> bytes = free_space(*parts_.files, parts_.data_dir);
  // A file system that cannot tell does not thereby have no room: what then runs out is a failed write.
  if (bytes.ok()) free_bytes_ = *bytes;
}

absl::Status RocksDbJournal::close() {
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
    wake_all();
  }
  if (writer_.joinable()) writer_.join();
  if (anchorer_.joinable()) anchorer_.join();
  if (!parts_.database) return failed_;
  parts_.background_errors->hear_by({});
  const absl::Status closed = parts_.database->close();
  parts_.database.reset();
  if (failed_.ok() && !closed.ok()) failed_ = final_error(closed);
  return failed_;
}

void RocksDbJournal::write_groups() {
  std::unique_lock lock(mutex_);
  for (;;) {
    to_write_.wait(lock, [this] { return !waiting_.empty() || closing_ || !failed_.ok(); });
    if (!failed_.ok() || waiting_.empty()) break;
    std::vector<Group> groups = take_together(waiting_);
    const std::size_t count = groups.size();
    writing_ = true;
    lock.unlock();
    const Group group = join(std::move(groups));
    const absl::Status status = write(group);
    lock.lock();
    writing_ = false;
    if (!status.ok() && failed_.ok()) failed_ = final_error(status);
    if (!failed_.ok()) break;
    synced_ = {end_.sequence(), end_.frontier.root(), group.incarnation};
    // The group that starts a life of the log is anchored before it is acknowledged, whatever `ack` says.
    const bool acknowledge = !std::exchange(parts_.to_start, false) && parts_.ack == Ack::kWal;
    if (acknowledge) durable_ = synced_;
    const TreeHead synced = synced_;
    lock.unlock();
    if (!acknowledge) to_anchor_.notify_one();  // whoever submitted waits for the anchor
    if (callbacks_.synced) callbacks_.synced(synced.sequence, count);
    crash_point(CrashPoint::kGroupReported);
    if (acknowledge) {
      report_durable(synced);
      to_anchor_.notify_one();  // nobody waits for it: the answers go first
    }
    lock.lock();
  }
  to_anchor_.notify_one();
  if (failed_.ok()) return;
  lock.unlock();
  report_failure();
}

absl::Status RocksDbJournal::write(const Group& group) {
  refresh_free_bytes();
  crash_point(CrashPoint::kGroupToSeal);
  const std::vector<EncodedChunk> chunks = encode_group(group, end_);
  std::size_t chunk_bytes = 0;
  for (const EncodedChunk& chunk : chunks) chunk_bytes += chunk.value.size();
  rocksdb::WriteBatch batch = protected_batch(chunk_bytes + group.note_bytes + kBatchHeadBytes);
  const Database& database = *parts_.database;
  for (const EncodedChunk& chunk : chunks) put_chunk(batch, database, chunk);
  for (const Note& note : group.notes) put_note(batch, database, note);
  if (!group.noted_digest.empty()) put_noted_digest(batch, database, group.last(), group.noted_digest);
  if (parts_.to_start) {
    assert(!group.commands.empty());  // or no record would say so
    put_started(batch, database);
  }
  crash_point(CrashPoint::kGroupSealed);
  absl::Status status = to_status(parts_.database->db().Write(synced_write(), &batch), "write the log");
  crash_point(CrashPoint::kGroupSynced);
  return status;
}

void RocksDbJournal::anchor_heads() {
  std::unique_lock lock(mutex_);
  for (;;) {
    to_anchor_.wait(lock, [this] {
      const bool to_anchor = parts_.head->last().head != synced_;
      return !failed_.ok() || to_anchor || (closing_ && waiting_.empty() && !writing_);
    });
    if (!failed_.ok()) return;
    const TreeHead head = synced_;
    if (parts_.head->last().head == head) return;
    lock.unlock();
    const absl::Status status = parts_.head->write(head);
    lock.lock();
    if (!status.ok()) {
      if (failed_.ok()) failed_ = final_error(status);
      to_write_.notify_one();
      return;
    }
    const bool acknowledge = head.sequence > durable_.sequence;  // else it was when it was synced
    if (acknowledge) durable_ = head;
    lock.unlock();
    if (acknowledge) report_durable(head);
    if (callbacks_.anchored) callbacks_.anchored(head.sequence);
    lock.lock();
  }
}

void RocksDbJournal::fail(const absl::Status& why) {
  const std::lock_guard lock(mutex_);
  if (failed_.ok()) failed_ = final_error(why);
  wake_all();
}

void RocksDbJournal::wake_all() {
  to_write_.notify_one();
  to_anchor_.notify_one();
}

void RocksDbJournal::report_failure() {
  const std::lock_guard lock(reports_);
  failure_reported_ = true;
  if (callbacks_.failed) callbacks_.failed(failed_);
}

void RocksDbJournal::report_durable(const TreeHead& head) {
  const std::lock_guard lock(reports_);
  if (!failure_reported_ && callbacks_.durable) callbacks_.durable(head.sequence);
  crash_point(CrashPoint::kDurableReported);
}

}  // namespace tensorforge::storage

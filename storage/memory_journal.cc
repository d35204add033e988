#include "storage/memory_journal.h"

#include <cassert>
#include <iterator>
#include <utility>

#include "storage/bytes.h"
#include "storage/chunk_reader.h"

namespace tensorforge::storage {
namespace {

class MapCursor final : public ChunkCursor {
 public:
  explicit MapCursor(const std::map<Sequence, std::string>& chunks) : chunks_(chunks), at_(chunks.begin()) { settle(); }
  void seek(Sequence sequence) override {
    at_ = chunks_.upper_bound(sequence);
    if (at_ != chunks_.begin()) --at_;
    settle();
  }
  void next() override {
    ++at_;
    settle();
  }
  void find(Sequence) override {}  // no error stops it
  bool valid() const override { return at_ != chunks_.end(); }
  absl::Status status() const override { return absl::OkStatus(); }
  std::string_view key() const override { return key_; }
  std::string_view value() const override { return at_->second; }

 private:
  void settle() {
    if (valid()) key_ = big_endian(at_->first);
  }
  const std::map<Sequence, std::string>& chunks_;
  std::map<Sequence, std::string>::const_iterator at_;
  std::string key_;
};

template <class T>
std::optional<T> find(const std::map<Sequence, T>& in, Sequence sequence) {
  const auto found = in.find(sequence);
  return found == in.end() ? std::nullopt : std::optional<T>(found->second);
}

}  // namespace

MemoryJournal::MemoryJournal(const LogId& log_id, bool acknowledge_synced)
    : log_id_(log_id), acknowledge_synced_(acknowledge_synced) {
  synced_.root = durable_.root = end_.frontier.root();
}

void MemoryJournal::start(Callbacks callbacks) {
  const std::lock_guard lock(mutex_);
  assert(!callbacks_.synced && writing_.empty());
  callbacks_ = std::move(callbacks);
}

void MemoryJournal::submit(Group group) {
  const std::lock_guard lock(mutex_);
  assert(!group.empty() && group.first == submitted_ + 1);
  submitted_ = group.last();
  waiting_.push_back(std::move(group));
  if (writing_.empty()) writing_ = take_together(waiting_);
}

TreeHead MemoryJournal::durable_head() const {
  const std::lock_guard lock(mutex_);
  return durable_;
}

Result<Records> MemoryJournal::read(Sequence first, std::size_t max_records, std::size_t max_bytes) const {
  const std::lock_guard lock(mutex_);
  MapCursor cursor(chunks_);
  return read_records(cursor, durable_.sequence, first, max_records, max_bytes);
}

std::map<Sequence, std::string> MemoryJournal::chunks_from(Sequence first, Sequence& durable) const {
  const std::lock_guard lock(mutex_);
  durable = durable_.sequence;
  auto from = chunks_.upper_bound(first);
  if (from != chunks_.begin()) --from;
  return {from, chunks_.end()};
}

absl::Status MemoryJournal::scan(Sequence first, const VisitRecords& visit) const {
  Sequence durable = 0;
  const std::map<Sequence, std::string> chunks = chunks_from(first, durable);
  MapCursor cursor(chunks);
  return scan_records(cursor, durable, first, visit);
}

absl::Status MemoryJournal::check(LogPoint& at, const VisitRecords& visit) const {
  Sequence durable = 0;
  const std::map<Sequence, std::string> chunks = chunks_from(at.sequence() + 1, durable);
  MapCursor cursor(chunks);
  return check_records(cursor, durable, at, visit);
}

Result<std::optional<Note>> MemoryJournal::note(Sequence sequence) const {
  const std::lock_guard lock(mutex_);
  if (sequence > durable_.sequence) return std::nullopt;
  return find(notes_, sequence);
}

Result<std::optional<std::string>> MemoryJournal::noted_digest(Sequence sequence) const {
  const std::lock_guard lock(mutex_);
  if (sequence > durable_.sequence) return std::nullopt;
  return find(noted_digests_, sequence);
}

Result<std::optional<NotedAt>> MemoryJournal::newest_noted_digest() const {
  const std::lock_guard lock(mutex_);
  auto behind = noted_digests_.upper_bound(durable_.sequence);
  if (behind == noted_digests_.begin()) return std::nullopt;
  --behind;
  return NotedAt{behind->first, behind->second};
}

Result<LogVerified> MemoryJournal::verify() const {
  const std::lock_guard lock(mutex_);
  MapCursor cursor(chunks_);
  const CheckedLog checked = check_chunks(cursor, {}, durable_);
  if (absl::Status status = judge(checked, durable_); !status.ok()) return status;
  return LogVerified{{checked.end.sequence(), checked.end.frontier.root(), durable_.incarnation},
                     checked.end.chunk_number,
                     checked.bytes,
                     notes_.size()};
}

std::uint64_t MemoryJournal::free_bytes() const {
  const std::lock_guard lock(mutex_);
  return free_bytes_;
}

absl::Status MemoryJournal::close() {
  while (complete_sync()) {
  }
  complete_anchor();
  const std::lock_guard lock(mutex_);
  return failed_;
}

bool MemoryJournal::complete_sync() {
  Callbacks callbacks;
  Sequence last = 0;
  std::size_t groups = 0;
  {
    const std::lock_guard lock(mutex_);
    if (writing_.empty() || !failed_.ok()) return false;
    groups = write();
    if (acknowledge_synced_) durable_ = synced_;
    callbacks = callbacks_;
    last = synced_.sequence;
  }
  if (callbacks.synced) callbacks.synced(last, groups);
  if (acknowledge_synced_ && callbacks.durable) callbacks.durable(last);
  return true;
}

bool MemoryJournal::complete_anchor() {
  Callbacks callbacks;
  Sequence last = 0;
  {
    const std::lock_guard lock(mutex_);
    if (durable_ == synced_ || !failed_.ok()) return false;
    durable_ = synced_;
    callbacks = callbacks_;
    last = durable_.sequence;
  }
  if (callbacks.durable) callbacks.durable(last);
  return true;
}

void MemoryJournal::fail(absl::Status why) {
  Callbacks callbacks;
  {
    const std::lock_guard lock(mutex_);
    if (!failed_.ok()) return;
    failed_ = why;
    callbacks = callbacks_;
  }
  if (callbacks.failed) callbacks.failed(std::move(why));
}

void MemoryJournal::set_free_bytes(std::uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  free_bytes_ = bytes;
}

bool MemoryJournal::sync_waits() const {
  const std::lock_guard lock(mutex_);
  return !writing_.empty() && failed_.ok();
}

bool MemoryJournal::anchor_waits() const {
  const std::lock_guard lock(mutex_);
  return durable_ != synced_ && failed_.ok();
}

void MemoryJournal::restart(bool keep_writing) {
  const std::lock_guard lock(mutex_);
  if (!writing_.empty() && keep_writing) write();
  writing_.clear();
  waiting_.clear();
  submitted_ = synced_.sequence;
  durable_ = synced_;
  callbacks_ = {};
  failed_ = absl::OkStatus();
}

void MemoryJournal::damage(Sequence sequence) {
  const std::lock_guard lock(mutex_);
  const auto after = chunks_.upper_bound(sequence);
  assert(after != chunks_.begin());
  std::prev(after)->second.back() ^= 1;
}

/// What is being written, and goes on with what waits. How many groups it was.
std::size_t MemoryJournal::write() {
  const std::size_t count = writing_.size();
  Group group = join(std::exchange(writing_, take_together(waiting_)));
  for (EncodedChunk& chunk : encode_group(group, end_)) chunks_.emplace(chunk.first, std::move(chunk.value));
  for (Note& note : group.notes) notes_.emplace(note.sequence, std::move(note));
  if (!group.noted_digest.empty()) noted_digests_.emplace(group.last(), group.noted_digest);
  synced_ = {end_.sequence(), end_.frontier.root(), group.incarnation};
  return count;
}

}  // namespace tensorforge::storage

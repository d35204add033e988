#include "storage/accept_loss.h"

#include <charconv>
#include <cstddef>
#include <optional>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <rocksdb/write_batch.h>
#include <spdlog/spdlog.h>

#include "platform/deliberate_bug.h"
#include "storage/chunk_reader.h"
#include "storage/database.h"
#include "storage/files.h"

namespace tensorforge::storage {
namespace {

constexpr std::size_t kCopyBatchBytes = std::size_t{4} << 20U;

/// Writes into `to` in batches of a few MiB.
class Copy {
 public:
  explicit Copy(Database& to) : to_(to) {}
  rocksdb::WriteBatch& batch() { return batch_; }
  absl::Status flush_if_large() { return batch_.GetDataSize() < kCopyBatchBytes ? absl::OkStatus() : flush(); }
  absl::Status flush() {
    const rocksdb::Status status = to_.db().Write(synced_write(), &batch_);
    batch_.Clear();
    return to_status(status, "copy what verifies");
  }

 private:
  Database& to_;
  rocksdb::WriteBatch batch_ = protected_batch();
};

absl::Status copy_chunks(const Database& from, const LogPoint& end, Database& to) {
  Copy copy(to);
  absl::Status written;
  // What lies behind the last one may be what cannot be read, so it is not looked at.
  const CheckedLog copied = check_chunks(*from.chunks(), {}, std::nullopt, [&](const LogPoint& at, const Chunk& chunk) {
    put_chunk(copy.batch(), to, {chunk.header.first, std::string(chunk.value)});
    written = copy.flush_if_large();
    return written.ok() && at.chunk_number < end.chunk_number;
  });
  if (!written.ok()) return written;
  if (!copied.problem.ok()) return copied.problem;
  if (copied.end.frontier.root() != end.frontier.root()) return absl::InternalError("what was verified is gone");
  return copy.flush();
}

/// What can be read of them: notes and digests are not what the log is about, and their loss is told.
absl::Status copy_companions(const Database& from, Sequence end, Database& to) {
  Copy copy(to);
  std::uint64_t lost = 0;
  for (Sequence sequence = 1; sequence <= end; ++sequence) {
    const Result<std::optional<Note>> note = from.note(sequence);
    if (note.ok() && *note) put_note(copy.batch(), to, **note);
    const Result<std::optional<std::string>> digest = from.noted_digest(sequence);
    if (digest.ok() && *digest) put_noted_digest(copy.batch(), to, sequence, **digest);
    if (!note.ok() || !digest.ok()) ++lost;
    if (absl::Status status = copy.flush_if_large(); !status.ok()) return status;
  }
  if (lost > 0) spdlog::warn("the notes or digests of {} events cannot be read and are left behind", lost);
  return copy.flush();
}

absl::Status copy_database(const std::shared_ptr<rocksdb::FileSystem>& files, const std::string& from,
                           const std::string& to, const LogId& log_id, const LogVerdict& verdict) {
  const LogPoint& end = verdict.end;
  Result<std::unique_ptr<Database>> target = Database::create(files, to, {log_id, IncarnationCause::AcceptLoss});
  if (!target.ok()) return target.status();
  if (end.chunk_number > 0) {
    const Result<std::unique_ptr<Database>> source = Database::open_read_only(files, from);
    if (!source.ok()) return source.status();
    if (absl::Status status = copy_chunks(**source, end, **target); !status.ok()) return status;
    if (verdict.crashed) {
      spdlog::warn(
          "the check of the log crashed before it came to the notes: reading them may too, so they stay there");
    } else if (absl::Status status = copy_companions(**source, end.sequence(), **target); !status.ok()) {
      return status;
    }
  }
  return (*target)->close();
}

absl::Status move_if_there(rocksdb::FileSystem& files, const std::string& from, const std::string& to) {
  const Result<bool> there = file_exists(files, from);
  if (!there.ok()) return there.status();
  return *there ? rename_file(files, from, to) : absl::OkStatus();
}

/// Snapshots are named by their sequence.
absl::Status move_snapshots_beyond(rocksdb::FileSystem& files, const std::string& data_dir, Sequence end,
                                   const std::string& lost) {
  const Result<std::vector<std::string>> names = list_directory(files, data_dir + "/snapshots");
  if (absl::IsNotFound(names.status())) return absl::OkStatus();
  if (!names.ok()) return names.status();
  if (absl::Status status = create_directory(files, lost + "/snapshots"); !status.ok()) return status;
  for (const std::string& name : *names) {
    Sequence sequence = 0;
    const auto [parsed, error] = std::from_chars(name.data(), name.data() + name.size(), sequence);
    if (error != std::errc() || sequence <= end) continue;
    absl::Status moved =
        rename_file(files, fmt::format("{}/snapshots/{}", data_dir, name), fmt::format("{}/snapshots/{}", lost, name));
    if (!moved.ok()) return moved;
  }
  if (absl::Status status = sync_directory(files, lost + "/snapshots"); !status.ok()) return status;
  return sync_directory(files, data_dir + "/snapshots");
}

}  // namespace

Result<std::string> make_lost_directory(rocksdb::FileSystem& files, const std::string& data_dir, Sequence sequence) {
  const std::string name = fmt::format("{}/lost-{}", data_dir, sequence);
  for (std::size_t i = 1;; ++i) {
    const std::string path = i == 1 ? name : fmt::format("{}.{}", name, i);
    const Result<bool> taken = file_exists(files, path);
    if (!taken.ok()) return taken.status();
    if (*taken) continue;
    if (absl::Status status = create_directory(files, path); !status.ok()) return status;
    return path;
  }
}

Result<std::string> link_database(rocksdb::FileSystem& files, const std::string& data_dir) {
  const std::string from = data_dir + "/db", path = data_dir + kRepaired, to = path + Database::kToRepair;
  absl::Status status = create_directory(files, path);
  if (status.ok()) status = create_directory(files, to);
  if (!status.ok()) return status;
  const Result<std::vector<std::string>> names = list_directory(files, from);
  if (!names.ok()) return names.status();
  for (const std::string& name : *names) {
    const bool is_log = name.ends_with(".log");
    if (!is_log && !name.ends_with(".sst")) continue;
    const std::string second = fmt::format("{}/{}", to, name);
    if (is_log) status = create_directory(files, second);
    if (status.ok()) status = link_file(files, fmt::format("{}/{}", from, name), is_log ? second + "/" + name : second);
    if (!status.ok()) return status;
  }
  return path;
}

absl::Status remove_repaired(rocksdb::FileSystem& files, const std::string& data_dir) {
  const Result<bool> there = file_exists(files, data_dir + kRepaired);
  if (!there.ok() || !*there) return there.status();
  return remove_directory(files, data_dir + kRepaired);
}

absl::Status finish_accept_loss(rocksdb::FileSystem& files, const std::string& data_dir) {
  const Result<bool> in_place = file_exists(files, data_dir + "/db");
  if (!in_place.ok()) return in_place.status();
  if (*in_place) return absl::OkStatus();
  if (absl::Status status = move_if_there(files, data_dir + "/db.new", data_dir + "/db"); !status.ok()) return status;
  return sync_directory(files, data_dir);
}

absl::Status accept_loss(const std::shared_ptr<rocksdb::FileSystem>& files, const std::string& data_dir,
                         const Anchor& anchor, const LogVerdict& verdict, const std::string& from) {
  const Sequence end = verdict.end.sequence();
  const std::string db = data_dir + "/db";
  const Result<std::string> made = make_lost_directory(*files, data_dir, end);
  if (!made.ok()) return made.status();
  const std::string& lost = *made;

  // Left by a call that a crash ended: nothing is ever deleted.
  for (const char* name : {"/db.making", "/db.new"}) {
    if (absl::Status status = move_if_there(*files, data_dir + name, lost + name); !status.ok()) return status;
  }
  // db.new is complete as soon as it has that name; only then does db/ go.
  absl::Status status = copy_database(files, from, data_dir + "/db.making", anchor.log_id, verdict);
  if (!status.ok()) return status;
  status = rename_file(*files, data_dir + "/db.making", data_dir + "/db.new");
  if (status.ok()) status = sync_directory(*files, data_dir);
  if (status.ok()) status = move_snapshots_beyond(*files, data_dir, end, lost);
  if (status.ok()) status = link_file(*files, data_dir + "/HEAD", lost + "/HEAD");
  if (status.ok()) {
    const bool throw_away = deliberate_bug(DeliberateBug::kLossThrownAway);
    status = throw_away ? remove_directory(*files, db) : move_if_there(*files, db, lost + "/db");
  }
  if (status.ok()) status = sync_directory(*files, lost);
  if (status.ok()) status = sync_directory(*files, data_dir);
  if (status.ok()) status = finish_accept_loss(*files, data_dir);
  if (!status.ok()) return status;

  Anchor next{anchor.log_id, {end, verdict.end.frontier.root(), anchor.head.incarnation}, anchor.epoch, 0};
  status = create_head(*files, data_dir, next);
  if (status.ok()) spdlog::warn("the log goes on after sequence {}; all that was there is in {}", end, lost);
  return status;
}

}  // namespace tensorforge::storage

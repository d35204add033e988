#include "storage/data_directory.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <future>
#include <stdexcept>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <openssl/rand.h>
#include <rocksdb/file_system.h>
#include <spdlog/spdlog.h>

#include "platform/deliberate_bug.h"
#include "storage/accept_loss.h"
#include "storage/crash_point.h"
#include "storage/database.h"
#include "storage/files.h"
#include "storage/head.h"
#include "storage/log_check.h"
#include "storage/rocksdb_journal.h"

namespace tensorforge::storage {
namespace {

std::string text(const absl::Status& status) { return std::string(status.message()); }

absl::Status in_directory(const std::string& data_dir, const absl::Status& status) {
  return {status.code(), fmt::format("{}: {}", data_dir, text(status))};
}

void system_random(std::span<std::uint8_t> out) {
  if (RAND_bytes(out.data(), static_cast<int>(out.size())) != 1) {
    throw std::runtime_error("the system gives no random bytes");
  }
}

/// Step 1: whether there is a HEAD. kFailedPrecondition: the directory is not ours to touch.
Result<bool> look(rocksdb::FileSystem& files, const std::string& data_dir) {
  const Result<std::vector<std::string>> names = list_directory(files, data_dir);
  if (absl::IsNotFound(names.status())) {
    const Result<bool> exists = file_exists(files, data_dir);
    if (exists.ok() && *exists) return absl::FailedPreconditionError("it is not a directory that can be read");
    return false;
  }
  if (!names.ok()) return names.status();
  if (std::binary_search(names->begin(), names->end(), "HEAD")) {
    const Result<HeadFile> head = read_head(files, data_dir + "/HEAD");
    if (absl::IsFailedPrecondition(head.status())) return head.status();
    return true;
  }
  const auto foreign = std::find_if(names->begin(), names->end(), [](const std::string& name) {
    return name != "lost+found" && name != "LOCK" && name != "HEAD.new";
  });
  if (foreign == names->end()) return false;
  return absl::FailedPreconditionError(fmt::format(
      "it has no HEAD, but \"{}\": it is not a data directory, or its HEAD was lost; nothing was changed", *foreign));
}

/// The opening of one directory to be served: docs/journal_format.md, "Opening", step by step.
class Opening {
 public:
  explicit Opening(const OpenOptions& options)
      : options_(options),
        files_(options.file_system ? options.file_system : rocksdb::FileSystem::Default()),
        head_path_(options.data_dir + "/HEAD"),
        db_path_(options.data_dir + "/db") {}

  Result<OpenedDirectory> run() {
    Result<DirectoryLock> lock = look_and_lock();
    if (!lock.ok()) return lock.status();
    if (!has_head_) {
      if (absl::Status status = start_first(); !status.ok()) return status;
    } else if (absl::Status status = verify(); !status.ok()) {
      return status;
    }
    return open(*std::move(lock));
  }

 private:
  Result<DirectoryLock> look_and_lock() {
    const Result<bool> first_look = look(*files_, options_.data_dir);
    if (!first_look.ok()) return first_look.status();
    const Result<bool> exists = file_exists(*files_, options_.data_dir);
    if (!exists.ok()) return exists.status();
    const rocksdb::IOStatus made = files_->CreateDirIfMissing(options_.data_dir, {}, nullptr);
    if (!made.ok()) return to_status(made, "create it");
    is_new_ = !*exists;
    Result<DirectoryLock> lock = DirectoryLock::take(files_, options_.data_dir + "/LOCK");
    if (!lock.ok()) return lock.status();
    const Result<bool> second_look = look(*files_, options_.data_dir);
    if (!second_look.ok()) return second_look.status();
    has_head_ = *second_look;
    crash_point(CrashPoint::kLocked);
    return lock;
  }

  template <std::size_t N>
  std::array<std::uint8_t, N> random_bytes() const {
    std::array<std::uint8_t, N> bytes;
    options_.random ? options_.random(bytes) : system_random(bytes);
    return bytes;
  }
  /// 32 random bits, not 0 and not those of the life before.
  std::uint32_t new_incarnation(std::uint32_t before) const {
    for (;;) {
      std::uint32_t number = 0;
      std::memcpy(&number, random_bytes<4>().data(), sizeof number);
      if (number != 0 && number != before) return number;
    }
  }

  /// Makes the name of the directory durable: a power cut would take all that is in it, however well synced.
  absl::Status sync_name() const {
    std::filesystem::path path = std::filesystem::path(options_.data_dir).lexically_normal();
    if (!path.has_filename()) path = path.parent_path();  // a slash at its end
    const std::string parent = path.parent_path().string();
    absl::Status status = sync_directory(*files_, parent.empty() ? "." : parent);
    // Whoever made it may be the only one who may read the directory that it is in; then it is theirs to see to.
    return is_new_ ? status : absl::OkStatus();
  }

  absl::Status start_first() {
    // Before there is a HEAD, since what has one does not come here again.
    const bool sync = !deliberate_bug(DeliberateBug::kNewDirectoryNotSynced);
    if (absl::Status status = sync ? sync_name() : absl::OkStatus(); !status.ok()) return status;
    anchor_.log_id = random_bytes<16>();
    anchor_.head.incarnation = new_incarnation(0);
    anchor_.head.root = MerkleFrontier().root();
    if (absl::Status status = create_head(*files_, options_.data_dir, anchor_); !status.ok()) return status;
    return create_database();
  }

  absl::Status create_database() {
    end_ = {};
    Result<std::unique_ptr<Database>> database =
        Database::create(files_, db_path_, {anchor_.log_id, IncarnationCause::FirstStart});
    if (!database.ok()) return database.status();
    if (absl::Status status = (*database)->close(); !status.ok()) return status;
    crash_point(CrashPoint::kDatabaseCreated);
    absl::Status status = sync_directory(*files_, options_.data_dir);
    crash_point(CrashPoint::kDatabaseDurable);
    return status;
  }

  /// Steps 2 and 3, with a HEAD there: leaves a database that verifies, and where it ends.
  absl::Status verify() {
    const Result<HeadFile> head = read_head(*files_, head_path_);
    const bool may_lose_head = absl::IsDataLoss(head.status()) && options_.accept_loss;
    if (!head.ok() && !may_lose_head) return with_remedy(head.status());
    anchor_ = head.ok() ? head->anchor : Anchor{{}, {0, MerkleFrontier().root(), 0}, 0, 0};
    if (options_.accept_loss) {
      if (absl::Status status = finish_accept_loss(*files_, options_.data_dir); !status.ok()) return status;
      discard_repaired();  // of one that was interrupted
    }
    const Result<bool> has_database = file_exists(*files_, db_path_);
    if (!has_database.ok()) return has_database.status();
    if (deliberate_bug(DeliberateBug::kDatabaseCreatedAgain)) {
      const Result<bool> has_current = file_exists(*files_, db_path_ + "/CURRENT");
      if (has_current.ok() && !*has_current) return create_database();
    }
    LogVerdict verdict;
    const bool from_snapshot = *has_database && head.ok() && check_from_snapshot(verdict);
    if (!from_snapshot) verdict = *has_database ? check(head.ok(), {}, options_.take_verified) : nothing_there();
    for (const std::string& warning : verdict.warnings) spdlog::warn("{}: {}", options_.data_dir, warning);

    const bool nothing_anchored = head.ok() && anchor_.head.sequence == 0 && head->written_once;
    if (nothing_anchored && holds_no_record(verdict)) return begin_again(*has_database);
    if (verdict.problem.ok() && head.ok()) {
      end_ = verdict.end;
      return absl::OkStatus();
    }
    std::string source = db_path_;
    const bool repairs = options_.accept_loss && !deliberate_bug(DeliberateBug::kNothingRepaired);
    if (repairs && *has_database && absl::IsDataLoss(verdict.problem)) {
      if (absl::Status status = repair(head.ok(), verdict, source); !status.ok()) return status;
    }
    // A check that crashed at once is no verdict on anything: the log may well be whole.
    const bool any_verdict = !verdict.crashed || verdict.end.sequence() > 0;
    const bool may_lose =
        options_.accept_loss && any_verdict && (verdict.problem.ok() || absl::IsDataLoss(verdict.problem));
    return may_lose ? lose(verdict, source) : verdict.problem;
  }

  /// What is wrong, where it is not yet known what is to be done about it.
  static std::string without_remedy(std::string message) {
    const std::string remedy = fmt::format(": {}", kRemedy);
    if (message.ends_with(remedy)) message.resize(message.size() - remedy.size());
    return message;
  }

  LogVerdict check(bool head_is_known, LogPoint start, const TakeVerified& take) const {
    return check(LogCheck{db_path_, std::nullopt, anchor_.head, std::move(start)}, head_is_known, take);
  }

  LogVerdict check(LogCheck check, bool head_is_known, const TakeVerified& take) const {
    if (head_is_known) check.log_id = anchor_.log_id;
    if (deliberate_bug(DeliberateBug::kNoAnchor)) check.anchor = {0, MerkleFrontier().root(), 0};
    if (options_.check_in_process) return check_log(files_, check);
    const auto progress = [this](Sequence verified) {
      if (options_.checking) options_.checking(verified, anchor_.head.sequence);
    };
    return check_log_in_child(check, options_.cancelled, progress, options_.accept_loss ? TakeVerified() : take);
  }

  /// Takes the newest snapshot that can be taken, and checks the log from there. False: there is none, or the log does
  /// not verify from there. What then is wrong, the log or the snapshot, a check from the log's start finds out.
  bool check_from_snapshot(LogVerdict& verdict) {
    if (!options_.load_snapshot) return false;
    const SnapshotStore store(files_, options_.data_dir);
    const Result<std::vector<Sequence>> snapshots = store.list();
    if (!snapshots.ok()) {
      spdlog::warn("{}: no snapshot is used: {}", options_.data_dir, text(snapshots.status()));
      return false;
    }
    for (auto sequence = snapshots->rbegin(); sequence != snapshots->rend(); ++sequence) {
      if (*sequence > anchor_.head.sequence) continue;
      const absl::Status taken = take_snapshot(store, *sequence, verdict);
      if (taken.ok() && verdict.problem.ok()) return true;
      spdlog::warn("{}: snapshot {} is not used: {}", options_.data_dir, *sequence,
                   without_remedy(text(taken.ok() ? verdict.problem : taken)));
      if (!taken.ok()) continue;
      spdlog::warn("{}: the log is checked from its start, which tells what is wrong", options_.data_dir);
      break;
    }
    snapshot_ = {};
    return false;
  }

  /// Loads a snapshot, and checks the log behind it meanwhile.
  absl::Status take_snapshot(const SnapshotStore& store, Sequence sequence, LogVerdict& verdict) {
    const Result<std::unique_ptr<SnapshotReader>> reader = store.open(sequence);
    if (!reader.ok()) return reader.status();
    const SnapshotHead& head = (*reader)->head();
    if (head.log_id != anchor_.log_id) return absl::FailedPreconditionError("it is of another log");
    snapshot_ = head.at;
    // A check in this process is for who wants every call in its order.
    const auto when = options_.check_in_process ? std::launch::deferred : std::launch::async;
    std::future<LogVerdict> checked;  // waited for at last, when nothing that it waits for can fail to come
    std::promise<bool> loaded;
    TakeVerified take;  // behind what was loaded
    if (options_.take_verified) {
      take = [this, is_loaded = loaded.get_future().share()](Sequence first,
                                                             std::span<const std::string_view> records) {
        return is_loaded.get() && options_.take_verified(first, records);
      };
    }
    checked = std::async(when, [this, start = head.at, take = std::move(take)] { return check(true, start, take); });
    absl::Status status = options_.load_snapshot(**reader);
    loaded.set_value(status.ok());
    verdict = checked.get();
    return status;
  }

  LogVerdict nothing_there() const {
    LogVerdict verdict;
    verdict.problem = judge({{}, 0, absl::DataLossError("db/ is missing"), absl::OkStatus()}, anchor_.head);
    return verdict;
  }

  /// As a first start leaves it that was interrupted: empty, or not even complete.
  static bool holds_no_record(const LogVerdict& verdict) {
    const bool incomplete = absl::IsDataLoss(verdict.problem) && !verdict.log_id;
    return verdict.end.sequence() == 0 && (verdict.problem.ok() || incomplete);
  }

  absl::Status begin_again(bool has_database) {
    if (has_database) {
      const Result<std::string> lost = make_lost_directory(*files_, options_.data_dir, 0);
      if (!lost.ok()) return lost.status();
      spdlog::warn("{}: a first start was interrupted; it begins again, what was there is in {}", options_.data_dir,
                   *lost);
      if (absl::Status status = rename_file(*files_, db_path_, *lost + "/db"); !status.ok()) return status;
      if (absl::Status status = sync_directory(*files_, *lost); !status.ok()) return status;
      crash_point(CrashPoint::kDatabaseSetAside);
    }
    return create_database();
  }

  /// What verifies of the database once it is repaired.
  LogVerdict check_repaired(bool head_is_known) const {
    LogVerdict verdict;
    const Result<std::string> linked = link_database(*files_, options_.data_dir);
    if (!linked.ok()) {
      const bool no_links = absl::IsDataLoss(linked.status());  // the file system has none
      verdict.problem = no_links ? absl::FailedPreconditionError(text(linked.status())) : linked.status();
      return verdict;
    }
    LogCheck repaired{*linked, std::nullopt, anchor_.head, {}};
    repaired.repair_first = true;
    verdict = check(std::move(repaired), head_is_known, {});
    for (const std::string& warning : verdict.warnings) spdlog::warn("{}: {}", *linked, warning);
    return verdict;
  }

  /// If more of the database verifies once it is repaired, `verdict` is of that, and `source` where it lies.
  absl::Status repair(bool head_is_known, LogVerdict& verdict, std::string& source) const {
    LogVerdict repaired = check_repaired(head_is_known);
    const bool is_verdict = repaired.problem.ok() || absl::IsDataLoss(repaired.problem);
    const Sequence before = verdict.end.sequence(), now = repaired.end.sequence();
    const bool is_better = now > before || (now == before && now > 0 && verdict.crashed && !repaired.crashed);
    if (is_verdict && is_better) {
      spdlog::warn("{}: {}; with the database repaired, events 1..{} verify", options_.data_dir,
                   without_remedy(text(verdict.problem)), now);
      verdict = std::move(repaired);
      source = options_.data_dir + kRepaired;
      return absl::OkStatus();
    }
    discard_repaired();
    if (is_verdict && !repaired.crashed) {
      spdlog::warn("{}: no more of it can be repaired", options_.data_dir);
      return absl::OkStatus();
    }
    // The repair says nothing of the log then; what verified without it does.
    const bool goes_on = before > 0 && !absl::IsUnavailable(repaired.problem) && !absl::IsCancelled(repaired.problem);
    if (!goes_on) return repaired.problem;
    spdlog::warn("{}: the database was not repaired: {}", options_.data_dir, text(repaired.problem));
    return absl::OkStatus();
  }

  void discard_repaired() const {
    const absl::Status removed = remove_repaired(*files_, options_.data_dir);
    if (!removed.ok()) spdlog::warn("{}: {}", options_.data_dir, text(removed));
  }

  absl::Status lose(const LogVerdict& verdict, const std::string& source) {
    if (!verdict.problem.ok()) spdlog::error("{}: {}", options_.data_dir, text(verdict.problem));
    Anchor next = anchor_;
    if (verdict.log_id) next.log_id = *verdict.log_id;
    if (next.log_id == LogId{}) next.log_id = random_bytes<16>();
    next.head.incarnation = new_incarnation(anchor_.head.incarnation);
    const absl::Status accepted = accept_loss(files_, options_.data_dir, next, verdict, source);
    discard_repaired();
    if (!accepted.ok()) return accepted;
    const Result<HeadFile> head = read_head(*files_, head_path_);
    if (!head.ok()) return head.status();
    anchor_ = head->anchor;
    end_ = verdict.end;
    return absl::OkStatus();
  }

  /// Step 4.
  Result<OpenedDirectory> open(DirectoryLock lock) {
    crash_point(CrashPoint::kVerified);
    const auto errors = std::make_shared<BackgroundErrors>();
    Result<std::unique_ptr<Database>> database = Database::open(files_, db_path_, errors);
    if (!database.ok()) return database.status();
    crash_point(CrashPoint::kOpened);
    const Result<ChunkHeader> last = (*database)->last_chunk();
    if (!last.ok()) return last.status();
    if (last->number != end_.chunk_number || last->root != end_.frontier.root()) {
      return absl::DataLossError(
          fmt::format("opened to be written, the log ends at sequence {}, but was verified up to {}", last->last(),
                      end_.sequence()));
    }
    const Result<Meta> meta = (*database)->read_meta();
    if (!meta.ok()) return meta.status();

    Result<std::unique_ptr<HeadWriter>> head = HeadWriter::open(*files_, head_path_, anchor_);
    if (!head.ok()) return head.status();
    const Sequence anchored_before = anchor_.head.sequence;
    if (anchored_before != end_.sequence()) {
      spdlog::info("{}: events {}..{} were written and not yet acknowledged; they are whole and kept",
                   options_.data_dir, anchored_before + 1, end_.sequence());
      crash_point(CrashPoint::kTailToAnchor);
      const TreeHead recovered{end_.sequence(), end_.frontier.root(), anchor_.head.incarnation};
      if (absl::Status status = (*head)->write(recovered); !status.ok()) return status;
      crash_point(CrashPoint::kTailAnchored);
    }

    OpenedDirectory opened;
    if (meta->to_start) opened.to_start = {*meta->to_start, anchor_.head.incarnation};
    opened.anchored_before = anchored_before;
    opened.snapshot = std::move(snapshot_);
    opened.journal = std::make_unique<RocksDbJournal>(
        JournalParts{files_, options_.data_dir, std::move(lock), errors, *std::move(database), *std::move(head),
                     std::move(end_), meta->to_start.has_value(), options_.ack});
    return opened;
  }

  const OpenOptions& options_;
  const std::shared_ptr<rocksdb::FileSystem> files_;
  const std::string head_path_, db_path_;
  bool has_head_{}, is_new_{};
  Anchor anchor_;
  LogPoint end_;
  LogPoint snapshot_;  ///< see OpenedDirectory
};

/// The log of a directory that nobody serves.
class StoppedLog final : public Log {
 public:
  StoppedLog(std::optional<DirectoryLock> lock, std::unique_ptr<Database> database, const LogId& log_id,
             const TreeHead& end)
      : lock_(std::move(lock)), database_(std::move(database)), log_id_(log_id), end_(end) {}

  TreeHead durable_head() const override { return end_; }
  LogId log_id() const override { return log_id_; }
  Result<Records> read(Sequence first, std::size_t max_records, std::size_t max_bytes) const override {
    return read_records(*database_->chunks(), end_.sequence, first, max_records, max_bytes);
  }
  absl::Status scan(Sequence first, const VisitRecords& visit) const override {
    return scan_records(*database_->chunks(), end_.sequence, first, visit);
  }
  absl::Status check(LogPoint& at, const VisitRecords& visit) const override {
    return check_records(*database_->chunks(), end_.sequence, at, visit);
  }
  Result<std::optional<Note>> note(Sequence sequence) const override { return database_->note(sequence); }
  Result<std::optional<std::string>> noted_digest(Sequence sequence) const override {
    return database_->noted_digest(sequence);
  }
  Result<std::optional<NotedAt>> newest_noted_digest() const override {
    return database_->newest_noted_digest(end_.sequence);
  }
  Result<LogVerified> verify() const override { return database_->verify(end_); }

 private:
  std::optional<DirectoryLock> lock_;
  std::unique_ptr<Database> database_;
  LogId log_id_;
  TreeHead end_;
};

struct Stopped {
  std::optional<DirectoryLock> lock;
  Anchor anchor;
};

/// What both ways to read a stopped directory begin with.
Result<Stopped> hold_stopped(const std::shared_ptr<rocksdb::FileSystem>& files, const std::string& data_dir) {
  const Result<bool> has_head = look(*files, data_dir);
  if (!has_head.ok()) return has_head.status();
  if (!*has_head) return absl::NotFoundError("there is no log");
  // A service makes LOCK before anything else, so without one nobody is there, and none is made: nothing is written.
  Stopped stopped;
  const Result<bool> has_lock = file_exists(*files, data_dir + "/LOCK");
  if (!has_lock.ok()) return has_lock.status();
  if (*has_lock) {
    Result<DirectoryLock> lock = DirectoryLock::take(files, data_dir + "/LOCK");
    if (!lock.ok()) return lock.status();
    stopped.lock.emplace(*std::move(lock));
  }
  const Result<HeadFile> head = read_head(*files, data_dir + "/HEAD");
  if (!head.ok()) return head.status();
  stopped.anchor = head->anchor;
  const Result<bool> has_database = file_exists(*files, data_dir + "/db");
  if (!has_database.ok()) return has_database.status();
  if (!*has_database && head->anchor.head.sequence == 0) return absl::NotFoundError("there is no log yet");
  return stopped;
}

/// Whether the anchored sequence is there, with the anchored root.
absl::Status check_anchor(const Database& database, const TreeHead& anchor) {
  if (anchor.sequence == 0) return absl::OkStatus();
  const Result<bool> there = ends_at(*database.chunks(), anchor.sequence, anchor.root);
  if (!there.ok()) return there.status();
  if (*there) return absl::OkStatus();
  return absl::DataLossError(fmt::format(
      "the log does not hold the acknowledged event {} as it was anchored; log verify says more", anchor.sequence));
}

Result<std::unique_ptr<Log>> read_stopped(const std::string& data_dir) {
  const std::shared_ptr<rocksdb::FileSystem> files = rocksdb::FileSystem::Default();
  Result<Stopped> stopped = hold_stopped(files, data_dir);
  if (!stopped.ok()) return stopped.status();
  Result<std::unique_ptr<Database>> database = Database::open_read_only(files, data_dir + "/db");
  if (!database.ok()) return database.status();
  const Anchor& anchor = stopped->anchor;
  if (absl::Status status = check_anchor(**database, anchor.head); !status.ok()) return status;
  const Result<ChunkHeader> last = (*database)->last_chunk();
  if (!last.ok()) return last.status();
  const TreeHead end{last->last(), last->root, anchor.head.incarnation};
  return std::make_unique<StoppedLog>(std::move(stopped->lock), *std::move(database), anchor.log_id, end);
}

Result<LogVerified> verify_stopped(const std::string& data_dir) {
  const Result<Stopped> stopped = hold_stopped(rocksdb::FileSystem::Default(), data_dir);
  if (!stopped.ok()) return stopped.status();
  const Anchor& anchor = stopped->anchor;
  const LogVerdict verdict = check_log_in_child({data_dir + "/db", anchor.log_id, anchor.head, {}});
  if (!verdict.problem.ok()) return verdict.problem;
  return LogVerified{{verdict.end.sequence(), verdict.end.frontier.root(), anchor.head.incarnation},
                     verdict.end.chunk_number,
                     verdict.bytes,
                     verdict.notes};
}

}  // namespace

Result<OpenedDirectory> open_data_directory(const OpenOptions& options) {
  Result<OpenedDirectory> opened = Opening(options).run();
  if (!opened.ok()) return in_directory(options.data_dir, opened.status());
  return opened;
}

int exit_code(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return 0;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kFailedPrecondition:
      return 1;
    case absl::StatusCode::kDataLoss:
      return 2;
    case absl::StatusCode::kAborted:
      return 4;
    default:
      return 3;
  }
}

Result<std::unique_ptr<Log>> open_read_only(const std::string& data_dir) {
  Result<std::unique_ptr<Log>> log = read_stopped(data_dir);
  if (!log.ok()) return in_directory(data_dir, log.status());
  return log;
}

Result<LogVerified> verify_data_directory(const std::string& data_dir) {
  Result<LogVerified> verified = verify_stopped(data_dir);
  if (!verified.ok()) return in_directory(data_dir, verified.status());
  return verified;
}

}  // namespace tensorforge::storage

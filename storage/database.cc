#include "storage/database.h"

#include <algorithm>
#include <cstdarg>
#include <cstddef>
#include <cstdio>
#include <mutex>
#include <stdexcept>
#include <utility>

#include <fmt/format.h>
#include <rocksdb/cache.h>
#include <rocksdb/env.h>
#include <rocksdb/metadata.h>
#include <rocksdb/table.h>
#include <rocksdb/table_properties.h>
#include <rocksdb/version.h>
#include <rocksdb/write_batch.h>
#include <spdlog/spdlog.h>

#include "absl/container/flat_hash_set.h"
#include "platform/deliberate_bug.h"
#include "platform/xxh3.h"
#include "storage/bytes.h"
#include "storage/deletion_in_steps.h"
#include "storage/files.h"
#include "storage/warnings_logger.h"
#include "storage/zeros_ahead.h"

namespace tensorforge::storage {
namespace {

constexpr std::size_t kProtectionBytes = 8;
constexpr std::uint32_t kMetaFormat = 1;
constexpr const char* kFormatKey = "format";
constexpr const char* kLogIdKey = "log_id";
constexpr const char* kFirstSequenceKey = "first_sequence";
constexpr const char* kToStartKey = "incarnation_to_start";

/// Passes on what the library has to say to the log of the service. It takes the place of the LOG file, whose own
/// failed writes, on a disk that is full, would end the process by an assertion before anybody is told of the disk.
class ServiceLogger final : public rocksdb::Logger {
 public:
  explicit ServiceLogger(spdlog::level::level_enum warnings = spdlog::level::warn)
      : Logger(spdlog::should_log(spdlog::level::debug) ? rocksdb::InfoLogLevel::INFO_LEVEL
                                                        : rocksdb::InfoLogLevel::WARN_LEVEL),
        warnings_(warnings) {}
  using rocksdb::Logger::Logv;
  void Logv(const char* format, va_list arguments) override {
    Logv(rocksdb::InfoLogLevel::INFO_LEVEL, format, arguments);
  }
  void Logv(rocksdb::InfoLogLevel level, const char* format, va_list arguments) override {
    if (level < GetInfoLogLevel()) return;
    char text[1024];
    if (std::vsnprintf(text, sizeof text, format, arguments) < 0) return;
    spdlog::log(level >= rocksdb::InfoLogLevel::WARN_LEVEL ? warnings_ : spdlog::level::debug, "rocksdb: {}", text);
  }
  void LogHeader(const char*, va_list) override {}

 private:
  spdlog::level::level_enum warnings_;
};

std::string little_endian(std::uint64_t value, std::size_t bytes) {
  char buffer[8];
  put_little(buffer, value);
  return {buffer, bytes};
}

rocksdb::Slice slice(std::string_view bytes) { return {bytes.data(), bytes.size()}; }

rocksdb::ReadOptions read_once() {
  rocksdb::ReadOptions options;
  options.fill_cache = false;
  return options;
}

class DatabaseCursor final : public ChunkCursor {
 public:
  DatabaseCursor(rocksdb::DB& db, rocksdb::ColumnFamilyHandle* family)
      : db_(db), family_(family), iterator_(db.NewIterator(read_once(), family)) {}
  void seek(Sequence sequence) override {
    iterator_->SeekForPrev(big_endian(sequence));
    if (!iterator_->Valid() && iterator_->status().ok()) iterator_->SeekToFirst();
  }
  void next() override { iterator_->Next(); }
  /// An iterator goes through all tables side by side, and an error at the beginning of one of them stops it wherever
  /// it is to begin. Another one goes without the tables that begin behind `first`, up to where the first of these
  /// does.
  void find(Sequence first) override {
    if (stopped_.ok()) stopped_ = iterator_->status();
    const std::string key = big_endian(first);
    rocksdb::ReadOptions options = read_once();
    options.table_filter = [behind = leave_out_behind(key)](const rocksdb::TableProperties& table) {
      return !behind.contains(table.orig_file_number);
    };
    iterator_.reset(db_.NewIterator(options, family_));
    iterator_->Seek(key);
    is_there_ = iterator_->Valid() && iterator_->key() == key;
  }
  bool valid() const override {
    return is_there_ && iterator_->Valid() && (!left_out_from_ || iterator_->key().compare(*left_out_from_) < 0);
  }
  absl::Status status() const override {
    return to_status(iterator_->status().ok() ? stopped_ : iterator_->status(), "read");
  }
  std::string_view key() const override { return {iterator_->key().data(), iterator_->key().size()}; }
  std::string_view value() const override { return {iterator_->value().data(), iterator_->value().size()}; }

 private:
  /// The tables that begin behind `key`.
  absl::flat_hash_set<std::uint64_t> leave_out_behind(const std::string& key) {
    std::vector<rocksdb::LiveFileMetaData> tables;
    db_.GetLiveFilesMetaData(&tables);
    absl::flat_hash_set<std::uint64_t> behind;
    left_out_from_.reset();
    for (const rocksdb::LiveFileMetaData& table : tables) {
      if (table.column_family_name != family_->GetName() || table.smallestkey <= key) continue;
      behind.insert(table.file_number);
      if (!left_out_from_ || table.smallestkey < *left_out_from_) left_out_from_ = table.smallestkey;
    }
    return behind;
  }

  rocksdb::DB& db_;
  rocksdb::ColumnFamilyHandle* const family_;
  std::unique_ptr<rocksdb::Iterator> iterator_;
  rocksdb::Status stopped_;  ///< what stopped the first iterator; ok: nothing has
  bool is_there_ = true;     ///< what was to be found
  std::optional<std::string> left_out_from_;
};

/// nullopt: no such key.
Result<std::optional<std::string>> get(rocksdb::DB& db, rocksdb::ColumnFamilyHandle* family, std::string_view key,
                                       std::string_view doing) {
  std::string value;
  const rocksdb::Status status = db.Get({}, family, slice(key), &value);
  if (status.IsNotFound()) return std::nullopt;
  if (!status.ok()) return to_status(status, doing);
  return value;
}

/// kDataLoss: no such key, or not of that size.
Result<std::string> get_meta(rocksdb::DB& db, rocksdb::ColumnFamilyHandle* family, const char* key, std::size_t bytes) {
  const std::string doing = fmt::format("read \"{}\" of the database's meta data", key);
  Result<std::optional<std::string>> value = get(db, family, key, doing);
  if (!value.ok()) return value.status();
  if (!*value || (*value)->size() != bytes) return absl::DataLossError(doing + ": it is missing or has a wrong size");
  return std::move(**value);
}

std::string note_value(const Note& note) { return std::string(view_of(note.salt)) + note.bytes; }

std::string noted_digest_key(Sequence sequence) { return std::string(kNotedDigestPrefix) + big_endian(sequence); }

}  // namespace

rocksdb::WriteOptions synced_write() {
  rocksdb::WriteOptions options;
  options.sync = !deliberate_bug(DeliberateBug::kSyncSkipped);
  options.protection_bytes_per_key = kProtectionBytes;
  return options;
}

rocksdb::WriteBatch protected_batch(std::size_t bytes) { return rocksdb::WriteBatch(bytes, 0, kProtectionBytes, 0); }

std::vector<rocksdb::ColumnFamilyDescriptor> Database::descriptors() {
  rocksdb::BlockBasedTableOptions table;
  table.block_cache = rocksdb::NewLRUCache(std::size_t{32} << 20U);
  rocksdb::ColumnFamilyOptions family;
  family.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  family.paranoid_file_checks = true;
  family.max_write_buffer_number = 4;  // a full memtable is flushed beside the writer, and a burst may fill the next
  family.memtable_protection_bytes_per_key = kProtectionBytes;
  std::vector<rocksdb::ColumnFamilyDescriptor> all;
  for (const char* name : {"default", "events", "merkle", "notes", "meta", "streams"}) all.emplace_back(name, family);
  return all;
}

Database::Database(const std::shared_ptr<rocksdb::FileSystem>& files)
    : env_(rocksdb::NewCompositeEnv(with_zeros_ahead(with_deletion_in_steps(files)))) {}

rocksdb::DBOptions Database::options() const {
  rocksdb::DBOptions options;
  options.env = env_.get();
  options.paranoid_checks = true;
  options.wal_recovery_mode = deliberate_bug(DeliberateBug::kTolerateCorruptedTail)
                                  ? rocksdb::WALRecoveryMode::kTolerateCorruptedTailRecords
                                  : rocksdb::WALRecoveryMode::kPointInTimeRecovery;
  options.wal_compression = rocksdb::kNoCompression;
  options.recycle_log_file_num = 0;
  options.track_and_verify_wals_in_manifest = false;  // not compatible with secondaries
  options.avoid_flush_during_recovery = false;        // or WAL bytes that were never synced would be served
  options.unordered_write = false;
  options.enable_pipelined_write = false;
  options.two_write_queues = false;
  options.max_total_wal_size = std::uint64_t{64} << 20U;
  options.db_write_buffer_size = std::size_t{64} << 20U;
  options.max_open_files = 512;
  options.max_file_opening_threads = 1;  // by default each family has 15 made, and ended, at each opening
  options.info_log = std::make_shared<ServiceLogger>();
  options.max_bgerror_resume_count = 0;  // a failed write is final
  return options;
}

Result<std::unique_ptr<Database>> Database::create(const std::shared_ptr<rocksdb::FileSystem>& files,
                                                   const std::string& path, const Meta& meta) {
  std::unique_ptr<Database> database(new Database(files));
  rocksdb::DBOptions options = database->options();
  options.create_if_missing = true;
  options.error_if_exists = true;
  options.info_log = std::make_shared<ServiceLogger>(spdlog::level::debug);  // it warns that nothing is there yet
  std::vector<rocksdb::ColumnFamilyDescriptor> families = descriptors();
  rocksdb::DB* db = nullptr;
  rocksdb::Status status = rocksdb::DB::Open(options, path, {families.front()}, &database->handles_, &db);
  database->db_.reset(db);
  if (status.ok()) {
    // Together: each by itself would write, sync, read and delete an OPTIONS file.
    families.erase(families.begin());
    std::vector<rocksdb::ColumnFamilyHandle*> created;
    status = db->CreateColumnFamilies(families, &created);
    database->handles_.insert(database->handles_.end(), created.begin(), created.end());
  }
  if (!status.ok()) return to_status(status, fmt::format("create {}", path));

  rocksdb::WriteBatch batch = protected_batch();
  rocksdb::ColumnFamilyHandle* const family = database->meta();
  status = batch.Put(family, kFormatKey, little_endian(kMetaFormat, 4));
  if (status.ok()) status = batch.Put(family, kLogIdKey, slice(view_of(meta.log_id)));
  if (status.ok()) status = batch.Put(family, kFirstSequenceKey, little_endian(1, 8));
  if (status.ok() && meta.to_start) {
    status = batch.Put(family, kToStartKey, little_endian(static_cast<std::uint64_t>(*meta.to_start), 1));
  }
  if (status.ok()) status = db->Write(synced_write(), &batch);
  if (!status.ok()) return to_status(status, fmt::format("write the meta data of {}", path));
  return database;
}

Result<std::unique_ptr<Database>> Database::open(const std::shared_ptr<rocksdb::FileSystem>& files,
                                                 const std::string& path,
                                                 std::shared_ptr<rocksdb::EventListener> listener) {
  std::unique_ptr<Database> database(new Database(files));
  rocksdb::DBOptions options = database->options();
  if (listener) options.listeners.push_back(std::move(listener));
  rocksdb::DB* db = nullptr;
  const rocksdb::Status status = rocksdb::DB::Open(options, path, descriptors(), &database->handles_, &db);
  database->db_.reset(db);
  if (!status.ok()) return to_status(status, fmt::format("open {}", path));
  return database;
}

Result<std::unique_ptr<Database>> Database::open_read_only(const std::shared_ptr<rocksdb::FileSystem>& files,
                                                           const std::string& path,
                                                           std::vector<std::string>* warnings) {
  std::unique_ptr<Database> database(new Database(files));
  rocksdb::DBOptions options = database->options();
  const auto logger = std::make_shared<WarningsLogger>();
  options.info_log = logger;
  rocksdb::DB* db = nullptr;
  const rocksdb::Status status = rocksdb::DB::OpenForReadOnly(options, path, descriptors(), &database->handles_, &db);
  database->db_.reset(db);
  logger->take(warnings);
  if (!status.ok()) return to_status(status, fmt::format("open {}", path));
  return database;
}

Database::~Database() { close().IgnoreError(); }

absl::Status Database::close() {
  if (!db_) return absl::OkStatus();
  for (rocksdb::ColumnFamilyHandle* handle : std::exchange(handles_, {})) {
    db_->DestroyColumnFamilyHandle(handle).PermitUncheckedError();  // fails for the default family only, harmlessly
  }
  const rocksdb::Status status = db_->Close();
  db_.reset();
  return to_status(status, "close the database");
}

Result<Meta> Database::read_meta() const {
  const Result<std::string> format = get_meta(*db_, meta(), kFormatKey, 4);
  if (!format.ok()) return format.status();
  if (const auto number = get_little<std::uint32_t>(format->data()); number != kMetaFormat) {
    return absl::FailedPreconditionError(fmt::format(
        "the database has format {}, this program knows {}: written by a newer version", number, kMetaFormat));
  }
  const Result<std::string> log_id = get_meta(*db_, meta(), kLogIdKey, sizeof(LogId));
  if (!log_id.ok()) return log_id.status();
  const Result<std::string> first = get_meta(*db_, meta(), kFirstSequenceKey, 8);
  if (!first.ok()) return first.status();
  if (const auto number = get_little<std::uint64_t>(first->data()); number != 1) {
    return absl::FailedPreconditionError(
        fmt::format("the log begins at sequence {}, its older part is elsewhere: written by a newer version", number));
  }
  const Result<std::optional<std::string>> to_start = get(*db_, meta(), kToStartKey, "read the database's meta data");
  if (!to_start.ok()) return to_start.status();

  Meta meta;
  std::copy(log_id->begin(), log_id->end(), meta.log_id.begin());
  if (*to_start) {
    const std::string& cause = **to_start;
    if (cause.size() != 1 || cause[0] < 0 || cause[0] > static_cast<char>(IncarnationCause::AcceptLoss)) {
      return absl::DataLossError("the database's meta data say for no known cause that an incarnation is to start");
    }
    meta.to_start = static_cast<IncarnationCause>(cause[0]);
  }
  return meta;
}

std::unique_ptr<ChunkCursor> Database::chunks() const { return std::make_unique<DatabaseCursor>(*db_, events()); }

Result<ChunkHeader> Database::last_chunk() const {
  const std::unique_ptr<ChunkCursor> cursor = chunks();
  cursor->seek(~Sequence{0});
  if (!cursor->status().ok()) return cursor->status();
  if (!cursor->valid()) return ChunkHeader{0, 1, 0, MerkleFrontier().root()};
  const Result<Chunk> chunk = decode_chunk(cursor->value());
  if (!chunk.ok()) return chunk.status();
  return chunk->header;
}

Result<std::uint64_t> Database::count_chunks() const {
  rocksdb::TablePropertiesCollection tables;
  const rocksdb::Status status = db_->GetPropertiesOfAllTables(events(), &tables);
  if (!status.ok()) return to_status(status, "count the chunks");
  std::uint64_t count = 0;
  for (const auto& [name, table] : tables) count += table->num_entries - 2 * table->num_deletions;
  for (const std::string& property :
       {rocksdb::DB::Properties::kNumEntriesActiveMemTable, rocksdb::DB::Properties::kNumEntriesImmMemTables}) {
    std::uint64_t entries = 0;
    if (!db_->GetIntProperty(events(), property, &entries)) return absl::InternalError(property + " is not known");
    count += entries;
  }
  return count;
}

Result<std::optional<Note>> Database::note(Sequence sequence) const {
  const std::string doing = fmt::format("read the note of sequence {}", sequence);
  const Result<std::optional<std::string>> value = get(*db_, notes(), big_endian(sequence), doing);
  if (!value.ok()) return value.status();
  if (!*value) return std::nullopt;
  Note note{sequence, {}, {}};
  if ((*value)->size() < note.salt.size()) return absl::DataLossError(doing + ": it is shorter than its salt");
  std::copy_n((*value)->begin(), note.salt.size(), note.salt.begin());
  note.bytes = (*value)->substr(note.salt.size());
  return note;
}

Result<std::optional<std::string>> Database::noted_digest(Sequence sequence) const {
  return get(*db_, meta(), noted_digest_key(sequence), fmt::format("read the digest of sequence {}", sequence));
}

Result<std::optional<NotedAt>> Database::newest_noted_digest(Sequence end) const {
  const std::unique_ptr<rocksdb::Iterator> at(db_->NewIterator({}, meta()));
  at->SeekForPrev(noted_digest_key(end));
  if (!at->status().ok()) return to_status(at->status(), "read the newest digest");
  if (!at->Valid() || !at->key().starts_with(slice(kNotedDigestPrefix))) return std::nullopt;
  const std::string_view key(at->key().data(), at->key().size());
  if (key.size() != kNotedDigestPrefix.size() + 8) {
    return absl::DataLossError("the key of a noted digest has a wrong size");
  }
  return NotedAt{get_big_endian(key.substr(kNotedDigestPrefix.size())), at->value().ToString()};
}

Result<std::uint64_t> Database::count_notes() const {
  const std::unique_ptr<rocksdb::Iterator> at(db_->NewIterator(read_once(), notes()));
  std::uint64_t count = 0;
  for (at->SeekToFirst(); at->Valid(); at->Next()) ++count;
  if (!at->status().ok()) return to_status(at->status(), "read the notes");
  return count;
}

Result<LogVerified> Database::verify(const TreeHead& durable) const {
  const CheckedLog checked = check_chunks(*chunks(), {}, durable);
  if (absl::Status status = judge(checked, durable); !status.ok()) return status;
  const Result<std::uint64_t> notes = count_notes();
  if (!notes.ok()) return notes.status();
  return LogVerified{{checked.end.sequence(), checked.end.frontier.root(), durable.incarnation},
                     checked.end.chunk_number,
                     checked.bytes,
                     *notes};
}

namespace {

/// Building a batch in memory fails only where its checksums find that memory is damaged.
void must(const rocksdb::Status& status) {
  if (!status.ok()) throw std::runtime_error(status.ToString());
}

}  // namespace

void put_chunk(rocksdb::WriteBatch& batch, const Database& database, const EncodedChunk& chunk) {
  must(batch.Put(database.events(), big_endian(chunk.first), chunk.value));
}

void put_note(rocksdb::WriteBatch& batch, const Database& database, const Note& note) {
  must(batch.Put(database.notes(), big_endian(note.sequence), note_value(note)));
}

void put_noted_digest(rocksdb::WriteBatch& batch, const Database& database, Sequence sequence,
                      const std::string& digest) {
  must(batch.Put(database.meta(), noted_digest_key(sequence), digest));
}

void put_started(rocksdb::WriteBatch& batch, const Database& database) {
  must(batch.Delete(database.meta(), kToStartKey));
}

}  // namespace tensorforge::storage

#if ROCKSDB_MAJOR == 7 && ROCKSDB_MINOR == 8  // of another release, look first at who calls it
// RocksDB's own, with which it watches over what goes through memory, several times over each write and each flush, and
// of which nothing is ever written: this definition comes before that of its shared library. docs/decisions/0029
namespace rocksdb {
[[gnu::visibility("default")]] std::uint64_t Hash64(const char* data, std::size_t size, std::uint64_t seed) {
  return XXH3_64bits_withSeed(data, size, seed);
}
}  // namespace rocksdb
#endif

#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <rocksdb/db.h>

#include "platform/log_types.h"
#include "platform/result.h"
#include "storage/chunk_reader.h"
#include "storage/journal.h"

namespace tensorforge::storage {

/// What stands in family `meta`, beside the noted digests.
struct Meta {
  LogId log_id{};
  /// Until the first group of a life of the log is written: that life.
  std::optional<IncarnationCause> to_start;
};

/// The RocksDB database of a log, with its column families and the options that the design binds it to.
///
/// Threads: as rocksdb::DB.
class Database {
 public:
  /// A new one with `meta` in it, synced. kDataLoss: there is one already.
  static Result<std::unique_ptr<Database>> create(const std::shared_ptr<rocksdb::FileSystem>&, const std::string& path,
                                                  const Meta&);
  /// `listener` hears of errors in the background; may be nullptr.
  static Result<std::unique_ptr<Database>> open(const std::shared_ptr<rocksdb::FileSystem>&, const std::string& path,
                                                std::shared_ptr<rocksdb::EventListener> listener);
  /// Not one byte is written. A damaged database may end the process: Debian's build keeps its asserts on. What the
  /// library warns of on the way, as of a torn tail that it leaves out, is added to `warnings`; may be nullptr.
  static Result<std::unique_ptr<Database>> open_read_only(const std::shared_ptr<rocksdb::FileSystem>&,
                                                          const std::string& path,
                                                          std::vector<std::string>* warnings = nullptr);
  /// Makes a database in `path` of what can be read of another, whose tables lie in `path`/to_repair, and whose
  /// write-ahead logs each in a directory there that has its name. What is damaged is told in `warnings`, and is as
  /// likely to end the process. kUnavailable: the disk fails.
  static absl::Status repair(const std::shared_ptr<rocksdb::FileSystem>&, const std::string& path,
                             std::vector<std::string>* warnings);
  static constexpr const char* kToRepair = "/to_repair";
  ~Database();

  rocksdb::DB& db() { return *db_; }
  rocksdb::ColumnFamilyHandle* events() const { return handles_[kEvents]; }
  rocksdb::ColumnFamilyHandle* notes() const { return handles_[kNotes]; }
  rocksdb::ColumnFamilyHandle* meta() const { return handles_[kMeta]; }

  /// kDataLoss: absent or damaged. kFailedPrecondition: of a newer format.
  Result<Meta> read_meta() const;
  std::unique_ptr<ChunkCursor> chunks() const;
  /// Of the last chunk, from its header; of the empty log where there is none.
  Result<ChunkHeader> last_chunk() const;
  /// Chunks by the counts of the live files and the memtables: dense numbers end at this, or there is a hole.
  Result<std::uint64_t> count_chunks() const;

  Result<std::optional<Note>> note(Sequence) const;
  Result<std::optional<std::string>> noted_digest(Sequence) const;
  /// The last at or before `end`.
  Result<std::optional<NotedAt>> newest_noted_digest(Sequence end) const;
  /// How many notes there are; reads them all.
  Result<std::uint64_t> count_notes() const;
  /// As Log::verify(), up to `durable` and what follows it.
  Result<LogVerified> verify(const TreeHead& durable) const;

  absl::Status close();

 private:
  enum Family : std::size_t { kDefault, kEvents, kMerkle, kNotes, kMeta, kStreams, kFamilies };
  static std::vector<rocksdb::ColumnFamilyDescriptor> descriptors();
  /// With the families, and nothing in them: what is repaired goes there.
  static Result<std::unique_ptr<Database>> create_empty(const std::shared_ptr<rocksdb::FileSystem>&,
                                                        const std::string& path);
  /// RepairDB knows a family by its tables, and leaves out what a write-ahead log has for another. So each gets one,
  /// numbered as the families of a new database are.
  static absl::Status add_family_tables(const std::shared_ptr<rocksdb::FileSystem>&, const std::string& path);
  static Result<std::unique_ptr<Database>> repair_log(const std::shared_ptr<rocksdb::FileSystem>&,
                                                      const std::string& path, std::vector<std::string>* warnings);
  absl::Status add_log(const std::shared_ptr<rocksdb::FileSystem>&, const std::string& path,
                       std::vector<std::string>* warnings);
  absl::Status add_table(const std::string& path, std::vector<std::string>* warnings);
  explicit Database(const std::shared_ptr<rocksdb::FileSystem>&);
  rocksdb::DBOptions options() const;

  std::unique_ptr<rocksdb::Env> env_;  // outlives db_
  std::unique_ptr<rocksdb::DB> db_;
  std::vector<rocksdb::ColumnFamilyHandle*> handles_;
};

/// How every group is written: synced, and protected in memory on its way.
rocksdb::WriteOptions synced_write();
/// An empty batch whose entries carry checksums, with `bytes` reserved for them all.
rocksdb::WriteBatch protected_batch(std::size_t bytes = 0);

void put_chunk(rocksdb::WriteBatch&, const Database&, const EncodedChunk&);
void put_note(rocksdb::WriteBatch&, const Database&, const Note&);
void put_noted_digest(rocksdb::WriteBatch&, const Database&, Sequence, const std::string& digest);
/// The life of the log that was to start has started.
void put_started(rocksdb::WriteBatch&, const Database&);

/// The keys of family `meta` that hold a digest begin so, and end with the sequence.
inline constexpr std::string_view kNotedDigestPrefix = "digest/";

}  // namespace tensorforge::storage

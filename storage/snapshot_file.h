#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <rocksdb/file_system.h>

#include "platform/log_types.h"
#include "platform/result.h"
#include "storage/chunk.h"

namespace tensorforge::storage {

// The container of a snapshot: what log it is of and where in it, and pages that are opaque here.
// docs/journal_format.md

inline constexpr std::size_t kSnapshotHeadBytes = 4'096;
inline constexpr std::size_t kSnapshotPageHeaderBytes = 16;
inline constexpr std::size_t kMaxSnapshotPageBytes = std::size_t{1} << 20U;

struct SnapshotHead {
  LogId log_id{};
  std::uint32_t incarnation{};  ///< of the last record that is folded in
  LogPoint at;                  ///< the end of a chunk, from which the log goes on
};

/// The first 4,096 bytes of the file.
std::string encode_snapshot_head(const SnapshotHead&);
/// kDataLoss: not a head of ours, or damaged. kFailedPrecondition: whole, but of a newer format.
Result<SnapshotHead> decode_snapshot_head(std::string_view bytes);

/// Writes one snapshot: it has its name when it is complete and synced, and not before.
///
/// Threads: belongs to one.
class SnapshotWriter {
 public:
  /// Begins `directory`/<sequence>.new, over what a crash left under that name.
  static Result<std::unique_ptr<SnapshotWriter>> create(std::shared_ptr<rocksdb::FileSystem>,
                                                        const std::string& directory, const SnapshotHead&);
  /// 1 to kMaxSnapshotPageBytes bytes; asserted.
  absl::Status add(std::string_view page);
  /// Makes it durable, under its name. The bytes of the file.
  Result<std::uint64_t> finish();

 private:
  SnapshotWriter(std::shared_ptr<rocksdb::FileSystem>, const std::string& directory, Sequence sequence,
                 std::unique_ptr<rocksdb::FSWritableFile> file);
  absl::Status append(std::string_view bytes);

  std::shared_ptr<rocksdb::FileSystem> files_;
  std::string directory_, path_;
  std::unique_ptr<rocksdb::FSWritableFile> file_;
  std::uint64_t pages_{}, bytes_{}, written_back_{};
  std::uint32_t pages_crc_{};
};

/// Reads one snapshot from its beginning to its end. Trusts nothing: any file gives the pages that were written, or an
/// error, and never takes more memory than a page.
///
/// Threads: belongs to one.
class SnapshotReader {
 public:
  /// Reads the head. kNotFound: no such file. Otherwise as decode_snapshot_head(); kUnavailable: the disk fails.
  static Result<std::unique_ptr<SnapshotReader>> open(rocksdb::FileSystem&, const std::string& path);

  const SnapshotHead& head() const { return head_; }
  /// The next page, valid until the next call; nullopt: that was the last, and the file is whole to its end.
  /// kDataLoss: it is damaged; says in what.
  Result<std::optional<std::string_view>> next();

 private:
  SnapshotReader(std::unique_ptr<rocksdb::FSSequentialFile> file, std::string path);
  /// As many bytes as there are, up to `bytes`.
  Result<std::string_view> read(std::size_t bytes);
  absl::Status damaged(std::string_view what) const;
  absl::Status check_end(std::string_view header);

  std::unique_ptr<rocksdb::FSSequentialFile> file_;
  std::string path_, buffer_;
  SnapshotHead head_;
  std::uint64_t pages_{};
  std::uint32_t pages_crc_{};
};

/// The snapshots of one log: files named by their sequences in `data_dir`/snapshots.
///
/// Threads: any number of readers beside one writer.
class SnapshotStore {
 public:
  SnapshotStore(std::shared_ptr<rocksdb::FileSystem>, const std::string& data_dir);

  /// Their sequences, ascending; nothing of them is read.
  Result<std::vector<Sequence>> list() const;
  std::string path(Sequence) const;
  Result<std::unique_ptr<SnapshotReader>> open(Sequence) const;
  /// Of its file. kDataLoss: there is none.
  Result<std::uint64_t> bytes(Sequence) const;
  /// Makes the directory if it is missing.
  Result<std::unique_ptr<SnapshotWriter>> create(const SnapshotHead&) const;
  /// Deletes those that superseded() names, and what crashes left unfinished. Nobody may be writing.
  absl::Status prune() const;

 private:
  std::shared_ptr<rocksdb::FileSystem> files_;
  std::string data_dir_, directory_;
};

/// Which of these snapshots, ascending, may go: all but the last three, and the oldest of those that are 2^k to 2^(k+1)
/// events behind the newest, for each k. So the log's past stays reachable, ever more coarsely, in few files.
std::vector<Sequence> superseded(const std::vector<Sequence>& snapshots);

}  // namespace tensorforge::storage

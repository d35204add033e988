#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include <rocksdb/file_system.h>

#include "platform/log_types.h"
#include "platform/result.h"
#include "storage/journal.h"

namespace tensorforge::storage {

inline constexpr std::size_t kHeadBytes = 12'288;

/// What one slot of the file HEAD says: the log was durable up to here. docs/journal_format.md
struct Anchor {
  LogId log_id{};
  TreeHead head;
  std::uint64_t epoch{};    ///< of a later cluster; 0
  std::uint64_t counter{};  ///< of writes; the slot is `counter` mod 2
  bool operator==(const Anchor&) const = default;
};

struct HeadFile {
  Anchor anchor;            ///< the valid slot with the higher counter
  bool written_once{true};  ///< the other slot is still blank: nothing was anchored since the file was made
};

/// The whole file, with one slot written.
std::string encode_head(const Anchor&);
/// kFailedPrecondition: not a HEAD of ours, or of a newer format. kDataLoss: damaged beyond a torn slot.
Result<HeadFile> decode_head(std::string_view bytes);
/// kNotFound: there is none. Otherwise as decode_head().
Result<HeadFile> read_head(rocksdb::FileSystem&, const std::string& path);

/// Makes `data_dir`/HEAD, whole or not at all: HEAD.new, synced, renamed over what is there, the directory synced.
absl::Status create_head(rocksdb::FileSystem&, const std::string& data_dir, const Anchor&);

/// Writes the slots of a HEAD in turn.
///
/// Threads: belongs to one at a time.
class HeadWriter {
 public:
  /// `last` is what read_head() found.
  static Result<std::unique_ptr<HeadWriter>> open(rocksdb::FileSystem&, const std::string& path, const Anchor& last);
  /// Durable when it returns. After an error the slot may hold anything, and the file must not be written again.
  absl::Status write(const TreeHead&);
  const Anchor& last() const { return last_; }

 private:
  HeadWriter(std::unique_ptr<rocksdb::FSRandomRWFile> file, const Anchor& last);
  std::unique_ptr<rocksdb::FSRandomRWFile> file_;
  Anchor last_;
};

}  // namespace tensorforge::storage

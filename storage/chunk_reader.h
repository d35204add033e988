#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string_view>

#include "platform/log_types.h"
#include "platform/result.h"
#include "storage/chunk.h"
#include "storage/journal.h"

namespace tensorforge::storage {

/// Walks the chunks of a log as they are stored, in the order of their keys; it checks nothing.
///
/// Threads: belongs to one.
class ChunkCursor {
 public:
  virtual ~ChunkCursor() = default;
  /// To the chunk with the highest key at or below that of `sequence`; where there is none, to the first.
  virtual void seek(Sequence sequence) = 0;
  virtual void next() = 0;
  /// Of a cursor that an error stopped: goes on from the chunk that begins at `first`, if nothing but damage to what
  /// lies behind it stood in the way. Where that ends, status() is that error or another. seek() is not called any
  /// more.
  virtual void find(Sequence first) = 0;
  virtual bool valid() const = 0;
  /// Why it is not valid; ok: there are no more.
  virtual absl::Status status() const = 0;
  virtual std::string_view key() const = 0;
  virtual std::string_view value() const = 0;
};

/// Log::read() over stored chunks, of which those up to `end` are durable.
Result<Records> read_records(ChunkCursor&, Sequence end, Sequence first, std::size_t max_records,
                             std::size_t max_bytes);

/// Whether a chunk ends at `sequence`, from 1 on, and has this root in its header. Errors as decode_chunk(), or of the
/// disk.
Result<bool> ends_at(ChunkCursor&, Sequence sequence, const Hash& root);

/// How far a log verifies.
struct CheckedLog {
  LogPoint end;                 ///< of the chunks that verify without a gap
  std::uint64_t bytes{};        ///< of their records, from the start of the check
  absl::Status problem;         ///< why `end` is not the end of the log; ok: it is
  absl::Status root_at_anchor;  ///< kDataLoss: the log holds the anchored sequence, and another tree up to there
};
/// Checks chunks from `start` on: dense numbers and sequences, checksums, and the tree. With `anchor`, the tree's root
/// there; start is at or before it. After each chunk that verifies, `go_on` is told of it and where it ends, and may
/// end the check.
using GoOn = std::function<bool(const LogPoint& end, const Chunk& chunk)>;
CheckedLog check_chunks(ChunkCursor&, LogPoint start, const std::optional<TreeHead>& anchor, const GoOn& go_on = {});

/// Log::scan() over stored chunks, of which those up to `end` are durable.
absl::Status scan_records(ChunkCursor&, Sequence end, Sequence first, const VisitRecords& visit);
/// Log::check(), likewise.
absl::Status check_records(ChunkCursor&, Sequence end, LogPoint& at, const VisitRecords& visit);

/// What to do about lost events, at the end of each message that tells of them.
inline constexpr std::string_view kRemedy = "restore from a backup, or --accept-loss";
/// `status`, with that behind it if it is kDataLoss.
absl::Status with_remedy(const absl::Status& status);

/// Whether a log that was checked is all that `anchor` promised. kDataLoss: says which events are missing, and what to
/// do.
absl::Status judge(const CheckedLog&, const TreeHead& anchor);

}  // namespace tensorforge::storage

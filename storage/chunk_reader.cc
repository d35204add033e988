#include "storage/chunk_reader.h"

#include <algorithm>
#include <string>
#include <utility>

#include <fmt/format.h>

#include "storage/bytes.h"

namespace tensorforge::storage {
namespace {

absl::Status with_context(const absl::Status& status, std::string_view context) {
  return {status.code(), fmt::format("{}: {}", context, std::string(status.message()))};
}

/// The chunk where the cursor stands. `expected` is the sequence that it should begin with, or hold.
Result<Chunk> chunk_at(const ChunkCursor& cursor, Sequence expected) {
  const std::string_view key = cursor.key();
  if (key.size() != 8) {
    return absl::DataLossError(
        fmt::format("near sequence {}: a chunk's key has {} bytes, not 8", expected, key.size()));
  }
  const Sequence first = get_big_endian(key);
  Result<Chunk> chunk = decode_chunk(cursor.value());
  if (!chunk.ok()) return with_context(chunk.status(), fmt::format("the chunk at sequence {}", first));
  if (chunk->header.first != first) {
    return absl::DataLossError(fmt::format("chunk {} at sequence {}: it says that it begins at {}",
                                           chunk->header.number, first, chunk->header.first));
  }
  return chunk;
}

absl::Status missing(Sequence first, const absl::Status& why) {
  if (why.ok()) return absl::DataLossError(fmt::format("the chunk that holds sequence {} is missing", first));
  return with_context(why, fmt::format("the chunk that holds sequence {}", first));
}

/// Whether `chunk` is the one that follows `end`, as far as its header says.
absl::Status check_follows(const ChunkHeader& chunk, const LogPoint& end) {
  if (chunk.first == end.sequence() + 1 && chunk.number == end.chunk_number + 1) return absl::OkStatus();
  return absl::DataLossError(fmt::format("chunk {} with sequences {}..{} follows chunk {}, which ends at {}: {}",
                                         chunk.number, chunk.first, chunk.last(), end.chunk_number, end.sequence(),
                                         "what lies between is missing"));
}

absl::Status check_anchor(const LogPoint& end, const TreeHead& anchor) {
  if (end.frontier.root() == anchor.root) return absl::OkStatus();
  return absl::DataLossError(fmt::format(
      "up to sequence {} the log is not the one that was anchored: its Merkle root differs", anchor.sequence));
}

}  // namespace

Result<Records> read_records(ChunkCursor& cursor, Sequence end, Sequence first, std::size_t max_records,
                             std::size_t max_bytes) {
  Records result{first, {}};
  if (first == 0 || first > end) return result;
  std::size_t bytes = 0;
  Sequence next = first;
  for (cursor.seek(first); next <= end && (next == first || result.records.size() < max_records); cursor.next()) {
    if (!cursor.valid()) return missing(next, cursor.status());
    const Result<Chunk> chunk = chunk_at(cursor, next);
    if (!chunk.ok()) return chunk.status();
    const ChunkHeader& header = chunk->header;
    if (header.first > next || header.last() < next) return missing(next, absl::OkStatus());
    for (; next <= header.last() && next <= end; ++next) {
      const std::string_view record = chunk->records[next - header.first];
      bytes += record.size();
      const bool full = result.records.size() >= max_records || bytes > max_bytes;
      if (full && next > first) return result;
      result.records.emplace_back(record);
    }
  }
  return result;
}

absl::Status scan_records(ChunkCursor& cursor, Sequence end, Sequence first, const VisitRecords& visit) {
  Sequence next = std::max<Sequence>(first, 1);
  if (next > end) return absl::OkStatus();
  for (cursor.seek(next); next <= end; cursor.next()) {
    if (!cursor.valid()) return missing(next, cursor.status());
    const Result<Chunk> chunk = chunk_at(cursor, next);
    if (!chunk.ok()) return chunk.status();
    const ChunkHeader& header = chunk->header;
    if (header.first > next || header.last() < next) return missing(next, absl::OkStatus());
    const Sequence last = std::min(header.last(), end);
    const std::span<const std::string_view> records = chunk->records;
    if (!visit(records.subspan(next - header.first, last - next + 1))) return absl::OkStatus();
    next = last + 1;
  }
  return absl::OkStatus();
}

absl::Status check_records(ChunkCursor& cursor, Sequence end, LogPoint& at, const VisitRecords& visit) {
  if (at.sequence() >= end) return absl::OkStatus();
  bool ended = false;
  CheckedLog checked = check_chunks(cursor, std::move(at), std::nullopt, [&](const LogPoint& here, const Chunk& chunk) {
    ended = !visit(chunk.records) || here.sequence() >= end;
    return !ended;
  });
  at = std::move(checked.end);
  if (!checked.problem.ok() || ended) return checked.problem;
  return missing(at.sequence() + 1, absl::OkStatus());
}

Result<bool> ends_at(ChunkCursor& cursor, Sequence sequence, const Hash& root) {
  cursor.seek(sequence);
  if (!cursor.status().ok()) return cursor.status();
  if (!cursor.valid()) return false;
  const Result<Chunk> chunk = chunk_at(cursor, sequence);
  if (!chunk.ok()) return chunk.status();
  return chunk->header.last() == sequence && chunk->header.root == root;
}

CheckedLog check_chunks(ChunkCursor& cursor, LogPoint start, const std::optional<TreeHead>& anchor, const GoOn& go_on) {
  CheckedLog checked{std::move(start), 0, absl::OkStatus(), absl::OkStatus()};
  LogPoint& end = checked.end;
  if (anchor && anchor->sequence == end.sequence()) checked.root_at_anchor = check_anchor(end, *anchor);

  cursor.seek(end.sequence() + 1);
  // The chunk before the start is the one found where nothing follows it.
  if (cursor.valid() && end.chunk_number > 0 && cursor.key() <= big_endian(end.sequence())) cursor.next();
  for (;; cursor.next()) {
    if (!cursor.valid() && !cursor.status().ok()) cursor.find(end.sequence() + 1);
    if (!cursor.valid()) break;
    const Result<Chunk> chunk = chunk_at(cursor, end.sequence() + 1);
    checked.problem = chunk.ok() ? check_follows(chunk->header, end) : chunk.status();
    if (!checked.problem.ok()) return checked;

    MerkleFrontier frontier = end.frontier;
    std::uint64_t bytes = 0;
    for (const std::string_view record : chunk->records) {
      frontier.append(record);
      bytes += record.size();
    }
    if (frontier.root() != chunk->header.root) {
      checked.problem = absl::DataLossError(
          fmt::format("chunk {} with sequences {}..{}: the Merkle root in its header is not that of the records",
                      chunk->header.number, chunk->header.first, chunk->header.last()));
      return checked;
    }
    const bool skips_anchor = anchor && chunk->header.first <= anchor->sequence && anchor->sequence < frontier.size();
    if (skips_anchor) {
      checked.root_at_anchor = absl::DataLossError(fmt::format(
          "no chunk ends at the anchored sequence {}: the log is not the one that was anchored", anchor->sequence));
    }
    end.frontier = std::move(frontier);
    end.chunk_number = chunk->header.number;
    checked.bytes += bytes;
    if (anchor && anchor->sequence == end.sequence()) checked.root_at_anchor = check_anchor(end, *anchor);
    if (go_on && !go_on(end, *chunk)) return checked;
  }
  if (!cursor.status().ok()) checked.problem = missing(end.sequence() + 1, cursor.status());
  return checked;
}

absl::Status with_remedy(const absl::Status& status) {
  if (!absl::IsDataLoss(status)) return status;
  return absl::DataLossError(fmt::format("{}: {}", std::string(status.message()), kRemedy));
}

absl::Status judge(const CheckedLog& checked, const TreeHead& anchor) {
  const Sequence next = checked.end.sequence() + 1;
  const std::string cause = checked.problem.ok() ? "" : fmt::format(" ({})", std::string(checked.problem.message()));
  if (!checked.problem.ok() && !absl::IsDataLoss(checked.problem)) return checked.problem;
  if (next <= anchor.sequence) {
    return absl::DataLossError(
        fmt::format("acknowledged events {}..{} are missing{}: {}", next, anchor.sequence, cause, kRemedy));
  }
  if (!checked.problem.ok()) {
    return absl::DataLossError(fmt::format("events from {} on cannot be read{}: {}", next, cause, kRemedy));
  }
  if (!checked.root_at_anchor.ok()) {
    return absl::DataLossError(fmt::format("{}: {}", std::string(checked.root_at_anchor.message()), kRemedy));
  }
  return absl::OkStatus();
}

}  // namespace tensorforge::storage

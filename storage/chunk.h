#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "platform/log_types.h"
#include "platform/result.h"
#include "storage/journal.h"
#include "storage/log_point.h"

namespace tensorforge::storage {

inline constexpr std::size_t kChunkHeaderBytes = 64;
/// Commands are gathered into one chunk up to this, uncompressed; a larger one has a chunk of its own.
inline constexpr std::size_t kChunkTargetBytes = std::size_t{256} << 10U;
inline constexpr std::size_t kMaxChunkBytes = kChunkHeaderBytes + kMaxCommandBytes;

struct ChunkHeader {
  std::uint64_t number{};  ///< 1, 2, 3, ... without gaps
  Sequence first{};
  std::uint32_t count{};
  Hash root{};  ///< of the tree up to the last record of this chunk
  Sequence last() const { return first + count - 1; }
  bool operator==(const ChunkHeader&) const = default;
};

/// The value of family `events`: docs/journal_format.md. `body` is the records, each behind its length, up to
/// kMaxCommandBytes together. It is compressed where that makes it smaller.
std::string encode_chunk(const ChunkHeader&, std::string_view body);

/// A chunk that was read.
struct Chunk {
  ChunkHeader header;
  std::vector<std::string_view> records;  ///< views into `body`, or into `value` where that is not compressed
  std::unique_ptr<const char[]> body;
  std::string_view value;  ///< what was decoded, as it is stored
};
/// Trusts nothing: any bytes give a chunk that is whole, or an error.
/// kDataLoss: damaged; says in what. kFailedPrecondition: whole, but of a newer format.
Result<Chunk> decode_chunk(std::string_view value);

struct EncodedChunk {
  Sequence first{};
  std::string value;
};
/// Cuts `group` into chunks, at command ends only, and moves `end` to the end of the last of them.
std::vector<EncodedChunk> encode_group(const Group& group, LogPoint& end);

}  // namespace tensorforge::storage

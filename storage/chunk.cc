#include "storage/chunk.h"

#include <algorithm>
#include <cassert>
#include <utility>

#include <fmt/format.h>
#include <lz4.h>

#include "storage/bytes.h"
#include "storage/crc32c.h"

namespace tensorforge::storage {
namespace {

constexpr std::string_view kMagic = "TFCK";
constexpr std::uint32_t kPlain = 1;
constexpr std::uint32_t kCompressed = 2;

// The header, byte by byte.
constexpr std::size_t kFormatAt = 4;
constexpr std::size_t kNumberAt = 8;
constexpr std::size_t kFirstAt = 16;
constexpr std::size_t kCountAt = 24;
constexpr std::size_t kCrcAt = 28;
constexpr std::size_t kRootAt = 32;
static_assert(kRootAt + sizeof(Hash) == kChunkHeaderBytes);

constexpr std::size_t kLengthBytes = 4;

/// Of the whole value, with zeros where the checksum itself stands.
std::uint32_t checksum(std::string_view value) {
  const std::uint32_t before = crc32c(value.substr(0, kCrcAt));
  const std::uint32_t zeros = crc32c(std::string_view("\0\0\0\0", 4), before);
  return crc32c(value.substr(kCrcAt + 4), zeros);
}

absl::Status damaged(std::string_view what) { return absl::DataLossError(fmt::format("{}", what)); }

/// The records of a body, each behind its length.
Result<std::vector<std::string_view>> split_records(std::string_view body, std::uint32_t count) {
  // A record takes at least 5 bytes, so a count that lies cannot make us reserve more than the body is worth.
  if (count > body.size() / (kLengthBytes + 1)) return damaged("it has no room for the records that it counts");
  std::vector<std::string_view> records;
  records.reserve(count);
  while (!body.empty()) {
    if (body.size() < kLengthBytes) return damaged("it ends inside a length");
    const std::uint32_t length = get_little<std::uint32_t>(body.data());
    body.remove_prefix(kLengthBytes);
    if (length == 0 || length > kMaxRecordBytes) return damaged(fmt::format("a record has {} bytes", length));
    if (length > body.size()) return damaged("it ends inside a record");
    if (records.size() == count) return damaged("it holds more records than it counts");
    records.push_back(body.substr(0, length));
    body.remove_prefix(length);
  }
  if (records.size() != count) return damaged("it holds fewer records than it counts");
  return records;
}

/// Appends `body` as decompress() takes it. False: that would not be shorter than `body`, and nothing is appended.
bool append_compressed(std::string& value, std::string_view body) {
  if (body.size() <= kLengthBytes + 1) return false;
  const std::size_t room = body.size() - kLengthBytes - 1;
  const auto block = std::make_unique_for_overwrite<char[]>(room);
  const int size =
      LZ4_compress_default(body.data(), block.get(), static_cast<int>(body.size()), static_cast<int>(room));
  if (size <= 0) return false;
  char length[kLengthBytes];
  put_little(length, static_cast<std::uint32_t>(body.size()));
  value.append(length, sizeof length).append(block.get(), static_cast<std::size_t>(size));
  return true;
}

/// The body in what a compressed chunk holds behind its header: its length, then one LZ4 block. `room` keeps it.
Result<std::string_view> decompress(std::string_view bytes, std::unique_ptr<const char[]>& room) {
  if (bytes.size() < kLengthBytes) return damaged("it ends inside the length of its body");
  const std::uint32_t length = get_little<std::uint32_t>(bytes.data());
  if (length > kMaxCommandBytes) return damaged(fmt::format("its body has {} bytes", length));
  bytes.remove_prefix(kLengthBytes);
  auto body = std::make_unique_for_overwrite<char[]>(length);
  const auto size = static_cast<int>(length);
  if (LZ4_decompress_safe(bytes.data(), body.get(), static_cast<int>(bytes.size()), size) != size) {
    return damaged("its body does not decompress");
  }
  room = std::move(body);
  return std::string_view(room.get(), length);
}

}  // namespace

std::string encode_chunk(const ChunkHeader& header, std::string_view body) {
  assert(body.size() <= kMaxCommandBytes);
  std::string value(kChunkHeaderBytes, '\0');
  const bool compressed = append_compressed(value, body);
  if (!compressed) value.append(body);
  kMagic.copy(value.data(), kMagic.size());
  put_little(&value[kFormatAt], compressed ? kCompressed : kPlain);
  put_little(&value[kNumberAt], header.number);
  put_little(&value[kFirstAt], header.first);
  put_little(&value[kCountAt], header.count);
  view_of(header.root).copy(&value[kRootAt], header.root.size());
  put_little(&value[kCrcAt], checksum(value));
  return value;
}

Result<Chunk> decode_chunk(std::string_view value) {
  if (value.size() < kChunkHeaderBytes) return damaged(fmt::format("it has only {} bytes", value.size()));
  if (value.substr(0, kMagic.size()) != kMagic) return damaged("it does not begin as a chunk does");
  if (get_little<std::uint32_t>(&value[kCrcAt]) != checksum(value)) return damaged("its checksum is wrong");
  const auto format = get_little<std::uint32_t>(&value[kFormatAt]);
  if (format != kPlain && format != kCompressed) {
    return absl::FailedPreconditionError(fmt::format(
        "it has format {}, this program knows {} and {}: written by a newer version", format, kPlain, kCompressed));
  }
  if (value.size() > kMaxChunkBytes) return damaged(fmt::format("it has {} bytes", value.size()));

  Chunk chunk;
  chunk.header.number = get_little<std::uint64_t>(&value[kNumberAt]);
  chunk.header.first = get_little<std::uint64_t>(&value[kFirstAt]);
  chunk.header.count = get_little<std::uint32_t>(&value[kCountAt]);
  const std::string_view root = value.substr(kRootAt, chunk.header.root.size());
  std::copy(root.begin(), root.end(), chunk.header.root.begin());
  if (chunk.header.number == 0 || chunk.header.first == 0 || chunk.header.count == 0) {
    return damaged("its number, its first sequence or its count is 0");
  }
  Result<std::string_view> body = value.substr(kChunkHeaderBytes);
  if (format == kCompressed) body = decompress(*body, chunk.body);
  if (!body.ok()) return body.status();
  Result<std::vector<std::string_view>> records = split_records(*body, chunk.header.count);
  if (!records.ok()) return records.status();
  chunk.records = *std::move(records);
  chunk.value = value;
  return chunk;
}

std::vector<EncodedChunk> encode_group(const Group& group, LogPoint& end) {
  assert(group.first == end.sequence() + 1);
  const std::string_view bytes = group.bytes;
  std::vector<EncodedChunk> chunks;
  Group::CommandEnd chunk_begin;
  for (std::size_t i = 0; i < group.commands.size(); ++i) {
    const Group::CommandEnd here = group.commands[i];
    const bool is_last = i + 1 == group.commands.size();
    if (!is_last && group.commands[i + 1].bytes - chunk_begin.bytes <= kChunkTargetBytes) continue;

    const std::string_view body = bytes.substr(chunk_begin.bytes, here.bytes - chunk_begin.bytes);
    const std::uint32_t count = here.count - chunk_begin.count;
    const Result<std::vector<std::string_view>> records = split_records(body, count);
    assert(records.ok());
    for (const std::string_view record : *records) end.frontier.append(record);
    ++end.chunk_number;
    const Sequence first = group.first + chunk_begin.count;
    chunks.push_back({first, encode_chunk({end.chunk_number, first, count, end.frontier.root()}, body)});
    chunk_begin = here;
  }
  assert(chunk_begin.bytes == bytes.size());
  return chunks;
}

}  // namespace tensorforge::storage
